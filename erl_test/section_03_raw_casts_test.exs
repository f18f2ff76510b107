# What reaches the owner as a plain message: casts and strangers, clause 3.8 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section03RawCastsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import ExUnit.CaptureLog

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @put {"k", "v", 0}

  for {kind, function} <- [
        write_put_batch: :__commit_put_batch_direct__,
        write_delete_batch: :__commit_delete_batch_direct__
      ] do
    @kind kind
    @commit function

    test "3.8 {#{inspect(kind)}, ...}: one reply, the token released", %{shard: shard} do
      owner = start_batcher(shard)
      tag = make_ref()
      token = TestGate.token()
      GenServer.cast(owner, {@kind, [:a], 1, {self(), tag}, token})
      assert await_reply(tag) == {:ok, [{:done, :a}]}
      assert %{function: @commit, list: [:a]} = next_commit(shard)
      assert_receive {:left, ^token, _}

      GenServer.cast(owner, {@kind, [], 1, {self(), tag}, nil})
      assert await_reply(tag) == {:ok, []}
      assert next_commit(shard).list == []
      assert Batcher.flush(shard) == :ok
      assert mailbox() == []
    end

    test "3.8 {#{inspect(kind)}, ...}: the token when it is queued", %{shard: shard} do
      owner = start_batcher(shard)
      token = TestGate.token()
      GenServer.cast(owner, {@kind, [:a], @long_ms, {self(), make_ref()}, token})
      assert_receive {:left, ^token, _}
      assert Batcher.snapshot(shard).in_flight == %{}
      assert Batcher.flush(shard) == :ok
    end

    test "3.8 {#{inspect(kind)}, ...} that is refused: reply and token", %{shard: shard} do
      owner = start_batcher(shard)

      for {list, window_ms} <- [{[1 | 2], 1}, {:a, 1}, {[:a], :soon}] do
        tag = make_ref()
        token = TestGate.token()
        GenServer.cast(owner, {@kind, list, window_ms, {self(), tag}, token})
        assert {:error, _} = await_reply(tag)
        assert_receive {:left, ^token, _}
      end

      assert Process.whereis(Batcher.name(shard)) == owner
      assert mailbox() == []
    end

    test "3.8 {#{inspect(kind)}, ...} with a from that is none: the token", %{shard: shard} do
      owner = start_batcher(shard)

      log =
        capture_log(fn ->
          for from <- [nil, {7, "secret"}, {nil, :tag}, {self()}, [self() | :tag]] do
            token = TestGate.token()
            GenServer.cast(owner, {@kind, [:a], 1, from, token})
            assert_receive {:left, ^token, _}
          end
        end)

      assert log =~ "batcher #{shard}: dropped a cast of #{@kind}"
      refute log =~ "secret"
      assert Process.whereis(Batcher.name(shard)) == owner
      assert mailbox() == []
    end

    test "3.8 {#{inspect(kind)}, ...} while it stops: reply and token", %{shard: shard} do
      owner = start_alone(shard)
      {task, commit} = stopping(shard)
      tag = make_ref()
      token = TestGate.token()
      GenServer.cast(owner, {@kind, [:a], 1, {self(), tag}, token})
      assert await_reply(tag) == {:error, :shutting_down}
      assert_receive {:left, ^token, _}
      release(commit)
      await(task)
      await_death(owner)
      assert mailbox() == []
    end
  end

  for how <- [:raise, :exit, :throw] do
    test "3.8 a gate that fails (#{how}) harms nobody", %{shard: shard} do
      owner = start_batcher(shard)
      tag = make_ref()

      capture_log(fn ->
        token = {:failing, unquote(how), self(), make_ref()}
        GenServer.cast(owner, {:write_put_batch, [:a], 1, {self(), tag}, token})
        assert await_reply(tag) == {:ok, [{:done, :a}]}
        assert_receive {:left, ^token, _}
        assert GenServer.call(owner, {:write, "p", {:a}, 1}) == {:done, {:a}}
      end)

      assert Process.whereis(Batcher.name(shard)) == owner
    end
  end

  test "3.8 messages that it does not know are ignored, a stale timer is one", context do
    %{shard: shard} = context
    owner = start_batcher(shard, hot_batch_window_ms: @long_ms)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, @long_ms) end)
    put = call_async(fn -> Batcher.write_put_batch(shard, [@put]) end)
    wait_queued(shard, "p", 1)
    wait_queued(shard, :put_batch, 1)

    for message <- strangers(), do: send(owner, message)

    for cast <- [:unknown, {:write, "p", {:a}, 1, {self(), :t}, nil}, {:write_put_batch, []}, 1],
        do: GenServer.cast(owner, cast)

    for call <- [:unknown, {:write, "p"}, {:write_put_batch, [@put]}, nil],
        do: send(owner, {:"$gen_call", {self(), make_ref()}, call})

    assert is_map(:sys.get_state(owner))
    assert Process.whereis(Batcher.name(shard)) == owner
    # No stale timer has sent anything off.
    assert queued(shard, "p") == 1
    assert queued(shard, :put_batch) == 1
    assert mailbox() == []

    assert Batcher.flush(shard) == :ok
    assert await(task) == {:done, {:a}}
    assert {:ok, _} = await(put)
  end

  test "3.8 a known call whose from is none is ignored", %{shard: shard} do
    owner = start_batcher(shard)

    for from <- [nil, :name, {"name", :tag}, {nil, :tag}, {self()}, []],
        request <- [
          {:write, "p", {:a}, 1},
          {:write_batch, [1 | 2], 1},
          {:write, 1, 2, 3},
          :flush,
          :stop
        ],
        do: send(owner, {:"$gen_call", from, request})

    # Twice: what the owner sends to itself meanwhile has been looked at as well.
    for _ <- 1..2, do: assert(is_map(:sys.get_state(owner)))
    assert Process.whereis(Batcher.name(shard)) == owner
    assert Batcher.write(shard, "p", {:b}, 1) == {:done, {:b}}
  end

  @tag :capture_log
  test "3.8 the exit of a process that is no committer is ignored", %{shard: shard} do
    owner = start_batcher(shard)

    {:ok, linked} =
      Task.start(fn ->
        Process.link(owner)
        exit(:boom)
      end)

    await_death(linked)
    # Ports end as well, and whatever else.
    send(owner, {:EXIT, hd(Port.list()), :epipe})
    for who <- [:name, nil, {:name, :node}], do: send(owner, {:EXIT, who, :boom})

    assert is_map(:sys.get_state(owner))
    assert Process.whereis(Batcher.name(shard)) == owner
    assert Batcher.write(shard, "p", {:b}, 1) == {:done, {:b}}
  end

  defp strangers do
    [
      {:flush, "p"},
      {:flush, "p", make_ref()},
      :flush_hot_batch,
      :flush_hot_put_batch,
      :flush_hot_delete_batch,
      {:flush_hot_put_batch, make_ref()},
      :flush,
      :stop,
      nil,
      "text",
      {},
      {make_ref(), :late_reply},
      {:DOWN, make_ref(), :process, self(), :normal},
      {:spawn_committers, :many},
      {:spawn_committers, -1},
      {:waraft_backend_batcher_call, :f, make_ref(), self()}
    ]
  end
end
