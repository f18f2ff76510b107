# Raw messages from another node: clause 3.8 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section03DistributedTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.TestPeer

  @moduletag :distributed

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @put {"k", "v", 0}

  setup_all do
    {node, _, _} = peer = TestPeer.start()
    on_exit(fn -> TestPeer.stop(peer) end)
    %{node: node}
  end

  test "3.8 calls from another node", %{shard: shard, node: node} do
    start_batcher(shard)
    server = {Batcher.name(shard), Node.self()}
    call = fn request -> :erpc.call(node, GenServer, :call, [server, request]) end

    assert call.({:write, "p", {:a}, 1}) == {:done, {:a}}
    assert call.({:write_batch, [{:a}, {:b}], 1}) == {:ok, [{:done, {:a}}, {:done, {:b}}]}
    assert call.({:write_put_batch, [@put], 1}) == {:ok, [{:done, @put}]}
    assert call.({:write_delete_batch, ["k"], 1}) == {:ok, [{:done, "k"}]}
    assert call.({:write_batch, [1 | 2], 1}) == {:error, :invalid_batch_command_list}
    assert call.({:write_batch, Enum.to_list(1..5_000), 1}) |> elem(1) |> length() == 5_000
    assert call.(:flush) == :ok

    functions = for _ <- 1..4, do: next_commit(shard).function

    assert functions == [
             :__commit_batch_direct__,
             :__commit_batch_direct__,
             :__commit_put_batch_direct__,
             :__commit_delete_batch_direct__
           ]
  end

  test "3.8 calls from both nodes in one batch", %{shard: shard, node: node} do
    start_batcher(shard)
    here = call_async(fn -> Batcher.write(shard, "p", {:here}, @long_ms) end)
    wait_queued(shard, "p", 1)
    server = {Batcher.name(shard), Node.self()}
    request = {:write, "p", {:there}, 1}
    there = call_async(fn -> :erpc.call(node, GenServer, :call, [server, request]) end)
    wait_queued(shard, "p", 2)
    Batcher.flush(shard)
    assert next_commit(shard).list == [{:here}, {:there}]
    assert {await(here), await(there)} == {{:done, {:here}}, {:done, {:there}}}
  end

  test "3.8 :stop from another node", %{shard: shard, node: node} do
    start_alone(shard)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, @long_ms) end)
    wait_queued(shard, "p", 1)
    server = {Batcher.name(shard), Node.self()}
    assert :erpc.call(node, GenServer, :call, [server, :stop]) == :ok
    assert Process.whereis(Batcher.name(shard)) == nil
    assert await(task) == {:done, {:a}}
  end

  test "3.8 no reply reaches a caller on another node that has given up", context do
    %{shard: shard, node: node} = context
    start_batcher(shard)
    backend(shard, :block)
    server = {Batcher.name(shard), Node.self()}
    requests = [{:write, "p", {:a}, 1}, {:write_put_batch, [@put], 1}, :flush]
    caller = TestPeer.give_up(node, self(), server, requests)
    commits = for _ <- 1..2, do: next_commit(shard)
    for request <- requests, do: assert_receive({:gave_up, ^request}, 5_000)
    Enum.each(commits, &release/1)
    # Afterwards all replies are on their way there, and overtaken by nothing that is sent later.
    assert Batcher.flush(shard) == :ok
    assert GenServer.call(Batcher.name(shard), :flush) == :ok
    send(caller, {self(), :show})
    assert_receive {:mailbox, []}, 5_000
  end

  test "3.8 an async write for a process of another node", %{shard: shard, node: node} do
    start_batcher(shard)

    for function <- [:write_put_batch_async, :write_delete_batch_async],
        {behaviour, reply} <- [
          {:reply, {:ok, [{:done, :a}]}},
          {{:return, {:error, :not_leader}}, {:error, :not_leader}}
        ] do
      backend(shard, behaviour)
      tag = make_ref()
      listener = TestPeer.listen(node, self(), tag)
      token = TestGate.token()
      assert apply(Batcher, function, [shard, [:a], {listener, tag}, token]) == :ok
      assert_receive {:left, ^token, _}
      assert_receive {:there, ^reply}, 5_000
    end
  end

  test "3.8 a cast from another node", %{shard: shard, node: node} do
    start_batcher(shard)
    server = {Batcher.name(shard), Node.self()}
    tag = make_ref()
    token = TestGate.token()
    request = {:write_delete_batch, ["k"], 1, {self(), tag}, token}
    assert :erpc.call(node, GenServer, :cast, [server, request]) == :ok
    assert await_reply(tag) == {:ok, [{:done, "k"}]}
    assert_receive {:left, ^token, _}
  end

  test "3.8 the exit of a linked process of another node is ignored", context do
    %{shard: shard, node: node} = context
    owner = start_batcher(shard)
    await_death(TestPeer.crash_linked(node, owner))
    # The exit comes by the same way as what tells of the death.
    assert is_map(:sys.get_state(owner))
    assert Process.whereis(Batcher.name(shard)) == owner
    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
  end

  test "4.4 processes, aliases and names of another node in several lanes of one commit",
       context do
    %{shard: shard, node: node} = context
    start_batcher(shard, commit_scope: :shard)
    backend(shard, [:block, :reply])
    server = {Batcher.name(shard), Node.self()}
    first = call_async(fn -> Batcher.write(shard, "first", {:a}, 1) end)
    busy = next_commit(shard)
    tag = make_ref()
    listener = TestPeer.listen(node, self(), tag)
    named = TestPeer.listen(node, self(), tag)
    name = :"listener_#{shard}"
    true = :erpc.call(node, :erlang, :register, [name, named])
    :ok = Batcher.write_put_batch_async(shard, [@put], {listener, tag})
    :ok = Batcher.write_delete_batch_async(shard, ["k"], {{name, node}, tag})
    # As one reaches this node as well.
    :ok = Batcher.write_batch_async(shard, [{:here}], {self(), tag})

    there =
      call_async(fn -> :erpc.call(node, GenServer, :call, [server, {:write, "p", {:b}, 1}]) end)

    wait_queued(shard, "p", 1)
    here = call_async(fn -> Batcher.write(shard, "q", {:c}, 1) end)
    wait_queued(shard, "q", 1)
    release(busy)
    assert next_commit(shard).list == [{:put, "k", "v", 0}, {:delete, "k"}, {:here}, {:b}, {:c}]
    assert_receive {:there, {:ok, [{:done, {:put, "k", "v", 0}}]}}
    assert_receive {:there, {:ok, [{:done, {:delete, "k"}}]}}
    assert await_reply(tag) == {:ok, [{:done, {:here}}]}

    assert Enum.map([first, there, here], &await/1) == [
             {:done, {:a}},
             {:done, {:b}},
             {:done, {:c}}
           ]

    refute_commit(shard)
  end
end
