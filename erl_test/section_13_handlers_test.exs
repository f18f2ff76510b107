# Handlers of telemetry that fail, and a telemetry that is not there: section 13 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section13HandlersTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.TestTelemetry

  setup %{shard: shard} do
    attach_telemetry(shard)
  end

  for failure <- [:raise, :exit, :throw] do
    test "13.6 a handler that fails (#{failure}) hurts nobody", %{shard: shard} do
      start_batcher(shard)
      id = make_ref()
      events = TestTelemetry.events_of_batchers()

      handler = fn _, _, metadata, _ ->
        metadata.shard_index == shard && fail(unquote(failure))
      end

      # Another handler of the same events, attached behind it; one in front of it is there already.
      on_exit(fn -> :telemetry.detach(id) end)
      :ok = :telemetry.attach(id, hd(events), fn _, _, _, _ -> :ok end, nil)
      attach_telemetry(shard, :behind)

      for event <- events, lane <- lanes(), emitted?(event, lane), n <- 1..3 do
        :telemetry.detach(id)
        :ok = :telemetry.attach(id, event, handler, nil)
        assert await_reply(raw(shard, lane, item(lane, n), 1))
        %{list: list, pid: committer} = next_commit(shard)
        assert list == listed(lane, item(lane, n))
        assert Batcher.flush(shard) == :ok
        assert Process.alive?(committer)

        # It was called, and is detached. All others got all events of the commit.
        refute Enum.any?(:telemetry.list_handlers(event), &(&1.id == id))

        for told <- [:telemetry, :behind] do
          assert_received {^told, _, %{batch_size: _}, %{result: :ok}}
          assert_received {^told, [_, _, :quorum_submit], %{batch_size: _}, %{status: :ok}}
        end
      end

      refute_received {:telemetry, _, _, _}
      refute_received {:behind, _, _, _}
    end

    test "13.6 a handler that fails (#{failure}) at a write that is alone", %{shard: shard} do
      start_batcher(shard, pacing: :auto)
      id = make_ref()

      handler = fn _, _, metadata, _ ->
        metadata.shard_index == shard && fail(unquote(failure))
      end

      :ok = :telemetry.attach_many(id, TestTelemetry.events_of_batchers(), handler, nil)
      on_exit(fn -> :telemetry.detach(id) end)

      for n <- 1..2 do
        assert Batcher.write(shard, "p", {n}, 1) == {:done, {n}}
        assert next_commit(shard).pid == self()
        assert {_, %{reason: :alone}} = next_event(:slot_flush)
        assert {_, %{reason: :alone}} = next_event(:quorum_submit)
      end

      assert :telemetry.detach(id) == {:error, :not_found}
    end
  end

  # A VM that has no :telemetry at first.
  test "13.6 a :telemetry that is loaded after the start is found" do
    lines = without_telemetry(&script/1)
    assert "without {:done, {:a}}, events 0" in lines
    assert "started before {:done, {:a}}, events 3" in lines
    assert "started after {:done, {:a}}, events 6" in lines
    assert "loaded by the start {:done, {:a}}, events 15" in lines
    assert "default logger {:error, :no_telemetry}, {:error, :no_telemetry}" in lines
    assert "not running {:error, :no_telemetry}, {:error, :no_telemetry}" in lines
    # One that catches nothing itself.
    assert "failing {:done, {:a}}, events 9" in lines
    assert "failing again {:done, {:a}}, events 12" in lines
  end

  defp emitted?([_, _, :quorum_submit], _lane), do: true
  defp emitted?([_, _, _, event], lane), do: event == event(lane)

  defp fail(:raise), do: raise("the handler is broken")
  defp fail(:exit), do: exit(:the_handler_is_broken)
  defp fail(:throw), do: throw(:the_handler_is_broken)

  # Runs a script in a VM of its own, with this library but no :telemetry. Answers what it printed.
  defp without_telemetry(script) do
    folder = Path.join(System.tmp_dir!(), "batcher_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(folder) end)
    app = Path.join(folder, "ferricstore_batcher")
    File.mkdir_p!(app)
    File.cp_r!(Path.dirname(:code.which(Batcher)), Path.join(app, "ebin"))
    File.ln_s!(:code.priv_dir(:ferricstore_batcher), Path.join(app, "priv"))
    arguments = ["-pa", Path.join(app, "ebin"), "-e", script.(folder)]
    elixir = System.find_executable("elixir")
    {output, 0} = System.cmd(elixir, arguments, stderr_to_stdout: true)
    String.split(output, "\n")
  end

  defp script(folder) do
    """
    defmodule DoneBackend do
      def __commit_batch_direct__(_shard, list), do: {:ok, for(item <- list, do: {:done, item})}
      def __commit_put_batch_direct__(shard, list), do: __commit_batch_direct__(shard, list)
      def __commit_delete_batch_direct__(shard, list), do: __commit_batch_direct__(shard, list)
    end

    alias Ferricstore.Raft.WARaftBackend.Batcher
    Application.put_env(:ferricstore, :waraft_backend_batcher_backend, DoneBackend)
    # Where it is a library of the VM's.
    :code.del_path(:telemetry)
    false = Code.ensure_loaded?(:telemetry)
    Process.register(self(), :listener)

    # Flush answers after the telemetry of what it waited for.
    write = fn what, shard ->
      reply = Batcher.write(shard, "p", {:a}, 1)
      :ok = Batcher.flush(shard)
      {:messages, events} = Process.info(self(), :messages)
      IO.puts("\#{what} \#{inspect(reply)}, events \#{length(events)}")
    end

    default_logger = fn what ->
      {attached, detached} =
        {Batcher.Telemetry.attach_default_logger(), Batcher.Telemetry.detach_default_logger()}

      IO.puts("\#{what} \#{inspect(attached)}, \#{inspect(detached)}")
    end

    {:ok, _} = Batcher.start_link(0)
    write.("without", 0)
    default_logger.("default logger")

    defmodule :telemetry do
      def execute(event, _measurements, _metadata), do: send(:listener, event)
    end

    write.("started before", 0)
    {:ok, _} = Batcher.start_link(1)
    write.("started after", 1)

    Code.put_compiler_option(:ignore_module_conflict, true)

    defmodule :telemetry do
      def execute(event, _measurements, _metadata) do
        send(:listener, event)
        exit(:the_handler_is_broken)
      end
    end

    write.("failing", 1)
    write.("failing again", 1)

    # One that can be loaded, and is when a batcher starts.
    execute = "def execute(event, _, _), do: send(:listener, event)"
    [{:telemetry, code}] = Code.compile_string("defmodule :telemetry do \#{execute} end")
    File.write!("#{folder}/telemetry.beam", code)
    :code.purge(:telemetry)
    :code.delete(:telemetry)
    :code.purge(:telemetry)
    :code.add_patha(~c"#{folder}")
    false = :erlang.module_loaded(:telemetry)
    {:ok, _} = Batcher.start_link(2)
    write.("loaded by the start", 2)

    # As one that was not started: it has no process that would attach anything.
    defmodule :telemetry do
      def execute(_event, _measurements, _metadata), do: :ok
      def attach_many(id, _, _, _), do: GenServer.call(:telemetry_handler_table, id)
      def detach(id), do: GenServer.call(:telemetry_handler_table, id)
    end

    default_logger.("not running")
    """
  end
end
