# Events beside those of a commit, their table and what is made of it: section 13 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section13EventsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import ExUnit.CaptureLog
  import Ferricstore.Raft.WARaftBackend.Batcher.LogLines, only: [listen: 1]
  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Telemetry

  setup %{shard: shard} do
    test = self()
    id = make_ref()
    events = for %{event: event} <- Telemetry.events(), do: event

    report = fn event, measurements, metadata, _config ->
      if metadata.shard_index == shard,
        do: send(test, {:event, List.last(event), event, measurements, metadata})
    end

    :ok = :telemetry.attach_many(id, events, report, nil)
    on_exit(fn -> :telemetry.detach(id) end)
  end

  # As the table says: nothing is in it that is not described, and all that is described but what says so.
  defp next(what) do
    assert_receive {:event, ^what, event, measurements, metadata}
    [described] = for %{event: ^event} = described <- Telemetry.events(), do: described
    names = for {name, _unit, _help} <- described.measurements, do: name
    assert Enum.sort(Map.keys(measurements)) == Enum.sort(names)
    assert Enum.all?(Map.values(measurements), &(is_integer(&1) and &1 >= 0))
    keys = for {key, _help} <- described.metadata, do: key
    assert Map.keys(metadata) -- keys == []
    assert (keys -- Map.keys(metadata)) -- [:commit, :lanes] == []
    {measurements, metadata}
  end

  defp refute_event(what), do: refute_receive({:event, ^what, _, _, _}, 30)

  test "13.7 start, before the backend is called, for each kind of lane", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)

    for lane <- lanes() do
      tag = raw(shard, lane, item(lane), 1)
      commit = next_commit(shard)
      kind = if is_binary(lane), do: :namespace, else: lane
      {measurements, metadata} = next(:start)
      assert {measurements.batch_size, measurements.caller_count} == {1, 1}
      assert {metadata.lane, metadata.reason} == {kind, :window}
      refute_received {:event, :quorum_submit, _, _, _}
      release(commit)
      await_reply(tag)
      {_measurements, metadata} = next(event(lane))
      assert metadata.lane == kind
      {_measurements, metadata} = next(:quorum_submit)
      assert metadata.lane == kind
    end
  end

  test "13.7 start says what the end of the commit does: size, callers, bytes, wait", %{
    shard: shard
  } do
    start_batcher(shard)

    for {lane, items, size} <- [
          {"p", [{:put_batch, [1, 2, 3]}, {:batch, []}, {:put, "k", "value", 0}], 3},
          {:batch, [[{:put_batch, [1, 2, 3]}, {:a}], []], 4},
          {:put_batch, [[{"a", "1", 0}, {"b", "2", 0}], [{"c", "3", 0}]], 3},
          {:delete_batch, [["a", "b", "c"], ["d"]], 4}
        ] do
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      next(:start)
      tags = for item <- items, do: raw(shard, lane, item, 1)
      wait_queued(shard, lane, length(items))
      release(first)
      Enum.each(tags, &await_reply/1)
      next_commit(shard)
      {start, metadata} = next(:start)
      assert {start.batch_size, start.caller_count} == {size, length(items)}
      assert metadata.reason == :commit
      next(:quorum_submit)
      {ended, _metadata} = next(:quorum_submit)
      assert start == Map.take(ended, Map.keys(start))
      assert start.command_bytes > 0 and start.queue_wait_us > 0
    end
  end

  test "13.7 start of a commit of several lanes, and of a write that is alone", %{shard: shard} do
    start_batcher(shard, commit_scope: :shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    next(:start)
    tags = for lane <- ["q", :put_batch], do: raw(shard, lane, item(lane), 1)
    for lane <- ["q", :put_batch], do: wait_queued(shard, lane, 1)
    release(first)
    Enum.each(tags, &await_reply/1)
    {_, one} = next(:start)
    {_, other} = next(:start)
    assert Enum.sort([one.lane, other.lane]) == [:namespace, :put_batch]
    assert {one.commit, one.lanes} == {other.commit, 2}
    Batcher.flush(shard)
    next(:quorum_submit)
    {_, ended} = next(:quorum_submit)
    assert ended.commit == one.commit

    alone = new_shard()
    id = make_ref()
    test = self()
    event = [:ferricstore, :waraft, :batcher, :start]

    :telemetry.attach(
      id,
      event,
      fn _, _, about, _ -> about.shard_index == alone && send(test, {id, about.reason}) end,
      nil
    )

    on_exit(fn -> :telemetry.detach(id) end)
    start_supervised!({Batcher, {alone, pacing: :auto}}, id: :alone)
    Batcher.write(alone, "p", {:a}, 1)
    assert_receive {^id, :alone}
  end

  test "13.7 refused: a count for each cause, once a look", %{shard: shard} do
    owner = start_batcher(shard, max_queue_items: 2)
    look(watcher(owner))
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    queued = raw(shard, "p", {1}, 1)
    wait_queued(shard, "p", 1)
    for _ <- 1..3, do: {:error, :batcher_overloaded} = Batcher.write(shard, "p", {:no}, 1)
    Batcher.write_batch(shard, [:improper | :list])
    refute_received {:event, :refused, _, _, _}
    look(watcher(owner))
    assert {%{count: 1}, %{cause: :invalid}} = next(:refused)
    assert {%{count: 3}, %{cause: :items}} = next(:refused)
    look(watcher(owner))
    refute_event(:refused)
    release(first)
    await_reply(queued)
  end

  # A shard whose only place is taken, that has refused 3 calls since its watcher has looked, and looks no more.
  defp refusing(shard, start) do
    owner = start.(shard, max_queue_items: 1)
    watcher = watcher(owner)
    look(watcher)
    :erlang.suspend_process(watcher)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    for _ <- 1..3, do: {:error, :batcher_overloaded} = Batcher.write(shard, "p", {:no}, 1)
    {owner, watcher, first}
  end

  test "13.7 refused: what a stop finds is told before it ends, and once", %{shard: shard} do
    {owner, watcher, first} = refusing(shard, &start_alone/2)
    GenServer.cast(owner, :stop)
    :sys.get_state(owner)
    {:error, :shutting_down} = Batcher.write(shard, "p", {:no}, 1)
    release(first)
    await_death(owner)
    assert {%{count: 3}, %{cause: :items}} = next(:refused)
    assert {%{count: 1}, %{cause: :shutting_down}} = next(:refused)
    next(:drained)
    :erlang.resume_process(watcher)
    await_death(watcher)
    refute_received {:event, :refused, _, _, _}
  end

  @tag :capture_log
  test "13.7 refused: what nobody looked at before an owner was followed by another", %{
    shard: shard
  } do
    {owner, watcher, first} = refusing(shard, &start_batcher/2)
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    next(:adopted)
    look(watcher(Process.whereis(Batcher.name(shard))))
    assert {%{count: 3}, %{cause: :items}} = next(:refused)
    :erlang.resume_process(watcher)
    await_death(watcher)
    refute_received {:event, :refused, _, _, _}
    release(first)
  end

  @tag :capture_log
  test "13.7 refused: what nobody looked at before nobody took over", %{shard: shard} do
    start = &start_alone(&1, [adoption_timeout: 0] ++ &2)
    {owner, watcher, first} = refusing(shard, start)
    Process.exit(owner, :kill)
    wait_until(fn -> Batcher.snapshot(shard) == nil end)
    :erlang.resume_process(watcher)
    await_death(watcher)
    assert_received {:event, :refused, _, %{count: 3}, %{cause: :items}}
    refute_received {:event, :refused, _, _, _}
    release(first)
  end

  test "13.7 refused: what was before a reset is told, too", %{shard: shard} do
    {_owner, watcher, first} = refusing(shard, &start_alone/2)
    Batcher.reset_stats(shard)
    for _ <- 1..4, do: {:error, :batcher_overloaded} = Batcher.write(shard, "p", {:no}, 1)
    :erlang.resume_process(watcher)
    look(watcher)
    assert {%{count: 7}, %{cause: :items}} = next(:refused)
    assert Batcher.stats(shard).refused_total.items == 4
    release(first)
  end

  test "13.7 stuck", %{shard: shard} do
    owner = start_batcher(shard, stuck_ms: 0)
    backend(shard, :block)
    commit = occupy(shard, :batch)
    wait_until(fn -> Batcher.stats(shard).oldest_commit_age_us > 0 end)
    look(watcher(owner))
    {measurements, metadata} = next(:stuck)
    assert measurements.in_flight_items == 1
    assert measurements.age_us > 0
    assert {metadata.lane, metadata.pid} == {:batch, commit.pid}
    look(watcher(owner))
    refute_event(:stuck)
    release(commit)
  end

  @tag :capture_log
  test "13.7 committer_down, adopted, drained", %{shard: shard} do
    owner = start_alone(shard, drain_timeout: 0)
    backend(shard, [:block, :block])
    commit = occupy(shard, "p")
    Process.exit(commit.pid, :kill)
    await_reply(commit.tag)
    assert {%{count: 1}, %{reason: ":killed"}} = next(:committer_down)
    commit = occupy(shard, "p")
    queued = raw(shard, "p", {:b}, long_ms())
    wait_queued(shard, "p", 1)
    Process.exit(owner, :kill)
    await_death(owner)
    start_alone(shard, drain_timeout: 0)
    {measurements, _} = next(:adopted)
    assert {measurements.queued_items, measurements.in_flight_items} == {1, 1}
    Batcher.stop(shard)
    assert await_reply(queued) == {:error, :shutting_down}
    assert {%{queued_items: 1}, %{result: :too_late}} = next(:drained)
    release(commit)
  end

  test "13.7 drained, with nothing left", %{shard: shard} do
    start_alone(shard)
    Batcher.stop(shard)
    assert {%{queued_items: 0, in_flight_items: 0}, %{result: :ok}} = next(:drained)
  end

  test "13.6 direct commits emit an event if they are asked to", %{shard: shard} do
    start_batcher(shard,
      direct_events: true,
      hot_batch_window_ms: 0,
      generic_batch_window_ms: :direct
    )

    for lane <- [:batch, :put_batch, :delete_batch] do
      write(shard, lane, item(lane))
      assert {_, %{lane: ^lane, result: :ok}} = next(:direct)
    end

    backend(shard, {:raise, :badarg})
    assert_raise ArgumentError, fn -> Batcher.write_batch(shard, [{:a}]) end
    assert {_, %{lane: :batch, result: :exit}} = next(:direct)
    backend(shard, :reply)
    :ok = Batcher.configure(shard, direct_events: false)
    write(shard, :batch, item(:batch))
    refute_event(:direct)
  end

  test "13.6 direct commits: how long they took, and failures as they were", %{shard: shard} do
    start_batcher(shard, direct_events: true, hot_batch_window_ms: 0)
    called = System.monotonic_time(:microsecond)

    backend(shard, [
      {:run,
       fn function, list -> spin_us(3_000) && {:ok, TestBackend.replies(function, list)} end},
      {:run, fn _function, _list -> raise "broken" end}
    ])

    Batcher.write_put_batch(shard, [{"k", "v", 0}])
    passed = System.monotonic_time(:microsecond) - called
    assert {%{duration_us: duration_us}, %{lane: :put_batch}} = next(:direct)
    assert duration_us in 3_000..passed

    stack =
      try do
        Batcher.write_put_batch(shard, [{"k", "v", 0}])
      rescue
        RuntimeError -> __STACKTRACE__
      end

    # Where the backend has raised it.
    assert [{__MODULE__, _function, _arity, _where} | _] = stack
    assert {_, %{result: :exit}} = next(:direct)
  end

  test "13.6 direct commits without a batcher, by the environment", %{shard: shard} do
    Batcher.write(shard, "p", {:a}, 1)
    refute_event(:direct)
    Application.put_env(:ferricstore_batcher, :direct_events, true)
    on_exit(fn -> Application.delete_env(:ferricstore_batcher, :direct_events) end)
    Batcher.write(shard, "p", {:a}, 1)
    assert {_, %{lane: :namespace, result: :other}} = next(:direct)
  end

  test "13.8 the default logger: a line for each event, without payload", %{shard: shard} do
    start_batcher(shard)
    assert Telemetry.attach_default_logger(level: :warning) == :ok
    on_exit(fn -> Telemetry.detach_default_logger() end)
    assert Telemetry.attach_default_logger() == {:error, :already_exists}

    backend(shard, {:return, {:error, {:no, "a secret"}}})

    log =
      capture_log(fn ->
        Batcher.write(shard, "a secret", {:put, "a secret", "a secret", 0}, 1)
        Batcher.flush(shard)
      end)

    assert log =~ "batcher #{shard}: start batch_size=1"
    assert log =~ "slot_flush"
    assert log =~ "result={:error, {:no, _}}"
    refute log =~ "secret"
    assert Telemetry.detach_default_logger() == :ok
    assert Telemetry.detach_default_logger() == {:error, :not_found}
    refute capture_log(fn -> Batcher.write(shard, "p", {:a}, 1) end) =~ "slot_flush"
  end

  test "13.8 the default logger: a level alone, in a list, or none", %{shard: shard} do
    listen(shard)
    start_batcher(shard)
    on_exit(fn -> Telemetry.detach_default_logger() end)
    levels = [:emergency, :alert, :critical, :error, :warning, :notice, :info, :debug]

    for {attach, level} <-
          [{&Telemetry.attach_default_logger/0, :debug}] ++
            for(level <- levels, do: {fn -> Telemetry.attach_default_logger(level) end, level}) ++
            for(
              level <- levels,
              do: {fn -> Telemetry.attach_default_logger(level: level) end, level}
            ) do
      assert attach.() == :ok
      assert Telemetry.attach_default_logger(:info) == {:error, :already_exists}
      Batcher.write(shard, "p", {:a}, 1)
      Batcher.flush(shard)

      for what <- ["start", "slot_flush", "quorum_submit"] do
        assert_receive {:log, ^level, %{shard: ^shard}, text}
        assert String.starts_with?(text, "batcher #{shard}: #{what} ")
      end

      assert Telemetry.detach_default_logger() == :ok
    end
  end

  test "13.8 the default logger: what is no level" do
    for wrong <- [
          :loud,
          nil,
          "info",
          :all,
          [level: :loud],
          [levle: :info],
          [:info],
          %{level: :info},
          [level: :info, level: :debug]
        ] do
      error = assert_raise ArgumentError, fn -> Telemetry.attach_default_logger(wrong) end
      assert error.message =~ "takes a level, or `level: level`"
      assert error.message =~ "got: #{inspect(wrong)}"
      assert Telemetry.detach_default_logger() == {:error, :not_found}
    end
  end
end
