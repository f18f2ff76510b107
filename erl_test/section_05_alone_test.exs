# What may befall a process that commits its own write: contract 5.6, 9.4, 10.5.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section05AloneTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @at_any_moment 200

  # As a backend that waits for ever, so that only what kills its process ends it.
  defp hang, do: {:run, fn _function, _list -> receive(do: (:never -> :never)) end}

  # Writes `{:set, 0}` to lane "p"; not linked to the test.
  defp writer(shard, fun \\ & &1) do
    test = self()

    spawn(fn -> send(test, {:returned, fun.(Batcher.write(shard, "p", {:set, 0}, long_ms()))}) end)
  end

  for scope <- [:lane, :shard] do
    describe "with commit_scope: #{scope}" do
      setup %{shard: shard} do
        %{owner: start_batcher(shard, pacing: :auto, commit_scope: unquote(scope))}
      end

      test "5.6 killed before it calls the backend: that is never called", %{shard: shard} do
        put_env(:waraft_backend_batcher_call_hook, {:block, self()})
        pid = writer(shard)
        assert_receive {:waraft_backend_batcher_call, _function, _ref, ^pid}
        behind = queue(shard, "p", {:set, 1})
        flush = call_async(fn -> Batcher.flush(shard) end)
        delete_env(:waraft_backend_batcher_call_hook)
        Process.exit(pid, :kill)
        assert await(behind) == {:done, {:set, 1}}
        assert await(flush) == :ok
        assert next_commit(shard).list == [{:set, 1}]
        refute_commit(shard)
      end

      test "5.6 killed within the backend: the lane goes on, nothing runs twice", %{shard: shard} do
        backend(shard, [hang(), :reply])
        pid = writer(shard)
        assert next_commit(shard).pid == pid
        behind = for n <- 1..3, do: queue(shard, "p", {:set, n})
        Process.exit(pid, :kill)
        assert next_commit(shard).list == for(n <- 1..3, do: {:set, n})
        assert Enum.map(behind, &await/1) == for(n <- 1..3, do: {:done, {:set, n}})
        refute_received {:returned, _}
        wait_idle(shard)
      end

      test "5.6 killed by itself, or by what it is linked to: the lane goes on", %{shard: shard} do
        for die <- [
              fn -> Process.exit(self(), :kill) end,
              fn -> spawn_link(fn -> exit(:boom) end) && receive(do: (:never -> :ok)) end
            ] do
          backend(shard, [{:run, fn _function, _list -> die.() end}, :reply])
          await_death(writer(shard))
          assert Batcher.write(shard, "p", {:set, 1}, 5) == {:done, {:set, 1}}
          wait_idle(shard)
        end
      end

      test "5.6 killed at any moment, after the backend as well: the lane goes on", context do
        %{shard: shard} = context

        kill = fn function, list ->
          if list == [{:set, 0}], do: kill_after(self(), :rand.uniform(60) - 1)
          {:ok, TestBackend.replies(function, list)}
        end

        backend(shard, {:run, kill})

        for n <- 1..@at_any_moment do
          pid = writer(shard)
          behind = call_async(fn -> Batcher.write(shard, "p", {:set, n}, 1) end)
          assert await(behind) == {:done, {:set, n}}
          await_death(pid)
          assert Batcher.flush(shard, 4_000) == :ok
        end

        wait_idle(shard)
        lists = for %{list: list} <- commits(shard), do: list
        written = for {:set, n} when n > 0 <- Enum.concat(lists), do: n
        assert Enum.sort(written) == Enum.to_list(1..@at_any_moment)
      end

      test "5.6 killed while its long list is looked at: the lane goes on", %{shard: shard} do
        backend(shard, {:run, fn _function, list -> {:ok, list} end})
        keys = for n <- 1..20_000, do: {n, "key"}

        for _ <- 1..100 do
          caller = spawn(fn -> Batcher.write_delete_batch(shard, keys) end)
          for _ <- 1..:rand.uniform(400), do: :erlang.yield()
          Process.exit(caller, :kill)
          await_death(caller)
          assert Batcher.flush(shard, 4_000) == :ok
        end

        wait_idle(shard)
      end

      @tag :capture_log
      test "9.4 there is no such backend: it is told, and the lane goes on", %{shard: shard} do
        for backend <- [:no_such_backend, "no module"], lane <- lanes() do
          put_env(:waraft_backend_batcher_backend, backend)
          assert {:error, {:backend_error, :error, _reason}} = write(shard, lane, item(lane), 5)
          put_env(:waraft_backend_batcher_backend, TestBackend)
          assert elem(write(shard, lane, item(lane), 5), 0) in [:ok, :done]
        end
      end

      test "9.4 its backend exits: it is told, and writes again", %{shard: shard} do
        backend(shard, [{:exit, :gone}, {:run, fn _, _ -> exit(:normal) end}, :reply])
        assert Batcher.write(shard, "p", {:a}, 5) == {:error, {:backend_exit, :gone}}
        assert Batcher.write(shard, "p", {:a}, 5) == {:error, {:backend_exit, :normal}}
        assert Batcher.write(shard, "p", {:a}, 5) == {:done, {:a}}
        assert for(_ <- 1..3, do: next_commit(shard).pid) == List.duplicate(self(), 3)
        wait_idle(shard)
      end

      test "9.4 what its backend leaves in its mailbox is no reply", %{shard: shard} do
        leave = fn function, list ->
          send(self(), {make_ref(), :late})
          {:ok, TestBackend.replies(function, list)}
        end

        backend(shard, {:run, leave})
        for n <- 1..3, do: assert(Batcher.write(shard, "p", {:set, n}, 5) == {:done, {:set, n}})
        for _ <- 1..3, do: assert_received({reference, :late} when is_reference(reference))
      end

      @tag :capture_log
      test "10.5 the library fails meanwhile: who waits behind is told, it ends as ever",
           context do
        %{shard: shard, owner: owner} = context
        backend(shard, [:block, :reply])
        alone = call_async(fn -> Batcher.write(shard, "p", {:set, 0}, long_ms()) end)
        commit = next_commit(shard)
        behind = queue(shard, "p", {:set, 1})
        flush = call_async(fn -> Batcher.flush(shard) end)
        wait_waiting(flush)
        monitor = Process.monitor(owner)
        Native.panic_thread(shard)
        crash = {:error, {:batcher_crashed, "provoked"}}
        assert await(behind) == crash
        assert await(flush) == crash
        assert_receive {:DOWN, ^monitor, _, _, {:batcher_crashed, "provoked"}}
        await_successor(shard, owner)
        # Its lane is in flight as long as it is (4.2).
        later = queue(shard, "p", {:set, 2})
        refute_commit(shard)
        release(commit)
        assert await(alone) == {:done, {:set, 0}}
        if unquote(scope) == :shard, do: Batcher.flush(shard)
        assert await(later) == {:done, {:set, 2}}
        assert next_commit(shard).list == [{:set, 2}]
      end

      @tag :capture_log
      test "10.5 the library fails, and then it is killed: its lane goes on", context do
        %{shard: shard, owner: owner} = context
        backend(shard, [hang(), :reply])
        pid = writer(shard)
        next_commit(shard)
        Native.panic_thread(shard)
        await_successor(shard, owner)
        later = queue(shard, "p", {:set, 2})
        Process.exit(pid, :kill)
        if unquote(scope) == :shard, do: Batcher.flush(shard)
        assert await(later) == {:done, {:set, 2}}
      end

      test "11.6 the batcher is shut down meanwhile: it ends as ever", context do
        %{shard: shard, owner: owner} = context
        backend(shard, [:block, :reply])
        alone = call_async(fn -> Batcher.write(shard, "p", {:set, 0}, long_ms()) end)
        commit = next_commit(shard)
        stop = call_async(fn -> GenServer.stop(owner, :shutdown) end)
        refute_done(stop)
        release(commit)
        assert await(alone) == {:done, {:set, 0}}
        assert await(stop) == :ok
      end
    end
  end

  describe "a backend that writes" do
    # What it writes goes to `lane`, of the same shard, from within the commit of `{:set, 0}`.
    defp writing_to(shard, lane) do
      write = fn function, list ->
        if list == [{:set, 0}], do: {:done, _} = Batcher.write(shard, lane, {:set, 1}, 1)
        {:ok, TestBackend.replies(function, list)}
      end

      backend(shard, {:run, write})
    end

    for pacing <- [:commit, :auto] do
      test "4.2 to another lane, with pacing: #{pacing}: each lane is for itself", %{shard: shard} do
        start_batcher(shard, pacing: unquote(pacing))
        writing_to(shard, "q")
        assert Batcher.write(shard, "p", {:set, 0}, 1) == {:done, {:set, 0}}
        assert [[{:set, 0}], [{:set, 1}]] = for(_ <- 1..2, do: next_commit(shard).list)
        wait_idle(shard)
      end

      for {scope, lane} <- [lane: "p", shard: "p", shard: "q"] do
        test "3.7 to what its own commit keeps busy (#{scope}, #{lane}), with pacing: #{pacing}: waits in vain",
             %{shard: shard} do
          opts = [pacing: unquote(pacing), commit_scope: unquote(scope), call_timeout: 50]
          start_batcher(shard, opts)
          writing_to(shard, unquote(lane))
          args = [shard, unquote(lane), {:set, 1}, 1]

          # The write that waits is given up, and is committed when the one around it has ended.
          outer =
            try do
              Batcher.write(shard, "p", {:set, 0}, 1)
            catch
              :exit, reason -> {:exit, reason}
            end

          case unquote(pacing) do
            :auto ->
              assert {:error, {:backend_exit, {:timeout, {Batcher, :write, ^args}}}} = outer

            # Its caller waits no longer than the backend does.
            :commit ->
              assert outer_of_a_committer?(outer, args)
          end

          assert Batcher.flush(shard) == :ok
          assert [[{:set, 0}], [{:set, 1}]] = for(_ <- 1..2, do: next_commit(shard).list)
          assert mailbox() == []
        end
      end

      test "11.1 and one that flushes waits for itself, with pacing: #{pacing}", %{shard: shard} do
        start_batcher(shard, pacing: unquote(pacing))
        flush = fn _function, _list -> {:error, Batcher.flush(shard, 50)} end
        backend(shard, {:run, flush})

        assert {:error, {:error, {:timeout, {Batcher, :flush, [^shard, 50]}}}} =
                 Batcher.write(shard, "p", {:set, 0}, 1)

        wait_idle(shard)
      end
    end

    defp outer_of_a_committer?(outer, args) do
      match?({:exit, {:timeout, {Batcher, :write, [_, "p", {:set, 0}, 1]}}}, outer) or
        outer == {:error, {:backend_exit, {:timeout, {Batcher, :write, args}}}}
    end
  end

  describe "what a killed process held is free again" do
    test "6.5 when another write is refused for it", %{shard: shard} do
      start_batcher(shard, pacing: :auto, max_queue_items: 10, hot_batch_max: 10)
      backend(shard, [hang(), :reply])
      killed(shard, fn -> Batcher.write_batch(shard, for(n <- 1..10, do: {:set, n})) end)
      assert Batcher.write(shard, "other", {:set, 1}, 1) == {:error, :batcher_overloaded}

      wait_until(fn -> Batcher.write(shard, "other", {:set, 1}, 1) == {:done, {:set, 1}} end)
    end

    test "16.3 when another write finds the lane full", %{shard: shard} do
      start_batcher(shard, pacing: :auto, overflow: :refuse, hot_batch_max: 0)
      backend(shard, [hang(), :reply])
      killed(shard, fn -> Batcher.write_batch(shard, [{:set, 0}]) end)
      assert Batcher.write_batch(shard, [{:set, 1}]) == {:error, :batcher_overloaded}
      wait_until(fn -> Batcher.write_batch(shard, [{:set, 1}]) == {:ok, [{:done, {:set, 1}}]} end)
    end

    test "6.5 of another shard too, when the watcher has looked", %{shard: shard} do
      put_total(1_000_000)
      owner = start_batcher(shard, pacing: :auto)
      other = new_shard()
      start_supervised!({Batcher, {other, []}}, id: :other)
      for it <- [shard, other], do: backend(it, [hang(), :reply])
      write = fn -> Batcher.write(other, "p", {:set, 1}, 1) end
      killed(shard, fn -> Batcher.write(shard, "p", {:set, :binary.copy("x", 1_000_000)}, 1) end)
      assert write.() == {:error, :batcher_overloaded}
      backend(other, :reply)
      look(watcher(owner))
      wait_until(fn -> write.() == {:done, {:set, 1}} end)
    end
  end

  # Killed while its own process commits this write.
  defp killed(shard, write) do
    pid = spawn(write)
    assert next_commit(shard).pid == pid
    Process.exit(pid, :kill)
    await_death(pid)
  end

  defp kill_after(pid, yields) do
    spawn(fn ->
      for _ <- 1..yields//1, do: :erlang.yield()
      Process.exit(pid, :kill)
    end)
  end

  defp commits(shard) do
    receive do
      {:commit, %{shard: ^shard} = commit} -> [commit | commits(shard)]
    after
      0 -> []
    end
  end
end
