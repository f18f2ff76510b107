defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section06OverloadTest do
  # Contract 6.5: what a shard holds is bounded.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes, only: [raw: 4]

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @overloaded {:error, :batcher_overloaded}

  defp put(i), do: {:put, "k#{i}", "v", 0}

  test "6.5 above :max_queue_items a write is refused at once and nothing is queued", c do
    start_batcher(c.shard, max_queue_items: 3)
    backend(c.shard, :block)
    first = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    others = for i <- 2..3, do: call_async(fn -> Batcher.write(c.shard, "a", put(i), 1) end)
    wait_queued(c.shard, "a", 2)

    assert Batcher.write(c.shard, "a", put(4), 1) == @overloaded
    assert Batcher.write_batch(c.shard, [{:x, 1}]) == @overloaded
    assert Batcher.write_put_batch(c.shard, [{"k", "v", 0}]) == @overloaded
    assert queued(c.shard, "a") == 2

    # What was in flight counted too, and no longer does.
    backend(c.shard, :reply)
    release(commit)
    await(first)
    Enum.each(others, &await/1)
    assert Batcher.write(c.shard, "a", put(5), 1) == {:done, {"k5", "v", 0}}
  end

  test "6.5 :max_queue_bytes counts binaries outside the heap", c do
    start_batcher(c.shard, max_queue_bytes: 2_000_000)
    backend(c.shard, :block)
    value = :binary.copy(<<0>>, 1_500_000)
    first = call_async(fn -> Batcher.write(c.shard, "a", {:put, "k", value, 0}, 1) end)
    commit = next_commit(c.shard)
    assert Batcher.write(c.shard, "a", {:put, "l", value, 0}, 1) == @overloaded
    small = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    wait_queued(c.shard, "a", 1)
    backend(c.shard, :reply)
    release(commit)
    assert {:done, _} = await(first)
    assert {:done, _} = await(small)
    assert {:done, _} = Batcher.write(c.shard, "a", {:put, "l", value, 0}, 1)
  end

  test "6.5 prefixes count: 200 of 2 MB do not pass a bound of 1 MB", c do
    start_batcher(c.shard, max_queue_bytes: 1_000_000)
    prefixes = for n <- 1..200, do: :binary.copy(<<n::16>>, 1_000_000)

    for [_ | _] = [first | others] <- [prefixes, Enum.reverse(prefixes)] do
      # An empty shard takes any one.
      accepted = raw(c.shard, first, put(0), @long_ms)
      tags = for prefix <- others, do: raw(c.shard, prefix, put(1), @long_ms)
      for tag <- tags, do: assert(await_reply(tag) == @overloaded)
      assert Map.keys(Batcher.snapshot(c.shard).slots) == [first]
      assert Batcher.flush(c.shard) == :ok
      assert {:done, _} = await_reply(accepted)
      # Its room is given back when its commit has ended.
      wait_idle(c.shard)
    end
  end

  test "6.5 a prefix counts with each of its writes", c do
    start_batcher(c.shard, max_queue_bytes: 1_000_000)
    prefix = :binary.copy("p", 100_000)
    tags = for n <- 1..20, do: raw(c.shard, prefix, put(n), @long_ms)
    # Those that are over the bound are told at once.
    for tag <- Enum.drop(tags, 9), do: assert(await_reply(tag) == @overloaded)
    assert Batcher.flush(c.shard) == :ok
    for tag <- Enum.take(tags, 9), do: assert({:done, _} = await_reply(tag))
  end

  test "6.5 a tag counts, whoever it is for", c do
    start_batcher(c.shard, max_queue_bytes: 1_000_000, hot_batch_window_ms: @long_ms)
    name = :"overload #{c.shard}"
    Process.register(self(), name)
    # One that a scheduler copies, and one that takes longer.
    for words <- [10_000, 200_000], to <- [self(), :erlang.alias(), name, {name, node()}] do
      tags = for n <- 1..20, do: Tuple.duplicate(n, words)
      for tag <- tags, do: :ok = Batcher.write_put_batch_async(c.shard, [:a], {to, tag})
      %{count: accepted} = queued_slot(c.shard, :put_batch)
      assert accepted == max(div(1_000_000, words * 8), 1)
      for tag <- Enum.drop(tags, accepted), do: assert(await_reply(tag) == @overloaded)
      assert Batcher.flush(c.shard) == :ok
      for tag <- Enum.take(tags, accepted), do: assert(await_reply(tag) == {:ok, [{:done, :a}]})
      wait_idle(c.shard)
    end
  end

  test "6.5 an empty shard takes any one group", c do
    start_batcher(c.shard, max_queue_items: 2, max_queue_bytes: 10)

    assert {:ok, replies} =
             Batcher.write_put_batch(c.shard, for(i <- 1..5, do: {"k#{i}", "v", 0}))

    assert length(replies) == 5
  end

  test "6.5 an async write over the bound is answered and its token released", c do
    start_batcher(c.shard, max_queue_items: 1)
    backend(c.shard, :block)
    first = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    token = TestGate.token()
    assert Batcher.write_delete_batch_async(c.shard, ["k"], {self(), :tag}, token) == :ok
    assert await_reply(:tag) == @overloaded
    assert_received {:left, ^token, _}
    release(commit)
    await(first)
  end
end
