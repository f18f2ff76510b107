# What a commit may be to the state machine: clause 16.3 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section16BudgetsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.ApplyWorkDouble,
    only: [context: 0, context: 1, load: 0, load_default: 1]

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @command {:error, :batch_command_apply_budget_exceeded}
  @compound {:error, :compound_member_apply_budget_exceeded}
  @overloaded {:error, :batcher_overloaded}

  setup do
    put_env(:waraft_generic_batch_window_ms, 60_000)
  end

  test "16.3 without the host's module everything goes on as before", %{shard: shard} do
    start_batcher(shard, apply_context: context())

    assert Batcher.write(shard, "p", {:work, 999, 999, 999, 1}, 1) ==
             {:done, {:work, 999, 999, 999, 1}}

    task = queue(shard, "p", {:a})
    refute Map.has_key?(queued_slot(shard, "p"), :command_work)
    Batcher.flush(shard)
    await(task)
    refute_received {:batch_usage, _, _}
  end

  test "16.3 without the option nothing is measured", %{shard: shard} do
    load()
    start_batcher(shard, hot_batch_window_ms: 60_000)
    assert Batcher.write(shard, "p", {:work, 999, 999, 999, 1}, 1)
    task = queue(shard, :put_batch, [1])
    refute Map.has_key?(queued_slot(shard, :put_batch), :command_work)
    Batcher.flush(shard)
    await(task)
    refute_received {:batch_usage, _, _}
  end

  test "16.3 without the option a host that has contexts says which", %{shard: shard} do
    load()
    load_default(Map.delete(context(batch_command_apply_budget: 3), :test))
    start_batcher(shard, hot_batch_max: 2)
    assert Batcher.write_put_batch(shard, [1, 2, 3]) == @overloaded
    assert Batcher.write(shard, "p", {:work, 4, 0, 0, 1}, 1) == @command
    other = new_shard()
    start_batcher(other, hot_batch_max: 2, apply_context: nil)
    assert {:ok, [_, _, _]} = Batcher.write_put_batch(other, [1, 2, 3])
  end

  test "16.3 groups are measured in their caller, each lane in its way", %{shard: shard} do
    load()
    start_batcher(shard, apply_context: context())
    put_env(:waraft_generic_batch_window_ms, 1)
    assert {:done, _} = Batcher.write(shard, "p", {:a}, 1)
    assert_received {:batch_usage, pid, [{:a}]} when pid == self()
    assert {:ok, _} = Batcher.write_batch(shard, [{:a}, {:b}])
    assert_received {:batch_usage, _, [{:a}, {:b}]}
    assert {:ok, _} = Batcher.write_put_batch(shard, [1, 2])
    assert_received {:admit_items, _, [1, 2]}
    assert {:ok, _} = Batcher.write_delete_batch(shard, [3])
    assert_received {:admit_items, _, [3]}
    assert await_reply(cast(shard, :single, [{:c}])) == {:done, {:c}}
    assert_received {:batch_usage, _, [{:c}]}
  end

  test "16.3 snapshot and get_state show the work of a slot", %{shard: shard} do
    load()
    start_batcher(shard, apply_context: context(), hot_batch_window_ms: 60_000)
    tasks = [queue(shard, "p", {:work, 2, 3, 4, 1}), queue(shard, "p", {:work, 1, 1, 1, 1})]
    work = %{command_work: 3, compound_work: 4, visit_work: 5}
    assert Map.take(queued_slot(shard, "p"), Map.keys(work)) == work
    assert Map.take(:sys.get_state(Batcher.name(shard)).slots["p"], Map.keys(work)) == work
    puts = queue(shard, :put_batch, [1, 2])
    assert %{command_work: 2, compound_work: 0, visit_work: 0} = queued_slot(shard, :put_batch)
    Batcher.flush(shard)
    Enum.each([puts | tasks], &await/1)
  end

  test "16.3 what a group by itself may be, in this order", %{shard: shard} do
    load()
    budgets = [batch_command_apply_budget: 10, compound_member_apply_budget: 5, visits: 20]
    start_batcher(shard, apply_context: context(budgets), hot_batch_max: 4)
    attach_telemetry(shard)

    for {command, error} <- [
          {{:strange}, {:error, :strange_command}},
          {{:work, 99, 99, 99, 2}, {:error, :namespace_batch_reply_width_unsupported}},
          {{:work, 11, 6, 21, 1}, @command},
          {{:work, 10, 6, 21, 1}, @compound},
          {{:work, 10, 5, 21, 1}, @command}
        ],
        do: assert(Batcher.write(shard, "p", command, 1) == error)

    for {command, error} <- [
          {{:strange}, {:error, :strange_command}},
          {{:work, 99, 99, 99, 5}, @overloaded},
          {{:work, 11, 6, 21, 4}, @command},
          {{:work, 10, 6, 21, 4}, @compound}
        ] do
      assert Batcher.write_batch(shard, [command]) == error

      for lane <- [:batch, :single] do
        token = TestGate.token()
        assert await_reply(cast(shard, lane, [command], token)) == error
        assert_received {:left, ^token, _pid}
      end
    end

    assert Batcher.write_put_batch(shard, [1, 2, 3, 4, 5]) == @overloaded
    assert Batcher.write_delete_batch(shard, [:strange]) == {:error, :strange_item}
    assert Batcher.write_batch(shard, [1 | 2]) == {:error, :invalid_batch_command_list}
    assert Batcher.write(shard, "p", {:work, 10, 5, 20, 1}, 1)
    assert next_commit(shard).list == [{:work, 10, 5, 20, 1}]
    refute_commit(shard, 0)
  end

  test "16.3 an idle slot over a budget is sent off, what does not fit behind a commit refused",
       c do
    load()
    budgets = [batch_command_apply_budget: 10]
    start_batcher(c.shard, apply_context: context(budgets))
    backend(c.shard, [:block, :reply])
    first = queue(c.shard, "p", {:work, 6, 0, 1, 1})
    later = call_async(fn -> Batcher.write(c.shard, "p", {:work, 5, 0, 1, 1}, 60_000) end)
    commit = next_commit(c.shard)
    assert commit.list == [{:work, 6, 0, 1, 1}]
    wait_queued(c.shard, "p", 1)
    assert Batcher.write(c.shard, "p", {:work, 6, 0, 1, 1}, 1) == @command
    assert queued_slot(c.shard, "p").command_work == 5
    release(commit)
    assert await(first) == {:done, {:work, 6, 0, 1, 1}}
    assert await(later) == {:done, {:work, 5, 0, 1, 1}}
  end

  for {overflow, refuses} <- [queue: false, refuse: true, default: true, without: false] do
    test "16.3 a full slot in a busy lane, overflow #{overflow}", %{shard: shard} do
      load()

      options =
        case unquote(overflow) do
          :without -> [hot_batch_max: 2]
          :default -> [hot_batch_max: 2, apply_context: context()]
          other -> [hot_batch_max: 2, apply_context: context(), overflow: other]
        end

      start_batcher(shard, options)
      backend(shard, [:block, :reply])
      first = occupy(shard, :put_batch)
      behind = queue(shard, :put_batch, [1, 2])
      token = TestGate.token()
      tag = cast(shard, :put_batch, [3], token)
      assert_received {:left, ^token, _pid}

      if unquote(refuses) do
        assert await_reply(tag) == @overloaded
        assert queued(shard, :put_batch) == 1
      else
        assert queued(shard, :put_batch) == 2
      end

      release(first)
      assert {:ok, [_, _]} = await(behind)
      unless unquote(refuses), do: assert({:ok, [_]} = await_reply(tag))
    end
  end

  test "16.3 while stopping that is what a writer is told first", %{shard: shard} do
    load()
    start_alone(shard, apply_context: context())
    {task, commit} = stopping(shard)
    assert Batcher.write(shard, "p", {:strange}, 1) == {:error, :shutting_down}
    refute_received {:batch_usage, _, [{:strange}]}
    release(commit)
    await(task)
  end

  test "16.3 a measuring that fails is its caller's matter", %{shard: shard} do
    load()
    owner = start_batcher(shard, apply_context: context())
    token = TestGate.token()
    assert_raise RuntimeError, fn -> Batcher.write(shard, "p", {:raise}, 1) end
    assert_raise RuntimeError, fn -> cast(shard, :single, [{:raise}], token) end
    refute_received {:left, ^token, _pid}
    raw = {:write, "p", {:raise}, 1}
    assert GenServer.call(owner, raw) == {:error, {:invalid_request, raw}}
    assert GenServer.call(owner, {:write, "p", {:a}, 1}) == {:done, {:a}}
  end

  test "16.3 a large group is measured as well", %{shard: shard} do
    load()

    start_batcher(shard,
      apply_context: context(batch_command_apply_budget: 20_000),
      hot_batch_max: 50_000
    )

    list = Enum.to_list(1..15_000)
    assert {:ok, _} = Batcher.write_put_batch(shard, list)
    assert Batcher.write_put_batch(shard, list ++ list) == @command
  end
end
