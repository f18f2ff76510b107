# The asynchronous functions of the generic lane, and commits of one command: clauses 16.1 and 16.2 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section16AsyncTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.SingleBackend

  @window :waraft_generic_batch_window_ms
  @during :waraft_generic_batch_during_flush
  @backend :waraft_backend_batcher_backend
  @pair {:put_batch, [{"a", "v", 0}, {"b", "v", 0}]}

  test "16.1 write_batch_async: :ok, one reply, the token released when it is queued", %{
    shard: shard
  } do
    start_batcher(shard)
    backend(shard, :block)
    token = TestGate.token()
    tag = cast(shard, :batch, [{:a}, {:b}], token)
    assert_receive {:left, ^token, pid} when pid == self()
    commit = next_commit(shard, :__commit_batch_direct__)
    assert commit.list == [{:a}, {:b}]
    assert mailbox() == []
    release(commit)
    assert await_reply(tag) == {:ok, [{:done, {:a}}, {:done, {:b}}]}
    assert Batcher.flush(shard) == :ok
    assert mailbox() == []
  end

  test "16.1 write_single_async: the reply is bare", %{shard: shard} do
    start_batcher(shard)
    assert await_reply(cast(shard, :single, [{:a}])) == {:done, {:a}}
    assert next_commit(shard).list == [{:a}]
  end

  test "16.1 write_single_async of a command that counts other than 1: its replies", %{
    shard: shard
  } do
    start_batcher(shard)
    replies = {:ok, [{:done, {"a", "v", 0}}, {:done, {"b", "v", 0}}]}
    assert await_reply(cast(shard, :single, [@pair])) == replies
    assert await_reply(cast(shard, :single, [{:put_batch, []}])) == {:ok, []}
  end

  test "16.1 both in one commit, each with its own", %{shard: shard} do
    put_env(@window, 60_000)
    start_batcher(shard)
    one = cast(shard, :single, [{:a}])
    list = cast(shard, :batch, [{:b}, {:c}])
    pair = cast(shard, :single, [@pair])
    assert queued_slot(shard, :batch).count == 5
    assert Batcher.flush(shard) == :ok
    assert next_commit(shard).list == [{:a}, {:b}, {:c}, @pair]
    assert await_reply(one) == {:done, {:a}}
    assert await_reply(list) == {:ok, [{:done, {:b}}, {:done, {:c}}]}
    assert await_reply(pair) == {:ok, [{:done, {"a", "v", 0}}, {:done, {"b", "v", 0}}]}
  end

  test "16.1 errors, mismatches and whatever else: the bare term", %{shard: shard} do
    start_batcher(shard)

    for {behaviour, reply} <- [
          {{:return, {:error, :not_leader}}, {:error, :not_leader}},
          {{:return, :strange}, :strange},
          {{:return, {:ok, [1, 2]}}, {:error, {:batch_result_mismatch, 1, 2}}},
          {{:exit, :no_quorum}, {:error, {:backend_exit, :no_quorum}}}
        ],
        lane <- [:single, :batch] do
      backend(shard, behaviour)
      assert await_reply(cast(shard, lane, [{:a}])) == reply
    end
  end

  test "16.1 improper lists, refusals and a shutdown: from is told, the token released", %{
    shard: shard
  } do
    start_alone(shard, max_queue_items: 1)
    put_env(@window, 60_000)
    held = cast(shard, :single, [{:a}])

    for {lane, items, reason} <- [
          {:batch, [{:a} | :b], :invalid_batch_command_list},
          {:single, [{:batch, [1 | 2]}], :invalid_batch_command_list},
          {:batch, [{:b}], :batcher_overloaded},
          {:single, [{:b}], :batcher_overloaded}
        ] do
      token = TestGate.token()
      tag = cast(shard, lane, items, token)
      assert await_reply(tag) == {:error, reason}
      assert_receive {:left, ^token, _pid}
    end

    assert Batcher.flush(shard) == :ok
    assert await_reply(held) == {:done, {:a}}
    {task, commit} = stopping_with_room(shard)

    for lane <- [:batch, :single] do
      token = TestGate.token()
      assert await_reply(cast(shard, lane, [{:late}], token)) == {:error, :shutting_down}
      assert_receive {:left, ^token, _pid}
    end

    release(commit)
    await(task)
  end

  defp stopping_with_room(shard) do
    backend(shard, :block)
    drop_commits(shard)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, 1) end)
    commit = next_commit(shard)
    GenServer.cast(Batcher.name(shard), :stop)
    refused = {:error, :shutting_down}
    wait_until(fn -> Batcher.write(shard, "q", {:probe}, 1) == refused end)
    {task, commit}
  end

  test "16.1 the window of 2.2 and 2.3", %{shard: shard} do
    start_batcher(shard)
    attach_telemetry(shard)
    assert {:ok, [_]} = await_reply(cast(shard, :batch, [{:a}]))
    assert next_reason() == :immediate
    put_env(@window, 60_000)
    tags = [cast(shard, :batch, [{:a}]), cast(shard, :single, [{:b}])]
    assert queued_slot(shard, :batch).window_ms == 60_000
    Batcher.flush(shard)
    Enum.each(tags, &await_reply/1)
  end

  test "16.1 direct, with a window of none and without a batcher: the rest is the caller's", c do
    put_env(@during, false)

    for running? <- [false, true] do
      if running?, do: start_batcher(c.shard)
      from = {self(), make_ref()}
      token = TestGate.token()

      assert Batcher.write_batch_async(c.shard, [{:a}], from, token) ==
               {:direct, {:ok, [{:done, {:a}}]}}

      assert %{pid: pid, list: [{:a}]} = next_commit(c.shard, :__commit_batch_direct__)
      assert pid == self()
      assert Batcher.write_single_async(c.shard, {:b}, from, token) == {:direct, {:done, {:b}}}
      assert next_commit(c.shard, :__commit_batch_direct__).list == [{:b}]
      assert mailbox() == []
    end
  end

  test "16.1 anything but an integer and a list or a tuple; a from that is none", %{shard: shard} do
    from = {self(), make_ref()}

    for {function, bad} <- [write_batch_async: {:a}, write_single_async: [:a]] do
      assert_raise FunctionClauseError, fn -> apply(Batcher, function, [shard, bad, from]) end
    end

    token = TestGate.token()

    for {function, item} <- [write_batch_async: [], write_single_async: {:a}] do
      assert_raise ArgumentError, fn ->
        apply(Batcher, function, [shard, item, {"nobody", :tag}, token])
      end
    end

    assert mailbox() == []
  end

  test "16.1 the raw casts", %{shard: shard} do
    owner = start_batcher(shard)
    token = TestGate.token()
    GenServer.cast(owner, {:write_batch, [{:a}, {:b}], 1, {self(), :list}, token})
    assert await_reply(:list) == {:ok, [{:done, {:a}}, {:done, {:b}}]}
    assert_receive {:left, ^token, _}
    GenServer.cast(owner, {:write_batch, [{:a}], 1, {:single, {self(), :one}}, nil})
    assert await_reply(:one) == {:done, {:a}}

    for commands <- [[], [{:a}, {:b}], :none], window_ms <- [1, :soon] do
      token = TestGate.token()
      GenServer.cast(owner, {:write_batch, commands, window_ms, {:single, {self(), :bad}}, token})
      assert {:error, {:invalid_request, _}} = await_reply(:bad)
      assert_receive {:left, ^token, _}
    end

    ExUnit.CaptureLog.capture_log(fn ->
      token = TestGate.token()
      GenServer.cast(owner, {:write_batch, [{:a}], 1, {:single, {self()}}, token})
      assert_receive {:left, ^token, _}
    end)

    assert Process.whereis(Batcher.name(shard)) == owner
  end

  test "16.2 a generic commit of one command in all", %{shard: shard} do
    put_env(@backend, SingleBackend)
    start_batcher(shard)
    assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:done, {:a}}]}
    assert next_commit(shard).function == :__commit_single_batch_direct__
    assert await_reply(cast(shard, :single, [{:b}])) == {:done, {:b}}
    assert %{function: :__commit_single_batch_direct__, list: {:b}} = next_commit(shard)
    assert Batcher.write_batch(shard, [{:a}, {:b}]) == {:ok, [{:done, {:a}}, {:done, {:b}}]}
    assert next_commit(shard).function == :__commit_batch_direct__
    assert Batcher.write_batch(shard, []) == {:ok, []}
    assert next_commit(shard).function == :__commit_batch_direct__
    # Only the generic lane has such commits.
    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
    assert next_commit(shard).function == :__commit_batch_direct__
  end

  test "16.2 what the function for one command answers", %{shard: shard} do
    put_env(@backend, SingleBackend)
    start_batcher(shard)
    pair = [{:done, {"a", "v", 0}}, {:done, {"b", "v", 0}}]

    for {command, behaviour, list, single} <- [
          {{:a}, {:return, {:error, :full}}, {:error, :full}, {:error, :full}},
          {{:a}, {:exit, :gone}, {:error, {:backend_exit, :gone}},
           {:error, {:backend_exit, :gone}}},
          {@pair, :reply, {:ok, pair}, {:ok, pair}},
          {@pair, {:return, pair}, {:ok, pair}, {:ok, pair}},
          {@pair, {:return, {:wrapped, {:ok, pair}}}, {:ok, pair}, {:ok, pair}},
          {@pair, {:return, :other}, {:ok, [:other]}, {:ok, [:other]}},
          {{:put_batch, []}, :reply, {:ok, []}, {:ok, []}}
        ] do
      backend(shard, behaviour)
      assert Batcher.write_batch(shard, [command]) == list
      assert await_reply(cast(shard, :single, [command])) == single
    end
  end

  test "16.2 write/4 and write_single_async without a batcher", %{shard: shard} do
    put_env(@backend, SingleBackend)
    from = {self(), make_ref()}

    for {behaviour, result} <- [
          {:reply, {:done, {:a}}},
          {{:return, {:ok, [1]}}, {:ok, [1]}},
          {{:return, {:error, :no}}, {:error, :no}}
        ] do
      backend(shard, behaviour)
      assert Batcher.write(shard, "p", {:a}, 1) == result
      assert Batcher.write_single_async(shard, {:a}, from) == {:direct, result}

      for _ <- 1..2,
          do: assert(%{function: :__commit_single_direct__, list: {:a}} = next_commit(shard))
    end

    assert Batcher.write_batch_async(shard, [{:a}], from) == {:direct, {:error, :no}}
    assert next_commit(shard).function == :__commit_batch_direct__
  end

  test "16.2 the functions are looked for when a batcher starts; another backend later", %{
    shard: shard
  } do
    put_env(@backend, SingleBackend)
    start_batcher(shard)
    put_env(@backend, TestBackend)
    assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:done, {:a}}]}
    assert next_commit(shard).function == :__commit_batch_direct__
  end

  test "16.2 the names of the hook", %{shard: shard} do
    put_env(@backend, SingleBackend)
    start_batcher(shard)
    put_env(:waraft_backend_batcher_call_hook, {:block, self()})
    batch = call_async(fn -> Batcher.write_batch(shard, [{:a}]) end)
    go_on(:__commit_single_batch_direct__)
    assert await(batch) == {:ok, [{:done, {:a}}]}
    other = new_shard()
    direct = call_async(fn -> Batcher.write(other, "p", {:a}, 1) end)
    go_on(:__commit_single_direct__)
    assert await(direct) == {:done, {:a}}
  end

  defp go_on(function) do
    assert_receive {:waraft_backend_batcher_call, ^function, ref, pid}, 5_000
    send(pid, {ref, :continue})
  end
end
