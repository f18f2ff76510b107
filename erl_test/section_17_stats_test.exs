# What a shard counts and holds: section 17 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section17StatsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  test "17.1 each metric has a name of its own, a kind, a unit, labels and a help text" do
    metrics = Native.metrics()
    names = for {name, _, _, _, _} <- metrics, do: name
    assert names != [] and names == Enum.uniq(names)

    for {name, kind, unit, labels, help} <- metrics do
      assert is_atom(name) and kind in [:counter, :gauge, :distribution]
      assert unit in [:none, :items, :bytes, :microseconds]
      assert Enum.all?(labels, &is_atom/1) and help =~ ~r/^[A-Z].*[^.]$/
      assert String.ends_with?("#{name}", "_total") == (kind == :counter)
    end
  end

  test "17.4 gauges: nothing runs", %{shard: shard} do
    assert Native.gauges(shard) == :not_running
    assert Native.gauges(:none) == :not_running
  end

  test "17.4 gauges: all are there, and bounds are those of the options", %{shard: shard} do
    start_batcher(shard, max_queue_items: 7, max_queue_bytes: 7_000, max_in_flight: 3)
    wait_until(fn -> Native.gauges(shard).committers == 2 end)
    gauges = Native.gauges(shard)
    names = for {name, :gauge, _, _, _} <- Native.metrics(), do: name
    assert Enum.sort([:oldest_commit_pid | names]) == Enum.sort(Map.keys(gauges))
    bounds = %{max_queue_items: 7, max_queue_bytes: 7_000, max_in_flight: 3}
    assert Map.take(gauges, Map.keys(bounds)) == bounds
    idle = Map.drop(gauges, [:committers, :responders, :oldest_commit_pid | Map.keys(bounds)])
    assert gauges.oldest_commit_pid == nil and Enum.all?(Map.values(idle), &(&1 == 0))
  end

  test "17.4 gauges: what is queued and what is in flight, with ages and the committer",
       %{shard: shard} do
    backend(shard, [:block, :reply])
    start_batcher(shard)
    first = call_async(fn -> Batcher.write_put_batch(shard, puts(3)) end)
    commit = next_commit(shard)
    second = for prefix <- ["a", "b"], do: queue(shard, prefix, {:set, 1})
    wait_until(fn -> ages(shard) |> Enum.all?(&(&1 > 0)) end)
    gauges = Native.gauges(shard)
    assert {gauges.queued_items, gauges.in_flight_items} == {2, 3}
    assert gauges.queued_bytes > 0 and gauges.in_flight_bytes > 0
    assert {gauges.lanes, gauges.in_flight_commits} == {3, 1}
    assert gauges.oldest_commit_pid == commit.pid
    assert gauges.oldest_commit_age_us >= gauges.oldest_write_age_us
    release(commit)
    await(first)
    flush = call_async(fn -> Batcher.flush(shard) end)
    Enum.each(second, &await/1)
    assert await(flush) == :ok
    wait_until(fn -> Native.gauges(shard).in_flight_commits == 0 end)
    gauges = Native.gauges(shard)
    assert {gauges.queued_items, gauges.queued_bytes, gauges.lanes} == {0, 0, 0}
    assert {gauges.oldest_write_age_us, gauges.oldest_commit_age_us} == {0, 0}
  end

  test "17.4 gauges: a commit alone in its caller has that process", %{shard: shard} do
    backend(shard, :block)
    start_batcher(shard, pacing: :auto)
    task = call_async(fn -> Batcher.write(shard, "p", {:set, 1}, 5) end)
    commit = next_commit(shard)
    assert commit.pid == task.pid
    gauges = Native.gauges(shard)
    assert {gauges.oldest_commit_pid, gauges.in_flight_items} == {task.pid, 1}
    release(commit)
    await(task)
    wait_until(fn -> Native.gauges(shard).oldest_commit_pid == nil end)
  end

  test "17.4 gauges: with commit_scope: :shard several lanes are one commit", %{shard: shard} do
    backend(shard, [:block, :block])
    start_batcher(shard, commit_scope: :shard)
    first = call_async(fn -> Batcher.write(shard, "a", {:set, 1}, 1) end)
    commit = next_commit(shard)
    others = for prefix <- ["b", "c"], do: queue(shard, prefix, {:set, 1})
    release(commit)
    together = next_commit(shard)
    gauges = Native.gauges(shard)
    assert {gauges.lanes, gauges.in_flight_commits, gauges.in_flight_items} == {2, 1, 2}
    assert gauges.oldest_commit_pid == together.pid
    release(together)
    Enum.each([first | others], &await/1)
  end

  defp puts(count), do: for(n <- 1..count, do: {"k#{n}", "v", 0})

  defp ages(shard) do
    gauges = Native.gauges(shard)
    [gauges.oldest_write_age_us, gauges.oldest_commit_age_us]
  end
end
