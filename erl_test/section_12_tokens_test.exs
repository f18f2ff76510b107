# Sync tokens: section 12 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section12TokensTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @async_lanes [:put_batch, :delete_batch]

  for lane <- @async_lanes do
    test "12.1 lane #{lane}: released when the write is queued, not when it ends", context do
      %{shard: shard} = context
      lane = unquote(lane)
      start_batcher(shard, hot_batch_window_ms: long_ms())
      token = TestGate.token()
      tag = cast(shard, lane, item(lane), token)
      # By the caller itself, before the function returned.
      assert_received {:left, ^token, pid} when pid == self()
      assert queued(shard, lane) == 1
      refute_commit(shard)

      Batcher.flush(shard)
      assert await_reply(tag) == {:ok, [{:done, hd(item(lane))}]}
      refute_token()
    end

    test "12.1 lane #{lane}: without a token nothing is released", %{shard: shard} do
      lane = unquote(lane)
      put_env(:waraft_backend_batcher_sync_gate, NoSuchGate)
      start_batcher(shard)
      assert {:ok, [_]} = await_reply(cast(shard, lane, item(lane), nil))
      from = {self(), make_ref()}
      assert :ok = apply(Batcher, async_function(lane), [shard, item(lane), from])
      assert {:ok, [_]} = await_reply(elem(from, 1))
    end

    test "12.1 lane #{lane}: released once, whatever the backend does", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard)

      for behaviour <- [:reply, {:exit, :no}, {:raise, :badarg}, {:throw, 1}, {:return, :no}] do
        backend(shard, behaviour)
        token = TestGate.token()
        await_reply(cast(shard, lane, item(lane), token))
        assert_received {:left, ^token, _pid}
      end

      refute_token()
    end

    test "12.1 lane #{lane}: released once, though the committing process is killed", context do
      %{shard: shard} = context
      lane = unquote(lane)
      start_batcher(shard)
      backend(shard, :block)
      token = TestGate.token()
      tag = cast(shard, lane, item(lane), token)
      Process.exit(next_commit(shard).pid, :kill)
      assert await_reply(tag) == {:error, {:backend_exit, :killed}}
      assert_received {:left, ^token, _pid}
      refute_token()
    end

    test "12.1 lane #{lane}: released once, though the owner is killed", %{shard: shard} do
      lane = unquote(lane)
      owner = start_batcher(shard, hot_batch_window_ms: long_ms())
      token = TestGate.token()
      tag = cast(shard, lane, item(lane), token)
      Process.exit(owner, :kill)
      await_successor(shard, owner)
      Batcher.flush(shard)
      assert {:ok, [_]} = await_reply(tag)
      assert_received {:left, ^token, _pid}
      refute_token()
    end

    test "12.1 lane #{lane}: released once, and then the write is abandoned", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard, shutdown_timeout: 0)
      backend(shard, :block)
      first = occupy(shard, lane)
      token = TestGate.token()
      tag = cast(shard, lane, item(lane), token)
      stop_supervised!({Batcher, shard})
      assert await_reply(tag) == {:error, :shutting_down}
      assert_received {:left, ^token, _pid}
      release(first)
      await_reply(first.tag)
      refute_token()
    end

    test "12.1 lane #{lane}: an improper list: replied to, and released", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard)
      token = TestGate.token()
      tag = cast(shard, lane, item(lane) ++ :improper, token)
      assert await_reply(tag) == {:error, :invalid_batch_command_list}
      assert_received {:left, ^token, _pid}
      refute_token()
    end

    test "12.1 lane #{lane}: an overloaded shard: replied to, and released", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard, max_queue_items: 1)
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      token = TestGate.token()
      tag = cast(shard, lane, item(lane), token)
      assert await_reply(tag) == {:error, :batcher_overloaded}
      assert_received {:left, ^token, _pid}
      release(first)
      await_reply(first.tag)
      refute_token()
    end

    test "12.1 lane #{lane}: a direct commit releases nothing", %{shard: shard} do
      lane = unquote(lane)
      token = TestGate.token()
      from = {self(), make_ref()}
      assert {:direct, {:ok, [_]}} = cast_from(shard, lane, item(lane), from, token)
      start_batcher(shard, hot_batch_window_ms: 0)
      assert {:direct, {:ok, [_]}} = cast_from(shard, lane, item(lane), from, token)
      next_commits(shard, 2)
      refute_token()
      refute_received _no_reply
    end

    test "12.1 lane #{lane}: a malformed from leaves the token alone", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard)

      for from <- [nil, self(), {"name", make_ref()}, {self()}, {self(), 1, 2}] do
        assert_raise ArgumentError, fn ->
          cast_from(shard, lane, item(lane), from, TestGate.token())
        end
      end

      refute_token()
      refute_commit(shard)
    end

    test "12.1 lane #{lane}: a raw cast releases its token once", %{shard: shard} do
      lane = unquote(lane)
      owner = start_batcher(shard)
      kind = raw_kind(lane)

      for list <- [item(lane), item(lane) ++ :improper] do
        token = TestGate.token()
        tag = make_ref()
        GenServer.cast(owner, {kind, list, 1, {self(), tag}, token})
        assert await_reply(tag)
        assert_receive {:left, ^token, _pid}
      end

      refute_token()
    end

    test "12.1 lane #{lane}: a raw cast with nobody to answer releases its token", context do
      %{shard: shard} = context
      lane = unquote(lane)
      owner = start_batcher(shard)

      log =
        ExUnit.CaptureLog.capture_log(fn ->
          token = TestGate.token()
          GenServer.cast(owner, {raw_kind(lane), item(lane), 1, :nobody, token})
          assert_receive {:left, ^token, _pid}, 5_000
        end)

      assert log =~ "dropped a cast"
      refute_commit(shard)
      assert Process.whereis(Batcher.name(shard)) == owner
      refute_token()
    end

    for failure <- [:raise, :exit, :throw] do
      test "12.1 lane #{lane}: a gate that fails (#{failure}) takes nobody down", context do
        %{shard: shard} = context
        lane = unquote(lane)
        owner = start_batcher(shard)
        token = {:failing, unquote(failure), self(), make_ref()}
        tag = make_ref()

        ExUnit.CaptureLog.capture_log(fn ->
          GenServer.cast(owner, {raw_kind(lane), item(lane), 1, {self(), tag}, token})
          assert {:ok, [_]} = await_reply(tag)
          assert_receive {:left, ^token, _pid}
          assert GenServer.call(owner, :flush) == :ok
        end)

        assert Process.whereis(Batcher.name(shard)) == owner
        refute_token()
      end
    end
  end

  test "12.1 a token is any term but nil", %{shard: shard} do
    gate = unique_gate(self())
    put_env(:waraft_backend_batcher_sync_gate, gate)
    start_batcher(shard)

    for token <- [false, 0, :token, {1, 2}, self()] do
      assert {:ok, [_]} = await_reply(cast(shard, :put_batch, item(:put_batch), token))
      assert_received {:gate, ^gate, ^token}
    end
  end

  test "12.1 the gate is ferricstore's unless another one is named", %{shard: shard} do
    default = Ferricstore.Raft.WARaftBackend.SyncGate
    define_gate(default, self())
    start_batcher(shard)

    delete_env(:waraft_backend_batcher_sync_gate)
    assert {:ok, [_]} = await_reply(cast(shard, :put_batch, item(:put_batch), :first))
    assert_received {:gate, ^default, :first}

    other = unique_gate(self())
    put_env(:waraft_backend_batcher_sync_gate, other)
    assert {:ok, [_]} = await_reply(cast(shard, :put_batch, item(:put_batch), :second))
    assert_received {:gate, ^other, :second}
    refute_received {:gate, _gate, _token}
  end

  # As ferricstore's pause does it: close the gate, wait until all tokens are back, flush.
  test "12.2 flush after the gate is drained covers every write that entered", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: long_ms())
    test = self()

    for _round <- 1..20 do
      writes =
        for n <- 1..50 do
          {Enum.at(@async_lanes, rem(n, 2)), n, TestGate.token(), make_ref()}
        end

      for {lane, n, token, tag} <- writes do
        spawn_link(fn ->
          :ok = cast_from(shard, lane, item(lane, n), {test, tag}, token)
        end)
      end

      for {_lane, _n, token, _tag} <- writes, do: assert_receive({:left, ^token, _pid}, 5_000)
      assert Batcher.flush(shard) == :ok

      # All have been committed and answered: nothing more has to come.
      for {lane, n, _token, tag} <- writes do
        reply = {:ok, [{:done, hd(item(lane, n))}]}
        assert_received {^tag, ^reply}
      end
    end

    refute_token()
  end

  defp refute_token, do: refute_receive({:left, _token, _pid}, 10)

  defp async_function(:put_batch), do: :write_put_batch_async
  defp async_function(:delete_batch), do: :write_delete_batch_async

  defp raw_kind(:put_batch), do: :write_put_batch
  defp raw_kind(:delete_batch), do: :write_delete_batch

  defp unique_gate(test), do: define_gate(:"gate_#{System.unique_integer([:positive])}", test)

  # A gate that reports to the test as `{:gate, gate, token}`, until the test ends.
  defp define_gate(gate, test) do
    :persistent_term.put({__MODULE__, gate}, test)

    Code.compile_quoted(
      quote do
        defmodule unquote(gate) do
          def leave(token) do
            test = :persistent_term.get({unquote(__MODULE__), __MODULE__})
            send(test, {:gate, __MODULE__, token})
            :ok
          end
        end
      end
    )

    on_exit(fn ->
      :code.delete(gate)
      :code.purge(gate)
      :persistent_term.erase({__MODULE__, gate})
    end)

    gate
  end
end
