# Windows: section 5 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section05WindowsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @generic_window :waraft_generic_batch_window_ms

  test "5.1 the first write opens the window, a later shorter one joins", %{shard: shard} do
    start_batcher(shard)
    first = queue(shard, "p", {:a}, 60_000)
    later = queue(shard, "p", {:b}, 1)
    refute_commit(shard)
    assert %{count: 2, window_ms: 60_000} = queued_slot(shard, "p")
    assert Batcher.flush(shard) == :ok
    assert next_commit(shard).list == [{:a}, {:b}]
    assert {await(first), await(later)} == {{:done, {:a}}, {:done, {:b}}}
  end

  test "5.1 the first write opens the window, a later longer one joins", %{shard: shard} do
    start_batcher(shard)
    first = queue(shard, "p", {:a}, 300)
    later = raw(shard, "p", {:b}, 60_000)
    assert {await(first), await_reply(later)} == {{:done, {:a}}, {:done, {:b}}}
    assert next_commit(shard).list == [{:a}, {:b}]
  end

  test "5.1 each slot has the window of its own first write", %{shard: shard} do
    start_batcher(shard)
    attach_telemetry(shard)

    for window_ms <- [3, 1, 2] do
      Batcher.write(shard, "p", {:a}, window_ms)
      assert {_, %{window_ms: ^window_ms}} = next_event(:slot_flush)
    end
  end

  test "5.1 the hot lanes", %{shard: shard} do
    put_env(:waraft_hot_batch_window_ms, 60_000)
    put_env(@generic_window, 60_000)
    start_batcher(shard)

    for lane <- lanes() -- ["p"] do
      first = queue(shard, lane, item(lane, 1))
      later = raw(shard, lane, item(lane, 2), 1)
      wait_queued(shard, lane, 2)
      refute_commit(shard)
      assert queued_slot(shard, lane).window_ms == 60_000
      assert Batcher.flush(shard) == :ok
      assert next_commit(shard).list == item(lane, 1) ++ item(lane, 2)
      assert {:ok, [_]} = await(first)
      assert {:ok, [_]} = await_reply(later)
    end
  end

  test "5.2 when the window ends and the lane is idle, the slot is committed", %{shard: shard} do
    put_env(@generic_window, 1)
    start_batcher(shard)
    attach_telemetry(shard)

    for lane <- lanes() do
      assert write(shard, lane, item(lane), 1)
      assert next_commit(shard).list == listed(lane, item(lane))
      assert next_reason() == :window
    end
  end

  test "5.2 windows end in their own order", %{shard: shard} do
    start_batcher(shard)
    windows = [150, 50, 250]
    tags = for ms <- windows, do: raw(shard, "window #{ms}", {:set, ms}, ms)
    commits = next_commits(shard, 3)
    assert for(%{list: [{:set, ms}]} <- commits, do: ms) == Enum.sort(windows)
    Enum.each(tags, &await_reply/1)
  end

  test "5.2 a window that ends while the lane is busy waits for the commit", %{shard: shard} do
    start_batcher(shard)
    attach_telemetry(shard)
    backend(shard, :block)
    first = occupy(shard, "p")
    task = queue(shard, "p", {:b}, 1)
    refute_commit(shard)
    assert queued(shard, "p") == 1
    release(first)
    release(next_commit(shard))
    assert await(task) == {:done, {:b}}
    assert [next_reason(), next_reason()] == [:immediate, :commit]
  end

  for lane <- ["p", :batch, :put_batch, :delete_batch] do
    test "5.3 window 0, lane #{inspect(lane)}: at once, with what an open slot holds", context do
      %{shard: shard} = context
      lane = unquote(lane)
      put_env(:waraft_hot_batch_window_ms, 60_000)
      put_env(@generic_window, 60_000)
      start_batcher(shard)
      attach_telemetry(shard)

      tag = raw(shard, lane, item(lane), 0)
      assert next_commit(shard).list == listed(lane, item(lane))
      assert next_reason() == :immediate
      await_reply(tag)

      waiting = queue(shard, lane, item(lane, 1))
      refute_commit(shard)
      tag = raw(shard, lane, item(lane, 2), 0)
      assert next_commit(shard).list == listed(lane, item(lane, 1)) ++ listed(lane, item(lane, 2))
      assert await(waiting)
      assert await_reply(tag)
    end
  end

  test "5.3 window 0 of the environment: write_batch to an idle lane commits at once", context do
    %{shard: shard} = context
    start_batcher(shard)
    attach_telemetry(shard)
    assert {:ok, [_]} = Batcher.write_batch(shard, [{:a}])
    assert next_reason() == :immediate

    put_env(@generic_window, 60_000)
    waiting = queue(shard, :batch, [{:b}])
    put_env(@generic_window, 0)
    assert Batcher.write_batch(shard, [{:c}]) == {:ok, [{:done, {:c}}]}
    assert await(waiting) == {:ok, [{:done, {:b}}]}
    assert for(commit <- next_commits(shard, 2), do: commit.list) == [[{:a}], [{:b}, {:c}]]
  end

  test "5.3 window 0 behind a commit waits for its turn", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, :batch)
    task = queue(shard, :batch, [{:b}])
    refute_commit(shard)
    release(first)
    assert await(task) == {:ok, [{:done, {:b}}]}
  end

  test "5.4 who has nothing to do with a commit opens a window, however short before it has ended",
       c do
    start_batcher(c.shard)
    attach_telemetry(c.shard)

    for n <- 1..40 do
      assert {:done, _} = Batcher.write(c.shard, "p", {:put, "k#{n}", "v", 0}, 1)
      deletes = for key <- ["a", "b"], do: call_async(fn -> delete(c.shard, key) end)
      assert for(task <- deletes, do: await(task)) == [{:done, "a"}, {:done, "b"}]
    end

    # Always with their window, and together, unless one of the two processes was kept from its core for so long.
    commits = Enum.take_while(reported(c.shard), &(&1 != nil))
    assert for(_ <- commits, uniq: true, do: next_reason()) == [:window]
    assert Enum.count(commits, &match?(%{list: [_, _]}, &1)) > 30
  end

  defp delete(shard, key), do: Batcher.write(shard, "p", {:delete, key}, 25)

  for lane <- ["p", :batch, :put_batch, :delete_batch] do
    test "5.4 lane #{inspect(lane)}: what is queued when a commit ends leaves at once", context do
      %{shard: shard} = context
      lane = unquote(lane)
      put_env(:waraft_hot_batch_window_ms, 60_000)
      put_env(@generic_window, 60_000)
      start_batcher(shard)
      attach_telemetry(shard)
      backend(shard, :block)
      first = occupy(shard, lane)
      tasks = for n <- 1..3, do: queue(shard, lane, item(lane, n))
      refute_commit(shard)

      release(first)
      second = next_commit(shard)
      assert second.list == Enum.flat_map(1..3, &listed(lane, item(lane, &1)))
      release(second)
      Enum.each(tasks, &await/1)
      assert [next_reason(), next_reason()] == [:immediate, :commit]
    end
  end

  test "5.4 replies are sent before the next batch is taken", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: 60_000)
    backend(shard, [:block, :block, :reply])
    commit = occupy(shard, :put_batch)
    first = commit.tag
    second = cast(shard, :put_batch, item(:put_batch, 1))
    release(commit)

    # The mailbox tells the order.
    assert {^first, {:ok, [_]}} = next_message()
    assert {:commit, commit} = next_message()
    release(commit)
    assert {^second, {:ok, [_]}} = next_message()
  end

  test "5.4 callers that were answered write again before the next batch is taken", context do
    %{shard: shard} = context
    one_scheduler()
    start_batcher(shard)
    attach_telemetry(shard)
    rounds = 100
    for _ <- 1..rounds, do: Batcher.write(shard, "p", {:a}, 20)

    # A write finds its lane busy with the one before it, or it would sit out its window. Now and then
    # the VM takes the core from the caller in between.
    reasons = for _ <- 1..rounds, do: next_reason()
    assert Enum.count(reasons, &(&1 == :commit)) > 0.5 * rounds
  end

  test "5.4 so does one that is answered through an alias", %{shard: shard} do
    one_scheduler()
    start_batcher(shard, hot_batch_window_ms: 20)
    attach_telemetry(shard)
    rounds = 100

    for _ <- 1..rounds do
      alias = :erlang.alias([:reply])
      tag = [:alias | alias]
      assert Batcher.write_put_batch_async(shard, [{"k", "v", 0}], {self(), tag}) == :ok
      assert_receive {^tag, {:ok, _replies}}, 20_000
    end

    reasons = for _ <- 1..rounds, do: next_reason()
    assert Enum.count(reasons, &(&1 == :commit)) > 0.5 * rounds
  end

  test "5.4 all callers that were answered at once write into the next batch", %{shard: shard} do
    one_scheduler()
    start_batcher(shard)
    attach_telemetry(shard)
    backend(shard, [:block, :reply])
    commit = occupy(shard, "p")

    tasks =
      for caller <- 1..16 do
        task = call_async(fn -> for n <- 1..10, do: Batcher.write(shard, "p", {n}, 1_000) end)
        wait_queued(shard, "p", caller)
        task
      end

    release(commit)
    for task <- tasks, do: assert(length(await(task)) == 10)
    assert next_reason() == :immediate
    # All sixteen together, ten times; the same exception holds.
    commits = Enum.take_while(reported(shard), &(&1 != nil))
    assert commits |> Enum.map(&length(&1.list)) |> Enum.sum() == 160
    assert length(commits) < 20
    assert for(_ <- commits, do: next_reason()) |> Enum.count(&(&1 == :commit)) > 8
  end

  test "5.4 pacing: :window lets a slot sit out its own window", %{shard: shard} do
    put_env(:waraft_hot_batch_window_ms, 60_000)
    put_env(@generic_window, 60_000)
    start_batcher(shard, pacing: :window)

    for lane <- lanes() do
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      task = queue(shard, lane, item(lane, 1))
      release(first)
      await_reply(first.tag)
      refute_commit(shard)
      assert queued(shard, lane) == 1
      Batcher.flush(shard)
      assert await(task)
      next_commit(shard)
    end
  end

  test "5.4 pacing: :window commits when the window ends", %{shard: shard} do
    start_batcher(shard, pacing: :window)
    attach_telemetry(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    task = queue(shard, "p", {:b}, 200)
    release(first)
    assert await(task) == {:done, {:b}}
    assert [next_reason(), next_reason()] == [:immediate, :window]
  end

  test "5.4 pacing: :window, and the window ended behind the commit: at once", %{shard: shard} do
    start_batcher(shard, pacing: :window)
    attach_telemetry(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    task = queue(shard, "p", {:b}, 1)
    refute_commit(shard)
    release(first)
    assert await(task) == {:done, {:b}}
    assert [next_reason(), next_reason()] == [:immediate, :window]
  end

  test "5.4 pacing: :window: a full slot need not wait", %{shard: shard} do
    start_batcher(shard, pacing: :window, namespace_batch_max: 2)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    tasks = for n <- 1..2, do: queue(shard, "p", {n})
    release(first)
    for task <- tasks, do: assert({:done, _} = await(task))
  end

  # The only test that looks at the time. 0.5 ms is for an idle machine; how late this one is shows in
  # the timers of the VM, which are never more than some ms late on an idle one.
  test "5.5 a window ends on time", %{shard: shard} do
    start_batcher(shard)
    backend(shard, {:run, fn _, [_] -> {:ok, [System.monotonic_time(:microsecond)]} end})

    {windows, timers} =
      Enum.unzip(
        for n <- 1..41 do
          # A lane that is idle for certain.
          window = late_us(fn ms -> Batcher.write(shard, "p#{n}", {:a}, ms) end)
          {window, late_us(&timer/1)}
        end
      )

    assert Enum.min(windows) >= 0
    assert median(windows) < 5_000 + 3 * median(timers)
  end

  defp late_us(wait) do
    window_ms = 10
    called = System.monotonic_time(:microsecond)
    wait.(window_ms) - called - window_ms * 1_000
  end

  defp timer(ms) do
    receive do
    after
      ms -> System.monotonic_time(:microsecond)
    end
  end

  defp median(numbers), do: Enum.at(Enum.sort(numbers), div(length(numbers), 2))

  defp reported(shard) do
    Stream.repeatedly(fn ->
      receive do
        {:commit, %{shard: ^shard} = commit} -> commit
      after
        0 -> nil
      end
    end)
  end

  # A process that yields is then behind all that can run, not only behind those of its own core.
  defp one_scheduler do
    online = :erlang.system_flag(:schedulers_online, 1)
    on_exit(fn -> :erlang.system_flag(:schedulers_online, online) end)
  end
end
