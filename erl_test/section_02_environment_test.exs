# The application environment: section 2 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section02EnvironmentTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.OtherBackend

  @hot :waraft_hot_batch_window_ms
  @generic :waraft_generic_batch_window_ms
  @during_flush :waraft_generic_batch_during_flush
  @backend :waraft_backend_batcher_backend

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @put {"k", "v", 0}

  setup do
    for key <- [@hot, @generic, @during_flush], do: delete_env(key)
    :ok
  end

  test "2 the environment is read at each call", %{shard: shard} do
    start_batcher(shard)

    for window_ms <- [0, 1, -1, 2] do
      put_env(@hot, window_ms)
      assert {:ok, _} = Batcher.write_delete_batch(shard, ["k"])
      assert next_commit(shard).pid == self() == window_ms <= 0
    end

    for during_flush? <- [false, true] do
      put_env(@during_flush, during_flush?)
      assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
      assert next_commit(shard).pid == self() == not during_flush?
    end
  end

  test "2 the environment is read in the caller", %{shard: shard} do
    owner = start_batcher(shard)
    # The owner does not take part.
    :ok = :sys.suspend(owner)
    put_env(@hot, :soon)
    assert_raise ArgumentError, fn -> Batcher.write_delete_batch(shard, ["k"]) end
    put_env(@hot, 2)
    assert {:ok, _} = Batcher.write_delete_batch(shard, ["k"])
    :ok = :sys.resume(owner)
  end

  test "2.1 the window of the put and delete lanes is 1 ms by default", %{shard: shard} do
    start_batcher(shard)
    attach_telemetry(shard)
    Batcher.write_put_batch(shard, [@put])
    assert_receive {:telemetry, _, _, %{kind: :put_batch, window_ms: 1}}
    Batcher.write_delete_batch(shard, ["k"])
    assert_receive {:telemetry, _, _, %{kind: :delete_batch, window_ms: 1}}
  end

  test "2.1 the window of the put and delete lanes", %{shard: shard} do
    put_env(@hot, 54_321)
    start_batcher(shard)
    put = call_async(fn -> Batcher.write_put_batch(shard, [@put]) end)
    delete = call_async(fn -> Batcher.write_delete_batch(shard, ["k"]) end)
    assert Batcher.write_put_batch_async(shard, [@put], {self(), make_ref()}) == :ok
    assert Batcher.write_delete_batch_async(shard, ["k"], {self(), make_ref()}) == :ok

    wait_queued(shard, :put_batch, 2)
    wait_queued(shard, :delete_batch, 2)
    assert %{window_ms: 54_321} = queued_slot(shard, :put_batch)
    assert %{window_ms: 54_321} = queued_slot(shard, :delete_batch)
    Batcher.flush(shard)
    await(put)
    await(delete)
  end

  for window_ms <- [0, -1, -Integer.pow(2, 70)] do
    test "2.1 a window of #{window_ms}: directly in the caller, batcher or not", %{shard: shard} do
      put_env(@hot, unquote(window_ms))
      writes_are_direct(shard)
      start_batcher(shard)
      writes_are_direct(shard)

      # Neither the generic lane nor the namespaces.
      assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
      assert next_commit(shard).pid != self()
      assert {:done, _} = Batcher.write(shard, "p", {:a}, 1)
      assert next_commit(shard).pid != self()
    end
  end

  test "2.2 the window of the generic lane is 0 by default", %{shard: shard} do
    start_batcher(shard)
    attach_telemetry(shard)
    Batcher.write_batch(shard, [{:a}])
    assert_receive {:telemetry, _, _, %{kind: :batch, window_ms: 0}}
  end

  test "2.2 the window of the generic lane", %{shard: shard} do
    put_env(@generic, 54_321)
    start_batcher(shard)
    task = call_async(fn -> Batcher.write_batch(shard, [{:a}]) end)
    wait_queued(shard, :batch, 1)
    assert %{window_ms: 54_321} = queued_slot(shard, :batch)
    refute_commit(shard)
    Batcher.flush(shard)
    assert await(task) == {:ok, [{:done, {:a}}]}
  end

  test "2.2 and 2.1 are windows of their own lanes", %{shard: shard} do
    put_env(@generic, @long_ms)
    put_env(@hot, 1)
    start_batcher(shard)
    assert {:ok, _} = Batcher.write_put_batch(shard, [@put])
    put_env(@generic, 0)
    put_env(@hot, @long_ms)
    assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
  end

  test "2.3 true: through the batcher with window 0", %{shard: shard} do
    start_batcher(shard)
    attach_telemetry(shard)

    for window_ms <- [0, -1] do
      put_env(@generic, window_ms)
      put_env(@during_flush, true)
      assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
      assert next_commit(shard).pid != self()
      assert_receive {:telemetry, _, _, %{kind: :batch, window_ms: 0}}
    end
  end

  test "2.3 anything but true: directly in the caller", %{shard: shard} do
    start_batcher(shard)

    for other <- [false, nil, "true", 1] do
      put_env(@during_flush, other)
      assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:done, {:a}}]}
      assert %{pid: pid, function: :__commit_batch_direct__, list: [{:a}]} = next_commit(shard)
      assert pid == self()
    end
  end

  test "2.3 is not used when 2.2 is above 0", %{shard: shard} do
    put_env(@generic, 1)
    put_env(@during_flush, false)
    start_batcher(shard)
    assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
    assert next_commit(shard).pid != self()
  end

  @no_integers [nil, "1", 1.5, :infinity, [1]]

  for value <- @no_integers do
    test "2.4 #{inspect(value)} as the hot window raises in that caller alone", %{shard: shard} do
      owner = start_batcher(shard)
      other = queue_put(shard)
      put_env(@hot, unquote(value))
      from = {self(), make_ref()}
      token = TestGate.token()

      calls = [
        fn -> Batcher.write_put_batch(shard, [@put]) end,
        fn -> Batcher.write_delete_batch(shard, ["k"]) end,
        fn -> Batcher.write_put_batch_async(shard, [@put], from, token) end,
        fn -> Batcher.write_delete_batch_async(shard, ["k"], from, token) end
      ]

      for call <- calls do
        error = assert_raise ArgumentError, call
        assert error.message =~ "waraft_hot_batch_window_ms"
        assert error.message =~ unquote(inspect(value))
      end

      assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
      assert {:done, _} = Batcher.write(shard, "p", {:a}, 1)
      others_are_unharmed(shard, owner, other)
      assert mailbox() == []
    end

    test "2.4 #{inspect(value)} as the generic window raises in that caller alone", context do
      %{shard: shard} = context
      owner = start_batcher(shard)
      other = queue_put(shard)
      put_env(@generic, unquote(value))
      error = assert_raise ArgumentError, fn -> Batcher.write_batch(shard, [{:a}]) end
      assert error.message =~ "waraft_generic_batch_window_ms"
      assert error.message =~ unquote(inspect(value))

      put_env(@hot, 1)
      assert {:done, _} = Batcher.write(shard, "p", {:a}, 1)
      assert {:ok, _} = Batcher.write_delete_batch(shard, ["k"])
      others_are_unharmed(shard, owner, other)
      assert mailbox() == []
    end
  end

  test "2.5 the backend is Ferricstore.Raft.WARaftBackend unless another one is named", context do
    %{shard: shard} = context
    delete_env(@backend)
    start_batcher(shard, backend_check: :lazy)
    on_exit(fn -> unload(Ferricstore.Raft.WARaftBackend) end)

    {:module, _, _, _} =
      Module.create(
        Ferricstore.Raft.WARaftBackend,
        quote do
          def __commit_batch_direct__(_shard, list), do: {:ok, Enum.map(list, &{:default, &1})}
        end,
        Macro.Env.location(__ENV__)
      )

    assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:default, {:a}}]}
    assert Batcher.write(new_shard(), "p", {:a}, 1) == {:default, {:a}}
  end

  test "2.5 the named backend commits, read at each call", %{shard: shard} do
    start_batcher(shard)
    assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:done, {:a}}]}
    put_env(@backend, OtherBackend)
    assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:other, shard, {:a}}]}
    assert Batcher.write_put_batch(shard, [@put]) == {:ok, [{:other, shard, @put}]}
    assert Batcher.write_delete_batch(shard, ["k"]) == {:ok, [{:other, shard, "k"}]}
    assert Batcher.write(shard, "p", {:a}, 1) == {:other, shard, {:a}}

    Batcher.stop(shard)
    direct = new_shard()
    assert Batcher.write_batch(direct, [{:a}]) == {:ok, [{:other, direct, {:a}}]}
  end

  defp writes_are_direct(shard) do
    from = {self(), make_ref()}
    token = TestGate.token()
    put = {:ok, [{:done, @put}]}
    delete = {:ok, [{:done, "k"}]}

    assert Batcher.write_put_batch(shard, [@put]) == put
    assert Batcher.write_put_batch_async(shard, [@put], from, token) == {:direct, put}

    for _ <- 1..2 do
      assert %{pid: pid, list: [@put]} = next_commit(shard, :__commit_put_batch_direct__)
      assert pid == self()
    end

    assert Batcher.write_delete_batch(shard, ["k"]) == delete
    assert Batcher.write_delete_batch_async(shard, ["k"], from, token) == {:direct, delete}

    for _ <- 1..2 do
      assert %{pid: pid, list: ["k"]} = next_commit(shard, :__commit_delete_batch_direct__)
      assert pid == self()
    end

    assert mailbox() == []
  end

  # Another caller's write, which a raising caller must not harm.
  defp queue_put(shard) do
    put_env(@hot, @long_ms)
    task = call_async(fn -> Batcher.write_put_batch(shard, [@put]) end)
    wait_queued(shard, :put_batch, 1)
    task
  end

  defp others_are_unharmed(shard, owner, other) do
    assert Process.whereis(Batcher.name(shard)) == owner
    assert queued(shard, :put_batch) == 1
    assert Batcher.flush(shard) == :ok
    assert await(other) == {:ok, [{:done, @put}]}
    wait_idle(shard)
    assert [] = for({:commit, %{list: [{:refused}]}} <- mailbox(), do: :refused)
    drop_commits()
  end

  defp drop_commits do
    receive do
      {:commit, _} -> drop_commits()
    after
      0 -> :ok
    end
  end

  defp unload(module) do
    :code.purge(module)
    :code.delete(module)
  end
end
