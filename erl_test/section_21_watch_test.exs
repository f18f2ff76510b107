# What the watcher of a shard says in the log: section 21 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section21WatchTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.LogLines
  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @moduletag :capture_log

  setup %{shard: shard} do
    listen(shard)
  end

  defp refuse(shard, count) do
    for _ <- 1..count, do: {:error, :batcher_overloaded} = Batcher.write(shard, "p", {:no}, 1)
  end

  # A shard whose only place is taken, and its watcher.
  defp full(shard) do
    owner = start_batcher(shard, max_queue_items: 1)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    watcher = watcher(owner)
    look(watcher)
    {watcher, first}
  end

  defp quiet(watcher), do: for(_ <- 1..3, do: look(watcher))

  test "21.3 an overload is over after three looks without a refusal", %{shard: shard} do
    {watcher, first} = full(shard)
    refuse(shard, 2)
    look(watcher)
    {:error, %{refused: [items: 2]}, _text} = next_line(:overload_began)
    look(watcher)
    look(watcher)
    refute_written(:overload_ended)
    # It begins to count anew.
    refuse(shard, 1)
    look(watcher)
    look(watcher)
    look(watcher)
    refute_written(:overload_ended)
    look(watcher)
    {:info, %{refused: 3}, text} = next_line(:overload_ended)
    assert text =~ "is overloaded no more: it has refused 3 writes"
    quiet(watcher)
    refute_written(:overload_ended)
    release(first)
  end

  test "21.3 an overload that was not told of ends without a line", %{shard: shard} do
    {watcher, first} = full(shard)
    refuse(shard, 1)
    look(watcher)
    next_line(:overload_began)
    quiet(watcher)
    next_line(:overload_ended)

    # Too early for another line: neither its beginning nor its end is told.
    refuse(shard, 1)
    look(watcher)
    pass_limit(shard, :overload_ended)
    quiet(watcher)
    refute_written(:overload_began)
    refute_written(:overload_ended)

    pass_limit(shard)
    refuse(shard, 1)
    look(watcher)
    assert {_, %{left_out: 1}, _} = next_line(:overload_began)
    quiet(watcher)
    assert {_, %{left_out: 0, refused: 1}, _} = next_line(:overload_ended)
    release(first)
  end

  test "21.3 an overload that goes on is told of as soon as it may be", %{shard: shard} do
    {watcher, first} = full(shard)
    refuse(shard, 1)
    look(watcher)
    next_line(:overload_began)
    quiet(watcher)
    next_line(:overload_ended)

    for _ <- 1..2 do
      refuse(shard, 1)
      look(watcher)
    end

    refute_written(:overload_began)
    pass_limit(shard)
    refuse(shard, 1)
    look(watcher)
    assert {_, %{left_out: 0}, _} = next_line(:overload_began)
    quiet(watcher)
    assert {_, %{refused: 3}, _} = next_line(:overload_ended)
    release(first)
  end

  test "21.3 the end of an overload is told of as soon as it may be", %{shard: shard} do
    {watcher, first} = full(shard)
    refuse(shard, 1)
    look(watcher)
    next_line(:overload_began)
    quiet(watcher)
    next_line(:overload_ended)
    pass_limit(shard, :overload_began)
    refuse(shard, 1)
    look(watcher)
    next_line(:overload_began)
    quiet(watcher)
    refute_written(:overload_ended)
    # So it goes on until then.
    refuse(shard, 1)
    look(watcher)
    quiet(watcher)
    pass_limit(shard)
    look(watcher)
    refute_written(:overload_began)
    assert {_, %{left_out: 0, refused: 2}, _} = next_line(:overload_ended)
    release(first)
  end

  test "21.3 the bounds in bytes overload a shard as well", %{shard: shard} do
    owner = start_batcher(shard, max_queue_bytes: 10_000)
    watcher = watcher(owner)
    look(watcher)
    backend(shard, :block)
    first = occupy(shard, "p")
    large = {:a, :binary.copy("a", 10_000)}
    assert {:error, :batcher_overloaded} = Batcher.write(shard, "p", large, 1)
    look(watcher)
    assert {_, %{refused: [bytes: 1]}, text} = next_line(:overload_began)
    assert text =~ "1 by :bytes"

    release(first)
  end

  test "21.3 so does the bound in bytes on all shards together", %{shard: shard} do
    put_total(10_000)

    start_batcher(shard)
    backend(shard, :block)
    held = raw(shard, "p", {:a, :binary.copy("a", 6_000)}, 1)
    commit = next_commit(shard)
    other = new_shard()
    listen(other)
    watcher = other |> start_batcher() |> watcher()
    look(watcher)
    large = {:a, :binary.copy("a", 4_000)}
    assert {:error, :batcher_overloaded} = Batcher.write(other, "p", large, 1)
    look(watcher)
    assert {_, %{refused: [total_bytes: 1]}, _} = next_line(:overload_began)
    release(commit)
    await_reply(held)
  end

  test "21.3 what all shards hold fills the queue of each", %{shard: shard} do
    put_total(10_000)

    start_batcher(shard)
    backend(shard, :block)
    held = raw(shard, "p", {:a, :binary.copy("a", 8_500)}, 1)
    commit = next_commit(shard)
    other = new_shard()
    listen(other)
    other |> start_batcher() |> watcher() |> look()
    assert {:warning, %{total_queue_bytes: bytes}, text} = next_line(:queue_filling)
    assert bytes in 8_500..10_000
    assert text =~ "#{bytes} of 10000 bytes of all shards"
    release(commit)
    await_reply(held)
  end

  test "21.3 a full slot that refuses is an overload", %{shard: shard} do
    watcher = shard |> start_batcher(overflow: :refuse, namespace_batch_max: 1) |> watcher()

    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    second = raw(shard, "p", {:a}, 1)
    wait_queued(shard, "p", 1)
    look(watcher)
    refuse(shard, 3)
    look(watcher)
    assert {:error, %{refused: [overflow: 3]}, text} = next_line(:overload_began)
    assert text =~ "3 by :overflow"
    assert text =~ "Batcher.advise/1"
    release(first)
    await_reply(second)
  end

  test "21.3 refusals for other causes are no overload", %{shard: shard} do
    owner = start_batcher(shard)
    look(watcher(owner))
    Batcher.write_batch(shard, [:improper | :list])
    look(watcher(owner))
    refute_written(:overload_began)
  end

  test "21.3 refusals are counted on after a reset", %{shard: shard} do
    {watcher, first} = full(shard)
    refuse(shard, 5)
    look(watcher)
    next_line(:overload_began)
    Batcher.reset_stats(shard)
    refuse(shard, 2)
    look(watcher)
    quiet(watcher)
    assert {_, %{refused: 7}, _} = next_line(:overload_ended)
    release(first)
  end

  test "21.3 bytes fill a queue as items do, again below 60 %", %{shard: shard} do
    owner = start_batcher(shard, max_queue_bytes: 100_000)
    watcher = watcher(owner)
    backend(shard, [:block, :block, :reply])
    first = occupy(shard, "p")

    large =
      for _ <- 1..2, do: raw(shard, "q", {:put, "k", :binary.copy("v", 35_000), 0}, long_ms())

    wait_queued(shard, "q", 2)
    look(watcher)
    refute_written(:queue_filling)
    more = raw(shard, "q", {:put, "k", :binary.copy("v", 12_000), 0}, long_ms())
    wait_queued(shard, "q", 3)
    look(watcher)
    {:warning, meta, text} = next_line(:queue_filling)
    assert meta.queued_bytes in 82_000..90_000
    assert text =~ "of 100000 bytes"
    pass_limit(shard)
    look(watcher)
    refute_written(:queue_filling)

    # What is in flight counts as well, until it is answered.
    call_async(fn -> Batcher.flush(shard) end)
    second = next_commit(shard)
    look(watcher)
    refute_written(:queue_filling)
    release(second)
    Enum.each([more | large], &await_reply/1)
    wait_until(fn -> Batcher.stats(shard).in_flight_bytes < 50_000 end)
    look(watcher)
    again = raw(shard, "r", {:put, "k", :binary.copy("v", 82_000), 0}, long_ms())
    wait_queued(shard, "r", 1)
    look(watcher)
    {:warning, _meta, _text} = next_line(:queue_filling)
    release(first)
    Batcher.flush(shard)
    await_reply(again)
  end

  test "21.3 a queue fills from 80 % on, and again once it was below 60 %", %{shard: shard} do
    owner = start_batcher(shard, max_queue_items: 151)
    entries = for n <- 1..120, do: {"k#{n}", "v", 0}
    tag = raw(shard, :put_batch, entries, long_ms())
    wait_queued(shard, :put_batch, 1)

    look = fn max_items ->
      :ok = Batcher.configure(shard, max_queue_items: max_items)
      look(watcher(owner))
    end

    look.(151)
    refute_written(:queue_filling)
    look.(150)
    assert {:warning, %{queued_items: 120, max_queue_items: 150}, _} = next_line(:queue_filling)
    pass_limit(shard)
    look.(200)
    look.(150)
    refute_written(:queue_filling)
    look.(201)
    look.(150)
    next_line(:queue_filling)
    Batcher.flush(shard)
    await_reply(tag)
  end

  # Whether a watcher's next looks come in a second or in five, of so many looks.
  defp intervals(watcher, count) do
    :erlang.trace_pattern({:erlang, :send_after, 4}, true, [])
    :erlang.trace(watcher, true, [:call, :monotonic_timestamp])
    for _ <- 1..count, do: look(watcher)

    intervals =
      for _ <- 1..count do
        assert_receive {:trace_ts, ^watcher, :call, {:erlang, :send_after, [at_ms | _]}, at}
        interval_ms = at_ms - System.convert_time_unit(at, :native, :millisecond)
        # Several watchers look at the same moment.
        if interval_ms in 800..1_001,
          do: :often,
          else: assert(interval_ms in 4_800..5_001) && :seldom
      end

    :erlang.trace(watcher, false, [:call])
    intervals
  end

  test "21.3 a shard that has held nothing for ten looks is looked at once in 5 s", %{
    shard: shard
  } do
    watcher = shard |> start_batcher(max_queue_items: 2) |> watcher()
    assert [_ | _] = intervals = intervals(watcher, 11)
    # It may have looked before.
    assert {often, [:seldom | seldom]} = Enum.split_while(intervals, &(&1 == :often))
    assert length(often) in 7..9
    assert Enum.uniq(seldom) == [:seldom]

    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    assert intervals(watcher, 2) == [:often, :often]
    refuse_some(shard)
    release(first)
    await_reply(first.tag)
    wait_idle(shard)
    # What was refused counts as something.
    assert List.last(intervals(watcher, 10)) == :often
    assert List.last(intervals(watcher, 2)) == :seldom
  end

  defp refuse_some(shard), do: Batcher.write_batch(shard, [:improper | :list])

  # Nothing is stuck but what was before `since`.
  defp stuck(shard) do
    wait_until(fn -> Batcher.stats(shard).oldest_commit_age_us > 0 end)
  end

  test "21.3 a commit whose hanging was not told of ends without a line", %{shard: shard} do
    owner = start_batcher(shard, stuck_ms: 0)
    watcher = watcher(owner)
    backend(shard, :block)

    hang = fn ->
      commit = occupy(shard, "p")
      stuck(shard)
      look(watcher)
      commit
    end

    over = fn commit ->
      release(commit)
      await_reply(commit.tag)
      wait_idle(shard)
      look(watcher)
    end

    commit = hang.()
    next_line(:commit_stuck)
    over.(commit)
    {:info, meta, text} = next_line(:commit_ended)
    assert text =~ "ended after #{div(meta.age_us, 1_000)} ms or more"

    # Too early for another line.
    commit = hang.()
    pass_limit(shard, :commit_ended)
    over.(commit)
    refute_written(:commit_stuck)
    refute_written(:commit_ended)

    # Told of while it goes on.
    commit = hang.()
    refute_written(:commit_stuck)
    pass_limit(shard, :commit_stuck)
    look(watcher)
    assert {_, %{left_out: 1, pid: pid}, _} = next_line(:commit_stuck)
    assert pid == commit.pid
    over.(commit)
    next_line(:commit_ended)

    # Its end is told of as soon as it may be.
    pass_limit(shard, :commit_stuck)
    commit = hang.()
    next_line(:commit_stuck)
    over.(commit)
    refute_written(:commit_ended)
    commit = hang.()
    over.(commit)
    pass_limit(shard)
    look(watcher)
    assert {_, %{left_out: 0}, _} = next_line(:commit_ended)
    commit = hang.()
    assert {_, %{left_out: 1}, _} = next_line(:commit_stuck)
    over.(commit)
  end
end
