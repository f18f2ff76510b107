# What a shard holds at a moment: 17.4 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section17GaugesTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  test "17.4 the watcher reads the same numbers, without those that cost more", %{shard: shard} do
    start_batcher(shard)
    Batcher.write(shard, "p", {:a}, 1)
    costly = for {name, :distribution, _, _, _} <- Native.metrics(), do: name
    costly = [:shard, :oldest_write_age_us | costly]
    # Responders may still be starting.
    wait_until(fn -> Native.numbers(shard) == Map.drop(Batcher.stats(shard), costly) end)
  end

  test "17.4 nothing runs", %{shard: shard} do
    assert Native.numbers(shard) == :not_running
    assert Native.numbers(:none) == :not_running
  end

  test "17.4 all are there, and bounds are those of the options", %{shard: shard} do
    start_batcher(shard, max_queue_items: 7, max_queue_bytes: 7_000, max_in_flight: 3)
    wait_until(fn -> Native.numbers(shard).committers == 2 end)
    gauges = Map.take(Batcher.stats(shard), gauges())
    bounds = %{max_queue_items: 7, max_queue_bytes: 7_000, max_in_flight: 3}
    assert Map.take(gauges, Map.keys(bounds)) == bounds
    idle = Map.drop(gauges, [:committers, :responders | Map.keys(bounds)])
    assert idle != %{} and Enum.all?(Map.values(idle), &(&1 == 0))
    assert Batcher.stats(shard).oldest_commit_pid == nil
  end

  test "17.4 what is queued and what is in flight, with ages and the committer",
       %{shard: shard} do
    backend(shard, [:block, :reply])
    start_batcher(shard)
    first = call_async(fn -> Batcher.write_put_batch(shard, puts(3)) end)
    commit = next_commit(shard)
    second = for prefix <- ["a", "b"], do: queue(shard, prefix, {:set, 1})
    wait_until(fn -> ages(shard) |> Enum.all?(&(&1 > 0)) end)
    gauges = Batcher.stats(shard)
    assert {gauges.queued_items, gauges.in_flight_items} == {2, 3}
    assert gauges.queued_bytes > 0 and gauges.in_flight_bytes > 0
    assert {gauges.lanes, gauges.in_flight_commits} == {3, 1}
    assert gauges.oldest_commit_pid == commit.pid
    assert Batcher.stats(shard).oldest_commit_age_us >= gauges.oldest_write_age_us
    release(commit)
    await(first)
    flush = call_async(fn -> Batcher.flush(shard) end)
    Enum.each(second, &await/1)
    assert await(flush) == :ok
    wait_until(fn -> Native.numbers(shard).in_flight_commits == 0 end)
    gauges = Batcher.stats(shard)
    assert {gauges.queued_items, gauges.queued_bytes, gauges.lanes} == {0, 0, 0}
    assert {gauges.oldest_write_age_us, gauges.oldest_commit_age_us} == {0, 0}
  end

  test "17.4 a commit alone in its caller has that process", %{shard: shard} do
    backend(shard, :block)
    start_batcher(shard, pacing: :auto)
    task = call_async(fn -> Batcher.write(shard, "p", {:set, 1}, 5) end)
    commit = next_commit(shard)
    assert commit.pid == task.pid
    gauges = Native.numbers(shard)
    assert {gauges.oldest_commit_pid, gauges.in_flight_items} == {task.pid, 1}
    release(commit)
    await(task)
    wait_until(fn -> Native.numbers(shard).oldest_commit_pid == nil end)
  end

  test "17.4 with commit_scope: :shard several lanes are one commit", %{shard: shard} do
    backend(shard, [:block, :block])
    start_batcher(shard, commit_scope: :shard)
    first = call_async(fn -> Batcher.write(shard, "a", {:set, 1}, 1) end)
    commit = next_commit(shard)
    others = for prefix <- ["b", "c"], do: queue(shard, prefix, {:set, 1})
    release(commit)
    together = next_commit(shard)
    gauges = Native.numbers(shard)
    assert {gauges.lanes, gauges.in_flight_commits, gauges.in_flight_items} == {2, 1, 2}
    assert gauges.oldest_commit_pid == together.pid
    release(together)
    Enum.each([first | others], &await/1)
  end

  defp gauges, do: for({name, :gauge, _, _, _} <- Native.metrics(), do: name)

  defp puts(count), do: for(n <- 1..count, do: {"k#{n}", "v", 0})

  defp ages(shard) do
    stats = Batcher.stats(shard)
    [stats.oldest_write_age_us, stats.oldest_commit_age_us]
  end
end
