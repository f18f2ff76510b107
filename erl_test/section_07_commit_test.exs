# What is committed: section 7 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section07CommitTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @batch :__commit_batch_direct__
  @put :__commit_put_batch_direct__
  @delete :__commit_delete_batch_direct__

  @large_binary String.duplicate("large", 1_000)

  # Commands that the put or the delete function takes, and what it is given.
  @compacted [
    {{:put, "k", "v", 0}, @put, {"k", "v", 0}},
    {{:put, "", "", -1}, @put, {"", "", -1}},
    {{:put, <<0, 255>>, @large_binary, 1_700_000_000_000}, @put,
     {<<0, 255>>, @large_binary, 1_700_000_000_000}},
    {{:put, "k", "v", Integer.pow(2, 80)}, @put, {"k", "v", Integer.pow(2, 80)}},
    {{:delete, "k"}, @delete, "k"},
    {{:delete, ""}, @delete, ""},
    {{:delete, @large_binary}, @delete, @large_binary}
  ]

  # Commands that look like it and are for the batch function.
  @untouched [
    {:put, :k, "v", 0},
    {:put, ~c"k", "v", 0},
    {:put, <<1::3>>, "v", 0},
    {:put, "k", :v, 0},
    {:put, "k", 1, 0},
    {:put, "k", <<1::3>>, 0},
    {:put, "k", nil, 0},
    {:put, "k", "v", 0.0},
    {:put, "k", "v", nil},
    {:put, "k", "v", "0"},
    {:put, "k", "v"},
    {:put, "k", "v", 0, 0},
    {:put},
    {:delete, :k},
    {:delete, 1},
    {:delete, <<1::3>>},
    {:delete, ["k"]},
    {:delete, "k", 0},
    {:delete},
    {"put", "k", "v", 0},
    {"delete", "k"},
    {:PUT, "k", "v", 0},
    {:putx, "k", "v", 0},
    {:incr, "k"},
    {:put_batch, [{"k", "v", 0}]},
    {:delete_batch, ["k"]},
    {:batch, [{:put, "k", "v", 0}]},
    {}
  ]

  for lane <- ["p", :batch, :put_batch, :delete_batch] do
    test "7.1 lane #{inspect(lane)}: one call of the backend, in a process of ours", context do
      %{shard: shard} = context
      lane = unquote(lane)
      owner = start_batcher(shard)
      task = call_async(fn -> write(shard, lane, item(lane), 1) end)
      commit = next_commit(shard)
      assert await(task)
      assert {commit.function, commit.shard} == {function(lane), shard}
      assert commit.list == listed(lane, item(lane))
      assert commit.pid not in [self(), task.pid, owner]
      # It outlives the call: no process is started for a commit.
      assert Process.alive?(commit.pid)
      refute_commit(shard)
    end
  end

  test "7.1 the process does not depend on who wrote", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    {caller, monitor} = spawn_monitor(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    commit = next_commit(shard)
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^caller, :killed}
    other = queue(shard, "p", {:b})
    release(commit)
    release(next_commit(shard))
    assert await(other) == {:done, {:b}}
  end

  for {{command, function, entry}, n} <- Enum.with_index(@compacted) do
    test "7.2 (#{n}) #{inspect(command, printable_limit: 5)} alone: #{function}", context do
      %{shard: shard} = context
      start_batcher(shard)
      command = unquote(Macro.escape(command))
      entry = unquote(Macro.escape(entry))
      assert Batcher.write(shard, "p", command, 1) == {:done, entry}
      assert %{function: unquote(function), list: [^entry]} = next_commit(shard)
    end
  end

  for {command, n} <- Enum.with_index(@untouched) do
    test "7.2 (#{n}) #{inspect(command)}: the batch function, untouched", %{shard: shard} do
      start_batcher(shard)
      command = unquote(Macro.escape(command))
      assert Batcher.write(shard, "p", command, 1)
      assert %{function: @batch, list: [^command]} = next_commit(shard)

      # One of them among puts or deletes, first, between or last.
      for fitting <- [{:put, "k", "v", 0}, {:delete, "k"}],
          commands <- [[command, fitting, fitting], [fitting, command, fitting]] do
        assert committed_together(shard, commands) == {@batch, commands}
      end
    end
  end

  test "7.2 all puts: the put function; all deletes: the delete function", %{shard: shard} do
    start_batcher(shard)

    for function <- [@put, @delete] do
      {commands, entries} =
        Enum.unzip(for {command, ^function, entry} <- @compacted, do: {command, entry})

      assert committed_together(shard, commands) == {function, entries}
    end
  end

  test "7.2 puts and deletes together: the batch function, untouched", %{shard: shard} do
    start_batcher(shard)
    commands = [{:put, "a", "1", 0}, {:delete, "a"}]
    assert committed_together(shard, commands) == {@batch, commands}
    commands = [{:delete, "a"}, {:put, "a", "1", 0}, {:put, "b", "1", 0}]
    assert committed_together(shard, commands) == {@batch, commands}
  end

  test "7.2 each slot of a lane is judged by itself", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 2)
    put = {:put, "k", "v", 0}
    delete = {:delete, "k"}
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")

    tasks =
      for command <- [put, put, delete, delete, put, delete, {:incr, "k"}],
          do: queue(shard, "p", command)

    release(first)
    Enum.each(tasks, &await/1)

    assert for(commit <- next_commits(shard, 4), do: {commit.function, commit.list}) == [
             {@put, [{"k", "v", 0}, {"k", "v", 0}]},
             {@delete, ["k", "k"]},
             {@batch, [put, delete]},
             {@batch, [{:incr, "k"}]}
           ]
  end

  test "7.2 terms of all kinds reach the backend as they were", %{shard: shard} do
    start_batcher(shard)
    half = binary_part(@large_binary, 100, 3_000)
    terms = [self(), make_ref(), 1.5, %{a: %{b: [half]}}, <<1::5>>, &is_atom/1, [1 | 2], -0.0]
    port = Port.list() |> hd()
    command = List.to_tuple([Integer.pow(-7, 90), port, half | terms])
    assert Batcher.write(shard, "p", command, 1) == {:done, command}
    assert Batcher.write(shard, "p", {:put, "k", half, 0}, 1) == {:done, {"k", half, 0}}
  end

  test "7.3 generic slot: the groups concatenated, never compacted", %{shard: shard} do
    start_batcher(shard)
    put = {:put, "k", "v", 0}
    assert Batcher.write_batch(shard, [put]) == {:ok, [{:done, put}]}
    assert %{function: @batch, list: [^put]} = next_commit(shard)

    backend(shard, [:block, :reply])
    first = occupy(shard, :batch)
    groups = [[put, put], [], [put], [{:delete, "k"}, {:batch, [put]}]]
    tasks = for group <- groups, do: queue(shard, :batch, group)
    release(first)
    Enum.each(tasks, &await/1)
    assert %{function: @batch, list: list} = next_commit(shard)
    assert list == Enum.concat(groups)
  end

  for lane <- [:put_batch, :delete_batch] do
    test "7.3 lane #{lane}: the lists concatenated, entries unchecked", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard)
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      groups = [item(lane, 1), [], [:no_entry, {1, 2}, nil, [3 | 4]], item(lane, 2)]
      tasks = for group <- groups, do: queue(shard, lane, group)
      release(first)
      Enum.each(tasks, &await/1)
      commit = next_commit(shard)
      assert {commit.function, commit.list} == {function(lane), Enum.concat(groups)}
    end
  end

  test "7.3 thousands of groups in one batch, in order", %{shard: shard} do
    start_batcher(shard)

    for lane <- lanes() do
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      tags = for n <- 1..5_000, do: raw(shard, lane, item(lane, n), long_ms())
      wait_queued(shard, lane, 5_000)
      release(first)
      assert next_commit(shard).list == Enum.flat_map(1..5_000, &listed(lane, item(lane, &1)))
      Enum.each(tags, &await_reply/1)
    end
  end

  for behaviour <- [
        {:exit, :noproc},
        {:exit, :normal},
        {:exit, {:noproc, {:gen_server, :call, [:ra, :x]}}},
        {:exit, {:timeout, :x}},
        {:raise, :badarg},
        {:throw, :again},
        {:return, {:error, :noproc}}
      ] do
    test "7.4 handed over once: #{inspect(behaviour)}", %{shard: shard} do
      start_batcher(shard)
      backend(shard, unquote(Macro.escape(behaviour)))

      for lane <- lanes() do
        assert {:error, _} = write(shard, lane, item(lane), 1)
        next_commit(shard)
        refute_commit(shard)
      end
    end
  end

  test "7.4 handed over once: the committing process is killed", %{shard: shard} do
    start_batcher(shard)

    for lane <- lanes() do
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      task = queue(shard, lane, item(lane, 1))
      Process.exit(first.pid, :kill)
      assert {:error, {:backend_exit, :killed}} = await_reply(first.tag)
      assert await(task)
      assert next_commit(shard).list == listed(lane, item(lane, 1))
      refute_commit(shard)
    end
  end

  test "7.4 handed over once: the owner is killed", %{shard: shard} do
    owner = start_batcher(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    task = queue(shard, "p", {:b})
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    release(first)
    assert await_reply(first.tag) == {:done, {:set, 0}}
    assert await(task) == {:done, {:b}}
    assert next_commit(shard).list == [{:b}]
    assert Batcher.flush(shard) == :ok
    refute_commit(shard)
  end

  test "7.4 handed over once: the batcher is stopped while a commit is in flight", context do
    %{shard: shard} = context
    {:ok, owner} = Batcher.start_link(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    stop = call_async(fn -> Batcher.stop(shard) end)
    refute_done(stop)
    release(first)
    assert await(stop) == :ok
    assert await_death(owner)
    assert await_reply(first.tag) == {:done, {:set, 0}}
    refute_commit(shard)
  end

  test "7 what came as a copy, since that takes long, is moved in a small batch", %{shard: shard} do
    committer = own_and_commit(shard, [])
    # Counted as a few bytes: nobody tells what a fun holds.
    holds = Enum.to_list(1..1_000)
    command = {:run, fn -> holds end}
    assert Native.offer(shard, "p", command, 1, 60_000, make_ref(), nil, nil) == :large

    for _twice <- 1..2,
        do: :queued = Native.offer_large(shard, "p", command, 1, 60_000, make_ref(), nil, nil)

    Native.flush(shard, make_ref())
    assert Native.take(committer) == :sent
    assert_receive {^committer, :part, [^command], _bytes}
    assert_receive {{^committer, :commit, "p", _function}, [^command], {{2, 2, 2, _}, _, _, _}}
    assert Native.answer(committer, :error, :done, true) == :rest
    Native.leave(committer)
    Native.close(shard)
  end

  # One batch of these commands; answers how it was committed.
  defp committed_together(shard, commands) do
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    tags = for command <- commands, do: raw(shard, "p", command, long_ms())
    wait_queued(shard, "p", length(commands))
    release(first)
    Enum.each(tags, &await_reply/1)
    commit = next_commit(shard)
    {commit.function, commit.list}
  end
end
