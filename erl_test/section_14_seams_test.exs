# The seams for tests: section 14 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section14SeamsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  @call_hook :waraft_backend_batcher_call_hook
  @cast_hook :waraft_backend_batcher_cast_hook

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @put {"k", "v", 0}

  @writes [
    write: [["p", {:a}, 1], :__commit_batch_direct__],
    write: [["p", {:put, "k", "v", 0}, 1], :__commit_put_batch_direct__],
    write: [["p", {:delete, "k"}, 1], :__commit_delete_batch_direct__],
    write_batch: [[[{:a}]], :__commit_batch_direct__],
    write_put_batch: [[[@put]], :__commit_put_batch_direct__],
    write_delete_batch: [[["k"]], :__commit_delete_batch_direct__]
  ]
  @async [:write_put_batch_async, :write_delete_batch_async]

  describe "14.1" do
    setup do
      put_env(@call_hook, {:block, self()})
    end

    test "before every call of the backend in a commit", %{shard: shard} do
      start_batcher(shard)

      for {write, [args, function]} <- @writes do
        task = call_async(fn -> apply(Batcher, write, [shard | args]) end)
        {ref, committer} = hooked(function)
        assert committer != task.pid
        refute_commit(shard)
        send(committer, {ref, :continue})
        assert %{function: ^function, pid: ^committer} = next_commit(shard)
        assert {:done, _} = bare(await(task))
      end

      assert mailbox() == []
    end

    test "before every direct call of the backend", %{shard: shard} do
      for {write, [args, function]} <- @writes do
        # Directly, write/4 knows one function only.
        function = if write == :write, do: :__commit_batch_direct__, else: function
        task = call_async(fn -> apply(Batcher, write, [shard | args]) end)
        {ref, caller} = hooked(function)
        assert caller == task.pid
        refute_commit(shard)
        send(caller, {ref, :continue})
        assert next_commit(shard).pid == caller
        assert {:done, _} = bare(await(task))
      end

      for {write, function} <- Enum.zip(@async, [:put, :delete]) do
        function = :"__commit_#{function}_batch_direct__"
        from = {self(), make_ref()}
        task = call_async(fn -> apply(Batcher, write, [shard, [:a], from]) end)
        {ref, caller} = hooked(function)
        assert caller == task.pid
        send(caller, {ref, :continue})
        assert await(task) == {:direct, {:ok, [{:done, :a}]}}
        assert next_commit(shard).function == function
      end

      assert mailbox() == []
    end

    test "only that very answer continues", %{shard: shard} do
      start_batcher(shard)
      task = call_async(fn -> Batcher.write_batch(shard, [{:a}]) end)
      {ref, committer} = hooked(:__commit_batch_direct__)
      for wrong <- [{make_ref(), :continue}, {ref, :stop}, :continue], do: send(committer, wrong)
      refute_commit(shard)
      send(committer, {ref, :continue})
      assert await(task) == {:ok, [{:done, {:a}}]}
    end

    test "the commit is in flight meanwhile, other lanes go on", %{shard: shard} do
      start_batcher(shard)
      first = call_async(fn -> Batcher.write_batch(shard, [{:a}]) end)
      {ref, committer} = hooked(:__commit_batch_direct__)
      assert %{batch: _} = Batcher.snapshot(shard).in_flight
      second = call_async(fn -> Batcher.write_delete_batch(shard, ["k"]) end)
      {other_ref, other} = hooked(:__commit_delete_batch_direct__)
      send(other, {other_ref, :continue})
      assert {:ok, _} = await(second)
      send(committer, {ref, :continue})
      assert {:ok, _} = await(first)
    end

    test "read at each call", %{shard: shard} do
      start_batcher(shard)
      put_env(@call_hook, nil)
      assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
      put_env(@call_hook, {:block, self()})
      task = call_async(fn -> Batcher.write_batch(shard, [{:a}]) end)
      {ref, committer} = hooked(:__commit_batch_direct__)
      send(committer, {ref, :continue})
      assert {:ok, _} = await(task)
      delete_env(@call_hook)
      assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
    end
  end

  describe "14.2" do
    setup do
      put_env(@cast_hook, {:defer, self()})
    end

    for function <- @async do
      @function function

      test "#{function} answers :ok at once, a helper enqueues", %{shard: shard} do
        start_batcher(shard, hot_batch_window_ms: @long_ms)
        tag = make_ref()
        token = TestGate.token()
        assert apply(Batcher, @function, [shard, [:a], {self(), tag}, token]) == :ok
        {ref, helper} = deferred()
        assert helper != self()

        # Until it may, nothing is queued, nobody answered, no token released.
        assert Batcher.flush(shard) == :ok
        for wrong <- [{make_ref(), :continue}, {ref, :stop}], do: send(helper, wrong)
        refute_receive _, 30

        send(helper, {ref, :continue})
        assert_receive {:left, ^token, ^helper}
        assert Batcher.flush(shard) == :ok
        assert await_reply(tag) == {:ok, [{:done, :a}]}
        assert next_commit(shard).list == [:a]
        assert mailbox() == []
      end

      test "#{function}: they are queued as they may continue", %{shard: shard} do
        start_batcher(shard, hot_batch_window_ms: @long_ms)
        lane = if @function == :write_put_batch_async, do: :put_batch, else: :delete_batch

        helpers =
          for n <- 1..3 do
            assert apply(Batcher, @function, [shard, [n], {self(), n}]) == :ok
            {n, deferred()}
          end

        for {{_n, {ref, helper}}, queued} <- Enum.with_index(Enum.reverse(helpers), 1) do
          send(helper, {ref, :continue})
          wait_queued(shard, lane, queued)
        end

        Batcher.flush(shard)
        assert next_commit(shard).list == [3, 2, 1]
        for n <- 1..3, do: assert(await_reply(n) == {:ok, [{:done, n}]})
      end

      test "#{function}: the owner of then is dead", %{shard: shard} do
        owner = start_alone(shard, adoption_timeout: 0)
        put_env(:waraft_hot_batch_window_ms, 1)
        tag = make_ref()
        token = TestGate.token()
        assert apply(Batcher, @function, [shard, [:a], {self(), tag}, token]) == :ok
        {ref, helper} = deferred()
        Process.exit(owner, :kill)
        await_death(owner)
        assert mailbox() == []
        send(helper, {ref, :continue})
        assert await_reply(tag) == {:error, :shutting_down}
        assert_receive {:left, ^token, _}
        refute_commit(shard)
        assert mailbox() == []
      end

      test "#{function}: the owner of then is dead, another one runs", %{shard: shard} do
        owner = start_batcher(shard)
        tag = make_ref()
        token = TestGate.token()
        assert apply(Batcher, @function, [shard, [:a], {self(), tag}, token]) == :ok
        {ref, helper} = deferred()
        Process.exit(owner, :kill)
        await_successor(shard, owner)
        send(helper, {ref, :continue})
        assert await_reply(tag) == {:error, :shutting_down}
        assert_receive {:left, ^token, _}
        assert Batcher.flush(shard) == :ok
        assert mailbox() == []
      end

      test "#{function}: the owner of then is stopping", %{shard: shard} do
        start_alone(shard)
        tag = make_ref()
        token = TestGate.token()
        assert apply(Batcher, @function, [shard, [:a], {self(), tag}, token]) == :ok
        {ref, helper} = deferred()
        {task, commit} = stopping(shard)
        send(helper, {ref, :continue})
        assert await_reply(tag) == {:error, :shutting_down}
        assert_receive {:left, ^token, _}
        release(commit)
        await(task)
        assert mailbox() == []
      end

      test "#{function}: what it could not queue is answered", %{shard: shard} do
        start_batcher(shard)
        tag = make_ref()
        token = TestGate.token()
        assert apply(Batcher, @function, [shard, [1 | 2], {self(), tag}, token]) == :ok

        # Refused at once, or when it may continue.
        reply =
          receive do
            {^tag, reply} ->
              reply

            {:waraft_backend_batcher_cast_deferred, ref, helper} ->
              send(helper, {ref, :continue})
              await_reply(tag)
          end

        assert reply == {:error, :invalid_batch_command_list}
        assert_receive {:left, ^token, _}
      end

      test "#{function} that commits directly is not deferred", %{shard: shard} do
        from = {self(), make_ref()}
        assert {:direct, {:ok, _}} = apply(Batcher, @function, [shard, [:a], from])
        start_batcher(shard, hot_batch_window_ms: 0)
        assert {:direct, {:ok, _}} = apply(Batcher, @function, [shard, [:a], from])
        for _ <- 1..2, do: assert(next_commit(shard).pid == self())
        assert mailbox() == []
      end

      test "#{function} with a from that is none raises at once", %{shard: shard} do
        start_batcher(shard)
        token = TestGate.token()

        assert_raise ArgumentError, fn ->
          apply(Batcher, @function, [shard, [:a], :nobody, token])
        end

        assert mailbox() == []
      end

      @tag :slow
      @tag timeout: 90_000
      test "#{function}: after 30_000 ms from is told, the token released", context do
        %{shard: shard} = context
        start_batcher(shard)
        tag = make_ref()
        token = TestGate.token()
        started = System.monotonic_time(:millisecond)
        assert apply(Batcher, @function, [shard, [:a], {self(), tag}, token]) == :ok
        {_ref, helper} = deferred()
        assert_receive {^tag, {:error, :shutting_down}}, @long_ms
        assert System.monotonic_time(:millisecond) - started >= 30_000
        assert_receive {:left, ^token, ^helper}
        refute_commit(shard)
      end
    end

    test "sync writes are not deferred", %{shard: shard} do
      start_batcher(shard)
      assert {:ok, _} = Batcher.write_put_batch(shard, [@put])
      assert {:ok, _} = Batcher.write_delete_batch(shard, ["k"])
      assert {:done, _} = Batcher.write(shard, "p", {:a}, 1)
      for _ <- 1..3, do: next_commit(shard)
      assert mailbox() == []
    end
  end

  @tag :slow
  @tag timeout: 90_000
  test "14.1 after 30_000 ms the calling process exits", %{shard: shard} do
    put_env(@call_hook, {:block, self()})
    started = System.monotonic_time(:millisecond)
    start_batcher(shard)
    put_call_timeout(shard, @long_ms)
    exited = {:backend_call_hook_timeout, :__commit_batch_direct__}
    committed = call_async(fn -> Batcher.write_batch(shard, [{:a}]) end)
    direct = call_async(fn -> catch_exit(Batcher.write_batch(new_shard(), [{:a}])) end)
    for _ <- 1..2, do: hooked(:__commit_batch_direct__)

    assert Task.await(committed, @long_ms) == {:error, {:backend_exit, exited}}
    assert Task.await(direct, @long_ms) == exited
    assert System.monotonic_time(:millisecond) - started >= 30_000
    refute_commit(shard)
  end

  defp hooked(function) do
    assert_receive {:waraft_backend_batcher_call, ^function, ref, pid}, 5_000
    {ref, pid}
  end

  defp deferred do
    assert_receive {:waraft_backend_batcher_cast_deferred, ref, helper}, 5_000
    {ref, helper}
  end

  defp bare({:ok, [reply]}), do: reply
  defp bare(reply), do: reply
end
