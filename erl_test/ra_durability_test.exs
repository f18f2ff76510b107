# What the Ra backend has on the disk when it says so: which process syncs what, and when, seen by tracing.
# Invariant: no test waits or measures; what came first is told by one process's order, or by the traces' timestamps.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.DurabilityTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.RaCase, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra

  @compile {:no_warn_undefined, [:ra_system]}

  @returns [{:_, [], [{:return_trace}]}]

  setup do
    %{names: :ra_system.derive_names(:ferricstore_batcher)}
  end

  # Ra's defaults come from its application environment: a host may set these for what it can lose.
  for host <- [
        [],
        [wal_sync_method: :none],
        [wal_write_strategy: :sync_after_notify],
        [wal_sync_method: :none, wal_write_strategy: :o_sync]
      ] do
    test "a commit is in the synced log before it is acknowledged; Ra's settings: #{inspect(host)}",
         %{dir: dir, names: names} do
      set_ra(unquote(host))
      assert :ok = Ra.start(data_dir: dir)
      log = Process.whereis(names.wal)
      for {method, args} <- [write: 2, sync: 1, datasync: 1], do: pattern({:file, method, args})
      :erlang.trace(log, true, [:call, :send])

      for i <- 1..3, value = "value #{i} of this test" do
        assert {:ok, [:ok]} = Ra.__commit_put_batch_direct__(0, [{"k", value, 0}])
        [{:called, :write, [file, _]} | later] = log |> steps() |> from_write_of(value)

        # The server, which acknowledges, learns of the write from the log alone.
        assert [:told_server | _] = Enum.drop_while(later, &(&1 != :told_server))
        before = Enum.take_while(later, &(&1 != :told_server))

        synced =
          for {:called, method, [^file]} <- before,
              {:returned, ^method, :ok} <- before,
              do: method

        assert synced != [], "no sync in #{inspect(before)}"
      end
    end
  end

  test "start returns when the new shards are in the synced table of Ra's servers", %{
    dir: dir,
    names: %{directory_rev: table}
  } do
    pattern({:dets, :insert, 2})
    pattern({:dets, :sync, 1})
    :erlang.trace(:all, true, [:call, :monotonic_timestamp])

    for shards <- [1, 2] do
      # Not in this process, to which the traces go: it is not traced itself.
      assert {:ok, returned} =
               Task.await(
                 Task.async(fn ->
                   with :ok <- Ra.start(data_dir: dir, shards: shards),
                        do: {:ok, :erlang.monotonic_time()}
                 end),
                 60_000
               )

      calls = calls_of_table(table)
      name = :"ferricstore_batcher_#{shards - 1}"
      assert [inserted] = for({:insert, {^name, _uid}, _begun, ended} <- calls, do: ended)
      assert Enum.any?(calls, &synced_between?(&1, inserted, returned)), inspect(calls)
    end
  end

  defp synced_between?({:sync, _, begun, ended}, from, to), do: begun >= from and ended <= to
  defp synced_between?(_insert, _from, _to), do: false

  ## Traces

  # Modules that are not loaded yet have no functions to trace.
  defp pattern({module, _name, _arity} = function) do
    {:module, ^module} = Code.ensure_loaded(module)
    true = :erlang.trace_pattern(function, @returns, [:local]) > 0
    on_exit(fn -> :erlang.trace_pattern(function, false, [:local]) end)
  end

  # What the log's process did, in its order.
  defp steps(log) do
    for trace <- traces(log), step = step(trace), do: step
  end

  defp step({:trace, _, :call, {:file, method, args}}), do: {:called, method, args}
  defp step({:trace, _, :return_from, {:file, method, _}, value}), do: {:returned, method, value}
  defp step({:trace, _, :send, {:ra_log_event, _written}, _to}), do: :told_server
  defp step(_other), do: nil

  defp from_write_of(steps, value) do
    Enum.drop_while(steps, fn
      {:called, :write, [_file, data]} ->
        :binary.match(IO.iodata_to_binary(data), value) == :nomatch

      _other ->
        true
    end)
  end

  # Inserts into a table of dets, and syncs of it: `{function, what, begun, ended}`.
  defp calls_of_table(table) do
    {calls, _begun} =
      Enum.reduce(traces(:all), {[], %{}}, fn
        {:trace_ts, pid, :call, {:dets, function, [^table | what]}, at}, {calls, begun} ->
          {calls, Map.put(begun, {pid, function}, {List.first(what), at})}

        {:trace_ts, pid, :return_from, {:dets, function, _}, :ok, ended}, {calls, begun} ->
          case Map.pop(begun, {pid, function}) do
            {nil, _} -> {calls, begun}
            {{what, at}, begun} -> {[{function, what, at, ended} | calls], begun}
          end

        _other, acc ->
          acc
      end)

    calls
  end

  defp traces(traced) do
    delivered = :erlang.trace_delivered(traced)
    assert_receive {:trace_delivered, ^traced, ^delivered}
    drain()
  end

  defp drain do
    receive do
      trace when elem(trace, 0) in [:trace, :trace_ts] -> [trace | drain()]
    after
      0 -> []
    end
  end

  ## The host's settings of Ra

  defp set_ra(settings) do
    _ = Application.load(:ra)
    before = Application.get_all_env(:ra)

    on_exit(fn ->
      for {key, _} <- settings, do: Application.delete_env(:ra, key)
      Application.put_all_env(ra: before)
    end)

    Application.put_all_env(ra: settings)
  end
end
