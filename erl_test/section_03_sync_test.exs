# The functions that wait: clauses 3.1, 3.2, 3.4 to 3.6 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section03SyncTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @max_ms 4_294_967_295
  @improper [1 | 2]
  @refused {:error, :invalid_batch_command_list}

  test "3.1 write returns the reply to this very command", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 3)

    tasks =
      for n <- 1..3, do: call_async(fn -> Batcher.write(shard, "p", {:incr, n}, @long_ms) end)

    assert Enum.map(tasks, &await/1) == for(n <- 1..3, do: {:done, {:incr, n}})
  end

  test "3.1 write returns a batch-level result to every caller", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 2)
    backend(shard, {:return, {:error, :not_leader}})
    tasks = for n <- 1..2, do: call_async(fn -> Batcher.write(shard, "p", {n}, @long_ms) end)
    assert Enum.map(tasks, &await/1) == [{:error, :not_leader}, {:error, :not_leader}]
  end

  test "3.1 write takes any prefix and any tuple", %{shard: shard} do
    start_batcher(shard)

    for prefix <- ["", "p", <<0, 255>>, String.duplicate("long", 1_000)],
        command <- [{}, {:a}, {1, 2, 3, 4, 5}, {:put, :not, :a, :put}, {"text"}],
        do: assert(Batcher.write(shard, prefix, command, 1) == {:done, command})
  end

  for {what, running?} <- [{"with", true}, {"without", false}] do
    test "3.1 write of anything else, #{what} a batcher", %{shard: shard} do
      if unquote(running?), do: start_batcher(shard)

      for {bad_shard, prefix, command, window_ms} <- [
            {:zero, "p", {:a}, 1},
            {"0", "p", {:a}, 1},
            {1.0, "p", {:a}, 1},
            {shard, :p, {:a}, 1},
            {shard, ~c"p", {:a}, 1},
            {shard, <<1::3>>, {:a}, 1},
            {shard, "p", [:a], 1},
            {shard, "p", :a, 1},
            {shard, "p", {:a}, 0},
            {shard, "p", {:a}, -1},
            {shard, "p", {:a}, 1.0},
            {shard, "p", {:a}, nil}
          ] do
        assert_raise FunctionClauseError, fn ->
          Batcher.write(bad_shard, prefix, command, window_ms)
        end
      end

      assert mailbox() == []
    end

    test "3.1 a window over 4_294_967_295 ms, #{what} a batcher", %{shard: shard} do
      if unquote(running?), do: start_batcher(shard)

      for window_ms <- [@max_ms + 1, Integer.pow(2, 70)] do
        error = assert_raise ArgumentError, fn -> Batcher.write(shard, "p", {:a}, window_ms) end

        assert error.message =~ "#{window_ms}"
      end

      assert mailbox() == []
    end
  end

  test "3.1 the widest window is taken", %{shard: shard} do
    start_batcher(shard)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, @max_ms) end)
    wait_queued(shard, "p", 1)
    assert %{window_ms: @max_ms} = queued_slot(shard, "p")
    Batcher.flush(shard)
    assert await(task) == {:done, {:a}}
  end

  test "3.2 the batches return {:ok, replies}", %{shard: shard} do
    start_batcher(shard)

    assert Batcher.write_batch(shard, [{:a}, {:b}]) == {:ok, [{:done, {:a}}, {:done, {:b}}]}
    puts = [{"a", "1", 0}, {"b", "2", 5}]
    assert Batcher.write_put_batch(shard, puts) == {:ok, Enum.map(puts, &{:done, &1})}
    assert Batcher.write_delete_batch(shard, ["a", "b"]) == {:ok, [{:done, "a"}, {:done, "b"}]}

    assert next_commit(shard).function == :__commit_batch_direct__
    assert next_commit(shard).function == :__commit_put_batch_direct__
    assert next_commit(shard).function == :__commit_delete_batch_direct__
  end

  test "3.2 the batches return a batch-level result", %{shard: shard} do
    start_batcher(shard)

    for result <- [{:error, :not_leader}, :timeout, {:redirect, :n1}] do
      backend(shard, {:return, result})
      for write <- batches(), do: assert(write.(shard, [:a]) == result)
    end
  end

  test "3.2 entries and keys are the backend's to judge", %{shard: shard} do
    start_batcher(shard)
    odd = [:atom, 1, nil, {:put, 1}, {"k"}, %{}, [], self()]

    for write <- batches() do
      assert {:ok, replies} = write.(shard, odd)
      assert replies == Enum.map(odd, &{:done, &1})
      assert next_commit(shard).list == odd
    end
  end

  for {what, running?} <- [{"with", true}, {"without", false}] do
    test "3.2 the batches of anything but an integer and a list, #{what} a batcher", context do
      %{shard: shard} = context
      if unquote(running?), do: start_batcher(shard)

      for write <- batches(),
          {bad_shard, list} <- [{:zero, []}, {"0", []}, {shard, :a}, {shard, {}}, {shard, %{}}],
          do: assert_raise(FunctionClauseError, fn -> write.(bad_shard, list) end)

      assert mailbox() == []
    end
  end

  test "3.2 an index that no batcher can have writes directly" do
    # The test's shard is only where the backend reports to.
    for shard <- [-new_shard(), Integer.pow(2, 70) + new_shard()] do
      TestBackend.register(shard, self())
      for write <- batches(), do: assert(write.(shard, [:a]) == {:ok, [{:done, :a}]})
      assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
      assert Batcher.flush(shard) == :ok
      assert Batcher.stop(shard) == :ok
      assert Batcher.snapshot(shard) == nil
    end
  end

  test "3.4 flush answers :ok when all is committed", %{shard: shard} do
    start_batcher(shard)
    assert Batcher.flush(shard) == :ok
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, @long_ms) end)
    wait_queued(shard, "p", 1)
    assert Batcher.flush(shard) == :ok
    assert next_commit(shard).list == [{:a}]
    assert await(task) == {:done, {:a}}
    assert Batcher.flush(shard, :infinity) == :ok
  end

  test "3.4 flush without a batcher", %{shard: shard} do
    assert Batcher.flush(shard) == :ok
    assert Batcher.flush(shard, 0) == :ok
    assert Batcher.flush(shard, :infinity) == :ok
    start_batcher(shard)
    stop_supervised!({Batcher, shard})
    assert Batcher.flush(shard) == :ok
  end

  test "3.4 flush that takes too long, and nothing comes later", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    commit = next_commit(shard)

    assert Batcher.flush(shard, 20) ==
             {:error, {:timeout, {Batcher, :flush, [shard, 20]}}}

    assert {:error, {:timeout, _}} = Batcher.flush(shard, 0)

    release(commit)
    assert await(task) == {:done, {:a}}
    assert Batcher.flush(shard) == :ok
    assert mailbox() == []
  end

  test "3.4 flush of a shard whose owner is killed, with nobody to follow", %{shard: shard} do
    owner = start_alone(shard, adoption_timeout: 0)
    backend(shard, :block)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    commit = next_commit(shard)
    queued = call_async(fn -> Batcher.write(shard, "p", {:b}, 1) end)
    wait_queued(shard, "p", 1)
    flush = call_async(fn -> Batcher.flush(shard) end)
    wait_waiting(flush)

    Process.exit(owner, :kill)
    assert await(queued) == {:error, :batcher_down}
    assert {:error, reason} = await(flush)
    refute match?({:timeout, _}, reason)
    release(commit)
    assert await(task) == {:done, {:a}}
  end

  test "3.4 flush and stop of anything but an integer" do
    for bad <- [:zero, "0", 1.0, nil] do
      assert_raise FunctionClauseError, fn -> Batcher.flush(bad) end
      assert_raise FunctionClauseError, fn -> Batcher.stop(bad) end
      assert_raise FunctionClauseError, fn -> Batcher.snapshot(bad) end
    end
  end

  test "3.4 stop answers :ok, batcher or not", %{shard: shard} do
    assert Batcher.stop(shard) == :ok
    start_alone(shard)
    assert Batcher.stop(shard) == :ok
    assert Process.whereis(Batcher.name(shard)) == nil
    assert Batcher.stop(shard) == :ok
    assert mailbox() == []
  end

  test "3.4 stop answers :ok even if the owner is killed meanwhile", %{shard: shard} do
    owner = start_alone(shard, adoption_timeout: 0)
    backend(shard, :block)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    commit = next_commit(shard)
    stop = call_async(fn -> Batcher.stop(shard) end)
    wait_waiting(stop)
    Process.exit(owner, :kill)
    assert await(stop) == :ok
    release(commit)
    assert await(task) == {:done, {:a}}
  end

  test "3.5 an empty list is committed and answered", %{shard: shard} do
    start_batcher(shard)

    for {write, function} <- Enum.zip(batches(), functions()) do
      assert write.(shard, []) == {:ok, []}
      assert %{function: ^function, list: []} = next_commit(shard)
    end
  end

  test "3.5 an empty list is a group among others", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: @long_ms)
    first = call_async(fn -> Batcher.write_delete_batch(shard, []) end)
    wait_queued(shard, :delete_batch, 1)
    assert %{count: 0} = queued_slot(shard, :delete_batch)
    second = call_async(fn -> Batcher.write_delete_batch(shard, ["a"]) end)
    wait_queued(shard, :delete_batch, 2)
    third = call_async(fn -> Batcher.write_delete_batch(shard, []) end)
    wait_queued(shard, :delete_batch, 3)

    Batcher.flush(shard)
    assert await(first) == {:ok, []}
    assert await(second) == {:ok, [{:done, "a"}]}
    assert await(third) == {:ok, []}
    assert next_commit(shard).list == ["a"]
  end

  test "3.5 a command that counts 0 gets its replies as a list", %{shard: shard} do
    start_batcher(shard)
    assert Batcher.write(shard, "p", {:batch, []}, 1) == {:ok, []}
    assert Batcher.write(shard, "p", {:put_batch, []}, 1) == {:ok, []}
    assert next_commit(shard).list == [{:batch, []}]
  end

  for {what, running?} <- [{"with", true}, {"without", false}] do
    test "3.6 an improper list is refused, #{what} a batcher", %{shard: shard} do
      if unquote(running?), do: start_batcher(shard)
      for write <- batches(), do: assert(write.(shard, @improper) == @refused)

      # The backend has seen none of it.
      assert mailbox() == []
    end

    test "3.6 an improper list within a list, #{what} a batcher", %{shard: shard} do
      if unquote(running?), do: start_batcher(shard)

      for kind <- [:put_batch, :delete_batch, :batch],
          command <- [{kind, @improper}, {:batch, [{:a}, {kind, @improper}]}] do
        assert Batcher.write_batch(shard, [{:a}, command]) == @refused
        assert Batcher.write(shard, "p", command, 1) == @refused
      end

      assert mailbox() == []
    end
  end

  test "3.6 an improper list harms nobody else in the lane", %{shard: shard} do
    owner = start_batcher(shard, hot_batch_window_ms: @long_ms)
    other = call_async(fn -> Batcher.write_put_batch(shard, [{"k", "v", 0}]) end)
    wait_queued(shard, :put_batch, 1)
    assert Batcher.write_put_batch(shard, @improper) == @refused
    assert queued(shard, :put_batch) == 1
    Batcher.flush(shard)
    assert await(other) == {:ok, [{:done, {"k", "v", 0}}]}
    assert Process.whereis(Batcher.name(shard)) == owner
  end

  test "3.6 a list that is improper at its very end", %{shard: shard} do
    start_batcher(shard)
    long = Enum.reduce(1..5_000, :end, &[&1 | &2])
    for write <- batches(), do: assert(write.(shard, long) == @refused)
  end

  defp batches do
    [&Batcher.write_batch/2, &Batcher.write_put_batch/2, &Batcher.write_delete_batch/2]
  end

  defp functions do
    [:__commit_batch_direct__, :__commit_put_batch_direct__, :__commit_delete_batch_direct__]
  end
end
