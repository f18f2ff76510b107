defmodule Ferricstore.Raft.WARaftBackend.Batcher.CostTest do
  # What a write costs in messages.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  # Where a committer rests, one more small message wakes it: from the timer, or from the call that makes its lane due.
  test "a write sends no message on its way in, and gets one on its way back", c do
    start_batcher(c.shard)
    backend(c.shard, {:run, fn _function, list -> {:ok, Enum.map(list, fn _ -> :ok end)} end})

    writer =
      call_async(fn ->
        receive do: (:go -> :ok)
        for i <- 1..100, do: :ok = Batcher.write(c.shard, "a", {:put, "k#{i}", "v", 0}, 1)
        {:ok, [:ok]} = Batcher.write_put_batch(c.shard, [{"k", "v", 0}])
      end)

    # Loading a module is a message to the code server.
    {:ok, modules} = :application.get_key(:ferricstore_batcher, :modules)
    Enum.each(modules, &Code.ensure_loaded!/1)
    :erlang.trace(writer.pid, true, [:send, :receive])
    send(writer.pid, :go)
    await(writer)
    # The task's own reply to this test is the one message that it sends.
    assert_receive {:trace, _pid, :send, {_ref, {:ok, [:ok]}}, _to}
    assert replies(0) == 101
    # A call that makes its lane due wakes a committer.
    assert Enum.reject(sent([]), &(&1 == :work)) == []
  end

  defp sent(messages) do
    receive do
      {:trace, _pid, :send, message, _to} -> sent([message | messages])
    after
      0 -> messages
    end
  end

  defp replies(count) do
    receive do
      {:trace, _pid, :receive, {tag, _reply}} when is_reference(tag) -> replies(count + 1)
      {:trace, _pid, :receive, _other} -> replies(count)
    after
      0 -> count
    end
  end
end
