# The log: section 21 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section21LogTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.LogLines
  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Native, Owner, Told}

  @moduletag :capture_log

  setup %{shard: shard} do
    listen(shard)
  end

  for {behaviour, kind, shown} <- [
        {{:return, {:error, :no_quorum}}, :commit_failed, "{:error, :no_quorum}"},
        {{:exit, {:timeout, {:ra, :call, ["secret"]}}}, :backend_failed,
         "{:error, {:backend_exit, {:timeout, {:ra, :call, _}}}}"},
        {{:raise, :badarg}, :backend_failed, "{:error, {:backend_error, :error, :badarg}}"},
        {{:return, {:ok, [1, 2]}}, :replies_mismatched, "2 instead of 1"}
      ] do
    test "21.1 a commit that failed: #{kind}, #{shown}", %{shard: shard} do
      start_batcher(shard)
      backend(shard, unquote(Macro.escape(behaviour)))

      for lane <- lanes() do
        await_reply(raw(shard, lane, item(lane), 1))
        {:error, meta, text} = next_line(unquote(kind))
        assert text =~ unquote(shown)
        refute text =~ "secret"
        assert meta.lane == if(is_binary(lane), do: :namespace, else: lane)
        assert {meta.writes, meta.items, meta.lanes} == {1, 1, 1}
        assert meta.bytes > 0
        pass_limit(shard)
      end
    end

    test "21.1 the same of a write that is alone: #{kind}, #{shown}", %{shard: shard} do
      start_batcher(shard, pacing: :auto)
      backend(shard, unquote(Macro.escape(behaviour)))
      Batcher.write(shard, "p", {:a}, 1)
      assert next_commit(shard).pid == self()
      {:error, meta, text} = next_line(unquote(kind))
      assert text =~ unquote(shown)
      assert {meta.lane, meta.writes, meta.items} == {:namespace, 1, 1}
    end
  end

  test "21.1 a commit of several lanes is told of once", %{shard: shard} do
    start_batcher(shard, commit_scope: :shard)
    backend(shard, [:block, {:return, {:error, :no}}])
    first = occupy(shard, "p")
    tags = for lane <- ["q", :put_batch], do: raw(shard, lane, item(lane), 1)
    for lane <- ["q", :put_batch], do: wait_queued(shard, lane, 1)
    release(first)
    Enum.each(tags, &await_reply/1)
    {:error, meta, _text} = next_line(:commit_failed)
    assert {meta.lane, meta.lanes, meta.writes} == {:several, 2, 2}
    refute_line(:commit_failed)
  end

  test "21.1 a slow commit, and :infinity", %{shard: shard} do
    start_batcher(shard, slow_commit_ms: 0)
    await_reply(raw(shard, "p", {:a}, 1))
    {:warning, meta, text} = next_line(:commit_slow)
    assert meta.commit_us >= 0
    assert text =~ "a commit of 1 write ("
    Batcher.flush(shard)
    pass_limit(shard)
    :ok = Batcher.configure(shard, slow_commit_ms: :infinity)
    await_reply(raw(shard, "p", {:a}, 1))
    Batcher.flush(shard)
    refute_line(:commit_slow)
  end

  test "21.2 each kind once in 10 s, and how many were left out", %{shard: shard} do
    start_batcher(shard)
    backend(shard, {:return, {:error, :no}})
    for _ <- 1..4, do: await_reply(raw(shard, "p", {:a}, 1))
    Batcher.flush(shard)
    assert {:error, %{left_out: 0}, _text} = next_line(:commit_failed)
    refute_line(:commit_failed)
    pass_limit(shard)
    await_reply(raw(shard, "p", {:a}, 1))
    {:error, %{left_out: 3}, text} = next_line(:commit_failed)
    assert text =~ "3 more of this kind left out before"
  end

  test "21.3 a commit that hangs, and that it is over", %{shard: shard} do
    owner = start_batcher(shard, stuck_ms: 0)
    watcher = watcher(owner)
    backend(shard, :block)
    commit = occupy(shard, :put_batch)
    wait_until(fn -> Batcher.stats(shard).oldest_commit_age_us > 0 end)
    look(watcher)
    look(watcher)
    {:error, meta, text} = next_line(:commit_stuck)
    assert {meta.lane, meta.pid, meta.in_flight_items} == {:put_batch, commit.pid, 1}
    assert text =~ "which is in"
    refute_line(:commit_stuck)
    release(commit)
    await_reply(commit.tag)
    wait_idle(shard)
    look(watcher)
    assert {:info, _meta, _text} = next_line(:commit_ended)
  end

  test "21.3 of a commit that hangs: for how long, in which lane, and where", %{shard: shard} do
    owner = start_batcher(shard, stuck_ms: 20)
    for _ <- 1..3, do: await_reply(raw(shard, :put_batch, item(:put_batch), 1))
    for _ <- 1..3, do: next_commit(shard)
    wait_idle(shard)
    backend(shard, :block)
    called = System.monotonic_time(:microsecond)
    commit = occupy(shard, :batch)
    wait_until(fn -> Batcher.stats(shard).oldest_commit_age_us > 20_000 end)
    look(watcher(owner))
    passed = System.monotonic_time(:microsecond) - called
    {:error, meta, text} = next_line(:commit_stuck)
    assert meta.age_us in 20_000..passed
    # Not the one that was given the most.
    assert meta.lane == :batch
    assert meta.at =~ "TestBackend."
    assert text =~ "which is in #{meta.at};"
    release(commit)
  end

  for {kinds, lane} <- [{["p", "q"], :namespace}, {["p", :batch], :several}] do
    test "21.2 of a commit that hangs of #{inspect(kinds)}: #{lane}", %{shard: shard} do
      owner = start_batcher(shard, stuck_ms: 20, commit_scope: :shard)
      backend(shard, :block)
      first = occupy(shard, :put_batch)
      for lane <- unquote(kinds), do: raw(shard, lane, item(lane), 1)
      release(first)
      commit = next_commit(shard)
      wait_until(fn -> Batcher.stats(shard).oldest_commit_age_us > 20_000 end)
      look(watcher(owner))
      assert {_, %{lane: unquote(lane)}, _} = next_line(:commit_stuck)
      release(commit)
    end
  end

  test "21.2 of two commits that hang: that of the older one", %{shard: shard} do
    owner = start_batcher(shard, stuck_ms: 20)
    backend(shard, :block)
    first = occupy(shard, :put_batch)
    second = occupy(shard, :batch)
    wait_until(fn -> Batcher.stats(shard).oldest_commit_age_us > 20_000 end)
    look(watcher(owner))
    assert {_, %{lane: :put_batch}, _} = next_line(:commit_stuck)
    for commit <- [first, second], do: release(commit)
  end

  test "21.3 :stuck_ms are milliseconds", %{shard: shard} do
    owner = start_batcher(shard, stuck_ms: 100_000)
    backend(shard, :block)
    commit = occupy(shard, "p")
    wait_until(fn -> Batcher.stats(shard).oldest_commit_age_us > 100_000 end)
    look(watcher(owner))
    refute_written(:commit_stuck)
    release(commit)
  end

  test "21.3 nothing is stuck with :infinity", %{shard: shard} do
    owner = start_batcher(shard, stuck_ms: :infinity)
    backend(shard, :block)
    commit = occupy(shard, "p")
    look(watcher(owner))
    refute_line(:commit_stuck)
    release(commit)
  end

  test "21.3 overload begins and ends; before that the queue fills", %{shard: shard} do
    owner = start_batcher(shard, max_queue_items: 5)
    watcher = watcher(owner)
    backend(shard, [:block, :reply])
    look(watcher)
    first = occupy(shard, "p")
    tags = for n <- 1..2, do: raw(shard, "p", {n}, long_ms())
    wait_queued(shard, "p", 2)
    look(watcher)
    refute_line(:queue_filling)
    tags = [raw(shard, "p", {3}, long_ms()) | tags]
    wait_queued(shard, "p", 3)
    look(watcher)
    assert {:warning, %{queued_items: 3, in_flight_items: 1}, text} = next_line(:queue_filling)
    assert text =~ "4 of 5 items"
    tags = [raw(shard, "p", {4}, long_ms()) | tags]
    wait_queued(shard, "p", 4)
    for _ <- 1..3, do: {:error, :batcher_overloaded} = Batcher.write(shard, "p", {:no}, 1)
    look(watcher)
    {:error, meta, text} = next_line(:overload_began)
    assert meta.refused == [items: 3]
    assert text =~ "3 by :items"
    look(watcher)
    refute_line(:overload_ended)
    release(first)
    Enum.each(tags, &await_reply/1)
    wait_idle(shard)
    for _ <- 1..3, do: look(watcher)
    assert {:info, %{refused: 3}, _text} = next_line(:overload_ended)
    # Not told again while it goes on.
    refute_line(:queue_filling)
  end

  test "21.4 a committer died", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    commit = occupy(shard, "p")
    Process.exit(commit.pid, :kill)
    await_reply(commit.tag)
    assert {:error, _meta, text} = next_line(:committer_down)
    assert text =~ ":killed"
  end

  test "21.4 another process that was linked to the owner is no committer", %{shard: shard} do
    owner = start_batcher(shard)
    pid = spawn(fn -> Process.link(owner) && exit(:whatever) end)
    await_death(pid)
    :sys.get_state(owner)
    refute_line(:committer_down)
  end

  test "21.4 an owner takes over", %{shard: shard} do
    owner = start_batcher(shard)
    queued = call_async(fn -> Batcher.write(shard, "p", {:a}, long_ms()) end)
    wait_queued(shard, "p", 1)
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    {:warning, meta, _text} = next_line(:adopted)
    assert {meta.queued_items, meta.in_flight_items} == {1, 0}
    Batcher.flush(shard)
    assert await(queued) == {:done, {:a}}
    refute_line(:nobody_adopted)
  end

  test "21.4 nobody takes over", %{shard: shard} do
    owner = start_alone(shard, adoption_timeout: 1_000)
    watcher = watcher(owner)
    queued = call_async(fn -> Batcher.write(shard, "p", {:a}, long_ms()) end)
    wait_queued(shard, "p", 1)
    # Looks as soon as its owner is dead, while the library waits for another.
    Process.exit(owner, :kill)
    assert await(queued) == {:error, :batcher_down}
    send(watcher, :look)
    {:error, meta, text} = next_line(:nobody_adopted)
    assert meta.queued_items == 1
    assert text =~ ":batcher_down"
    await_death(watcher)
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
    for stop <- [
          &GenServer.stop/1,
          &Process.exit(&1, :shutdown),
          &Process.exit(&1, {:shutdown, :whatever}),
          &:sys.terminate(&1, {:shutdown, :whatever}),
          fn _ -> Batcher.stop(shard) end
        ] do
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

  test "21.4 a library that fails leaves nobody behind", %{shard: shard} do
    owner = start_alone(shard)
    watcher = watcher(owner)
    look(watcher)
    :erlang.suspend_process(watcher)
    Batcher.Native.panic_thread(shard)
    assert {:batcher_crashed, _text} = await_death(owner)
    wait_until(fn -> Batcher.Native.numbers(shard) == :not_running end)
    :erlang.resume_process(watcher)
    await_death(watcher)
    refute_written(:nobody_adopted)
  end

  test "21.4 the watcher of an owner that was followed by another ends", %{shard: shard} do
    owner = start_batcher(shard)
    watcher = watcher(owner)
    Process.exit(owner, :kill)
    successor = await_successor(shard, owner)
    wait_until(fn -> Batcher.snapshot(shard) != nil end)
    assert await_death(watcher) in [:normal, :noproc]
    look(watcher(successor))
    refute_written(:nobody_adopted)
  end

  test "21.4 a drain that came to no end", %{shard: shard} do
    owner = start_alone(shard, drain_timeout: 0)
    watcher = watcher(owner)
    backend(shard, :block)
    commit = occupy(shard, "p")
    tag = raw(shard, "p", {:b}, long_ms())
    wait_queued(shard, "p", 1)
    Batcher.stop(shard)
    assert await_reply(tag) == {:error, :shutting_down}
    {:error, meta, _text} = next_line(:drain_refused)
    assert {meta.queued_items, meta.in_flight_items} == {1, 1}
    release(commit)
    await_death(watcher)
    refute_line(:nobody_adopted)
  end

  test "21.4 of a drain whose queue was committed nothing is said", %{shard: shard} do
    # In order, with nothing left.
    start_alone(shard)
    Batcher.write(shard, "p", {:a}, 1)
    next_commit(shard)
    Batcher.stop(shard)
    refute_line(:drain_refused)

    # Too late, with a commit in flight and nothing behind it.
    start_alone(shard, drain_timeout: 0)
    backend(shard, :block)
    commit = occupy(shard, "p")
    Batcher.stop(shard)
    refute_line(:drain_refused)
    release(commit)
    await_reply(commit.tag)
  end

  test "21.4 a committer died: of the reason its atoms", %{shard: shard} do
    [committer | _] = shard |> start_batcher() |> committers()
    :sys.terminate(committer, {:disk_full, "s3cret"})
    assert {:error, %{reason: "{:disk_full, _}"}, text} = next_line(:committer_down)
    assert text =~ "a committer died: {:disk_full, _}; 0 items in flight, 0 queued. "
  end

  test "21.4 an owner that fails: where, without what that was called with", %{shard: shard} do
    Told.owner_failed(shard, [{Map, :fetch!, [%{}, "s3cret"], []}, {Owner, :handle, 2, []}])
    assert {:error, %{where: [{Map, :fetch!}]}, text} = next_line(:owner_failed)
    assert String.ends_with?(text, "its owner failed in [{Map, :fetch!}]")
  end

  test "21.4 the library fails", %{shard: shard} do
    owner = start_batcher(shard)
    Native.panic_thread(shard)
    await_successor(shard, owner)
    assert {:error, %{text: reason}, text} = next_line(:library_failed)
    assert reason =~ "provoked"
    assert text =~ "the library failed: #{reason}"
    # It told those who waited, and nobody was to take over.
    refute_line(:nobody_adopted)
  end

  test "21.5 a watcher that dies is followed by another, and ends with its shard", %{shard: shard} do
    owner = start_alone(shard)

    for ending <- [&Process.exit(&1, :kill), &:sys.terminate(&1, :normal)] do
      watcher = watcher(owner)
      ending.(watcher)
      await_death(watcher)
      wait_until(fn -> watchers(owner) not in [[], [watcher]] end)
    end

    successor = watcher(owner)
    Batcher.stop(shard)
    await_death(successor)
  end
end
