defmodule Ferricstore.Raft.WARaftBackend.Batcher.Write.Async do
  @moduledoc false
  # Writes whose reply goes to a `GenServer.from` of the host's (contract 3.3, 12, 14.2, 16.1, 16.4).
  #
  # Invariant: `:ok` means that exactly one reply reaches `from` and that the token is released
  # exactly once; any other outcome leaves both to the caller.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Count,
    From,
    Name,
    Native,
    Settings,
    SyncToken,
    Write
  }

  @deferred_ms 30_000
  @handoff_ms 1_000

  @typedoc "A lane with more than one caller's list: any but a namespace's."
  @type lane :: :batch | :single | :put_batch | :delete_batch

  @doc "Queues a list; `:not_running` if there is no batcher to take it, or `window_ms` is `:direct`."
  @spec write(integer, lane, list, non_neg_integer | :direct, GenServer.from(), term) ::
          :ok | :not_running
  def write(shard, lane, list, window_ms, from, sync_token) do
    count = count(lane, list)

    case Settings.cast_hook() do
      _any when count == :improper ->
        {:error, reason} = Write.refuse_list(shard)
        refuse(reason, from, sync_token)

      _any when window_ms == :direct ->
        :not_running

      {:defer, pid} ->
        offer = fn -> offer(shard, lane, list, count, window_ms, from, sync_token) end
        defer(pid, shard, offer, from, sync_token)

      _none ->
        offer(shard, lane, list, count, window_ms, from, sync_token)
    end
  end

  defp count(lane, list) when lane in [:batch, :single], do: Count.commands(list)
  defp count(_lane, list), do: Count.items(list)

  defp offer(shard, lane, list, count, window_ms, from, sync_token) do
    case Write.offer(shard, lane, list, count, window_ms, From.own(from)) do
      :queued -> SyncToken.release(sync_token)
      :not_running -> :not_running
      {:error, reason} -> refuse(reason, from, sync_token)
    end
  end

  defp defer(pid, shard, offer, from, sync_token) do
    case Name.owner(shard) do
      nil ->
        :not_running

      owner ->
        ref = make_ref()

        helper =
          spawn(fn ->
            if token_arrived?(ref, sync_token) and continued?(pid, owner) and
                 SyncToken.transfer(sync_token, owner) and offer.() != :not_running,
               do: :ok,
               else: refuse_lost(shard, from, sync_token)
          end)

        give_token(sync_token, helper, ref)
    end
  end

  # Where tokens have an owner, the token is the helper's before this call returns.
  defp give_token(sync_token, helper, ref) do
    if SyncToken.owned?(sync_token) do
      given? = SyncToken.transfer(sync_token, helper)
      outcome = if given?, do: :begin_handoff, else: :abort_handoff
      send(helper, {ref, outcome})
    end

    :ok
  end

  defp token_arrived?(ref, sync_token) do
    not SyncToken.owned?(sync_token) or
      receive do
        {^ref, :begin_handoff} -> true
        {^ref, :abort_handoff} -> false
      after
        @handoff_ms -> false
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

  # A lost cast (12).
  defp refuse_lost(shard, from, sync_token) do
    Native.refused(shard, :shutting_down)
    refuse(:shutting_down, from, sync_token)
  end

  defp refuse(reason, from, sync_token) do
    GenServer.reply(from, {:error, reason})
    SyncToken.release(sync_token)
  end
end
