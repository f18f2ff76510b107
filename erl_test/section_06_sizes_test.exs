# Sizes: clauses 6.1 to 6.4 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section06SizesTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @improper {:error, :invalid_batch_command_list}

  # Commands and how many replies they get.
  @counted [
    {{:put_batch, [1, 2, 3]}, 3},
    {{:put_batch, []}, 0},
    {{:delete_batch, ["a", "b"]}, 2},
    {{:delete_batch, []}, 0},
    {{:batch, []}, 0},
    {{:batch, [{:a}, {:b}]}, 2},
    {{:batch, [{:a}, {:put_batch, [1, 2, 3]}, {:delete_batch, ["a"]}, {:batch, []}]}, 5},
    {{:batch, [{:batch, [{:batch, [{:put_batch, [1, 2]}]}, {:a}]}, :b]}, 4},
    {{:batch, [[1, 2], "text", nil]}, 3},
    {{:put_batch, :no_list}, 1},
    {{:delete_batch, "k"}, 1},
    {{:batch, %{}}, 1},
    {{:put_batch, [1, 2], :more}, 1},
    {{:delete_batch}, 1},
    {{:batch, [1], [2]}, 1},
    {{:other, [1, 2, 3]}, 1},
    {{:put, "k", "v", 0}, 1},
    {{}, 1}
  ]

  test "6.1 a namespace lane counts commands, whatever they hold", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 3)
    many = {:put_batch, Enum.to_list(1..10)}
    tasks = for command <- [many, {:batch, []}], do: queue(shard, "p", command)
    assert queued_slot(shard, "p").count == 2
    refute_commit(shard)
    assert write(shard, "p", {:last}) == {:done, {:last}}
    assert next_commit(shard).list == [many, {:batch, []}, {:last}]
    Enum.each(tasks, &await/1)
  end

  for lane <- [:put_batch, :delete_batch] do
    test "6.1 lane #{lane} counts items", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard, hot_batch_max: 5, hot_batch_window_ms: long_ms())
      groups = for n <- [[1, 2], [], [3, 4]], do: Enum.flat_map(n, &item(lane, &1))
      tags = for group <- groups, do: cast(shard, lane, group)
      assert queued_slot(shard, lane).count == 4
      refute_commit(shard)
      assert {:ok, [_]} = write(shard, lane, item(lane, 5))
      assert next_commit(shard).list == Enum.flat_map(1..5, &item(lane, &1))
      Enum.each(tags, &await_reply/1)
    end

    # An item of the put or delete lane is one item, even if it looks like a command.
    test "6.1 lane #{lane} does not look into items", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard, hot_batch_window_ms: long_ms())
      backend(shard, {:run, fn _, list -> {:ok, list} end})
      items = [{:put_batch, [1, 2, 3]}, {:batch, []}]
      tag = cast(shard, lane, items)
      assert queued_slot(shard, lane).count == 2
      Batcher.flush(shard)
      assert await_reply(tag) == {:ok, items}
    end
  end

  test "6.1 the generic lane counts by 6.2", %{shard: shard} do
    start_batcher(shard, hot_batch_max: 5)

    tag =
      raw(shard, :batch, [{:put_batch, [1, 2]}, {:batch, [{:a}, {:batch, [{:b}]}]}], long_ms())

    wait_queued(shard, :batch, 1)
    assert queued_slot(shard, :batch).count == 4
    refute_commit(shard)
    assert raw(shard, :batch, [{:delete_batch, ["k"]}], long_ms()) |> await_reply()
    assert length(next_commit(shard).list) == 3
    assert await_reply(tag) == {:ok, [{:done, 1}, {:done, 2}, {:done, {:a}}, {:done, {:b}}]}
  end

  for {{command, count}, n} <- Enum.with_index(@counted) do
    test "6.2 (#{n}) #{inspect(command)} counts #{count}", %{shard: shard} do
      command = unquote(Macro.escape(command))
      count = unquote(count)
      start_batcher(shard)
      replies = for n <- 1..count//1, do: {:reply, n}
      backend(shard, {:return, {:ok, replies}})
      assert Batcher.write_batch(shard, [command]) == {:ok, replies}

      # The same in the lane of a namespace: what 9.1 gives follows from the count.
      bare = if count == 1, do: hd(replies), else: {:ok, replies}
      assert Batcher.write(shard, "p", command, 1) == bare

      backend(shard, {:return, {:ok, [:too, :many | replies]}})
      mismatch = {:error, {:batch_result_mismatch, count, count + 2}}
      assert Batcher.write_batch(shard, [command]) == mismatch
      assert Batcher.write(shard, "p", command, 1) == mismatch
    end
  end

  test "6.2 a list of commands counts what its members count", %{shard: shard} do
    start_batcher(shard)
    {commands, counts} = Enum.unzip(@counted)
    backend(shard, {:return, {:ok, []}})
    mismatch = {:error, {:batch_result_mismatch, Enum.sum(counts), 0}}
    assert Batcher.write_batch(shard, commands) == mismatch
    assert Batcher.write_batch(shard, [{:batch, [{:batch, commands}]}]) == mismatch
  end

  test "6.2 members that are no tuples count 1", %{shard: shard} do
    start_batcher(shard)
    commands = [:atom, "text", [1, 2], %{}, 7, nil]
    assert Batcher.write_batch(shard, commands) == {:ok, for(c <- commands, do: {:done, c})}
  end

  test "6.2 a nested improper list is refused", %{shard: shard} do
    start_batcher(shard)

    for command <- [
          {:put_batch, [1 | 2]},
          {:delete_batch, ["a" | "b"]},
          {:batch, [{:a} | {:b}]},
          {:batch, [{:a}, {:put_batch, [1 | 2]}]},
          {:batch, [{:batch, [{:a} | :b]}]}
        ] do
      assert Batcher.write(shard, "p", command, 1) == @improper
      assert Batcher.write_batch(shard, [{:a}, command]) == @improper
      assert raw(shard, "p", command, 1) |> await_reply() == @improper
      assert raw(shard, :batch, [command], 1) |> await_reply() == @improper
    end

    refute_commit(shard)
    # Where 6.2 does not look, there is nothing to refuse.
    assert {:done, _} = Batcher.write(shard, "p", {:other, [1 | 2]}, 1)
  end

  test "6.2 commands nested 10_000 deep, and lists of 100_000", %{shard: shard} do
    start_batcher(shard)
    deep = Enum.reduce(1..10_000, {:put_batch, [1, 2]}, fn _, inner -> {:batch, [inner]} end)
    assert Batcher.write(shard, "p", deep, 1) == {:ok, [{:done, 1}, {:done, 2}]}

    wide = {:batch, List.duplicate({:put_batch, [1, 2]}, 50_000)}
    assert {:ok, replies} = Batcher.write_batch(shard, [wide])
    assert length(replies) == 100_000
  end

  for lane <- ["p", :batch, :put_batch, :delete_batch] do
    test "6.3 lane #{inspect(lane)}: a slot that reaches its maximum leaves at once", context do
      %{shard: shard} = context
      lane = unquote(lane)
      start_batcher(shard, namespace_batch_max: 4, hot_batch_max: 4)
      attach_telemetry(shard)
      tags = for n <- 1..3, do: raw(shard, lane, item(lane, n), long_ms())
      wait_queued(shard, lane, 3)
      refute_commit(shard)
      tag = raw(shard, lane, item(lane, 4), long_ms())
      assert next_commit(shard).list == Enum.flat_map(1..4, &listed(lane, item(lane, &1)))
      assert next_reason() == :size
      Enum.each([tag | tags], &await_reply/1)
    end
  end

  for lane <- [:batch, :put_batch, :delete_batch] do
    test "6.3 lane #{lane}: a group larger than the maximum is committed whole", context do
      %{shard: shard} = context
      lane = unquote(lane)
      start_batcher(shard, hot_batch_max: 10)
      group = Enum.flat_map(1..25, &item(lane, &1))
      assert raw(shard, lane, group, long_ms()) |> await_reply() == {:ok, done(group)}
      assert next_commit(shard).list == group
    end

    test "6.3 lane #{lane}: a group larger than the maximum is committed alone", context do
      %{shard: shard} = context
      lane = unquote(lane)
      start_batcher(shard, hot_batch_max: 10)
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      sizes = [2, 0, 11, 1, 0, 12, 13]
      groups = for size <- sizes, do: Enum.flat_map(1..size//1, &item(lane, &1))
      tags = for group <- groups, do: raw(shard, lane, group, long_ms())
      wait_queued(shard, lane, length(sizes))
      release(first)

      for {tag, group} <- Enum.zip(tags, groups),
          do: assert(await_reply(tag) == {:ok, done(group)})

      # The empty group finds room behind a group of 2 and of 1.
      assert for(c <- next_commits(shard, 5), do: length(c.list)) == [2, 11, 1, 12, 13]
    end
  end

  test "6.3 an empty group does not keep a large one company", %{shard: shard} do
    start_batcher(shard, hot_batch_max: 3)
    backend(shard, [:block, :reply])
    first = occupy(shard, :delete_batch)
    tags = for keys <- [[], ~w(a b c d)], do: raw(shard, :delete_batch, keys, long_ms())
    wait_queued(shard, :delete_batch, 2)
    release(first)
    assert Enum.map(tags, &await_reply/1) == [{:ok, []}, {:ok, done(~w(a b c d))}]
    assert for(commit <- next_commits(shard, 2), do: commit.list) == [[], ~w(a b c d)]
  end

  test "6.4 a longer queue of commands is committed in several batches", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 10)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    tags = for n <- 1..25, do: raw(shard, "p", {n}, long_ms())
    wait_queued(shard, "p", 25)
    release(first)
    for {tag, n} <- Enum.with_index(tags, 1), do: assert(await_reply(tag) == {:done, {n}})
    assert for(commit <- next_commits(shard, 3), do: length(commit.list)) == [10, 10, 5]
  end

  for lane <- [:batch, :put_batch, :delete_batch] do
    test "6.4 lane #{lane}: several batches, and no group is split", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard, hot_batch_max: 10)
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      sizes = [4, 4, 4, 9, 1, 1, 10, 3, 7, 2]
      groups = for {size, n} <- Enum.with_index(sizes), do: items(lane, size, n * 100)
      tags = for group <- groups, do: raw(shard, lane, group, long_ms())
      wait_queued(shard, lane, length(sizes))
      release(first)

      for {tag, group} <- Enum.zip(tags, groups),
          do: assert(await_reply(tag) == {:ok, done(group)})

      commits = next_commits(shard, 6)
      assert for(commit <- commits, do: length(commit.list)) == [8, 4, 10, 1, 10, 10]
      assert next_commit(shard).list == List.last(groups)
      refute_commit(shard)
    end

    test "6.4 lane #{lane}: a group that does not fit sends the slot off first", context do
      %{shard: shard} = context
      lane = unquote(lane)
      start_batcher(shard, hot_batch_max: 10)
      attach_telemetry(shard)
      backend(shard, :block)
      six = items(lane, 6, 0)
      seven = items(lane, 7, 100)
      first = raw(shard, lane, six, long_ms())
      wait_queued(shard, lane, 1)
      refute_commit(shard)
      second = raw(shard, lane, seven, long_ms())

      commit = next_commit(shard)
      assert commit.list == six
      refute_commit(shard)
      assert queued_slot(shard, lane).count == 7
      release(commit)
      assert await_reply(first) == {:ok, done(six)}
      assert next_reason() == :size

      commit = next_commit(shard)
      assert commit.list == seven
      release(commit)
      assert await_reply(second) == {:ok, done(seven)}
    end
  end

  test "6.4 what counts more than its length is split by its count", %{shard: shard} do
    start_batcher(shard, hot_batch_max: 10)
    backend(shard, [:block, :reply])
    first = occupy(shard, :batch)
    groups = for n <- 1..4, do: [{:batch, [{:put_batch, [n, n, n]}, {:a}]}]
    tags = for group <- groups, do: raw(shard, :batch, group, long_ms())
    wait_queued(shard, :batch, 4)
    release(first)

    for {tag, n} <- Enum.with_index(tags, 1),
        do: assert(await_reply(tag) == {:ok, done([n, n, n, {:a}])})

    assert for(c <- next_commits(shard, 2), do: c.list) ==
             Enum.map(Enum.chunk_every(groups, 2), &Enum.concat/1)
  end

  defp items(lane, size, from), do: Enum.flat_map(1..size, &item(lane, from + &1))
  defp done(items), do: for(item <- items, do: {:done, item})
end
