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

  test "21.4 nobody took over, and the shard was closed before the watcher looked", %{
    shard: shard
  } do
    owner = start_alone(shard, adoption_timeout: 0)
    watcher = watcher(owner)
    queued = call_async(fn -> Batcher.write(shard, "p", {:a}, long_ms()) end)
    wait_queued(shard, "p", 1)
    look(watcher)
    :erlang.suspend_process(watcher)
    Process.exit(owner, :kill)
    assert await(queued) == {:error, :batcher_down}
    :erlang.resume_process(watcher)
    {:error, meta, text} = next_line(:nobody_adopted)
    assert meta.queued_items == 1
    assert meta.queued_bytes > 0
    assert text =~ "last looked at, 1 item, #{meta.queued_bytes} bytes, was not committed"
    await_death(watcher)
    refute_written(:nobody_adopted)
  end

  test "21.4 an orderly end leaves nobody behind", %{shard: shard} do
    for stop <- [&GenServer.stop/1, &Process.exit(&1, :shutdown), fn _ -> Batcher.stop(shard) end] do
      owner = start_alone(shard)
      watcher = watcher(owner)
      :sys.get_state(watcher)
      :erlang.suspend_process(watcher)
      stop.(owner)
      await_death(owner)
      :erlang.resume_process(watcher)
      assert await_death(watcher) in [:normal, :noproc]
      refute_written(:nobody_adopted)
    end
  end
end
