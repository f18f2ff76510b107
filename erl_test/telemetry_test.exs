# What batchers expect of `:telemetry`, shown of the one that the tests run with: the real one, or the stand-in.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.TelemetryTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias Ferricstore.Raft.WARaftBackend.Batcher.TestTelemetry

  @moduletag :capture_log

  setup do
    # An event of this test alone.
    {:ok, event: [:telemetry_test, :"event_#{System.unique_integer([:positive])}"]}
  end

  @doc false
  def report(event, measurements, metadata, {test, name}),
    do: send(test, {name, event, measurements, metadata})

  @doc false
  def fail(_event, _measurements, %{kind: :error}, _test), do: raise(ArgumentError, "broken")
  def fail(_event, _measurements, %{kind: :exit}, _test), do: exit(:broken)
  def fail(_event, _measurements, %{kind: :throw}, _test), do: throw(:broken)

  defp attach(name, events, handler, config) do
    id = {name, make_ref()}
    assert :telemetry.attach_many(id, events, handler, config) == :ok
    on_exit(fn -> :telemetry.detach(id) end)
    id
  end

  defp ids(prefix), do: Enum.sort(for %{id: id} <- :telemetry.list_handlers(prefix), do: id)

  test "which one it is" do
    assert Code.ensure_loaded?(:telemetry)

    # Nothing that was compiled is in the way of the real one.
    ebin = Path.dirname(to_string(:code.which(TestTelemetry)))
    refute File.exists?(Path.join(ebin, "telemetry.beam"))

    if TestTelemetry.real?(),
      do: assert({:ok, _version} = :application.get_key(:telemetry, :vsn)),
      else: assert(:code.which(:telemetry) in [~c"", :non_existing])
  end

  test "a handler gets its event, and no other", %{event: event} do
    attach(:a, [event], &__MODULE__.report/4, {self(), :a})
    assert :telemetry.execute(event, %{n: 1}, %{m: 2}) == :ok
    assert_received {:a, ^event, %{n: 1}, %{m: 2}}
    :ok = :telemetry.execute(event ++ [:longer], %{}, %{})
    :ok = :telemetry.execute([hd(event)], %{}, %{})
    assert :telemetry.execute(event, %{n: 3}) == :ok
    assert_received {:a, ^event, %{n: 3}, metadata} when metadata == %{}
    refute_received {:a, _, _, _}
  end

  for {kind, reason} <- [
        error: %ArgumentError{message: "broken"},
        exit: :broken,
        throw: :broken
      ] do
    test "a handler that fails (#{kind}) is detached, and told of; others go on", %{event: event} do
      kind = unquote(kind)
      other = event ++ [:other]

      attach(
        :failure,
        [[:telemetry, :handler, :failure]],
        &__MODULE__.report/4,
        {self(), :failure}
      )

      before = attach(:before, [event], &__MODULE__.report/4, {self(), :before})
      id = attach(:bad, [event, other], &__MODULE__.fail/4, :config)
      later = attach(:later, [event], &__MODULE__.report/4, {self(), :later})

      log = capture_log(fn -> assert :telemetry.execute(event, %{n: 1}, %{kind: kind}) == :ok end)

      assert log =~ "detached"
      assert log =~ inspect(elem(id, 1))
      assert_received {:before, ^event, %{n: 1}, %{kind: ^kind}}
      assert_received {:later, ^event, %{n: 1}, %{kind: ^kind}}

      assert_received {:failure, _, %{monotonic_time: _, system_time: _} = times,
                       %{handler_id: ^id} = failure}

      assert map_size(times) == 2
      assert [{__MODULE__, :fail, _, _} | _] = failure.stacktrace

      assert Map.delete(failure, :stacktrace) == %{
               event_name: event,
               handler_id: id,
               handler_config: :config,
               kind: kind,
               reason: unquote(Macro.escape(reason))
             }

      # Of all of its events.
      assert ids(event) == Enum.sort([before, later])
      assert :telemetry.detach(id) == {:error, :not_found}
      :ok = :telemetry.execute(event, %{n: 2}, %{kind: kind})
      assert_received {:later, ^event, %{n: 2}, _}
      refute_received {:failure, _, _, %{handler_id: ^id}}
    end
  end

  test "one id is attached once, whatever it is attached to", %{event: event} do
    id = attach(:a, [event], &__MODULE__.report/4, {self(), :a})
    again = [id, event ++ [:other], &__MODULE__.report/4, {self(), :again}]
    assert apply(:telemetry, :attach, again) == {:error, :already_exists}

    assert :telemetry.attach_many(id, [event], &__MODULE__.report/4, nil) ==
             {:error, :already_exists}

    :ok = :telemetry.execute(event, %{}, %{})
    assert_received {:a, _, _, _}
    refute_received {:again, _, _, _}
    assert :telemetry.detach(id) == :ok
    assert :telemetry.detach(id) == {:error, :not_found}
    assert apply(:telemetry, :attach, again) == :ok
    assert :telemetry.detach(id) == :ok
  end

  test "handlers are listed by the beginning of their event, once for each", %{event: event} do
    {longer, handler} = {event ++ [:longer], &__MODULE__.report/4}
    id = attach(:a, [event, longer], handler, {self(), :a})
    assert ids(event) == [id, id]

    assert :telemetry.list_handlers(longer) == [
             %{id: id, event_name: longer, function: handler, config: {self(), :a}}
           ]

    assert :telemetry.list_handlers(longer ++ [:still]) == []
    assert Enum.count(ids([]), &(&1 == id)) == 2
  end

  test "what is no event, and what is no handler", %{event: event} do
    for {name, handler} <- [
          {[], &__MODULE__.report/4},
          {"text", &__MODULE__.report/4},
          {event, & &1}
        ],
        do:
          assert_raise(wrong(handler), fn -> :telemetry.attach(make_ref(), name, handler, nil) end)

    assert_raise ArgumentError, fn -> :telemetry.list_handlers(["text"]) end
  end

  defp wrong(handler) when is_function(handler, 4), do: ArgumentError
  defp wrong(_handler), do: FunctionClauseError
end
