# Lanes: section 4 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section04LanesTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @hot [:batch, :put_batch, :delete_batch]

  test "4.1 each prefix has a lane of its own", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    a = occupy(shard, "a", 1)
    b = occupy(shard, "b", 2)
    none = occupy(shard, "", 3)

    for {commit, n} <- [{a, 1}, {b, 2}, {none, 3}] do
      assert commit.list == [{:set, n}]
      release(commit)
      assert await_reply(commit.tag) == {:done, {:set, n}}
    end
  end

  test "4.1 the three hot lanes are apart from each other and from the namespaces", context do
    %{shard: shard} = context
    start_batcher(shard)
    backend(shard, :block)

    commits =
      for lane <- lanes() do
        commit = occupy(shard, lane)
        assert {commit.function, commit.list} == {function(lane), listed(lane, item(lane))}
        commit
      end

    keys = Map.keys(Batcher.snapshot(shard).in_flight)
    assert Enum.sort(keys) == Enum.sort([{:prefix, "p"} | @hot])
    Enum.each(commits, &release/1)
    for commit <- commits, do: await_reply(commit.tag)
  end

  test "4.1 a prefix that is named like a hot lane is a lane of its own", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)

    commits =
      for hot <- @hot, lane <- [hot, Atom.to_string(hot)] do
        occupy(shard, lane)
      end

    assert map_size(Batcher.snapshot(shard).in_flight) == 6
    Enum.each(commits, &release/1)
  end

  test "4.1 a prefix is any binary, whatever its bytes and its length", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    prefixes = [<<0>>, <<0, 0>>, <<255, 0>>, String.duplicate("long", 1_000), "ü"]
    commits = for prefix <- prefixes, do: occupy(shard, prefix)
    in_flight = Batcher.snapshot(shard).in_flight

    assert Enum.sort(Map.keys(in_flight)) ==
             Enum.sort(for prefix <- prefixes, do: {:prefix, prefix})

    Enum.each(commits, &release/1)
  end

  test "4.1 a prefix has a lane in each shard", %{shard: shard} do
    other = new_shard()
    commits = for shard <- [shard, other], do: start_batcher(shard) && blocked(shard)
    assert Enum.map(commits, & &1.shard) == [shard, other]
    Enum.each(commits, &release/1)
  end

  test "4.1 thousands of prefixes: each gets its reply", %{shard: shard} do
    start_batcher(shard)

    for round <- 1..2 do
      tags = for n <- 1..3_000, do: {raw(shard, "prefix #{n}", {round, n}, 1), n}
      for {tag, n} <- tags, do: assert(await_reply(tag) == {:done, {round, n}})
    end
  end

  for lane <- ["p", :batch, :put_batch, :delete_batch] do
    test "4.2 at most one commit in flight in lane #{inspect(lane)}", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard)
      backend(shard, :block)
      first = occupy(shard, lane)
      task = queue(shard, lane, item(lane, 1), 1)
      refute_commit(shard)
      assert map_size(Batcher.snapshot(shard).in_flight) == 1

      release(first)
      second = next_commit(shard)
      assert second.list == listed(lane, item(lane, 1))
      release(second)
      await(task)
    end

    test "4.2 at most one commit in flight in lane #{inspect(lane)}, owner killed", context do
      %{shard: shard} = context
      lane = unquote(lane)
      owner = start_batcher(shard)
      backend(shard, :block)
      first = occupy(shard, lane)
      before = queue(shard, lane, item(lane, 1), 1)

      Process.exit(owner, :kill)
      await_successor(shard, owner)
      later = queue(shard, lane, item(lane, 2), 1)
      refute_commit(shard)

      release(first)
      assert await_reply(first.tag)
      second = next_commit(shard)
      assert second.list == listed(lane, item(lane, 1)) ++ listed(lane, item(lane, 2))
      refute_commit(shard)
      release(second)
      Enum.each([before, later], &await/1)
    end
  end

  test "4.2 at most one commit in flight, across stop and restart as well", %{shard: shard} do
    owner = start_batcher(shard, drain_timeout: 0)
    backend(shard, :block)
    first = occupy(shard, "p")
    # The drain ends before the commit does.
    assert Batcher.stop(shard) == :ok
    await_successor(shard, owner)

    task = queue(shard, "p", {:later}, 1)
    refute_commit(shard)
    release(first)
    assert await_reply(first.tag) == {:done, {:set, 0}}
    second = next_commit(shard)
    assert second.list == [{:later}]
    release(second)
    assert await(task) == {:done, {:later}}
  end

  test "4.2 lanes of all kinds are in flight side by side", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    lanes = @hot ++ for n <- 1..50, do: "prefix #{n}"
    commits = for lane <- lanes, do: occupy(shard, lane)
    assert map_size(Batcher.snapshot(shard).in_flight) == 53
    assert commits |> Enum.uniq_by(& &1.pid) |> length() == 53

    # Whoever began last may end first.
    for commit <- Enum.reverse(commits) do
      release(commit)
      await_reply(commit.tag)
    end
  end

  test "4.2 above :max_in_flight lanes leave in the order in which they became due", context do
    %{shard: shard} = context
    start_batcher(shard, max_in_flight: 2)
    backend(shard, :block)
    # Not sorted in any way, so that no accident helps.
    lanes = ["c", :put_batch, "a", :batch, "b"]
    tags = for lane <- lanes, do: raw(shard, lane, item(lane), 0)
    commits = next_commits(shard, 2)
    wait_queued(shard, "b", 1)
    refute_commit(shard)
    # Two processes report them.
    assert Enum.sort(lists(commits)) ==
             Enum.sort([listed("c", item("c")), listed(:put_batch, item(:put_batch))])

    # The one that began first does not always end first.
    last =
      for lane <- Enum.drop(lanes, 2), reduce: commits do
        [stays, ends] ->
          assert map_size(Batcher.snapshot(shard).in_flight) == 2
          release(ends)
          next = next_commit(shard)
          assert next.list == listed(lane, item(lane))
          [next, stays]
      end

    refute_commit(shard)
    Enum.each(last, &release/1)
    for {tag, lane} <- Enum.zip(tags, lanes), do: assert(await_reply(tag) == done(lane))
  end

  test "4.2 a lane becomes due when its window ends, not when it is written to", %{shard: shard} do
    start_batcher(shard, max_in_flight: 1)
    backend(shard, [:block, :reply])
    first = occupy(shard, "busy")
    early = queue(shard, "early", {:early})
    due = queue(shard, :batch, [{:due}], 0)
    # Now the other one is due too, and what comes behind the commit when that ends.
    flushed = make_ref()
    Batcher.Native.flush(shard, flushed)
    behind = queue(shard, "busy", {:behind}, 1)
    refute_commit(shard)
    release(first)
    assert lists(next_commits(shard, 3)) == [[{:due}], [{:early}], [{:behind}]]
    Enum.each([early, due, behind], &await/1)
    assert await_reply(flushed) == :ok
  end

  test "4.2 a lane that has ended a commit lets those pass that are due", %{shard: shard} do
    start_batcher(shard, max_in_flight: 1)
    backend(shard, :block)
    first = occupy(shard, "p")
    again = queue(shard, "p", {:again}, 1)
    # Without a window, these are due already.
    tags = for lane <- ["q", :put_batch], do: raw(shard, lane, item(lane), 0)
    wait_queued(shard, :put_batch, 1)
    release(first)

    for list <- [listed("q", item("q")), listed(:put_batch, item(:put_batch)), [{:again}]] do
      commit = next_commit(shard)
      assert commit.list == list
      release(commit)
    end

    await(again)
    Enum.each([first.tag | tags], &await_reply/1)
  end

  test "4.2 :max_in_flight is 256 by default", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    tags = for n <- 1..258, do: {raw(shard, "prefix #{n}", {:set, n}, 0), n}
    commits = next_commits(shard, 256)
    wait_queued(shard, "prefix 258", 1)
    refute_commit(shard)
    assert Enum.sort(lists(commits)) == for(n <- 1..256, do: [{:set, n}])

    for {commit, n} <- Enum.zip(commits, [257, 258]) do
      release(commit)
      next = next_commit(shard)
      assert next.list == [{:set, n}]
      release(next)
    end

    commits |> Enum.drop(2) |> Enum.each(&release/1)
    for {tag, n} <- tags, do: assert(await_reply(tag) == {:done, {:set, n}})
  end

  test "4.2 the next owner's lanes wait for what is in flight since before", %{shard: shard} do
    owner = start_batcher(shard, max_in_flight: 2)
    backend(shard, :block)
    commits = for lane <- ["a", "b"], do: occupy(shard, lane)
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    task = queue(shard, "c", {:later}, 1)
    refute_commit(shard)
    release(hd(commits))
    last = next_commit(shard)
    assert last.list == [{:later}]
    Enum.each([last | tl(commits)], &release/1)
    await(task)
  end

  test "4.2 a committer that is killed makes room for the next lane", %{shard: shard} do
    start_batcher(shard, max_in_flight: 1)
    backend(shard, :block)
    first = occupy(shard, "a")
    task = queue(shard, "b", {:later}, 1)
    refute_commit(shard)
    Process.exit(first.pid, :kill)
    assert await_reply(first.tag) == {:error, {:backend_exit, :killed}}
    release(next_commit(shard))
    assert await(task) == {:done, {:later}}
  end

  test "4.2 no lane waits for another one", %{shard: shard} do
    start_batcher(shard)

    for busy <- lanes() do
      backend(shard, [:block, :reply])
      blocked = occupy(shard, busy)

      for lane <- [<<0>> | lanes()], lane != busy do
        assert write(shard, lane, item(lane), 1)
        assert next_commit(shard).list == listed(lane, item(lane))
      end

      release(blocked)
      await_reply(blocked.tag)
    end
  end

  test "4.2 no lane waits for flush", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    blocked = occupy(shard, "busy")
    flush = call_async(fn -> Batcher.flush(shard) end)
    refute_done(flush)

    for lane <- lanes(), do: assert(write(shard, lane, item(lane), 1))
    refute_done(flush)
    release(blocked)
    assert await(flush) == :ok
  end

  test "4.3 a slot holds its commands in order of arrival", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    tasks = for n <- 1..20, do: queue(shard, "p", {:set, n})
    release(first)
    for {task, n} <- Enum.with_index(tasks, 1), do: assert(await(task) == {:done, {:set, n}})
    assert next_commit(shard).list == for(n <- 1..20, do: {:set, n})
  end

  for lane <- @hot do
    test "4.3 lane #{lane}: order of arrival, and in a group the caller's order", context do
      %{shard: shard} = context
      lane = unquote(lane)
      start_batcher(shard)
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      # Not sorted in any way, so that no accident helps.
      groups = for n <- [5, 1, 4, 2, 3], do: Enum.flat_map([n, 9, n + 10, 0], &item(lane, &1))
      tasks = for group <- groups, do: queue(shard, lane, group)
      release(first)

      for {task, group} <- Enum.zip(tasks, groups),
          do: assert(await(task) == {:ok, Enum.map(group, &{:done, &1})})

      assert next_commit(shard).list == Enum.concat(groups)
    end
  end

  test "4.3 several batches leave a lane in order of arrival", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 3)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    tags = for n <- 1..20, do: raw(shard, "p", {:set, n}, long_ms())
    wait_queued(shard, "p", 20)
    release(first)
    Enum.each(tags, &await_reply/1)
    lists = for commit <- next_commits(shard, 7), do: commit.list
    assert Enum.concat(lists) == for(n <- 1..20, do: {:set, n})
  end

  test "4.3 two calls by one process to one lane stay in order", %{shard: shard} do
    start_batcher(shard, hot_batch_max: 7)

    for lane <- [:put_batch, :delete_batch] do
      # Short and long lists take different ways into the library.
      groups = for n <- 1..30, do: List.duplicate(item(lane, n), rem(n, 3) * 700 + 1)
      groups = Enum.map(groups, &Enum.concat/1)
      tags = for group <- Enum.drop(groups, -1), do: cast(shard, lane, group)
      # The last one is synchronous.
      assert {:ok, _} = write(shard, lane, List.last(groups))
      Enum.each(tags, &await_reply/1)
      assert committed(shard, length(Enum.concat(groups)), []) == Enum.concat(groups)
    end
  end

  test "4.3 long and short groups keep their order in one batch", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, :delete_batch)
    groups = for n <- 1..9, do: for(m <- 1..(rem(n, 3) * 1_500 + 1), do: "#{n} #{m}")
    tags = for group <- groups, do: cast(shard, :delete_batch, group)
    wait_queued(shard, :delete_batch, 9)
    release(first)

    for {tag, group} <- Enum.zip(tags, groups),
        do: assert(await_reply(tag) == {:ok, Enum.map(group, &{:done, &1})})

    assert committed(shard, length(Enum.concat(groups)), []) == Enum.concat(groups)
  end

  # All that the next commits were given, until it is that many items.
  defp committed(_shard, 0, lists), do: lists |> Enum.reverse() |> Enum.concat()

  defp committed(shard, left, lists) do
    list = next_commit(shard).list
    committed(shard, left - length(list), [list | lists])
  end

  defp lists(commits), do: for(commit <- commits, do: commit.list)

  defp done(lane) when is_binary(lane), do: {:done, item(lane)}
  defp done(hot), do: {:ok, for(item <- item(hot), do: {:done, item})}

  defp blocked(shard) do
    backend(shard, :block)
    occupy(shard, "p")
  end
end
