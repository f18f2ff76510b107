# What goes on for a while, over changes of watchers, owners and lives: section 21 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section21PairsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.LogLines
  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @moduletag :capture_log

  setup %{shard: shard} do
    listen(shard)
    test = self()
    id = make_ref()

    report = fn _event, _measurements, about, _config ->
      if about.shard_index == shard, do: send(test, {:stuck, about.pid})
    end

    :ok = :telemetry.attach(id, [:ferricstore, :waraft, :batcher, :stuck], report, nil)
    on_exit(fn -> :telemetry.detach(id) end)
  end

  # Who looks next at a shard whose owner or watcher was killed.
  defp successor(shard, :owner) do
    owner = Process.whereis(Batcher.name(shard))
    former = watcher(owner)
    Process.exit(owner, :kill)
    successor = await_successor(shard, owner)
    # It has a watcher by then.
    next_line(:adopted)
    send(former, :look)
    await_death(former)
    watcher(successor)
  end

  defp successor(shard, :watcher) do
    owner = Process.whereis(Batcher.name(shard))
    former = watcher(owner)
    Process.exit(former, :kill)
    wait_until(fn -> watchers(owner) not in [[], [former]] end)
    watcher(owner)
  end

  # The same of the next life of a shard, whose watcher does not look while it is stopped.
  defp restarted(shard, watcher) do
    :erlang.suspend_process(watcher)
    owner = Process.whereis(Batcher.name(shard))
    Batcher.stop(shard)
    successor = await_successor(shard, owner)
    wait_until(fn -> watchers(successor) != [] end)
    :erlang.resume_process(watcher)
    await_death(watcher)
    watcher(successor)
  end

  defp quiet(watcher), do: for(_ <- 1..3, do: look(watcher))

  # A commit that hangs, of which `watcher` is to tell.
  defp hang(shard, watcher) do
    backend(shard, :block)
    commit = occupy(shard, "p")
    wait_until(fn -> Batcher.stats(shard).oldest_commit_age_us > 0 end)
    look(watcher)
    assert_received {:stuck, pid}
    assert pid == commit.pid
    commit
  end

  defp release_all(shard, commit) do
    release(commit)
    await_reply(commit.tag)
    wait_idle(shard)
  end

  # A shard that is overloaded, and has refused two writes.
  defp overloaded(shard, watcher) do
    look(watcher)
    backend(shard, [:block, :reply])
    commit = occupy(shard, "p")
    refuse(shard, 2)
    look(watcher)
    commit
  end

  defp refuse(shard, count) do
    for _ <- 1..count, do: {:error, :batcher_overloaded} = Batcher.write(shard, "p", {:no}, 1)
  end

  for who <- [:owner, :watcher] do
    test "21.3 a commit that hangs is told of once, and its end, by another #{who}", %{
      shard: shard
    } do
      watcher = shard |> start_batcher(stuck_ms: 0) |> watcher()
      commit = hang(shard, watcher)
      next_line(:commit_stuck)
      pass_limit(shard)
      watcher = successor(shard, unquote(who))
      look(watcher)
      refute_received {:stuck, _pid}
      refute_written(:commit_stuck)
      release_all(shard, commit)
      look(watcher)
      assert {_, %{age_us: age_us}, _} = next_line(:commit_ended)
      assert age_us > 0
      look(watcher)
      refute_written(:commit_ended)
    end

    test "21.3 an overload goes on with another #{who}", %{shard: shard} do
      watcher = shard |> start_batcher(max_queue_items: 1) |> watcher()
      commit = overloaded(shard, watcher)
      next_line(:overload_began)
      pass_limit(shard)
      watcher = successor(shard, unquote(who))
      refuse(shard, 1)
      look(watcher)
      refute_written(:overload_began)
      quiet(watcher)
      assert {_, %{refused: 3}, _} = next_line(:overload_ended)
      refute_written(:overload_began)
      release(commit)
    end

    test "21.3 what was not told of yet is told of by another #{who}", %{shard: shard} do
      watcher = shard |> start_batcher(stuck_ms: 0) |> watcher()
      commit = hang(shard, watcher)
      next_line(:commit_stuck)
      release_all(shard, commit)
      look(watcher)
      next_line(:commit_ended)
      commit = hang(shard, watcher)
      watcher = successor(shard, unquote(who))
      pass_limit(shard)
      look(watcher)
      refute_received {:stuck, _pid}
      assert {_, %{left_out: 0}, _} = next_line(:commit_stuck)
      # As if the end of one had been told of just now: too early for another.
      :ok = Batcher.Log.tell(shard, :commit_ended, age_us: 0)
      next_line(:commit_ended)
      release_all(shard, commit)
      look(watcher)
      refute_written(:commit_ended)
      watcher = successor(shard, unquote(who))
      # Another one, which the log does not tell from the one before.
      commit = hang(shard, watcher)
      refute_written(:commit_stuck)
      pass_limit(shard, :commit_ended)
      release_all(shard, commit)
      look(watcher)
      assert {_, %{left_out: 0}, _} = next_line(:commit_ended)
    end
  end

  test "21.3 a stop ends an overload, and counts what it finds refused", %{shard: shard} do
    owner = start_alone(shard, max_queue_items: 1)
    watcher = watcher(owner)
    commit = overloaded(shard, watcher)
    next_line(:overload_began)
    refuse(shard, 3)
    GenServer.cast(owner, :stop)
    release(commit)
    await_death(watcher)
    assert {:info, %{refused: 5}, _} = next_line(:overload_ended)
  end

  test "21.3 so does the end of a shard that nobody took over", %{shard: shard} do
    owner = start_alone(shard, max_queue_items: 1, adoption_timeout: 0)
    watcher = watcher(owner)
    commit = overloaded(shard, watcher)
    next_line(:overload_began)
    :erlang.suspend_process(watcher)
    refuse(shard, 1)
    Process.exit(owner, :kill)
    wait_until(fn -> Batcher.snapshot(shard) == nil end)
    :erlang.resume_process(watcher)
    await_death(watcher)
    assert {_, %{refused: 3}, _} = next_line(:overload_ended)
    release(commit)
  end

  test "21.3 the watcher of a stopped shard stays until the end may be told", %{shard: shard} do
    owner = start_alone(shard, max_queue_items: 1)
    watcher = watcher(owner)
    commit = overloaded(shard, watcher)
    next_line(:overload_began)
    # As if the end of one had been told of just now.
    :ok = Batcher.Log.tell(shard, :overload_ended, refused: 0)
    next_line(:overload_ended)
    GenServer.cast(owner, :stop)
    release(commit)
    await_death(owner)
    for _ <- 1..5, do: look(watcher)
    refute_written(:overload_ended)
    pass_limit(shard)
    send(watcher, :look)
    await_death(watcher)
    assert {_, %{refused: 2, left_out: 0}, _} = next_line(:overload_ended)
  end

  test "21.3 an overload whose end nobody told of before the next life began", %{shard: shard} do
    watcher = shard |> start_batcher(max_queue_items: 1, drain_timeout: 0) |> watcher()
    commit = overloaded(shard, watcher)
    next_line(:overload_began)
    watcher = restarted(shard, watcher)
    refute_written(:overload_ended)
    quiet(watcher)
    assert {_, %{refused: 2}, _} = next_line(:overload_ended)
    release(commit)
  end

  test "21.3 a stop leaves out an overload that was not told of", %{shard: shard} do
    owner = start_alone(shard, max_queue_items: 1)
    watcher = watcher(owner)
    # As if another had been told of just now.
    gauges =
      ~w(queued_items queued_bytes in_flight_items in_flight_bytes max_queue_items max_queue_bytes
         total_queue_bytes max_total_queue_bytes)a

    :ok = Batcher.Log.tell(shard, :overload_began, [refused: []] ++ Enum.map(gauges, &{&1, 0}))
    next_line(:overload_began)
    commit = overloaded(shard, watcher)
    GenServer.cast(owner, :stop)
    release(commit)
    await_death(watcher)
    refute_written(:overload_began)
    refute_written(:overload_ended)
    pass_limit(shard)
    watcher = shard |> start_alone(max_queue_items: 1) |> watcher()
    commit = overloaded(shard, watcher)
    assert {_, %{left_out: 1}, _} = next_line(:overload_began)
    release(commit)
  end

  test "21.3 a stop ends a commit that hung and has ended", %{shard: shard} do
    owner = start_alone(shard, stuck_ms: 0)
    watcher = watcher(owner)
    commit = hang(shard, watcher)
    next_line(:commit_stuck)
    GenServer.cast(owner, :stop)
    release(commit)
    await_death(watcher)
    next_line(:commit_ended)
  end

  test "21.3 a commit that hangs beyond the end of its shard is told of in the next life", %{
    shard: shard
  } do
    watcher = shard |> start_batcher(stuck_ms: 0, drain_timeout: 0) |> watcher()
    commit = hang(shard, watcher)
    next_line(:commit_stuck)
    pass_limit(shard)
    Batcher.stop(shard)
    await_death(watcher)
    refute_written(:commit_ended)
    wait_until(fn -> Batcher.stats(shard) != nil end)
    owner = Process.whereis(Batcher.name(shard))
    wait_until(fn -> watchers(owner) != [] end)
    look(watcher(owner))
    refute_received {:stuck, _pid}
    refute_written(:commit_stuck)
    refute_written(:commit_ended)
    release_all(shard, commit)
    look(watcher(owner))
    next_line(:commit_ended)
  end

  # A shard that holds 120 items, of so many that it may hold, and its watcher.
  defp filled(shard, max_items, start) do
    owner = start.(shard, max_queue_items: max_items)
    entries = for n <- 1..120, do: {"k#{n}", "v", 0}
    tag = raw(shard, :put_batch, entries, long_ms())
    wait_queued(shard, :put_batch, 1)
    {watcher(owner), tag}
  end

  defp look_with(shard, watcher, max_items) do
    :ok = Batcher.configure(shard, max_queue_items: max_items)
    look(watcher)
  end

  test "21.3 a queue that fills for long is told of as soon as it may be", %{shard: shard} do
    {watcher, _tag} = filled(shard, 150, &start_batcher/2)
    look(watcher)
    assert {_, %{left_out: 0}, _} = next_line(:queue_filling)
    look_with(shard, watcher, 201)

    # Too early for another line.
    look_with(shard, watcher, 150)
    refute_written(:queue_filling)
    look_with(shard, watcher, 151)
    pass_limit(shard)
    look(watcher)
    refute_written(:queue_filling)
    look_with(shard, watcher, 150)
    assert {_, %{left_out: 0, queued_items: 120}, _} = next_line(:queue_filling)
    pass_limit(shard)
    look(watcher)
    refute_written(:queue_filling)
  end

  test "21.3 one that has filled for less than that is left out, once", %{shard: shard} do
    {watcher, _tag} = filled(shard, 150, &start_batcher/2)
    look(watcher)
    next_line(:queue_filling)

    for max_items <- [201, 150, 151, 150, 200, 201, 201],
        do: look_with(shard, watcher, max_items)

    refute_written(:queue_filling)
    pass_limit(shard)
    look_with(shard, watcher, 150)
    assert {_, %{left_out: 1}, _} = next_line(:queue_filling)
  end

  for who <- [:owner, :watcher] do
    test "21.3 a queue that fills is not told of again by another #{who}", %{shard: shard} do
      {watcher, _tag} = filled(shard, 150, &start_batcher/2)
      look(watcher)
      next_line(:queue_filling)
      pass_limit(shard)
      look(successor(shard, unquote(who)))
      refute_written(:queue_filling)
    end
  end

  test "21.3 it is in the next life of its shard", %{shard: shard} do
    {watcher, tag} = filled(shard, 150, &start_alone/2)
    look(watcher)
    next_line(:queue_filling)
    Batcher.stop(shard)
    await_reply(tag)
    await_death(watcher)
    pass_limit(shard)
    {watcher, _tag} = filled(shard, 150, &start_alone/2)
    look(watcher)
    next_line(:queue_filling)
  end
end
