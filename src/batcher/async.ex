defmodule Ferricstore.Raft.WARaftBackend.Batcher.Async do
  @moduledoc false
  # Writes whose reply goes to a `GenServer.from` of the host's (contract 3.3, 12, 14.2).
  #
  # Invariant: `:ok` means that exactly one reply reaches `from` and that the token is released
  # exactly once; any other outcome leaves both to the caller.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.{Count, Queue, Settings}

  @deferred_ms 30_000

  @doc "Queues a list; `:not_running` if there is no batcher to take it, or a window of 0 forbids it."
  @spec write(integer, :put_batch | :delete_batch, list, non_neg_integer, GenServer.from(), term) ::
          :ok | :not_running
  def write(shard, lane, list, window_ms, from, sync_token) do
    count = Count.items(list)
    queue = fn -> now(shard, lane, list, count, window_ms, from, sync_token) end

    case Settings.cast_hook() do
      _any when count == :improper -> refuse(:invalid_batch_command_list, from, sync_token)
      _any when window_ms == 0 -> :not_running
      {:defer, pid} -> defer(pid, shard, queue, from, sync_token)
      _none -> queue.()
    end
  end

  defp now(shard, lane, list, count, window_ms, from, sync_token) do
    case Queue.offer(shard, lane, list, count, window_ms, from) do
      :queued -> Queue.release(sync_token)
      :not_running -> :not_running
      {:error, reason} -> refuse(reason, from, sync_token)
    end
  end

  defp defer(pid, shard, queue, from, sync_token) do
    case Process.whereis(Batcher.name(shard)) do
      nil ->
        :not_running

      owner ->
        spawn(fn ->
          queued = if continued?(pid, owner), do: queue.(), else: :not_running
          if queued == :not_running, do: refuse(:shutting_down, from, sync_token)
        end)

        :ok
    end
  end

  # Not if the owner that ran at the time of the call is dead by then.
  defp continued?(pid, owner) do
    ref = make_ref()
    send(pid, {:waraft_backend_batcher_cast_deferred, ref, self()})

    receive do
      {^ref, :continue} -> Process.alive?(owner)
    after
      @deferred_ms -> false
    end
  end

  defp refuse(reason, from, sync_token) do
    GenServer.reply(from, {:error, reason})
    Queue.release(sync_token)
  end
end
