defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section10OwnerDeathTest do
  # Contract 10.4 and 10.5: the owner dies, the library fails.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  defp put(i), do: {:put, "k#{i}", "v", 0}

  test "10.4 queued writes are committed by the successor, and callers notice nothing", c do
    owner = start_batcher(c.shard)
    backend(c.shard, [:block, :reply])
    first = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    second = call_async(fn -> Batcher.write(c.shard, "a", put(2), 1) end)
    third = call_async(fn -> Batcher.write(c.shard, "b", put(3), 60_000) end)
    wait_queued(c.shard, "a", 1)
    wait_queued(c.shard, "b", 1)

    Process.exit(owner, :kill)
    await_successor(c.shard, owner)
    # In flight across the change, it ends normally; and only then the next of its lane leaves.
    refute_commit(c.shard)
    release(commit)
    assert await(first) == {:done, {"k1", "v", 0}}
    assert await(second) == {:done, {"k2", "v", 0}}
    assert queued(c.shard, "b") == 1
    assert Batcher.flush(c.shard) == :ok
    assert await(third) == {:done, {"k3", "v", 0}}
    refute Enum.any?(1..2, fn _ -> next_commit(c.shard).list == commit.list end)
  end

  test "10.4 a window goes on while nobody owns the shard", c do
    owner = start_alone(c.shard)
    write = call_async(fn -> Batcher.write(c.shard, "a", put(1), 200) end)
    wait_queued(c.shard, "a", 1)
    Process.exit(owner, :kill)
    await_death(owner)
    refute_commit(c.shard, 300)
    start_alone(c.shard)
    assert next_commit(c.shard).list == [{"k1", "v", 0}]
    assert await(write) == {:done, {"k1", "v", 0}}
  end

  test "10.4 without a successor each gets :batcher_down and was not committed", c do
    owner = start_alone(c.shard, adoption_timeout: 50)
    backend(c.shard, :block)
    first = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    second = call_async(fn -> Batcher.write(c.shard, "a", put(2), 1) end)
    third = call_async(fn -> Batcher.write_put_batch(c.shard, [{"k", "v", 0}]) end)
    wait_queued(c.shard, "a", 1)
    wait_until(fn -> in_flight(c.shard, :put_batch) end)
    put_commit = next_commit(c.shard, :__commit_put_batch_direct__)
    alias_ref = :erlang.alias()
    tag = [:alias | alias_ref]
    assert Batcher.write_delete_batch_async(c.shard, ["x"], {self(), tag}) == :ok
    delete_commit = next_commit(c.shard, :__commit_delete_batch_direct__)
    alias_2 = :erlang.alias()
    tag_2 = [:alias | alias_2]
    assert Batcher.write_delete_batch_async(c.shard, ["y"], {self(), tag_2}) == :ok
    flush = call_async(fn -> Batcher.flush(c.shard) end)

    Process.exit(owner, :kill)
    assert await(second) == {:error, :batcher_down}
    # Those in flight end normally and are answered.
    for commit <- [commit, put_commit, delete_commit], do: release(commit)
    assert await(first) == {:done, {"k1", "v", 0}}
    assert await(third) == {:ok, [{:done, {"k", "v", 0}}]}
    assert_receive {^tag, {:ok, [{:done, "x"}]}}, 5_000
    assert_receive {^tag_2, {:error, :batcher_down}}, 5_000
    assert await(flush) == {:error, :batcher_down}
    refute_commit(c.shard)
    # From here on there is no batcher.
    backend(c.shard, :reply)
    assert Batcher.write(c.shard, "a", put(9), 1) == {:done, put(9)}
    assert_receive {:commit, %{pid: pid}}
    assert pid == self()
  end

  test "10.4 what was abandoned takes no memory any more", c do
    owner = start_alone(c.shard, adoption_timeout: 50)

    writes =
      for i <- 1..64 do
        call_async(fn ->
          put = {:put, "k#{i}", :binary.copy("v", 2_000_000), 0}
          Batcher.write(c.shard, "a", put, 60_000)
        end)
      end

    wait_queued(c.shard, "a", 64)
    queued = :erlang.memory(:binary)
    Process.exit(owner, :kill)
    for write <- writes, do: assert(await(write) == {:error, :batcher_down})

    wait_until(fn ->
      # The look at the queue was a copy of it.
      :erlang.garbage_collect()
      :erlang.memory(:binary) < queued - 100_000_000
    end)
  end

  test "10.4 a committer killed while nobody owns the shard is answered for", c do
    owner = start_alone(c.shard)
    backend(c.shard, [:block, :reply])
    first = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    Process.exit(owner, :kill)
    await_death(owner)
    Process.exit(commit.pid, :kill)
    assert await(first) == {:error, {:backend_exit, :killed}}
    second = call_async(fn -> Batcher.write(c.shard, "a", put(2), 1) end)
    start_alone(c.shard)
    assert await(second) == {:done, {"k2", "v", 0}}
  end

  test "10.4 owner and committer killed together", c do
    owner = start_alone(c.shard)
    backend(c.shard, [:block, :reply])
    tag = [:alias | :erlang.alias()]
    :ok = Batcher.write_put_batch_async(c.shard, [{"k", "v", 0}], {self(), tag})
    commit = next_commit(c.shard)
    :erlang.suspend_process(owner)
    Process.exit(commit.pid, :kill)
    await_death(commit.pid)
    Process.exit(owner, :kill)
    assert await_reply(tag) == {:error, {:backend_exit, :killed}}
  end

  @tag :capture_log
  test "10.5 a panic of the thread: every waiting caller is told, the owner exits, the VM lives",
       c do
    owner = start_alone(c.shard)
    backend(c.shard, :block)
    queued = call_async(fn -> Batcher.write(c.shard, "a", put(1), 60_000) end)
    flying = call_async(fn -> Batcher.write(c.shard, "b", put(2), 1) end)
    commit = next_commit(c.shard)
    wait_queued(c.shard, "a", 1)
    flush = call_async(fn -> Batcher.flush(c.shard) end)
    second = next_commit(c.shard)
    crash = {:error, {:batcher_crashed, "provoked"}}

    monitor = Process.monitor(owner)
    Native.panic_thread(c.shard)
    assert await(queued) == crash
    assert await(flying) == crash
    assert await(flush) == crash
    assert_receive {:DOWN, ^monitor, _, _, {:batcher_crashed, "provoked"}}, 5_000
    # The same shard again, and no lane has two commits in flight.
    start_alone(c.shard)
    next = call_async(fn -> Batcher.write(c.shard, "b", put(3), 1) end)
    refute_commit(c.shard)
    backend(c.shard, :reply)
    release(commit)
    release(second)
    assert await(next) == {:done, {"k3", "v", 0}}
  end

  test "10.5 a panic while a stop waits for a commit: the owner exits with it", c do
    owner = start_alone(c.shard)
    backend(c.shard, [:block])
    flying = call_async(fn -> Batcher.write(c.shard, "a", {:x, 0}, 1) end)
    commit = next_commit(c.shard)
    monitor = Process.monitor(owner)
    GenServer.cast(owner, :stop)
    # It stops by now.
    :sys.get_state(owner)
    Native.panic_thread(c.shard)
    assert_receive {:DOWN, ^monitor, :process, _pid, {:batcher_crashed, _text}}, 5_000
    release(commit)
    assert {:error, {:batcher_crashed, _text}} = await(flying)
  end

  test "10.5 who is only queued is told as well, behind a commit that goes on", c do
    start_alone(c.shard)
    backend(c.shard, :block)
    flying = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    behind = queue(c.shard, "a", put(2))
    beside = queue(c.shard, "b", put(3))
    Native.panic_thread(c.shard)
    crash = {:error, {:batcher_crashed, "provoked"}}
    for task <- [behind, beside, flying], do: assert(await(task) == crash)
    release(commit)
  end

  # The test is owner and committer itself, so that it answers while the thread of the shard goes through the lanes.
  test "10.5 a panic while callers of several lanes are answered: nobody gets a reply of another",
       c do
    committer =
      own_and_commit(c.shard, max_in_flight: 1, commit_scope: :shard, namespace_batch_max: 20_000)

    # More callers than are answered in one call, and in other lanes so many that telling them takes a while.
    lanes = [{"a", 129}, {"b", 1_000} | for(n <- 1..20, do: {"c#{n}", 20})]
    writes = for {lane, count} <- lanes, n <- 1..count, do: {make_ref(), lane, {lane, n}}

    for {tag, lane, item} <- writes,
        do: :queued = Native.offer(c.shard, lane, item, 1, 60_000, tag, 60_000, nil)

    Native.flush(c.shard, make_ref())
    take_all(committer)
    # In queue order, lanes too.
    replies = for {_tag, _lane, item} <- writes, do: item
    {:more, rest} = Native.answer(committer, :slices, replies, false)
    {told, _, _} = Enum.at(writes, 128)
    Native.panic_thread(c.shard)
    assert_receive {^told, {:error, {:batcher_crashed, "provoked"}}}, 5_000
    answer_all(committer, rest)

    for {tag, _lane, item} <- writes, tag != told do
      assert_receive {^tag, reply}, 5_000
      assert reply in [item, {:error, {:batcher_crashed, "provoked"}}]
    end

    Native.leave(committer)
  end

  test "10.5 the shards beside it, whose time the same thread keeps, go on", c do
    # As many shards as there may be timers, and one more: two at least share one.
    shards = [c.shard | for(_ <- 1..System.schedulers_online(), do: new_shard())]
    owners = for shard <- shards, do: {shard, start_alone(shard)}

    tasks =
      for shard <- tl(shards), do: call_async(fn -> Batcher.write(shard, "a", put(1), 50) end)

    Native.panic_thread(c.shard)
    for task <- tasks, do: assert(await(task) == {:done, {"k1", "v", 0}})
    {_, owner} = hd(owners)
    await_death(owner)
    for {_shard, owner} <- tl(owners), do: assert(Process.alive?(owner))
  end

  defp take_all(committer) do
    case Native.take(committer) do
      {:commit, _batches} -> :ok
      :large -> Native.take_large(committer)
      :sent -> :ok
    end
  end

  defp answer_all(committer, replies) do
    case Native.answer(committer, :slices, replies, false) do
      {:more, rest} -> answer_all(committer, rest)
      _done -> :ok
    end
  end

  defp in_flight(shard, lane), do: Map.has_key?(Batcher.snapshot(shard).in_flight, lane)
end
