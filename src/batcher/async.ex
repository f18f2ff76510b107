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
    case {Count.items(list), Settings.cast_hook()} do
      {:improper, _hook} -> refuse(:invalid_batch_command_list, from, sync_token)
      _count when window_ms == 0 -> :not_running
      {_count, {:defer, pid}} -> defer(pid, shard, lane, list, window_ms, from, sync_token)
      {count, _none} -> now(shard, lane, list, count, window_ms, from, sync_token)
    end
  end

  defp now(shard, lane, list, count, window_ms, from, sync_token) do
    case Queue.offer(shard, lane, list, count, window_ms, from) do
      {:queued, _ticket} -> Queue.release(sync_token)
      :not_running -> :not_running
      {:error, reason} -> refuse(reason, from, sync_token)
    end
  end

  defp defer(pid, shard, lane, list, window_ms, from, sync_token) do
    case Process.whereis(Batcher.name(shard)) do
      nil ->
        :not_running

      owner ->
        spawn(fn -> deferred(pid, owner, shard, lane, list, window_ms, from, sync_token) end)
        :ok
    end
  end

  defp deferred(pid, owner, shard, lane, list, window_ms, from, sync_token) do
    ref = make_ref()
    send(pid, {:waraft_backend_batcher_cast_deferred, ref, self()})

    continued =
      receive do
        {^ref, :continue} -> Process.alive?(owner)
      after
        @deferred_ms -> false
      end

    queued =
      if continued,
        do: now(shard, lane, list, length(list), window_ms, from, sync_token),
        else: :not_running

    if queued == :not_running, do: refuse(:shutting_down, from, sync_token)
  end

  defp refuse(reason, from, sync_token) do
    GenServer.reply(from, {:error, reason})
    Queue.release(sync_token)
  end
end
