defmodule Ferricstore.Raft.WARaftBackend.Batcher.TestTelemetry do
  @moduledoc false
  # The `:telemetry` of the tests: the real one where it is on the code path, otherwise a stand-in that does as it does.
  #
  # Invariant: which of the two it is, is decided when the tests run, not when they are compiled: no file that was
  # compiled has a module of that name. What the tests show of the one holds for the other (`telemetry_test.exs`).

  require Logger

  @table __MODULE__
  @failure [:telemetry, :handler, :failure]

  @doc "Starts the one that there is. To call it again does nothing."
  @spec start() :: :ok
  def start do
    if real?() do
      {:ok, _started} = Application.ensure_all_started(:telemetry)
      :ok
    else
      start_stand_in()
    end
  end

  @doc "Whether it is the real one."
  @spec real?() :: boolean
  def real?, do: match?([_ | _], :code.which(:telemetry))

  @doc "The events of a commit that has ended."
  def events_of_batchers do
    [
      [:ferricstore, :waraft, :batcher, :slot_flush],
      [:ferricstore, :waraft, :batcher, :hot_flush],
      [:ferricstore, :batcher, :quorum_submit]
    ]
  end

  # --- The stand-in

  # The table lives as long as a process of its own, which makes all changes, one after another.
  defp start_stand_in do
    create = fn -> :ets.new(@table, [:named_table, :bag, read_concurrency: true]) end

    with {:ok, _holder} <- Agent.start(create, name: @table) do
      defmodule :telemetry do
        @moduledoc false
        @stand_in Ferricstore.Raft.WARaftBackend.Batcher.TestTelemetry
        defdelegate attach(id, event, handler, config), to: @stand_in
        defdelegate attach_many(id, events, handler, config), to: @stand_in
        defdelegate detach(id), to: @stand_in
        defdelegate execute(event, measurements, metadata \\ %{}), to: @stand_in
        defdelegate list_handlers(prefix), to: @stand_in
      end
    end

    :ok
  end

  @doc false
  def attach(id, event, handler, config), do: attach_many(id, [event], handler, config)

  @doc false
  def attach_many(id, events, handler, config) when is_function(handler, 4) do
    Enum.each(events, &event!/1)

    Agent.get(@table, fn table ->
      if :ets.match_object(table, {:_, id, :_, :_}) == [] do
        :ets.insert(table, for(event <- events, do: {event, id, handler, config}))
        :ok
      else
        {:error, :already_exists}
      end
    end)
  end

  @doc false
  def detach(id) do
    Agent.get(@table, fn table ->
      case :ets.select_delete(table, [{{:_, id, :_, :_}, [], [true]}]) do
        0 -> {:error, :not_found}
        _some -> :ok
      end
    end)
  end

  @doc false
  def list_handlers(prefix) do
    prefix = names!(prefix)

    for {event, id, handler, config} <- :ets.tab2list(@table),
        List.starts_with?(event, prefix),
        do: %{id: id, event_name: event, function: handler, config: config}
  end

  # In the calling process, each handler whatever the others do.
  @doc false
  def execute([_ | _] = event, measurements, metadata)
      when is_map(measurements) and is_map(metadata) do
    for {_event, id, handler, config} <- :ets.lookup(@table, event) do
      try do
        handler.(event, measurements, metadata, config)
      catch
        kind, reason ->
          detach(id)

          failed(%{
            event_name: event,
            handler_id: id,
            handler_config: config,
            kind: kind,
            reason: reason,
            stacktrace: __STACKTRACE__
          })
      end
    end

    :ok
  end

  defp failed(failure) do
    now = %{
      monotonic_time: :erlang.monotonic_time(),
      system_time: :erlang.system_time()
    }

    execute(@failure, now, failure)

    Logger.error(fn ->
      "handler #{inspect(failure.handler_id)} has failed and was detached: " <>
        Exception.format(failure.kind, failure.reason, failure.stacktrace)
    end)
  end

  defp event!([_ | _] = event), do: names!(event)
  defp event!(other), do: :erlang.error(:badarg, [other])

  defp names!(names) do
    if is_list(names) and Enum.all?(names, &is_atom/1),
      do: names,
      else: :erlang.error(:badarg, [names])
  end
end
