# Options that are changed while a batcher runs: 18.4 to 18.6 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section18ConfigureTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Options.Schema, OtherBackend}

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @put {"k", "v", 0}

  # 18.4 Changes while a batcher runs

  test "18.4 a change is met by the next write, and told by options/1", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: 0, namespace_batch_max: 7)
    assert Batcher.options(shard).hot_batch_window_ms == {0, :option}
    assert :ok = Batcher.configure(shard, hot_batch_window_ms: @long_ms, hot_batch_max: 2)
    options = Batcher.options(shard)
    assert options.hot_batch_window_ms == {@long_ms, :configured}
    assert options.hot_batch_max == {2, :configured}
    assert options.namespace_batch_max == {7, :option}
    assert options.pacing == {:commit, :default}
    assert Enum.sort(Map.keys(options)) == Enum.sort(Schema.keys())

    task = call_async(fn -> Batcher.write_put_batch(shard, [@put]) end)
    wait_queued(shard, :put_batch, 1)
    assert {:ok, _} = Batcher.write_put_batch(shard, [@put])
    await(task)
    assert length(next_commit(shard).list) == 2
  end

  test "18.4 what options/1 says of those that depend on others", %{shard: shard} do
    start_batcher(shard)

    assert %{max_in_flight: {256, :default}, overflow: {:queue, :default}} =
             Batcher.options(shard)

    :ok = Batcher.configure(shard, commit_scope: :shard)
    assert Batcher.options(shard).max_in_flight == {1, :default}
    assert Batcher.options(new_shard()) == nil
  end

  test "18.4 limits of what is held are changed", %{shard: shard} do
    start_batcher(shard, max_queue_items: 1)
    task = queue(shard, {:a})
    assert Batcher.write(shard, "p", {:b}, 1) == {:error, :batcher_overloaded}
    :ok = Batcher.configure(shard, max_queue_items: 3)
    other = queue(shard, {:b}, 2)
    :ok = Batcher.configure(shard, max_queue_bytes: 1)
    assert Batcher.write(shard, "p", {:c}, 1) == {:error, :batcher_overloaded}
    # Nothing that was taken is lost.
    :ok = Batcher.flush(shard)
    assert {await(task), await(other)} == {{:done, {:a}}, {:done, {:b}}}
  end

  test "18.4 more commits in flight: what waited for that leaves", %{shard: shard} do
    start_batcher(shard, max_in_flight: 1)
    backend(shard, :block)
    tasks = for p <- ["p", "q"], do: call_async(fn -> Batcher.write(shard, p, {p}, 1) end)
    first = next_commit(shard)
    wait_until(fn -> queued(shard, "p") + queued(shard, "q") == 1 end)
    refute_commit(shard)
    :ok = Batcher.configure(shard, max_in_flight: 2)
    second = next_commit(shard)
    for commit <- [first, second], do: release(commit)
    for task <- tasks, do: assert({:done, _} = await(task))
  end

  test "18.4 another commit scope: what is queued leaves as if it had been flushed, in order",
       c do
    %{shard: shard} = c
    start_batcher(shard)
    backend(shard, [:block, :reply])
    first = call_async(fn -> Batcher.write(shard, "p", {0}, 1) end)
    commit = next_commit(shard)
    tasks = for n <- 1..3, do: queue(shard, {n}, n)
    :ok = Batcher.configure(shard, commit_scope: :shard, pacing: :auto)
    release(commit)
    assert for(task <- [first | tasks], do: await(task)) == for(n <- 0..3, do: {:done, {n}})
    assert next_commit(shard).list == [{1}, {2}, {3}]
    :ok = Batcher.configure(shard, commit_scope: :lane, pacing: :commit)
    assert Batcher.write(shard, "p", {4}, 1) == {:done, {4}}
  end

  test "18.4 entries and keys that were queued lane by lane are not put among commands", c do
    %{shard: shard} = c
    # Of these, not all could stand there (4.4).
    {entries, keys} = {[@put, {1, "v"}, :odd], ["k", :odd, {1}]}
    start_batcher(shard, hot_batch_window_ms: @long_ms, commit_scope: :lane)
    put = call_async(fn -> Batcher.write_put_batch(shard, entries) end)
    wait_queued(shard, :put_batch, 1)
    delete = call_async(fn -> Batcher.write_delete_batch(shard, keys) end)
    wait_queued(shard, :delete_batch, 1)
    write = queue(shard, {:a})
    :ok = Batcher.configure(shard, commit_scope: :shard)
    assert await(put) == {:ok, Enum.map(entries, &{:done, &1})}
    assert await(delete) == {:ok, Enum.map(keys, &{:done, &1})}
    assert await(write) == {:done, {:a}}
    assert next_commit(shard, :__commit_put_batch_direct__).list == entries
    assert next_commit(shard, :__commit_delete_batch_direct__).list == keys
  end

  test "18.4 who is alone in a lane is watched when all lanes wait for it", %{shard: shard} do
    start_batcher(shard, pacing: :auto)
    backend(shard, [:block, :reply])
    # The backend runs in this process, and is killed with it.
    alone = spawn(fn -> Batcher.write(shard, "p", {:alone}, 1) end)
    assert next_commit(shard).pid == alone

    # Another lane goes on beside it.
    tag = make_ref()

    send(
      Process.whereis(Batcher.name(shard)),
      {:"$gen_call", {self(), tag}, {:write, "q", {:b}, 1}}
    )

    assert {:done, {:b}} = await_reply(tag)
    :ok = Batcher.configure(shard, commit_scope: :shard)
    task = call_async(fn -> Batcher.write(shard, "q", {:c}, 1) end)
    wait_queued(shard, "q", 1)
    Process.exit(alone, :kill)
    assert await(task) == {:done, {:c}}
  end

  test "18.4 another backend", %{shard: shard} do
    start_batcher(shard)
    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
    :ok = Batcher.configure(shard, backend: OtherBackend)
    assert Batcher.write(shard, "p", {:a}, 1) == {:other, shard, {:a}}
    before = Batcher.options(shard)

    assert {:error, {:backend_not_available, NoSuchBackend, _}} =
             Batcher.configure(shard, backend: NoSuchBackend, pacing: :auto)

    # All of it or nothing.
    assert Batcher.options(shard) == before
  end

  test "18.4 the timeouts of the end", %{shard: shard} do
    owner = start_alone(shard)
    backend(shard, :block)
    _stuck = queue_in_flight(shard)
    tag = make_ref()
    send(owner, {:"$gen_call", {self(), tag}, {:write, "p", {:b}, @long_ms}})
    wait_queued(shard, "p", 1)
    :ok = Batcher.configure(shard, drain_timeout: 0)
    assert Batcher.stop(shard) == :ok
    assert await_reply(tag) == {:error, :shutting_down}
  end

  test "18.4 what can't be changed, is unknown or bad is an error, and nothing is changed", c do
    start_batcher(c.shard)
    before = Batcher.options(c.shard)

    for {opts, key, value, said} <- [
          {[apply_context: nil], :apply_context, nil, "can't be changed while a batcher runs"},
          {[strict: true], :strict, true, "can't be changed"},
          {[backend_check: :lazy], :backend_check, :lazy, "can't be changed"},
          {[max_queue_item: 1], :max_queue_item, 1, "did you mean :max_queue_items?"},
          {[pacing: :never], :pacing, :never, "must be"},
          {[max_queue_items: 1, hot_batch_max: 2], {:hot_batch_max, :max_queue_items}, {2, 1},
           "at most"},
          {[:flag], :flag, nil, "unknown option :flag"}
        ] do
      error = {:error, {:invalid_option, key, value}}
      assert Batcher.configure(c.shard, [{:overflow, :refuse} | opts]) == error
      assert Batcher.format_error(error) =~ said
    end

    assert Batcher.options(c.shard) == before
    assert Batcher.configure(c.shard, []) == :ok

    assert_raise FunctionClauseError, fn ->
      Batcher.configure(c.shard, [{:pacing, :auto} | :tail])
    end
  end

  test "18.4 the owner lives on whatever it is asked to change", %{shard: shard} do
    owner = start_batcher(shard)

    for opts <- [:none, [1 | 2], [{:pacing, :auto, 1}], [{"pacing", 1}], [{:pacing, make_ref()}]] do
      send(owner, {:"$gen_call", {self(), make_ref()}, {:configure, opts}})
    end

    assert :ok = Batcher.configure(shard, pacing: :auto)
    assert Process.whereis(Batcher.name(shard)) == owner
  end

  test "18.4 without a batcher, and while it is being stopped", %{shard: shard} do
    assert Batcher.configure(shard, pacing: :auto) == {:error, :not_running}
    start_alone(shard)
    {task, commit} = stopping(shard)
    assert Batcher.configure(shard, pacing: :auto) == {:error, :shutting_down}
    release(commit)
    await(task)
  end

  # 18.5 How long a change holds

  test "18.5 what was changed holds for an owner that takes over", %{shard: shard} do
    owner = start_batcher(shard, hot_batch_max: 5)
    :ok = Batcher.configure(shard, hot_batch_max: 2, hot_batch_window_ms: @long_ms)
    task = call_async(fn -> Batcher.write_put_batch(shard, [@put]) end)
    wait_queued(shard, :put_batch, 1)
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    wait_until(fn -> Batcher.options(shard).hot_batch_max == {2, :configured} end)
    assert {:ok, _} = Batcher.write_put_batch(shard, [@put])
    assert {:ok, _} = await(task)
    assert length(next_commit(shard).list) == 2
  end

  test "18.5 a batcher that is started anew has the options that it is started with", context do
    %{shard: shard} = context
    owner = start_batcher(shard, hot_batch_max: 5)
    :ok = Batcher.configure(shard, hot_batch_max: 2, pacing: :auto)
    Batcher.stop(shard)
    await_successor(shard, owner)
    wait_until(fn -> (Batcher.options(shard) || %{})[:hot_batch_max] == {5, :option} end)
    assert Batcher.options(shard).pacing == {:commit, :default}
  end

  test "18.5 nor does it hold when nobody took over in time", %{shard: shard} do
    owner = start_alone(shard, adoption_timeout: 0)
    :ok = Batcher.configure(shard, pacing: :auto)
    Process.exit(owner, :kill)
    wait_until(fn -> Batcher.snapshot(shard) == nil end)
    start_alone(shard)
    assert Batcher.options(shard).pacing == {:commit, :default}
  end

  defp queue(shard, command, queued \\ 1) do
    task = call_async(fn -> Batcher.write(shard, "p", command, @long_ms) end)
    wait_queued(shard, "p", queued)
    task
  end

  # Nobody waits for it.
  defp queue_in_flight(shard) do
    send(
      Process.whereis(Batcher.name(shard)),
      {:"$gen_call", {self(), :stuck}, {:write, "p", {:a}, 1}}
    )

    next_commit(shard)
  end
end
