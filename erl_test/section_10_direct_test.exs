# Without a batcher and while one stops: clauses 10.1 to 10.3 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section10DirectTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  @put {"k", "v", 0}
  @batches [
    {:write_batch, :__commit_batch_direct__, {:a}},
    {:write_put_batch, :__commit_put_batch_direct__, @put},
    {:write_delete_batch, :__commit_delete_batch_direct__, "k"}
  ]
  @async [
    {:write_put_batch_async, :__commit_put_batch_direct__, @put},
    {:write_delete_batch_async, :__commit_delete_batch_direct__, "k"}
  ]
  @raw [
    {:ok, [:one]},
    {:ok, [:one, :two]},
    {:ok, []},
    {:ok, [1 | 2]},
    {:ok, :no_list},
    {:error, :not_leader},
    :strange
  ]

  for {function, commit, item} <- @batches do
    @function function
    @commit commit
    @item item

    test "10.1 #{function} without a batcher commits in the caller", %{shard: shard} do
      assert apply(Batcher, @function, [shard, [@item, @item]]) ==
               {:ok, [{:done, @item}, {:done, @item}]}

      assert %{function: @commit, list: [@item, @item], pid: pid} = next_commit(shard)
      assert pid == self()
      assert mailbox() == []
    end

    test "10.1 #{function} without a batcher returns the raw result", %{shard: shard} do
      for raw <- unquote(Macro.escape(@raw)) do
        backend(shard, {:return, raw})
        assert apply(Batcher, @function, [shard, [@item]]) === raw
      end
    end
  end

  for {function, commit, item} <- @async do
    @function function
    @commit commit
    @item item

    test "10.1 #{function} without a batcher returns {:direct, raw}", %{shard: shard} do
      from = {self(), make_ref()}

      for raw <- unquote(Macro.escape(@raw)) do
        backend(shard, {:return, raw})
        token = TestGate.token()
        assert apply(Batcher, @function, [shard, [@item], from, token]) === {:direct, raw}
        assert %{function: @commit, list: [@item], pid: pid} = next_commit(shard)
        assert pid == self()
        # Neither a reply nor a released token.
        assert mailbox() == []
      end
    end
  end

  test "10.1 write without a batcher calls the batch function, whatever the command", context do
    %{shard: shard} = context

    for command <- [{:a}, {:put, "k", "v", 0}, {:delete, "k"}, {:batch, [{:a}]}] do
      reply = {:reply, command}
      backend(shard, {:return, {:ok, [reply]}})
      assert Batcher.write(shard, "p", command, 1) == reply

      assert %{function: :__commit_batch_direct__, list: [^command], pid: pid} =
               next_commit(shard)

      assert pid == self()
    end
  end

  test "10.1 write without a batcher turns {:ok, [reply]} into reply, and nothing else",
       context do
    %{shard: shard} = context

    for {raw, result} <- [{{:ok, [{:ok, [:inner]}]}, {:ok, [:inner]}} | keep(tl(@raw))] do
      backend(shard, {:return, raw})
      assert Batcher.write(shard, "p", {:a}, 1) === result
    end
  end

  test "10.1 without a batcher: never started, stopped, killed for good", %{shard: shard} do
    assert in_caller?(shard)
    start_alone(shard)
    refute in_caller?(shard)
    Batcher.stop(shard)
    assert in_caller?(shard)

    owner = start_alone(shard, adoption_timeout: 0)
    refute in_caller?(shard)
    Process.exit(owner, :kill)
    wait_until(fn -> Batcher.snapshot(shard) == nil end)
    assert in_caller?(shard)
  end

  for {what, behaviour, kind, reason} <- [
        {"a raised exception", {:raise, quote(do: %ArgumentError{message: "broken"})}, :error,
         quote(do: %ArgumentError{message: "broken"})},
        {"an error", {:raise, :badarg}, :error, :badarg},
        {"an exit", {:exit, {:noproc, :x}}, :exit, {:noproc, :x}},
        {"exit normal", {:exit, :normal}, :exit, :normal},
        {"a throw", {:throw, :ball}, :throw, :ball}
      ] do
    test "10.2 #{what} of a direct commit reaches the caller; one call", %{shard: shard} do
      backend(shard, unquote(behaviour))
      from = {self(), make_ref()}
      token = TestGate.token()

      for {function, args} <- [
            write: [shard, "p", {:a}, 1],
            write_batch: [shard, [{:a}]],
            write_put_batch: [shard, [@put]],
            write_delete_batch: [shard, ["k"]],
            write_put_batch_async: [shard, [@put], from, token],
            write_delete_batch_async: [shard, ["k"], from, token]
          ] do
        assert {unquote(kind), unquote(reason)} == caught(function, args)
        assert %{pid: pid} = next_commit(shard)
        assert pid == self()
        # Called once; nobody was answered, no token released.
        assert mailbox() == []
      end
    end
  end

  test "10.2 with a batcher whose window is 0 as well", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: 0)
    backend(shard, {:exit, {:noproc, :x}})
    assert caught(:write_put_batch, [shard, [@put]]) == {:exit, {:noproc, :x}}
    assert next_commit(shard).pid == self()
    Batcher.flush(shard)
    assert mailbox() == []
  end

  test "10.3 sync writes while it stops: refused, and not committed directly", context do
    %{shard: shard} = context
    owner = start_alone(shard)
    {task, commit} = stopping(shard)

    assert Batcher.write(shard, "p", {:late}, 1) == {:error, :shutting_down}
    assert Batcher.write(shard, "in flight", {:late}, 1) == {:error, :shutting_down}

    for {function, _commit, item} <- @batches do
      assert apply(Batcher, function, [shard, [item]]) == {:error, :shutting_down}
      assert apply(Batcher, function, [shard, []]) == {:error, :shutting_down}
    end

    assert mailbox() == []
    release(commit)
    assert await(task) == {:done, {:a}}
    await_death(owner)
    assert mailbox() == []
  end

  test "10.3 async writes while it stops: from is told, the token released", %{shard: shard} do
    owner = start_alone(shard)
    {task, commit} = stopping(shard)

    for {function, _commit, item} <- @async do
      tag = make_ref()
      token = TestGate.token()
      assert apply(Batcher, function, [shard, [item], {self(), tag}, token]) == :ok
      assert await_reply(tag) == {:error, :shutting_down}
      assert_received {:left, ^token, _}
      # An alias as well.
      tag = [:alias | :erlang.alias()]
      assert apply(Batcher, function, [shard, [item], {self(), tag}, nil]) == :ok
      assert await_reply(tag) == {:error, :shutting_down}
    end

    assert mailbox() == []
    release(commit)
    await(task)
    await_death(owner)
    assert mailbox() == []
  end

  test "10.3 while a supervisor ends it", %{shard: shard} do
    owner = start_batcher(shard)
    backend(shard, :block)
    task = call_async(fn -> Batcher.write(shard, "in flight", {:a}, 1) end)
    commit = next_commit(shard)
    queued = call_async(fn -> Batcher.write(shard, "queued", {:b}, 60_000) end)
    wait_queued(shard, "queued", 1)
    stop = call_async(fn -> GenServer.stop(owner, :shutdown) end)
    release(next_commit(shard))
    await(queued)

    assert Batcher.write(shard, "p", {:late}, 1) == {:error, :shutting_down}
    assert Batcher.write_batch(shard, [{:late}]) == {:error, :shutting_down}
    release(commit)
    await(task)
    await(stop)
  end

  defp keep(results), do: Enum.map(results, &{&1, &1})

  defp in_caller?(shard) do
    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
    next_commit(shard).pid == self()
  end

  defp caught(function, args) do
    {:returned, apply(Batcher, function, args)}
  catch
    kind, reason -> {kind, reason}
  end
end
