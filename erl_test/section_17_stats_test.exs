# What a shard counts and holds: section 17 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section17StatsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Bitwise
  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  import Ferricstore.Raft.WARaftBackend.Batcher.ApplyWorkDouble, only: [context: 1, load: 0]

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @overloaded {:error, :batcher_overloaded}

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

  test "17.2 stats: nil without a batcher, otherwise all metrics and the shard", %{shard: shard} do
    assert Batcher.stats(shard) == nil
    assert Batcher.top_lanes(shard, 3) == nil
    refute is_map_key(Batcher.stats(), shard)
    start_batcher(shard)
    names = for {name, _, _, _, _} <- Native.metrics(), do: name
    stats = Batcher.stats(shard)
    assert Enum.sort([:shard, :oldest_commit_pid | names]) == Enum.sort(Map.keys(stats))
    assert stats.shard == shard and Batcher.stats()[shard].shard == shard

    for {name, kind, _unit, labels, _help} <- Native.metrics(), kind != :distribution do
      case labels do
        [] -> assert is_integer(stats[name])
        [_] -> assert Enum.all?(stats[name], fn {key, n} -> is_atom(key) and is_integer(n) end)
        _ -> assert Enum.all?(Map.keys(stats[name]), &(tuple_size(&1) == length(labels)))
      end
    end
  end

  test "17.3 writes, items and bytes by kind of lane", %{shard: shard} do
    start_batcher(shard)
    for lane <- lanes(), n <- 1..2, do: await_reply(raw(shard, lane, item(lane, n), 0))
    await_reply(raw(shard, :put_batch, puts(5), 0))
    await_reply(raw(shard, :put_batch, [], 0))
    stats = Batcher.stats(shard)
    assert stats.writes_total == %{namespace: 2, batch: 2, put_batch: 4, delete_batch: 2}
    assert stats.items_total == %{namespace: 2, batch: 2, put_batch: 8, delete_batch: 2}
    assert Enum.all?(Map.values(stats.bytes_total), &(&1 > 0))
  end

  test "17.3 refused: by the bounds in items and bytes", %{shard: shard} do
    backend(shard, :block)
    start_batcher(shard, max_queue_items: 2, max_queue_bytes: 10_000)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    commit = next_commit(shard)
    assert Batcher.write_put_batch(shard, puts(2)) == @overloaded
    assert Batcher.write(shard, "p", {:a, :binary.copy("a", 10_000)}, 1) == @overloaded
    assert refused(shard) == %{items: 1, bytes: 1}
    assert Batcher.stats(shard).writes_total.namespace == 1
    release(commit)
    await(task)
  end

  test "17.3 refused: by the bound in bytes on all shards together", %{shard: shard} do
    put_total(10_000)
    backend(shard, :block)
    start_batcher(shard)
    assert Native.numbers(shard).max_total_queue_bytes == 10_000
    task = call_async(fn -> Batcher.write(shard, "p", {:a, :binary.copy("a", 6_000)}, 1) end)
    commit = next_commit(shard)
    other = new_shard()
    start_batcher(other)
    large = {:a, :binary.copy("a", 4_000)}
    assert Batcher.write(other, "p", large, 1) == @overloaded
    assert refused(other) == %{total_bytes: 1}
    assert Batcher.write(other, "p", {:a}, 1) == {:done, {:a}}
    release(commit)
    await(task)
    wait_until(fn -> Native.numbers(shard).in_flight_bytes == 0 end)
    assert Batcher.write(other, "p", large, 1) == {:done, large}
  end

  test "6.5 a bound on all shards together that is none", %{shard: shard} do
    for value <- [0, -1, 1.5, "10", :none] do
      put_total(value)
      error = {:invalid_option, :max_total_queue_bytes, value}
      assert Batcher.start_link(shard) == {:error, error}
    end

    for value <- [nil, :infinity, 1 <<< 100] do
      put_total(value)
      start_batcher(shard)
      assert {:done, _} = Batcher.write(shard, "p", {:a}, 1)
      stop_supervised!({Batcher, shard})
    end
  end

  test "17.3 refused: a full slot", %{shard: shard} do
    backend(shard, :block)
    start_batcher(shard, overflow: :refuse, namespace_batch_max: 1)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    commit = next_commit(shard)
    behind = queue(shard, "p", {:b})
    assert Batcher.write(shard, "p", {:c}, 1) == @overloaded
    assert refused(shard) == %{overflow: 1}
    backend(shard, :reply)
    release(commit)
    Enum.each([task, behind], &await/1)
  end

  test "17.3 refused: by budgets, and by the host's measuring", %{shard: shard} do
    load()
    start_batcher(shard, apply_context: context(batch_command_apply_budget: 3))
    assert {:error, _} = Batcher.write(shard, "p", {:work, 4, 0, 0, 1}, 1)
    assert refused(shard) == %{budget: 1}
    assert {:error, _} = Batcher.write(shard, "p", {:work, 1, 0, 0, 2}, 1)
    assert refused(shard) == %{budget: 2}
  end

  test "17.3 refused: what is no list of writes, and no request", %{shard: shard} do
    start_batcher(shard)

    for write <- [
          &Batcher.write_batch/2,
          &Batcher.write_put_batch/2,
          &Batcher.write_delete_batch/2
        ],
        do: assert({:error, _} = write.(shard, [1 | 2]))

    tag = cast(shard, :put_batch, [1 | 2])
    assert await_reply(tag) == {:error, :invalid_batch_command_list}
    assert {:error, {:invalid_request, _}} = await_reply(raw(shard, "p", :none, 1))
    assert refused(shard) == %{invalid: 5}
  end

  test "17.3 refused: while the batcher is being stopped", %{shard: shard} do
    start_batcher(shard)
    {task, commit} = stopping(shard)
    assert Batcher.write(shard, "p", {:c}, 1) == {:error, :shutting_down}
    assert refused(shard) == %{shutting_down: 1}
    release(commit)
    await(task)
  end

  test "17.3 refused: a lost cast", %{shard: shard} do
    owner = start_batcher(shard)
    put_env(:waraft_backend_batcher_cast_hook, {:defer, self()})
    tag = cast(shard, :put_batch, puts(1))
    assert_receive {:waraft_backend_batcher_cast_deferred, ref, helper}
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    send(helper, {ref, :continue})
    assert await_reply(tag) == {:error, :shutting_down}
    assert refused(shard) == %{shutting_down: 1}
  end

  for {result, behaviour} <- [
        ok: :reply,
        error: {:return, {:error, :no_leader}},
        error: {:return, :whatever},
        mismatch: {:return, {:ok, []}},
        exit: {:exit, :boom},
        exit: {:raise, :badarg},
        exit: {:throw, 1}
      ] do
    test "17.3 commits by result: #{inspect(behaviour)} is #{result}", %{shard: shard} do
      backend(shard, unquote(Macro.escape(behaviour)))
      start_batcher(shard)
      Batcher.write(shard, "p", {:a}, 1)
      wait_until(fn -> commits(shard) == %{{:window, unquote(result)} => 1} end)
    end

    test "17.3 commits alone by result: #{inspect(behaviour)} is #{result}", %{shard: shard} do
      backend(shard, unquote(Macro.escape(behaviour)))
      start_batcher(shard, pacing: :auto)
      Batcher.write(shard, "p", {:a}, 1)
      assert commits(shard) == %{{:alone, unquote(result)} => 1}
      assert Batcher.stats(shard).alone_commits_total == 1
    end
  end

  test "17.3 commits by reason", %{shard: shard} do
    backend(shard, [:block, :reply])
    start_batcher(shard, namespace_batch_max: 2)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    commit = next_commit(shard)
    behind = queue(shard, "p", {:b})
    release(commit)
    Enum.each([task, behind], &await/1)
    await_reply(raw(shard, "q", {:a}, 0))

    full = [
      queue(shard, "r", {:a}),
      call_async(fn -> Batcher.write(shard, "r", {:b}, 60_000) end)
    ]

    Enum.each(full, &await/1)
    flushed = queue(shard, "s", {:a})
    assert Batcher.flush(shard) == :ok
    await(flushed)
    expected = for reason <- [:window, :commit, :immediate, :size, :flush], do: {{reason, :ok}, 1}
    wait_until(fn -> commits(shard) == Map.new(expected) end)
  end

  test "17.3 with commit_scope: :shard one commit of several lanes counts once", %{shard: shard} do
    backend(shard, [:block, :reply])
    start_batcher(shard, commit_scope: :shard)
    task = call_async(fn -> Batcher.write(shard, "a", {:a}, 1) end)
    commit = next_commit(shard)
    behind = for prefix <- ["b", "c", "d"], do: queue(shard, prefix, {:a})
    release(commit)
    Enum.each([task | behind], &await/1)
    wait_until(fn -> commits(shard) == %{{:window, :ok} => 1, {:commit, :ok} => 1} end)
    assert Batcher.stats(shard).writes_total.namespace == 4
  end

  test "17.3 direct commits, once a batcher has run", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: 0)
    assert {:ok, _} = Batcher.write_put_batch(shard, puts(1))
    assert {:direct, {:ok, _}} = cast_from(shard, :delete_batch, ["k"], {self(), make_ref()}, nil)
    put_env(:waraft_generic_batch_during_flush, false)
    assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
    assert {:direct, _} = cast_from(shard, :single, [{:a}], {self(), make_ref()}, nil)
    assert Batcher.stats(shard).direct_commits_total == 4
    stop_supervised!({Batcher, shard})
    assert {:done, {:a}} = Batcher.write(shard, "p", {:a}, 1)
    start_batcher(shard)
    stats = Batcher.stats(shard)
    assert stats.direct_commits_total == 5
    assert stats.writes_total == %{namespace: 0, batch: 0, put_batch: 0, delete_batch: 0}
  end

  test "17.3 calls that waited too long, and the replies that came too late", %{shard: shard} do
    backend(shard, :block)
    start_batcher(shard)
    put_call_timeout(shard, 0)
    assert {:timeout, _} = catch_exit(Batcher.write(shard, "p", {:a}, 1))
    commit = next_commit(shard)
    stats = Batcher.stats(shard)
    assert {stats.timeouts_total, stats.late_replies_total} == {1, 0}
    release(commit)
    wait_until(fn -> Batcher.stats(shard).late_replies_total == 1 end)
    assert Batcher.stats(shard).timeouts_total == 1
  end

  test "17.3 writes that were abandoned", %{shard: shard} do
    backend(shard, [:block, :reply])
    start_alone(shard, drain_timeout: 1)
    hung = occupy(shard, "p")
    behind = for n <- 1..3, do: queue(shard, "p", {:set, n})
    assert Batcher.stop(shard) == :ok
    assert Enum.map(behind, &await/1) == for(_ <- 1..3, do: {:error, :shutting_down})
    release(hung)
    await_reply(hung.tag)
    start_alone(shard)
    wait_until(fn -> Batcher.stats(shard).abandoned_writes_total == 3 end)
  end

  test "17.3 adoptions: owners that take over, not those that start anew", %{shard: shard} do
    owner = start_batcher(shard)
    Batcher.stop(shard)
    owner = await_successor(shard, owner)
    wait_until(fn -> Batcher.stats(shard) != nil end)
    assert Batcher.stats(shard).adoptions_total == 0
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    wait_until(fn -> Batcher.stats(shard).adoptions_total == 1 end)
  end

  test "17.3 deaths of committers: idle or with a batch, each once", %{shard: shard} do
    backend(shard, [:block, :reply])
    owner = start_batcher(shard)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    commit = next_commit(shard)
    Process.exit(commit.pid, :kill)
    assert {:error, {:backend_exit, :killed}} = await(task)
    wait_until(fn -> commits(shard) == %{{:window, :exit} => 1} end)
    assert Batcher.stats(shard).committer_deaths_total == 1
    for pid <- committers(owner), do: Process.exit(pid, :kill)
    wait_until(fn -> Batcher.stats(shard).committers == 0 end)
    deaths = Batcher.stats(shard).committer_deaths_total
    assert Batcher.write(shard, "p", {:b}, 1) == {:done, {:b}}
    assert Batcher.stats(shard).committer_deaths_total == deaths and deaths > 1
  end

  test "17.3 a caller that dies with its write alone: an exit", %{shard: shard} do
    backend(shard, [:block, :reply])
    start_batcher(shard, pacing: :auto)
    pid = spawn(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    assert %{pid: ^pid} = next_commit(shard)
    behind = queue(shard, "p", {:b})
    Process.exit(pid, :kill)
    assert await(behind) == {:done, {:b}}
    wait_until(fn -> commits(shard)[{:alone, :exit}] == 1 end)
  end

  @tag capture_log: true
  test "17.3 failures of the library", %{shard: shard} do
    owner = start_batcher(shard)
    Native.panic_thread(shard)
    await_successor(shard, owner)
    wait_until(fn -> Batcher.stats(shard) != nil end)
    assert Batcher.stats(shard).panics_total == 1
  end

  test "17.2 reset_stats zeroes counters, of one shard or of all, and no gauges", %{shard: shard} do
    start_batcher(shard, pacing: :auto, max_queue_items: 7)
    other = new_shard()
    start_batcher(other)
    for shard <- [shard, other], do: Batcher.write(shard, "p", {:a}, 1)
    assert Batcher.reset_stats(shard) == :ok
    stats = Batcher.stats(shard)
    zero = for {name, :counter, _, _, _} <- Native.metrics(), do: {name, stats[name]}

    for {name, value} <- zero,
        number <- if(is_map(value), do: Map.values(value), else: [value]),
        do: assert({name, number} == {name, 0})

    assert stats.max_queue_items == 7
    assert Batcher.top_lanes(shard, 9) == []
    assert Batcher.stats(other).writes_total.namespace == 1
    assert Batcher.reset_stats() == :ok
    assert Batcher.stats(other).writes_total.namespace == 0
    assert Batcher.reset_stats(new_shard()) == :ok
  end

  # What was refused, without causes for which nothing was.
  defp refused(shard), do: counted(Batcher.stats(shard).refused_total)
  defp commits(shard), do: counted(Batcher.stats(shard).commits_total)
  defp counted(map), do: map |> Enum.reject(&match?({_, 0}, &1)) |> Map.new()

  defp puts(count), do: for(n <- 1..count, do: {"k#{n}", "v", 0})
end
