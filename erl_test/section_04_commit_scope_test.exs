# One commit for all lanes of a shard: section 4.4 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section04CommitScopeTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @batch :__commit_batch_direct__
  @put :__commit_put_batch_direct__
  @delete :__commit_delete_batch_direct__

  # A commit is in flight, so that what is queued leaves together when it ends.
  defp busy(shard, opts \\ []) do
    start_batcher(shard, [commit_scope: :shard] ++ opts)
    backend(shard, [:block, :reply])
    occupy(shard, "first")
  end

  test "4.4 one commit takes what is queued in all lanes", %{shard: shard} do
    first = busy(shard)

    tasks = [
      queue(shard, "a", {:set, 1}),
      queue(shard, :put_batch, [{"k", "v", 7}]),
      queue(shard, "b", {:set, 2}),
      queue(shard, :delete_batch, ["d"]),
      queue(shard, :batch, [{:set, 3}, {:set, 4}]),
      queue(shard, "a", {:set, 5})
    ]

    release(first)
    commit = next_commit(shard)
    assert commit.function == @batch

    # Lanes in the order of their oldest write.
    assert commit.list == [
             {:set, 1},
             {:set, 5},
             {:put, "k", "v", 7},
             {:set, 2},
             {:delete, "d"},
             {:set, 3},
             {:set, 4}
           ]

    assert Enum.map(tasks, &await/1) == [
             {:done, {:set, 1}},
             {:ok, [{:done, {:put, "k", "v", 7}}]},
             {:done, {:set, 2}},
             {:ok, [{:done, {:delete, "d"}}]},
             {:ok, [{:done, {:set, 3}}, {:done, {:set, 4}}]},
             {:done, {:set, 5}}
           ]

    refute_commit(shard)
  end

  test "4.4 only puts, only deletes, from whichever lanes: their own function", %{shard: shard} do
    for {function, command, lane, list, listed} <- [
          {@put, {:put, "n", "v", 0}, :put_batch, [{"k", "v", 1}],
           [{"n", "v", 0}, {"k", "v", 1}]},
          {@delete, {:delete, "n"}, :delete_batch, ["k"], ["n", "k"]}
        ] do
      shard = if function == @put, do: shard, else: new_shard()
      first = busy(shard)
      tasks = [queue(shard, "n", command), queue(shard, lane, list)]
      release(first)
      assert %{function: ^function, list: ^listed} = next_commit(shard)
      assert [{:done, _}, {:ok, [{:done, _}]}] = Enum.map(tasks, &await/1)
    end
  end

  test "4.4 a group that is no list of triples or keys leaves by itself", %{shard: shard} do
    first = busy(shard)

    tasks = [
      queue(shard, "a", {:set, 1}),
      queue(shard, :put_batch, [{"k", "v", 1, :more}]),
      queue(shard, :delete_batch, [:no_binary])
    ]

    release(first)
    commits = for _ <- 1..3, do: Map.take(next_commit(shard), [:function, :list])

    assert Enum.sort(commits) ==
             Enum.sort([
               %{function: @batch, list: [{:set, 1}]},
               %{function: @put, list: [{"k", "v", 1, :more}]},
               %{function: @delete, list: [:no_binary]}
             ])

    Enum.each(tasks, &await/1)
  end

  test "4.4 a namespace's own lists stay as they are, and count as they do", %{shard: shard} do
    first = busy(shard)
    list = {:put_batch, [{"x", 1}, {"y", 2}]}
    tasks = [queue(shard, "a", list), queue(shard, "b", {:set, 1})]
    release(first)
    assert next_commit(shard).list == [list, {:set, 1}]
    assert [{:ok, [{:done, _}, {:done, _}]}, {:done, {:set, 1}}] = Enum.map(tasks, &await/1)
  end

  test "4.4 a result of the whole batch is that of all in it", %{shard: shard} do
    first = busy(shard)
    backend(shard, {:return, {:error, :no_leader}})
    tasks = for n <- 1..3, do: queue(shard, "lane #{n}", {:set, n})
    release(first)
    next_commit(shard)
    assert Enum.map(tasks, &await/1) == List.duplicate({:error, :no_leader}, 3)

    backend(shard, [:block, {:return, {:ok, [:one]}}])
    first = occupy(shard, "first")
    tasks = for n <- 1..3, do: queue(shard, "lane #{n}", {:set, n})
    release(first)
    mismatch = {:error, {:batch_result_mismatch, 3, 1}}
    assert Enum.map(tasks, &await/1) == List.duplicate(mismatch, 3)
  end

  test "4.4 what does not fit the maximum leaves with the next one", %{shard: shard} do
    first = busy(shard, hot_batch_max: 3)
    tasks = for n <- 1..5, do: queue(shard, "lane #{n}", {:set, n})
    release(first)
    assert next_commit(shard).list == for(n <- 1..3, do: {:set, n})
    assert next_commit(shard).list == for(n <- 4..5, do: {:set, n})
    Enum.each(tasks, &await/1)
  end

  test "4.4 one commit is in flight, if nothing else is asked for", %{shard: shard} do
    first = busy(shard)
    task = queue(shard, "other", {:set, 1}, 1)
    refute_commit(shard)
    assert Map.keys(Batcher.snapshot(shard).in_flight) == [{:prefix, "first"}]
    release(first)
    next_commit(shard)
    await(task)
  end

  test "4.4 with :max_in_flight more, a lane at most one", %{shard: shard} do
    start_batcher(shard, commit_scope: :shard, max_in_flight: 2)
    backend(shard, :block)
    a = occupy(shard, "a", 1)
    b = occupy(shard, "b", 2)
    task = queue(shard, "a", {:set, 3}, 1)
    refute_commit(shard)
    release(a)
    third = next_commit(shard)
    assert third.list == [{:set, 3}]
    Enum.each([b, third], &release/1)
    await(task)
  end

  test "4.4 the snapshot shows all lanes of a commit in flight", %{shard: shard} do
    first = busy(shard)
    backend(shard, :block)
    tasks = for lane <- ["a", :put_batch], do: queue(shard, lane, item(lane))
    release(first)
    commit = next_commit(shard)
    assert %{{:prefix, "a"} => ref, put_batch: ref} = Batcher.snapshot(shard).in_flight
    release(commit)
    Enum.each(tasks, &await/1)
    wait_idle(shard)
  end

  test "5.1 the first write of an idle shard opens the window for all lanes", %{shard: shard} do
    start_batcher(shard, commit_scope: :shard)
    a = call_async(fn -> Batcher.write(shard, "a", {:set, 1}, 100) end)
    wait_queued(shard, "a", 1)
    b = call_async(fn -> Batcher.write(shard, "b", {:set, 2}, long_ms()) end)
    assert next_commit(shard).list == [{:set, 1}, {:set, 2}]
    Enum.each([a, b], &await/1)
  end

  test "9.5 the committer is killed: its reason goes to all lanes, and the shard goes on",
       context do
    %{shard: shard} = context
    first = busy(shard)
    backend(shard, [:block, :reply])
    tasks = for n <- 1..3, do: queue(shard, "lane #{n}", {:set, n})
    release(first)
    commit = next_commit(shard)
    Process.exit(commit.pid, :kill)
    assert Enum.map(tasks, &await/1) == List.duplicate({:error, {:backend_exit, :killed}}, 3)

    for n <- 1..3,
        do: assert(Batcher.write(shard, "lane #{n}", {:set, n}, 1) == {:done, {:set, n}})
  end

  test "10.4 the owner is killed with lanes queued and in flight", %{shard: shard} do
    owner = start_batcher(shard, commit_scope: :shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "first")
    tasks = for n <- 1..3, do: queue(shard, "lane #{n}", {:set, n})
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    refute_commit(shard)
    release(first)
    assert await_reply(first.tag) == {:done, {:set, 0}}
    assert next_commit(shard).list == for(n <- 1..3, do: {:set, n})
    Enum.each(tasks, &await/1)
  end

  test "11.1 flush takes all lanes, 11.3 and so does stop", %{shard: shard} do
    start_batcher(shard, commit_scope: :shard)
    tasks = for n <- 1..3, do: queue(shard, "lane #{n}", {:set, n})
    assert Batcher.flush(shard) == :ok
    assert next_commit(shard).list == for(n <- 1..3, do: {:set, n})
    Enum.each(tasks, &await/1)

    tasks = for n <- 1..3, do: queue(shard, "lane #{n}", {:set, n})
    assert Batcher.stop(shard) == :ok
    assert next_commit(shard).list == for(n <- 1..3, do: {:set, n})
    Enum.each(tasks, &await/1)
  end

  test "4.4 many writes of many lanes: each gets its own reply", %{shard: shard} do
    start_batcher(shard, commit_scope: :shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "first")
    big = :binary.copy(<<7>>, 5_000)

    tasks =
      for n <- 1..200 do
        lane = Enum.at(["a", "b", "c", :batch, :put_batch, :delete_batch], rem(n, 6))
        item = if is_binary(lane) and rem(n, 5) == 0, do: {:set, n, big}, else: item(lane, n)
        {call_async(fn -> write(shard, lane, item) end), lane, item}
      end

    for {task, _, _} <- tasks, do: wait_waiting(task)
    release(first)

    for {task, lane, item} <- tasks do
      reply = await(task)

      expected =
        case {lane, item} do
          {prefix, command} when is_binary(prefix) -> {:done, command}
          {:batch, [command]} -> {:ok, [{:done, command}]}
          {:put_batch, [{k, v, at}]} -> {:ok, [{:done, {:put, k, v, at}}]}
          {:delete_batch, [key]} -> {:ok, [{:done, {:delete, key}}]}
        end

      assert reply == expected
    end
  end
end
