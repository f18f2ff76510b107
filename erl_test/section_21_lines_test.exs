# The lines of the log by themselves: section 21 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section21LinesTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.LogLines

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Log, Told}

  @moduletag :capture_log

  setup %{shard: shard} do
    listen(shard)
    Log.open(shard)
    :ok
  end

  @size [lane: :batch, lanes: 1, writes: 2, items: 3, bytes: 4, commit_us: 5_678, result: ":no"]
  @held [queued_items: 1, queued_bytes: 2, in_flight_items: 3, in_flight_bytes: 4] ++
          [max_queue_items: 5, max_queue_bytes: 6, total_queue_bytes: 7, max_total_queue_bytes: 8]

  # Kind, level, what it is made of, and what its text has in it.
  @lines [
    {:commit_failed, :error, @size,
     "a commit of 2 writes (lane batch, 3 items, 4 bytes) failed: the backend answered :no"},
    {:backend_failed, :error, @size, "the backend failed in a commit of 2 writes"},
    {:replies_mismatched, :error, @size, "another number of replies than a commit of 2 writes"},
    {:commit_slow, :warning, @size, "3 items, 4 bytes) took 5 ms"},
    {:commit_stuck, :error, @held ++ [age_us: 7_000, lane: :batch, pid: nil, at: "M.f/1"],
     "in flight for 7 ms, lane batch, in nil, which is in M.f/1; 3 items in flight, 1 queued"},
    {:commit_ended, :info, [age_us: 7_000], "ended after 7 ms or more"},
    {:committer_down, :error, [reason: ":killed"] ++ @held,
     "a committer died: :killed; 3 items in flight, 1 queued. Callers"},
    {:adopted, :warning, @held, "has taken over 1 queued items, 2 bytes, and 3 in flight"},
    {:nobody_adopted, :error, @held, "last looked at, 1 item, 2 bytes, was not committed"},
    {:drain_refused, :error, @held,
     "1 queued items, 2 bytes, were refused with :shutting_down; 3"},
    {:overload_began, :error, [refused: [items: 8, bytes: 9]] ++ @held,
     "8 by :items, 9 by :bytes; 4 of 5 items and 6 of 6 bytes are queued or in flight, 7 of 8 bytes of all shards. More"},
    {:overload_ended, :info, [refused: 17], "it has refused 17 writes"},
    {:queue_filling, :warning, @held, "is filling: 4 of 5 items and 6 of 6 bytes"},
    {:library_failed, :error, [text: "panicked"], "the library failed: panicked"},
    {:owner_failed, :error, [where: [{M, :f}]], "its owner failed in [{M, :f}]"},
    {:cast_dropped, :warning, [request: :write_batch], "dropped a cast of write_batch without"},
    {:token_not_released, :error, [reason: ":exit"],
     "a sync token was not released: :exit. Look at"}
  ]

  test "21.2 each kind has its level, its text, and in its metadata what it is made of", %{
    shard: shard
  } do
    assert Enum.sort(Log.kinds()) == Enum.sort(for {kind, _, _, _} <- @lines, do: kind)

    for {kind, level, facts, part} <- @lines do
      Log.tell(shard, kind, facts)
      assert {^level, meta, text} = next_line(kind)
      assert String.starts_with?(text, "batcher #{shard}: ")
      assert text =~ part
      assert {meta.shard, meta.kind, meta.left_out} == {shard, kind, 0}
      for {name, value} <- facts, do: assert(meta[name] == value)
      Log.tell(shard, kind, facts)
      refute_written(kind)
    end
  end

  test "21.4 nobody took over a shard that had nothing queued", %{shard: shard} do
    Log.tell(shard, :nobody_adopted, queued_items: 0, queued_bytes: 0)
    assert {:error, %{queued_items: 0}, text} = next_line(:nobody_adopted)

    assert text =~
             "no other came in time: nothing was queued when it was last looked at. Look for"

    refute text =~ ":batcher_down"
  end

  test "21.4 a committer died of a shard that is closed", %{shard: shard} do
    Told.committer_down(shard, :killed)
    assert {:error, _meta, text} = next_line(:committer_down)
    assert text =~ "a committer died: :killed. Callers"
  end

  test "21.2 a kind is written again after 10 s, and not before", %{shard: shard} do
    counts = :persistent_term.get({Log, shard})
    place = 2 + 2 * Enum.find_index(Log.kinds(), &(&1 == :commit_ended))
    before_ms = uptime_ms()
    Log.tell(shard, :commit_ended, age_us: 0)
    next_ms = :atomics.get(counts, place)
    assert (next_ms - 10_000) in before_ms..uptime_ms()
    refute Log.due?(shard, :commit_ended)
    assert Log.due?(shard, :commit_stuck)
    # As if it had been written ten seconds before.
    :atomics.put(counts, place, next_ms - 10_000)
    assert Log.due?(shard, :commit_ended)
    Log.tell(shard, :commit_ended, age_us: 0)
    next_line(:commit_ended)
    next_line(:commit_ended)
  end

  test "21.2 a shard that never had a batcher is told of each time" do
    shard = new_shard()
    listen(shard)
    for _ <- 1..2, do: Log.tell(shard, :commit_ended, age_us: 0)
    for _ <- 1..2, do: assert({_, %{left_out: 0}, _} = next_line(:commit_ended))
    assert Log.due?(shard, :commit_ended)
    assert Log.leave_out(shard, :commit_ended) == :ok
    assert Log.owners(shard) == 0
  end

  test "21.2 a limit is one of its kind and its shard", %{shard: shard} do
    other = new_shard()
    Log.open(other)
    Log.tell(shard, :commit_ended, age_us: 0)
    assert Log.due?(shard, :commit_stuck)
    assert Log.due?(other, :commit_ended)
    Log.leave_out(shard, :commit_stuck)
    Log.tell(shard, :commit_stuck, List.keyfind(@lines, :commit_stuck, 0) |> elem(2))
    assert {_, %{left_out: 1}, text} = next_line(:commit_stuck)
    assert String.ends_with?(text, " (1 more of this kind left out before)")
  end

  test "21.1 a commit is slow from :slow_commit_ms on, and a failed one is told of as failed", %{
    shard: shard
  } do
    refute Log.commit?(:slices, 999, 1_000)
    refute Log.commit?(:slices, 1_000_000, :infinity)
    assert Log.commit?(:slices, 1_000, 1_000)
    Log.commit(shard, :slices, {:ok, []}, 1_000, {["p", "q", :batch], 4, 5, 6})
    assert {:warning, meta, text} = next_line(:commit_slow)
    assert text =~ "a commit of 4 writes (3 lanes, 5 items, 6 bytes) took 1 ms"
    refute Map.has_key?(meta, :result)
    expected = %{lane: :several, lanes: 3, writes: 4, items: 5, bytes: 6, commit_us: 1_000}
    assert Map.take(meta, Map.keys(expected)) == expected

    for {how, kind} <- [
          error: :commit_failed,
          exit: :backend_failed,
          mismatch: :replies_mismatched
        ] do
      assert Log.commit?(how, 0, 1_000)
      Log.commit(shard, how, {:error, "s3cret"}, 2_000, {["p", "q"], 1, 1, 9})
      assert {:error, meta, text} = next_line(kind)
      assert text =~ "1 write (2 lanes, 1 item, 9 bytes)"
      assert {meta.lane, meta.lanes, meta.commit_us} == {:namespace, 2, 2_000}
      assert meta.result == "{:error, _}"
    end

    refute_written(:commit_slow)
  end

  test "21.2 owners have numbers of their own", %{shard: shard} do
    assert Log.owners(shard) == 1
    assert Log.open(shard) == 2
    assert Log.owners(shard) == 2
  end

  defmodule Secret do
    defexception [:message]
  end

  for {term, shape} <- [
        {:atom, ":atom"},
        {nil, "nil"},
        {"s3cret", "_"},
        {~c"s3cret", "_"},
        {1, "_"},
        {[:a], "_"},
        {%{a: :b}, "_"},
        {{}, "{}"},
        {{:error, "s3cret", 5, :no}, "{:error, _, _, :no}"},
        {{1, 2, 3, :four, :five}, "{_, _, _, :four, ...}"},
        {{:a, {:b, {:c, {:d, {:e}}}}}, "{:a, {:b, {:c, {:d, _}}}}"},
        {{:error, {:batch_result_mismatch, 3, 2}}, "2 instead of 3"},
        {{:error, {:batch_result_mismatch, "s3cret", 2}},
         "{:error, {:batch_result_mismatch, _, _}}"}
      ] do
    test "21.2 of #{inspect(term)} is shown #{shape}" do
      assert Log.shape(unquote(Macro.escape(term))) == unquote(shape)
    end
  end

  test "21.2 of a struct its module is shown" do
    assert Log.shape(%Secret{message: "s3cret"}) == "%#{inspect(Secret)}{}"
  end

  # As the limits are counted.
  defp uptime_ms do
    System.convert_time_unit(
      :erlang.monotonic_time() - :erlang.system_info(:start_time),
      :native,
      :millisecond
    )
  end
end
