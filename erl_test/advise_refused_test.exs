# What is said of calls that were refused (17.7), each with a load that makes it true, and with one that makes it false. Not
# beside other tests: some bounds are those of all shards, or of the host.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.AdviseRefusedTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.ApplyWorkDouble, only: [context: 1, load: 0]
  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @overloaded {:error, :batcher_overloaded}

  # A batcher that has committed enough for advice.
  defp start(shard, options) do
    start_batcher(shard, options)
    for n <- 1..100, do: {:done, _} = Batcher.write(shard, "p", {:set, n}, 1)
    wait_idle(shard)
    drop_commits(shard)
    shard
  end

  defp refusals(shard) do
    for %{topic: :refused, text: text} <- Batcher.advise(shard), do: text
  end

  # A commit that is in flight until the test releases it, with one call more behind it.
  defp occupy_both(shard) do
    backend(shard, [:block, :reply])
    commit = occupy(shard, "p")
    {commit, queue(shard, "p", {:behind})}
  end

  defp release_both({commit, behind}) do
    release(commit)
    assert {:done, {:behind}} = await(behind)
  end

  test "17.7 refused by a bound of the shard", c do
    limits = [namespace_batch_max: 1, hot_batch_max: 1]
    start(c.shard, [max_queue_items: 2] ++ limits)
    both = occupy_both(c.shard)
    assert refusals(c.shard) == []
    assert Batcher.write(c.shard, "q", {:b}, 1) == @overloaded
    assert [text] = refusals(c.shard)

    assert text =~
             ":max_queue_items: 1. The shard may hold 2 items, queued and in flight, and holds 2 now"

    release_both(both)

    other = start(new_shard(), max_queue_bytes: 5_000)
    both = occupy_both(other)
    assert refusals(other) == []
    assert Batcher.write(other, "q", {:b, :binary.copy("b", 6_000)}, 1) == @overloaded
    assert [text] = refusals(other)
    assert text =~ ":max_queue_bytes: 1. The shard may hold 5000 bytes"
    release_both(both)
  end

  test "17.7 refused by the bound of all shards, which another one fills", c do
    put_total(10_000)

    start(c.shard, [])
    other = start(new_shard(), [])
    backend(other, [:block, :reply])
    large = {:a, :binary.copy("a", 6_000)}
    task = call_async(fn -> Batcher.write(other, "p", large, 1) end)
    commit = next_commit(other)
    assert refusals(c.shard) == []
    assert Batcher.write(c.shard, "p", large, 1) == @overloaded
    assert [text] = refusals(c.shard)
    assert text =~ ":max_total_queue_bytes: 1. All shards together may hold 10000 bytes"
    assert text =~ "this shard holds 0 of them now"
    assert refusals(other) == []
    release(commit)
    await(task)
  end

  test "17.7 refused by a full slot, and queued with the other overflow" do
    for {overflow, refuses} <- [refuse: true, queue: false] do
      shard = start(new_shard(), overflow: overflow, namespace_batch_max: 1)
      both = occupy_both(shard)

      if refuses do
        assert Batcher.write(shard, "p", {:c}, 1) == @overloaded
        assert [text] = refusals(shard)

        assert text =~ "was full: 1, with :namespace_batch_max 1 and"
        assert text =~ "`overflow: :queue`"
        release_both(both)
      else
        third = queue(shard, "p", {:c})
        assert refusals(shard) == []
        release_both(both)
        await(third)
      end
    end
  end

  test "17.7 refused by a budget", c do
    load()
    context = context(batch_command_apply_budget: 2)
    start(c.shard, apply_context: Map.delete(context, :test))
    assert Batcher.write(c.shard, "p", {:work, 2, 0, 1, 1}, 1) == {:done, {:work, 2, 0, 1, 1}}
    assert refusals(c.shard) == []
    refused = {:error, :batch_command_apply_budget_exceeded}
    assert Batcher.write(c.shard, "p", {:work, 3, 0, 1, 1}, 1) == refused
    assert [text] = refusals(c.shard)
    assert text =~ "budgets of :apply_context"
  end
end
