# The order of effects in one commit: section 8 of the contract. The test receives every effect as a
# message, so its mailbox is the order.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section08OrderTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  for lane <- ["p", :batch, :put_batch, :delete_batch] do
    test "8 lane #{inspect(lane)}: hook, backend, replies, telemetry, next batch", context do
      %{shard: shard} = context
      lane = unquote(lane)
      start_batcher(shard)
      attach_telemetry(shard)
      put_env(:waraft_backend_batcher_call_hook, {:block, self()})
      function = function(lane)
      event = event(lane)

      first = [raw(shard, lane, item(lane, 0), 0)]
      assert {:waraft_backend_batcher_call, ^function, ref, pid} = next_message()
      second = for n <- 1..3, do: raw(shard, lane, item(lane, n), long_ms())
      wait_queued(shard, lane, 3)
      send(pid, {ref, :continue})

      assert {:commit, %{function: ^function}} = next_message()
      for tag <- first, do: assert({^tag, _} = next_message())
      assert {:telemetry, [_, _, _, ^event], _, _} = next_message()
      assert {:telemetry, [_, _, :quorum_submit], _, _} = next_message()

      assert {:waraft_backend_batcher_call, ^function, ref, pid} = next_message()
      send(pid, {ref, :continue})
      assert {:commit, %{function: ^function}} = next_message()
      for tag <- second, do: assert({^tag, _} = next_message())
      assert {:telemetry, [_, _, _, ^event], _, _} = next_message()
      assert {:telemetry, [_, _, :quorum_submit], _, _} = next_message()
    end
  end

  test "8 the backend is not called before the hook went on", %{shard: shard} do
    start_batcher(shard)
    put_env(:waraft_backend_batcher_call_hook, {:block, self()})
    tag = raw(shard, "p", {:a}, 0)
    assert {:waraft_backend_batcher_call, _function, ref, pid} = next_message()
    refute_commit(shard)
    send(pid, {ref, :continue})
    assert next_commit(shard).pid == pid
    assert await_reply(tag) == {:done, {:a}}
  end

  test "8 no reply before the backend has returned", %{shard: shard} do
    start_batcher(shard)
    attach_telemetry(shard)
    backend(shard, :block)
    first = occupy(shard, "p")
    tags = for n <- 1..3, do: raw(shard, "p", {n}, long_ms())
    wait_queued(shard, "p", 3)
    release(first)
    second = next_commit(shard)
    await_reply(first.tag)
    for _ <- 1..2, do: assert({:telemetry, _, _, _} = next_message())
    refute_receive _any, 30
    release(second)
    Enum.each(tags, &await_reply/1)
  end

  test "8 replies in queue order, of thousands", %{shard: shard} do
    start_batcher(shard)

    for lane <- lanes() do
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      tags = for n <- 1..3_000, do: raw(shard, lane, item(lane, n), long_ms())
      wait_queued(shard, lane, 3_000)
      release(first)
      await_reply(first.tag)
      next_commit(shard)
      for tag <- tags, do: assert({^tag, _} = next_message())
    end
  end

  test "8 replies in queue order, short and long ones", %{shard: shard} do
    start_batcher(shard, hot_batch_max: :infinity)
    backend(shard, [:block, :reply])
    first = occupy(shard, :delete_batch)
    sizes = [1, 5_000, 1, 0, 2_001, 2_000, 2_000, 1, 9_000, 9_000, 0]
    groups = for {size, n} <- Enum.with_index(sizes), do: for(m <- 1..size//1, do: "#{n} #{m}")
    tags = for group <- groups, do: raw(shard, :delete_batch, group, long_ms())
    wait_queued(shard, :delete_batch, length(sizes))
    release(first)
    await_reply(first.tag)
    next_commit(shard)

    for {tag, group} <- Enum.zip(tags, groups) do
      assert {^tag, {:ok, replies}} = next_message()
      assert replies == for(key <- group, do: {:done, key})
    end
  end

  test "8 replies in queue order, whatever the tags are", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: long_ms())
    # A reply to a call alias is sent by another hand than one to a plain tag.
    froms = for n <- 1..40, do: from(rem(n * n, 7) > 2)
    for from <- froms, do: assert(cast_from(shard, :delete_batch, ["k"], from, nil) == :ok)
    assert queued(shard, :delete_batch) == 40
    assert Batcher.flush(shard) == :ok
    next_commit(shard)
    numbers = Map.new(Enum.with_index(froms, 1), fn {{_pid, tag}, number} -> {tag, number} end)
    order = for _ <- froms, do: numbers[elem(next_message(), 0)]
    assert order == Enum.to_list(1..40)
  end

  test "8 replies in queue order, all the same error", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, {:return, {:error, :no}}])
    first = occupy(shard, "p")
    tags = for n <- 1..700, do: raw(shard, "p", {n}, long_ms())
    wait_queued(shard, "p", 700)
    release(first)
    await_reply(first.tag)
    next_commit(shard)
    for tag <- tags, do: assert({^tag, {:error, :no}} = next_message())
  end

  test "8 a lane's next batch waits for the telemetry of the one before", %{shard: shard} do
    start_batcher(shard)
    test = self()
    id = make_ref()

    handler = fn [_, _, kind], _, metadata, _ ->
      if metadata.shard_index == shard do
        send(test, {:handling, kind, self()})
        receive do: (:go_on -> :ok)
      end
    end

    :telemetry.attach(id, [:ferricstore, :batcher, :quorum_submit], handler, nil)
    on_exit(fn -> :telemetry.detach(id) end)

    first = raw(shard, "p", {:a}, 0)
    assert {:commit, _} = next_message()
    assert {^first, {:done, {:a}}} = next_message()
    assert {:handling, :quorum_submit, committer} = next_message()
    second = raw(shard, "p", {:b}, 0)
    wait_queued(shard, "p", 1)
    refute_commit(shard)
    send(committer, :go_on)
    assert next_commit(shard).list == [{:b}]
    assert {^second, {:done, {:b}}} = next_message()
    assert {:handling, :quorum_submit, committer} = next_message()
    send(committer, :go_on)
  end

  defp from(true), do: {self(), [:alias | :erlang.alias()]}
  defp from(false), do: {self(), make_ref()}
end
