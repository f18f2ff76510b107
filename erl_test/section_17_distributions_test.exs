# How what a shard does is distributed, and which lanes are the busiest: 17.5 and 17.6 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section17DistributionsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  test "17.6 distributions: empty before the first commit", %{shard: shard} do
    start_batcher(shard)
    stats = Batcher.stats(shard)

    for {name, :distribution, _, labels, _} <- Native.metrics(),
        value <- if(labels == [], do: [stats[name]], else: Map.values(stats[name])) do
      assert %{count: 0, sum: 0, min: 0, max: 0, p50: 0, p90: 0, p99: 0, p99_9: 0} = value
      assert value.mean == 0.0
      assert {:infinity, 0} = List.last(value.buckets)
      bounds = for {bound, _} <- value.buckets, do: bound
      # An atom is above all numbers.
      assert bounds == Enum.sort(bounds) and Enum.all?(value.buckets, &match?({_, 0}, &1))
    end
  end

  test "17.6 distributions: of writes by lane, and of commits", %{shard: shard} do
    backend(shard, [:block, :reply])
    start_batcher(shard)
    commit = occupy(shard, :put_batch)
    behind = for n <- 1..3, do: queue(shard, :put_batch, item(:put_batch, n), 1)
    release(commit)
    await_reply(commit.tag)
    Enum.each(behind, &await/1)
    await_reply(raw(shard, "p", {:a}, 0))
    wait_until(fn -> Batcher.stats(shard).commit_us.count == 3 end)
    stats = Batcher.stats(shard)

    for name <- [:answer_us, :queue_wait_us] do
      counts = Map.new(stats[name], fn {lane, value} -> {lane, value.count} end)
      assert counts == %{namespace: 1, batch: 0, put_batch: 4, delete_batch: 0}
    end

    assert %{count: 3, sum: 5, min: 1, max: 3, p50: 1, p99_9: 3} = stats.writes_per_commit
    assert [{1, 2}, {2, 2}, {5, 3} | _] = stats.writes_per_commit.buckets
    assert List.last(stats.writes_per_commit.buckets) == {:infinity, 3}
    assert_in_delta stats.writes_per_commit.mean, 5 / 3, 0.001
    bytes = stats.bytes_total |> Map.values() |> Enum.sum()
    assert stats.bytes_per_commit.sum == bytes
    assert stats.answering_us.count == 3 and stats.hold_us.count == 3
    # Whoever is answered has been queued, and committed.
    sums = for name <- [:answer_us, :queue_wait_us], do: stats[name].put_batch.sum
    assert Enum.at(sums, 0) >= Enum.at(sums, 1) and stats.commit_us.sum > 0
    # Only learned pacing means to.
    assert stats.meant_hold_us.count == 0
  end

  test "17.6 distributions: how long a window holds", %{shard: shard} do
    start_batcher(shard)
    Batcher.write(shard, "p", {:a}, 5)
    wait_until(fn -> Batcher.stats(shard).hold_us.count == 1 end)
    assert Batcher.stats(shard).hold_us.min >= 5_000
    assert Batcher.stats(shard).queue_wait_us.namespace.min >= 5_000
  end

  test "17.6 distributions: what is alone is neither queued, held nor answered", %{shard: shard} do
    start_batcher(shard, pacing: :auto)
    Batcher.write(shard, "p", {:a}, 5)
    stats = Batcher.stats(shard)
    assert {stats.commit_us.count, stats.answer_us.namespace.count} == {1, 1}
    assert stats.answer_us.namespace == stats.commit_us
    assert {stats.queue_wait_us.namespace.count, stats.writes_per_commit.count} == {0, 0}
    assert {stats.hold_us.count, stats.answering_us.count} == {0, 0}
    tag = cast(shard, :put_batch, puts(1))
    await_reply(tag)
    wait_until(fn -> Batcher.stats(shard).meant_hold_us.count == 1 end)
    stats = Batcher.stats(shard)
    assert {stats.hold_us.count, stats.commit_us.count} == {1, 2}
    Batcher.reset_stats(shard)
    assert Batcher.stats(shard).commit_us.count == 0
  end

  test "17.5 top_lanes: the busiest first, with what they were given and hold", %{shard: shard} do
    start_batcher(shard)

    for {lane, count} <- [{"a", 1}, {"b", 3}, {:put_batch, 2}], n <- 1..count do
      await_reply(raw(shard, lane, item(lane, n), 0))
    end

    assert [%{lane: "b"} = b, %{lane: :put_batch}, %{lane: "a"}] = Batcher.top_lanes(shard, 9)
    assert %{given: %{writes: 3, items: 3}, queued: %{writes: 0, items: 0, bytes: 0}} = b
    assert {b.oldest_write_age_us, b.in_flight_us} == {nil, nil}
    backend(shard, [:block, :reply])
    drop_commits(shard)
    commit = occupy(shard, "a")
    behind = for n <- 1..2, do: queue(shard, "a", {:set, n})
    assert [%{lane: "a"} = a] = Batcher.top_lanes(shard, 1)
    assert a.given.writes == 4 and a.queued.writes == 2 and a.queued.bytes < a.given.bytes
    assert is_integer(a.oldest_write_age_us) and is_integer(a.in_flight_us)
    assert Batcher.top_lanes(shard, 0) == []
    assert length(Batcher.top_lanes(shard, 1_000_000_000_000_000_000_000)) == 3
    release(commit)
    await_reply(commit.tag)
    Enum.each(behind, &await/1)
  end

  defp puts(count), do: for(n <- 1..count, do: {"k#{n}", "v", 0})
end
