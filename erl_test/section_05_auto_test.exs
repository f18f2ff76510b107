# Pacing that learns, and writes that are alone: section 5.6 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section05AutoTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  for scope <- [:lane, :shard] do
    describe "with commit_scope: #{scope}" do
      setup %{shard: shard} do
        owner = start_batcher(shard, pacing: :auto, commit_scope: unquote(scope))
        %{owner: owner}
      end

      for lane <- ["p", :batch, :put_batch, :delete_batch] do
        test "5.6 a write of lane #{inspect(lane)} that is alone is committed by its own process",
             %{shard: shard} do
          lane = unquote(lane)
          Application.put_env(:ferricstore, :waraft_generic_batch_window_ms, 1)
          on_exit(fn -> Application.delete_env(:ferricstore, :waraft_generic_batch_window_ms) end)
          reply = write(shard, lane, item(lane))
          commit = next_commit(shard)
          assert commit.pid == self()
          assert {commit.function, commit.list} == {function(lane), listed(lane, item(lane))}

          expected = for it <- listed(lane, item(lane)), do: {:done, it}
          assert reply == if(is_binary(lane), do: hd(expected), else: {:ok, expected})
          wait_idle(shard)
        end
      end

      test "5.6 a command that counts other than 1 gets a list", %{shard: shard} do
        two = {:put_batch, [{"x", 1}, {"y", 2}]}
        assert {:ok, [{:done, _}, {:done, _}]} = Batcher.write(shard, "p", two, 5)
        assert Batcher.write(shard, "p", {:put_batch, []}, 5) == {:ok, []}
      end

      test "7.2 puts and deletes of a namespace have their own functions", %{shard: shard} do
        Batcher.write(shard, "p", {:put, "k", "v", 0}, 5)

        assert %{function: :__commit_put_batch_direct__, list: [{"k", "v", 0}]} =
                 next_commit(shard)

        Batcher.write(shard, "p", {:delete, "k"}, 5)
        assert %{function: :__commit_delete_batch_direct__, list: ["k"]} = next_commit(shard)
        Batcher.write(shard, "p", {:put, :k, "v", 0}, 5)

        assert %{function: :__commit_batch_direct__, list: [{:put, :k, "v", 0}]} =
                 next_commit(shard)
      end

      test "9.1 to 9.4 whatever the backend does is told as ever", %{shard: shard} do
        for {behaviour, reply} <- [
              {{:return, {:error, :no_leader}}, {:error, :no_leader}},
              {{:return, :other}, :other},
              {{:return, {:ok, [1, 2]}}, {:error, {:batch_result_mismatch, 1, 2}}},
              {{:return, {:ok, [1 | 2]}}, {:ok, [1 | 2]}},
              {{:exit, :gone}, {:error, {:backend_exit, :gone}}},
              {{:throw, :ball}, {:error, {:backend_error, :throw, :ball}}},
              {{:raise, :badarg}, {:error, {:backend_error, :error, :badarg}}}
            ] do
          backend(shard, behaviour)
          assert Batcher.write(shard, "p", {:a}, 5) == reply
          assert next_commit(shard).pid == self()
        end

        backend(shard, :reply)
        assert Batcher.write(shard, "p", {:a}, 5) == {:done, {:a}}
      end

      test "5.6 what comes meanwhile queues behind it and is the next batch", %{shard: shard} do
        backend(shard, [:block, :reply])
        alone = call_async(fn -> Batcher.write(shard, "p", {:set, 0}, long_ms()) end)
        commit = next_commit(shard)
        assert commit.pid == alone.pid
        assert Map.keys(Batcher.snapshot(shard).in_flight) == [{:prefix, "p"}]
        tasks = for n <- 1..3, do: queue(shard, "p", {:set, n})
        refute_commit(shard)
        release(commit)
        assert await(alone) == {:done, {:set, 0}}
        next = next_commit(shard)
        assert next.list == for(n <- 1..3, do: {:set, n})
        assert next.pid not in Enum.map(tasks, & &1.pid)
        Enum.each(tasks, &await/1)
      end

      test "5.6 its process is killed: the lane goes on at once", %{shard: shard} do
        backend(shard, [:block, :reply])
        {pid, monitor} = spawn_monitor(fn -> Batcher.write(shard, "p", {:set, 0}, long_ms()) end)
        assert next_commit(shard).pid == pid
        task = queue(shard, "p", {:set, 1})
        refute_commit(shard)
        Process.exit(pid, :kill)
        assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}
        assert next_commit(shard).list == [{:set, 1}]
        assert await(task) == {:done, {:set, 1}}
      end

      test "5.6 flush and stop wait for it", %{shard: shard, owner: owner} do
        backend(shard, :block)

        for wait <- [&Batcher.flush/1, &Batcher.stop/1] do
          alone = call_async(fn -> Batcher.write(shard, "p", {:set, 0}, long_ms()) end)
          commit = next_commit(shard)
          waits = call_async(fn -> wait.(shard) end)
          refute_done(waits)
          release(commit)
          assert await(waits) == :ok
          assert await(alone) == {:done, {:set, 0}}
        end

        await_successor(shard, owner)
      end

      test "11.1 flush ends when the process of a write that was alone is killed", %{shard: shard} do
        backend(shard, [:block, :reply])
        pid = spawn(fn -> Batcher.write(shard, "p", {:set, 0}, long_ms()) end)
        next_commit(shard)
        flush = call_async(fn -> Batcher.flush(shard) end)
        refute_done(flush)
        Process.exit(pid, :kill)
        assert await(flush) == :ok
      end

      test "5.6 asynchronous writes never commit in the caller", %{shard: shard} do
        for lane <- [:put_batch, :delete_batch, :batch] do
          tag = cast(shard, lane, item(lane))
          assert next_commit(shard).pid != self()
          assert {:ok, [_]} = await_reply(tag)
        end
      end

      test "10.4 its owner is killed: it ends as ever", %{shard: shard, owner: owner} do
        backend(shard, [:block, :reply])
        alone = call_async(fn -> Batcher.write(shard, "p", {:set, 0}, long_ms()) end)
        commit = next_commit(shard)
        Process.exit(owner, :kill)
        await_successor(shard, owner)
        task = queue(shard, "p", {:set, 1})
        refute_commit(shard)
        release(commit)
        assert await(alone) == {:done, {:set, 0}}
        assert await(task) == {:done, {:set, 1}}
      end

      test "13.5 its reason is :alone", %{shard: shard} do
        attach_telemetry(shard)
        Batcher.write(shard, "p", {:set, 0}, 7)
        {measurements, metadata} = next_event(:slot_flush)
        assert %{reason: :alone, prefix: "p", window_ms: 7, result: :ok} = metadata
        assert %{batch_size: 1, queue_wait_us: 0} = measurements
        {submit, _} = next_event(:quorum_submit)
        assert submit.caller_count == 1 and submit.command_bytes > 0
      end

      test "16.2 a generic command in all: the backend's function for that", %{shard: shard} do
        # With window 0, as without a setting of the environment.
        assert Batcher.write_batch(shard, [{:set, 1}]) == {:ok, [{:done, {:set, 1}}]}
      end

      test "5.6 many callers: each write is committed once, in the order of its caller",
           context do
        %{shard: shard} = context
        {:ok, log} = Agent.start_link(fn -> [] end)

        backend(
          shard,
          {:run,
           fn _function, list ->
             Agent.update(log, &[list | &1])
             {:ok, Enum.map(list, &{:done, &1})}
           end}
        )

        callers =
          for caller <- 1..20 do
            call_async(fn ->
              for n <- 1..50 do
                command = {:set, caller, n}
                prefix = "p#{rem(caller, 3)}"
                assert Batcher.write(shard, prefix, command, 20) == {:done, command}
              end
            end)
          end

        Enum.each(callers, &await/1)
        committed = log |> Agent.get(&Enum.reverse/1) |> Enum.concat()
        assert length(committed) == 1_000

        for caller <- 1..20 do
          own = for {:set, ^caller, n} <- committed, do: n
          assert own == Enum.to_list(1..50)
        end
      end
    end
  end

  test "4.2 dead processes of other lanes take no room from a lane for ever", %{shard: shard} do
    start_batcher(shard, pacing: :auto, max_in_flight: 2)
    backend(shard, [:block, :block, :reply])

    for lane <- ["a", "b"] do
      pid = spawn(fn -> Batcher.write(shard, lane, {:set, lane}, long_ms()) end)
      assert next_commit(shard).pid == pid
      Process.exit(pid, :kill)
    end

    assert Batcher.write(shard, "c", {:set, "c"}, 1) == {:done, {:set, "c"}}
    assert next_commit(shard).list == [{:set, "c"}]
    wait_idle(shard)
  end

  test "4.4 with commit_scope: :shard a write of another lane queues behind it", %{shard: shard} do
    start_batcher(shard, pacing: :auto, commit_scope: :shard)
    backend(shard, [:block, :reply])
    alone = call_async(fn -> Batcher.write(shard, "a", {:set, 0}, long_ms()) end)
    commit = next_commit(shard)
    tasks = for lane <- ["b", "c"], do: queue(shard, lane, {:set, lane})
    refute_commit(shard)
    release(commit)
    await(alone)
    assert next_commit(shard).list == [{:set, "b"}, {:set, "c"}]
    Enum.each(tasks, &await/1)
  end

  test "5.6 a large write that is alone is not copied", %{shard: shard} do
    start_batcher(shard, pacing: :auto)
    big = :binary.copy(<<1>>, 1_000_000)
    command = {:set, Enum.to_list(1..100_000), big}
    assert Batcher.write(shard, "p", command, 5) == {:done, command}
    assert next_commit(shard).pid == self()
  end
end
