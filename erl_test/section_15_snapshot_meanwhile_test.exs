# The live state while it changes: section 15 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section15SnapshotMeanwhileTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes, only: [raw: 4]

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @empty %{slots: %{}, batch_slot: nil, put_slot: nil, delete_slot: nil, in_flight: %{}}
  @lanes 10_000

  test "15 ten thousand lanes that are written to meanwhile: all that is queued, each once", %{
    shard: shard
  } do
    start_batcher(shard, namespace_batch_max: :infinity)
    {from, queued, rounds} = {self(), :atomics.new(1, []), 3}

    writer =
      call_async(fn ->
        for round <- 1..rounds, lane <- 1..@lanes do
          n = (round - 1) * @lanes + lane
          tag = make_ref()

          :queued =
            Batcher.Native.offer(
              shard,
              "lane #{lane}",
              {:set, n},
              1,
              @long_ms,
              {from, tag},
              nil,
              nil
            )

          :atomics.put(queued, 1, n)
        end
      end)

    looks = look_while(writer, fn -> {:atomics.get(queued, 1), Batcher.snapshot(shard)} end)

    for {at_least, snapshot} <- looks do
      shown = for {"lane " <> lane, slot} <- snapshot.slots, do: {String.to_integer(lane), slot}

      for {lane, slot} <- shown do
        assert {slot.count, length(slot.froms)} == {length(slot.commands), length(slot.commands)}

        assert slot.commands ==
                 for(round <- 1..slot.count, do: {:set, (round - 1) * @lanes + lane})
      end

      numbers = for {_lane, slot} <- shown, {:set, n} <- slot.commands, do: n
      assert numbers == Enum.uniq(numbers)
      assert MapSet.subset?(MapSet.new(1..at_least//1), MapSet.new(numbers))
    end

    {all, %{slots: slots}} = List.last(looks)
    assert all == @lanes * rounds
    assert Enum.sum(for {_lane, slot} <- slots, do: slot.count) == all
    # Nobody waits for them.
    assert Batcher.flush(shard) == :ok
    assert Batcher.snapshot(shard) == @empty
  end

  test "15 one lane that is written to meanwhile: what it counts is what it shows", %{
    shard: shard
  } do
    start_batcher(shard, namespace_batch_max: :infinity, hot_batch_window_ms: @long_ms)
    from = self()

    writer =
      call_async(fn ->
        for n <- 1..20_000 do
          :queued = Batcher.Native.offer(shard, "p", {:set, n}, 1, @long_ms, {from, n}, nil, nil)

          :queued =
            Batcher.Native.offer(shard, :delete_batch, [n, n], 2, @long_ms, {from, n}, nil, nil)
        end
      end)

    for snapshot <- look_while(writer, fn -> Batcher.snapshot(shard) end) do
      with %{} = slot <- snapshot.slots["p"] do
        assert slot.count == length(slot.commands)
        assert slot.count == length(slot.froms)
      end

      with %{} = slot <- snapshot.delete_slot, do: assert(slot.count == 2 * length(slot.groups))
    end

    assert Batcher.flush(shard) == :ok
  end

  test "15 lanes that leave meanwhile are queued or in flight, or both", %{shard: shard} do
    start_batcher(shard)
    lanes = 2_000
    tags = for n <- 1..lanes, do: raw(shard, "lane #{n}", {:set, n}, @long_ms)
    wait_queued(shard, "lane #{lanes}", 1)
    {:ok, ended} = Agent.start_link(fn -> MapSet.new() end)
    test = self()

    # Whatever is taken stays in flight until it is allowed to end, which is noted before.
    backend(
      shard,
      {:run,
       fn function, [{:set, n}] = list ->
         send(test, {:in_flight, n, self()})
         receive do: (:end -> {:ok, TestBackend.replies(function, list)})
       end}
    )

    flush = call_async(fn -> Batcher.flush(shard) end)
    missing = ends_of_lanes(shard, lanes, ended, [])
    assert await(flush) == :ok
    for tag <- tags, do: await_reply(tag)
    assert missing == []
  end

  # Looks until all lanes have ended: before each look some are told to; whoever was not must be seen.
  defp ends_of_lanes(shard, lanes, ended, missing) do
    done = Agent.get(ended, & &1)

    if MapSet.size(done) == lanes do
      Enum.uniq(missing)
    else
      ending = in_flight([])
      Agent.update(ended, &MapSet.union(&1, MapSet.new(ending, fn {n, _pid} -> n end)))
      for {_n, pid} <- ending, do: send(pid, :end)
      %{slots: slots, in_flight: in_flight} = Batcher.snapshot(shard)
      ended_by_now = Agent.get(ended, & &1)

      unseen =
        for n <- 1..lanes,
            n not in ended_by_now,
            lane = "lane #{n}",
            not is_map_key(slots, lane) and not is_map_key(in_flight, {:prefix, lane}),
            do: n

      ends_of_lanes(shard, lanes, ended, unseen ++ missing)
    end
  end

  defp in_flight(found) do
    receive do
      {:in_flight, n, pid} -> in_flight([{n, pid} | found])
    after
      0 -> found
    end
  end

  # What was seen as long as a task ran, and once more.
  defp look_while(task, look, seen \\ []) do
    over? = not Process.alive?(task.pid)
    seen = [look.() | seen]
    if over?, do: await(task) && Enum.reverse(seen), else: look_while(task, look, seen)
  end
end
