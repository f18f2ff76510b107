defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section11ShutdownTest do
  # Contract 11.5 and 11.6: hanging backends, shutdown by a supervisor.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

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
    start_batcher(c.shard, drain_timeout: 50)
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
