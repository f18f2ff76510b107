# What the owner answers as a server: clause 3.8 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section03RawMessagesTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @refused {:error, :invalid_batch_command_list}
  @put {"k", "v", 0}

  test "3.8 {:write, ...} as write/4", %{shard: shard} do
    owner = start_batcher(shard, namespace_batch_max: 2)
    first = call_async(fn -> GenServer.call(owner, {:write, "p", {:a}, @long_ms}) end)
    wait_queued(shard, "p", 1)
    assert %{window_ms: @long_ms} = queued_slot(shard, "p")
    assert GenServer.call(owner, {:write, "p", {:b}, 1}) == {:done, {:b}}
    assert await(first) == {:done, {:a}}
    assert next_commit(shard).list == [{:a}, {:b}]
    reply = GenServer.call(owner, {:write, "p", {:batch, [{:a}, {:b}]}, 1})
    assert reply == {:ok, [{:done, {:a}}, {:done, {:b}}]}
  end

  test "3.8 the three batches, each in its lane", %{shard: shard} do
    owner = start_batcher(shard)

    for {kind, list, function} <- [
          {:write_batch, [{:a}, {:b}], :__commit_batch_direct__},
          {:write_put_batch, [@put], :__commit_put_batch_direct__},
          {:write_delete_batch, ["a", "b"], :__commit_delete_batch_direct__}
        ] do
      assert GenServer.call(owner, {kind, list, 1}) == {:ok, Enum.map(list, &{:done, &1})}
      assert %{function: ^function, list: ^list} = next_commit(shard)
      assert GenServer.call(owner, {kind, [], 1}) == {:ok, []}
      assert next_commit(shard).list == []
    end
  end

  test "3.8 the window of the message counts, whatever the environment says", context do
    %{shard: shard} = context
    owner = start_batcher(shard, hot_batch_window_ms: 0)

    for {kind, lane} <- [
          write_batch: :batch,
          write_put_batch: :put_batch,
          write_delete_batch: :delete_batch
        ] do
      task = call_async(fn -> GenServer.call(owner, {kind, [:a], @long_ms}) end)
      wait_queued(shard, lane, 1)
      assert %{window_ms: @long_ms} = queued_slot(shard, lane)
      assert Batcher.flush(shard) == :ok
      assert await(task) == {:ok, [{:done, :a}]}
      assert GenServer.call(owner, {kind, [:b], 0}) == {:ok, [{:done, :b}]}
    end
  end

  test "3.8 they share their lanes with the functions", %{shard: shard} do
    owner = start_batcher(shard, hot_batch_window_ms: @long_ms)
    first = call_async(fn -> Batcher.write_put_batch(shard, [1]) end)
    wait_queued(shard, :put_batch, 1)
    second = call_async(fn -> GenServer.call(owner, {:write_put_batch, [2], 1}) end)
    wait_queued(shard, :put_batch, 2)
    Batcher.flush(shard)
    assert {await(first), await(second)} == {{:ok, [{:done, 1}]}, {:ok, [{:done, 2}]}}
    assert next_commit(shard).list == [1, 2]
  end

  test "3.8 the owner waits for no commit", %{shard: shard} do
    owner = start_batcher(shard)
    backend(shard, [:block, :reply])
    first = call_async(fn -> GenServer.call(owner, {:write, "p", {:a}, 1}) end)
    commit = next_commit(shard)
    assert commit.pid != owner
    assert GenServer.call(owner, {:write, "q", {:b}, 1}) == {:done, {:b}}
    release(commit)
    assert await(first) == {:done, {:a}}
  end

  test "3.8 an improper list", %{shard: shard} do
    owner = start_batcher(shard)

    for kind <- [:write_batch, :write_put_batch, :write_delete_batch],
        do: assert(GenServer.call(owner, {kind, [1 | 2], 1}) == @refused)

    assert GenServer.call(owner, {:write, "p", {:batch, [1 | 2]}, 1}) == @refused
    assert mailbox() == []
  end

  test "3.8 a long list", %{shard: shard} do
    owner = start_batcher(shard)
    list = Enum.to_list(1..5_000)
    assert {:ok, replies} = GenServer.call(owner, {:write_delete_batch, list, 1})
    assert length(replies) == 5_000
  end

  test "3.8 :flush", %{shard: shard} do
    owner = start_batcher(shard)
    assert GenServer.call(owner, :flush) == :ok
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, @long_ms) end)
    wait_queued(shard, "p", 1)
    backend(shard, :block)
    flush = call_async(fn -> GenServer.call(owner, :flush) end)
    commit = next_commit(shard)
    another = call_async(fn -> GenServer.call(owner, :flush) end)
    # The owner has taken it in once it answers a later message.
    wait_until(fn -> flushes(owner) == 2 end)
    assert Task.yield(flush, 0) == nil
    release(commit)
    assert {await(flush), await(another)} == {:ok, :ok}
    assert await(task) == {:done, {:a}}
  end

  test "3.8 :stop", %{shard: shard} do
    owner = start_alone(shard)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, @long_ms) end)
    wait_queued(shard, "p", 1)
    monitor = Process.monitor(owner)
    assert GenServer.call(owner, :stop) == :ok
    assert Process.whereis(Batcher.name(shard)) == nil
    assert await(task) == {:done, {:a}}
    assert_receive {:DOWN, ^monitor, :process, ^owner, :normal}
  end

  test "3.8 :stop, :flush and writes while it stops are all answered", %{shard: shard} do
    owner = start_alone(shard)
    {task, commit} = stopping(shard)
    stops = for _ <- 1..2, do: call_async(fn -> GenServer.call(owner, :stop) end)
    flushes = for _ <- 1..2, do: call_async(fn -> GenServer.call(owner, :flush) end)
    Enum.each(stops ++ flushes, &wait_waiting/1)
    write = {:write, "p", {:late}, 1}
    assert GenServer.call(owner, write) == {:error, :shutting_down}
    assert GenServer.call(owner, {:write_batch, [], 1}) == {:error, :shutting_down}

    release(commit)
    assert Enum.map(stops ++ flushes, &await/1) == [:ok, :ok, :ok, :ok]
    assert await(task) == {:done, {:a}}
  end

  test "3.8 what is in the owner's mailbox when it has drained is answered", %{shard: shard} do
    owner = start_alone(shard)
    {task, commit} = stopping(shard)
    true = :erlang.suspend_process(owner)
    release(commit)
    assert await(task) == {:done, {:a}}

    # The library says that all is drained; the owner can't look yet. It may have been asked for responders before.
    wait_until(fn ->
      {:messages, messages} = Process.info(owner, :messages)
      Enum.any?(messages, &match?({tag, :ok} when is_reference(tag), &1))
    end)

    write = call_async(fn -> GenServer.call(owner, {:write, "p", {:late}, 1}) end)
    flush = call_async(fn -> GenServer.call(owner, :flush) end)
    stop = call_async(fn -> GenServer.call(owner, :stop) end)
    Enum.each([write, flush, stop], &wait_waiting/1)
    tag = make_ref()
    token = TestGate.token()
    GenServer.cast(owner, {:write_put_batch, [@put], 1, {self(), tag}, token})
    true = :erlang.resume_process(owner)

    assert await(write) == {:error, :shutting_down}
    assert {await(flush), await(stop)} == {:ok, :ok}
    assert await_reply(tag) == {:error, :shutting_down}
    assert_receive {:left, ^token, _}
    refute_commit(shard, 0)
  end

  # How many raw flushes wait, as the owner's status tells.
  defp flushes(owner) do
    {:status, _pid, _module, [_, _, _, _, data]} = :sys.get_status(owner)
    [counts] = for {:data, [{~c"State", counts}]} <- data, do: counts
    counts.flushes
  end

  test "3.8 no reply reaches a caller that has given up", %{shard: shard} do
    owner = start_batcher(shard)
    backend(shard, :block)

    for request <- [
          {:write, "p", {:a}, 1},
          {:write_batch, [{:a}], 1},
          {:write_put_batch, [@put], 1},
          {:write_delete_batch, ["k"], 1}
        ] do
      assert {:timeout, _} = catch_exit(GenServer.call(owner, request, 5))
      commit = next_commit(shard)
      assert {:timeout, _} = catch_exit(GenServer.call(owner, :flush, 5))
      release(commit)
      assert Batcher.flush(shard) == :ok
      assert mailbox() == []
    end
  end

  test "3.8 arguments of a known call that make no sense: an error, no harm", context do
    %{shard: shard} = context
    owner = start_batcher(shard)

    for request <- [
          {:write, :p, {:a}, 1},
          {:write, "p", :a, 1},
          {:write, "p", {:a}, :soon},
          {:write, "p", {:a}, Integer.pow(2, 70)},
          {:write_batch, :a, 1},
          {:write_put_batch, [], nil},
          {:write_delete_batch, %{}, 1}
        ],
        do: assert({:error, _} = GenServer.call(owner, request))

    assert Process.whereis(Batcher.name(shard)) == owner
    assert mailbox() == []
  end
end
