# The functions that answer a `from`: clause 3.3 of the contract, and what 3.5 and 3.6 say of them.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section03AsyncTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @refused {:error, :invalid_batch_command_list}

  @bad_froms [
    nil,
    :name,
    {},
    {nil, :tag},
    {:undefined, :tag},
    {true, :tag},
    {"name", :tag},
    {{:name, nil}, :tag},
    {{"name", :node}, :tag},
    {{:name}, :tag},
    {[:alias], :tag},
    {:tag},
    [:alias],
    "from"
  ]

  for {name, function} <- [put: :write_put_batch_async, delete: :write_delete_batch_async] do
    @function function
    @commit :"__commit_#{name}_batch_direct__"
    @lane :"#{name}_batch"

    test "3.3 #{function} answers :ok first, then from gets one reply", %{shard: shard} do
      start_batcher(shard)
      backend(shard, :block)
      {from, tag} = from()
      token = TestGate.token()
      assert apply(Batcher, @function, [shard, [:a, :b], from, token]) == :ok

      assert %{function: @commit, list: [:a, :b]} = commit = next_commit(shard)
      assert commit.pid != self()
      assert_receive {:left, ^token, _}
      assert mailbox() == []
      release(commit)
      assert await_reply(tag) == {:ok, [{:done, :a}, {:done, :b}]}
      Batcher.flush(shard)
      assert mailbox() == []
    end

    test "3.3 #{function} without a token", %{shard: shard} do
      start_batcher(shard)
      {from, tag} = from()
      assert apply(Batcher, @function, [shard, [:a], from]) == :ok
      assert await_reply(tag) == {:ok, [{:done, :a}]}
      assert apply(Batcher, @function, [shard, [:b], from, nil]) == :ok
      assert await_reply(tag) == {:ok, [{:done, :b}]}
    end

    test "3.3 #{function}: the reply is what the sync function would return", context do
      %{shard: shard} = context
      start_batcher(shard)

      for {behaviour, reply} <- [
            {{:return, {:error, :not_leader}}, {:error, :not_leader}},
            {{:return, :strange}, :strange},
            {{:return, {:ok, [1, 2]}}, {:error, {:batch_result_mismatch, 1, 2}}},
            {{:exit, :no_quorum}, {:error, {:backend_exit, :no_quorum}}},
            {{:raise, :badarg}, {:error, {:backend_error, :error, :badarg}}},
            {{:throw, :ball}, {:error, {:backend_error, :throw, :ball}}}
          ] do
        backend(shard, behaviour)
        {from, tag} = from()
        assert apply(Batcher, @function, [shard, [:a], from]) == :ok
        assert await_reply(tag) == reply
      end
    end

    test "3.3 #{function}: each from of a batch gets its own slice", %{shard: shard} do
      start_batcher(shard, hot_batch_window_ms: @long_ms)
      tags = for n <- 1..10, do: {n, queue(shard, @function, List.duplicate(n, n))}
      assert queued(shard, @lane) == 10
      Batcher.flush(shard)
      for {n, tag} <- tags, do: assert(await_reply(tag) == {:ok, List.duplicate({:done, n}, n)})
    end

    test "3.3 #{function} for another process, with any tag", %{shard: shard} do
      start_batcher(shard)

      for tag <- [:atom, 7, "text", {:a, [1]}, [], [:list, 1], [:alias | :none], make_ref()] do
        listener = call_async(fn -> await_reply(tag) end)
        assert apply(Batcher, @function, [shard, [:a], {listener.pid, tag}]) == :ok
        assert await(listener) == {:ok, [{:done, :a}]}
      end
    end

    test "3.3 #{function} for a process that has died", %{shard: shard} do
      owner = start_batcher(shard, hot_batch_window_ms: @long_ms)
      {dead, monitor} = spawn_monitor(fn -> :ok end)
      assert_receive {:DOWN, ^monitor, :process, ^dead, _}
      assert apply(Batcher, @function, [shard, [:a], {dead, make_ref()}]) == :ok
      tag = queue(shard, @function, [:b])
      assert Batcher.flush(shard) == :ok
      assert await_reply(tag) == {:ok, [{:done, :b}]}
      assert Process.whereis(Batcher.name(shard)) == owner
    end

    test "3.3 #{function}: a reply to an alias that is open", %{shard: shard} do
      start_batcher(shard)
      tag = [:alias | :erlang.alias()]
      assert apply(Batcher, @function, [shard, [:a], {self(), tag}]) == :ok
      assert await_reply(tag) == {:ok, [{:done, :a}]}
    end

    test "3.3 #{function} without a batcher: {:direct, result}, the rest is the caller's",
         context do
      %{shard: shard} = context
      {from, _tag} = from()
      token = TestGate.token()

      assert apply(Batcher, @function, [shard, [:a], from, token]) ==
               {:direct, {:ok, [{:done, :a}]}}

      assert %{function: @commit, list: [:a], pid: pid} = next_commit(shard)
      assert pid == self()
      backend(shard, {:return, :strange})
      assert apply(Batcher, @function, [shard, [:a], from, token]) == {:direct, :strange}
      next_commit(shard)
      assert mailbox() == []
    end

    test "3.3 #{function} with window 0: {:direct, result}, the rest is the caller's", context do
      %{shard: shard} = context
      start_batcher(shard, hot_batch_window_ms: 0)
      {from, _tag} = from()
      token = TestGate.token()

      assert apply(Batcher, @function, [shard, [:a], from, token]) ==
               {:direct, {:ok, [{:done, :a}]}}

      assert next_commit(shard).pid == self()
      Batcher.flush(shard)
      assert mailbox() == []
    end

    for {what, running?} <- [{"with", true}, {"without", false}] do
      test "3.3 #{function} with a from that is none, #{what} a batcher", %{shard: shard} do
        if unquote(running?), do: start_batcher(shard)
        token = TestGate.token()

        for from <- [{self()}, {self(), 1, 2}, self(), [self() | :tag] | @bad_froms] do
          error =
            assert_raise ArgumentError, fn ->
              apply(Batcher, @function, [shard, [:a], from, token])
            end

          assert error.message =~ "got: #{Batcher.Log.shape(from)}"
        end

        assert Batcher.flush(shard) == :ok
        assert mailbox() == []
      end
    end

    test "3.3 #{function} with a from that is none harms nobody else", %{shard: shard} do
      owner = start_batcher(shard, hot_batch_window_ms: @long_ms)
      tag = queue(shard, @function, [:a])

      assert_raise ArgumentError, fn ->
        apply(Batcher, @function, [shard, [:b], {7, :tag}])
      end

      assert queued(shard, @lane) == 1
      Batcher.flush(shard)
      assert await_reply(tag) == {:ok, [{:done, :a}]}
      assert next_commit(shard).list == [:a]
      assert Process.whereis(Batcher.name(shard)) == owner
    end

    test "3.3 #{function} of anything but an integer and a list", %{shard: shard} do
      {from, _tag} = from()

      for {bad_shard, list} <- [{:zero, []}, {shard, :a}, {shard, %{}}] do
        assert_raise FunctionClauseError, fn ->
          apply(Batcher, @function, [bad_shard, list, from, nil])
        end
      end
    end

    test "3.5 #{function} of an empty list", %{shard: shard} do
      start_batcher(shard)
      {from, tag} = from()
      token = TestGate.token()
      assert apply(Batcher, @function, [shard, [], from, token]) == :ok
      assert await_reply(tag) == {:ok, []}
      assert_received {:left, ^token, _}
      assert %{function: @commit, list: []} = next_commit(shard)
    end

    test "3.6 #{function} of an improper list: from is told, the token released", context do
      %{shard: shard} = context
      start_batcher(shard)
      {from, tag} = from()
      token = TestGate.token()
      assert apply(Batcher, @function, [shard, [1 | 2], from, token]) == :ok
      assert await_reply(tag) == @refused
      assert_receive {:left, ^token, _}
      Batcher.flush(shard)
      assert mailbox() == []
    end

    test "3.6 #{function} of an improper list when commits are direct", %{shard: shard} do
      for start <- [fn -> :none end, fn -> start_batcher(shard, hot_batch_window_ms: 0) end] do
        start.()
        {from, tag} = from()
        token = TestGate.token()

        # Whichever of the two ways it takes, it takes one, and the backend sees nothing of it.
        case apply(Batcher, @function, [shard, [1 | 2], from, token]) do
          :ok ->
            assert await_reply(tag) == @refused
            assert_receive {:left, ^token, _}

          {:direct, result} ->
            assert result == @refused
        end

        assert mailbox() == []
      end
    end
  end

  test "3.3 two async writes of one process stay in order", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: @long_ms)
    tags = for n <- 1..100, do: queue(shard, :write_put_batch_async, [n])
    Batcher.flush(shard)
    assert next_commit(shard).list == Enum.to_list(1..100)
    for tag <- tags, do: assert({:ok, [{:done, _}]} = await_reply(tag))
  end

  test "3.3 a long list takes the same way", %{shard: shard} do
    start_batcher(shard)
    list = Enum.to_list(1..30_000)
    {from, tag} = from()
    assert Batcher.write_put_batch_async(shard, list, from) == :ok
    assert await_reply(tag) == {:ok, Enum.map(list, &{:done, &1})}
    assert next_commit(shard).list == list
  end

  defp from do
    tag = make_ref()
    {{self(), tag}, tag}
  end

  defp queue(shard, function, list) do
    {from, tag} = from()
    assert apply(Batcher, function, [shard, list, from]) == :ok
    tag
  end
end
