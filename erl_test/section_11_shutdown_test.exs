defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section11ShutdownTest do
  # Contract 11.5 and 11.6: hanging backends, shutdown by a supervisor.
  # Not beside others, whose lines would be in a log that has to be empty.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  defp put(i), do: {:put, "k#{i}", "v", 0}

  test "11.5 flush answers in time though the commit that it began hangs", c do
    start_batcher(c.shard)
    backend(c.shard, [:block, :reply])
    hanging = call_async(fn -> Batcher.write(c.shard, "a", put(1), 60_000) end)
    wait_queued(c.shard, "a", 1)
    assert {:error, {:timeout, {Batcher, :flush, [_, 50]}}} = Batcher.flush(c.shard, 50)
    commit = next_commit(c.shard)
    assert {:done, _} = Batcher.write(c.shard, "b", put(2), 1)
    assert {:error, {:timeout, _}} = Batcher.flush(c.shard, 50)
    release(commit)
    assert {:done, _} = await(hanging)
    assert Batcher.flush(c.shard) == :ok
    # The flushes that were given up are not answered later.
    refute_receive {_tag, :ok}, 30
  end

  test "11.6 a supervisor's shutdown commits what is queued", c do
    start_batcher(c.shard)

    writes =
      for i <- 1..3, do: call_async(fn -> Batcher.write(c.shard, "a#{i}", put(i), 60_000) end)

    for i <- 1..3, do: wait_queued(c.shard, "a#{i}", 1)
    stop_supervised!({Batcher, c.shard})
    for write <- writes, do: assert({:done, _} = await(write))
    assert Process.whereis(Batcher.name(c.shard)) == nil
  end

  test "11.6 what the backend did not get in time is answered, what is in flight ends with its result",
       c do
    start_batcher(c.shard, shutdown_timeout: 50)
    backend(c.shard, :block)
    flying = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    queued = call_async(fn -> Batcher.write(c.shard, "a", put(2), 1) end)
    wait_queued(c.shard, "a", 1)
    stop_supervised!({Batcher, c.shard})
    assert await(queued) == {:error, :shutting_down}
    monitor = Process.monitor(commit.pid)
    release(commit)
    assert await(flying) == {:done, {"k1", "v", 0}}
    refute_commit(c.shard)
    # Committers end with the last commit.
    assert_receive {:DOWN, ^monitor, :process, _pid, :normal}, 5_000
  end

  # A reply to an alias is sent by a process, and the committers that there are hang.
  test "11.6 callers behind aliases are told too, while all committers hang", c do
    start_batcher(c.shard, shutdown_timeout: 50)
    backend(c.shard, :block)
    lanes = for n <- 1..4, do: "lane #{n}"
    for lane <- lanes, do: call_async(fn -> Batcher.write(c.shard, lane, put(1), 1) end)
    hanging = for _ <- lanes, do: next_commit(c.shard)
    put = call_async(fn -> Batcher.write_put_batch(c.shard, [{"k", "v", 0}]) end)
    hanging = [next_commit(c.shard) | hanging]
    tag = [:alias | :erlang.alias([:reply])]
    :ok = Batcher.write_put_batch_async(c.shard, [{"k", "v", 0}], {self(), tag})
    wait_queued(c.shard, :put_batch, 1)
    stop_supervised!({Batcher, c.shard})
    assert await_reply(tag) == {:error, :shutting_down}
    Enum.each(hanging, &release/1)
    assert {:ok, [_reply]} = await(put)
  end

  test "11.6 a shutdown does not wait as long as stop does, also when stop came first", c do
    start_batcher(c.shard, drain_timeout: 60_000, shutdown_timeout: 50)
    backend(c.shard, [:block, :reply])
    flying = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    queued = call_async(fn -> Batcher.write(c.shard, "a", put(2), 1) end)
    wait_queued(c.shard, "a", 1)
    stopping = call_async(fn -> Batcher.stop(c.shard) end)
    refused = {:error, :shutting_down}
    wait_until(fn -> Batcher.write(c.shard, "b", {:probe}, 1) == refused end)
    stop_supervised!({Batcher, c.shard})
    assert await(stopping) == :ok
    assert await(queued) == refused
    release(commit)
    assert await(flying) == {:done, {"k1", "v", 0}}
  end

  # As ferricstore's own supervisor does it.
  test "11.6 a dynamic supervisor that gives five seconds kills no child", c do
    supervisor = start_supervised!({DynamicSupervisor, strategy: :one_for_one})

    child = %{
      id: :batcher,
      start: {Batcher, :start_link, [c.shard, [sync: :unknown]]},
      restart: :permanent,
      shutdown: 5_000,
      type: :worker
    }

    {:ok, owner} = DynamicSupervisor.start_child(supervisor, child)
    backend(c.shard, :block)
    flying = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    queued = call_async(fn -> Batcher.write(c.shard, "a", put(2), 1) end)
    wait_queued(c.shard, "a", 1)
    monitor = Process.monitor(owner)
    assert DynamicSupervisor.terminate_child(supervisor, owner) == :ok
    assert_received {:DOWN, ^monitor, :process, ^owner, :shutdown}
    assert await(queued) == {:error, :shutting_down}
    release(commit)
    assert await(flying) == {:done, {"k1", "v", 0}}
  end

  for {name, reason} <- [
        returns: {:ref, :return, :ok},
        normal: :normal,
        shutdown: {:shutdown, :done},
        crash: :boom
      ] do
    test "11.6 started by a process that is no supervisor and ends (#{name}): drained, no log",
         c do
      test = self()

      log =
        ExUnit.CaptureLog.capture_log(fn ->
          starter =
            spawn(fn ->
              {:ok, owner} = Batcher.start_link(c.shard)
              send(test, {:owner, owner})

              receive do
                :end -> exit(unquote(Macro.escape(reason)))
              end
            end)

          assert_receive {:owner, owner}, 5_000
          queued = call_async(fn -> Batcher.write(c.shard, "a", put(1), 60_000) end)
          wait_queued(c.shard, "a", 1)
          monitor = Process.monitor(owner)
          send(starter, :end)
          assert await(queued) == {:done, {"k1", "v", 0}}
          assert_receive {:DOWN, ^monitor, :process, ^owner, _reason}, 5_000
          assert Process.whereis(Batcher.name(c.shard)) == nil
        end)

      assert log == ""
    end
  end

  test "11.6 started through :erpc: drained when its worker has returned, no log", c do
    log =
      ExUnit.CaptureLog.capture_log(fn ->
        # With a timeout it has a worker on this node as well.
        {:ok, owner} = :erpc.call(node(), Batcher, :start_link, [c.shard], 5_000)
        await_death(owner)
      end)

    assert log == ""
    assert Batcher.write(c.shard, "a", {:direct}, 1) == {:done, {:direct}}
  end

  test "11.6 a supervisor that ends {:shutdown, _} takes its batcher along, drained", c do
    {:ok, supervisor} = Supervisor.start_link([{Batcher, c.shard}], strategy: :one_for_one)
    Process.unlink(supervisor)
    owner = Process.whereis(Batcher.name(c.shard))
    queued = call_async(fn -> Batcher.write(c.shard, "a", put(1), 60_000) end)
    wait_queued(c.shard, "a", 1)
    monitor = Process.monitor(owner)
    # As the supervisor's end does, if it has no time left to end its children one by one.
    send(owner, {:EXIT, supervisor, {:shutdown, :done}})
    assert_receive {:DOWN, ^monitor, :process, ^owner, {:shutdown, :done}}
    assert await(queued) == {:done, {"k1", "v", 0}}
  end

  test "11.6 a supervisor that crashes: its batcher does not drain, a successor goes on", c do
    {:ok, supervisor} = Supervisor.start_link([{Batcher, c.shard}], strategy: :one_for_one)
    Process.unlink(supervisor)
    owner = Process.whereis(Batcher.name(c.shard))
    queued = call_async(fn -> Batcher.write(c.shard, "a", put(1), 60_000) end)
    wait_queued(c.shard, "a", 1)

    monitor = Process.monitor(owner)

    ExUnit.CaptureLog.capture_log(fn ->
      Process.exit(supervisor, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^owner, :killed}
    end)

    start_batcher(c.shard)
    assert Batcher.flush(c.shard) == :ok
    assert await(queued) == {:done, {"k1", "v", 0}}
  end

  test "11.6 writes are refused while the shutdown drains", c do
    start_batcher(c.shard)
    backend(c.shard, [:block, :reply])
    flying = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    stopping = call_async(fn -> Batcher.stop(c.shard) end)
    refused = {:error, :shutting_down}
    wait_until(fn -> Batcher.write(c.shard, "b", {:probe}, 1) == refused end)
    assert Batcher.write_delete_batch_async(c.shard, ["k"], {self(), :tag}) == :ok
    assert await_reply(:tag) == refused
    release(commit)
    assert {:done, _} = await(flying)
    assert await(stopping) == :ok
  end
end
