defmodule Ferricstore.Raft.WARaftBackend.Batcher.Raw do
  @moduledoc false
  # Writes that reach the owner as messages (contract 3.8): from other nodes, and from code that
  # was written for a batcher that was a plain GenServer.
  #
  # Invariant: a call of a known kind is answered, a token that came with a cast is released once,
  # and nothing that is in a message harms the owner.

  require Logger

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Count, Queue, Settings}

  @lists [:write_batch, :write_put_batch, :write_delete_batch]
  @async [:write_put_batch, :write_delete_batch]

  @doc "A call: `from` gets its reply when it is committed, an error at once."
  @spec call(integer, term, GenServer.from()) :: :ok
  def call(shard, {:write, prefix, command, window_ms} = request, from) do
    if is_binary(prefix) and is_tuple(command) and window?(window_ms),
      do: offer(shard, prefix, command, Count.command(command), window_ms, from),
      else: refuse(from, request)
  end

  def call(shard, {kind, list, window_ms} = request, from) when kind in @lists do
    if is_list(list) and window?(window_ms),
      do: offer(shard, lane(kind), list, count(kind, list), window_ms, from),
      else: refuse(from, request)
  end

  def call(_shard, _unknown, _from), do: :ok

  @doc "A cast of an async function: `from` gets the reply, the token is released."
  @spec cast(integer, term) :: :ok
  def cast(shard, {kind, list, window_ms, from, sync_token}) when kind in @async do
    case from do
      {pid, _tag} when is_pid(pid) -> call(shard, {kind, list, window_ms}, from)
      other -> Logger.warning("batcher #{shard}: no one to answer, from is #{inspect(other)}")
    end

    Queue.release(sync_token)
  catch
    kind, reason ->
      text = Exception.format_banner(kind, reason)
      Logger.error("batcher #{shard}: sync token #{inspect(sync_token)} not released: #{text}")
  end

  def cast(_shard, _unknown), do: :ok

  defp offer(shard, lane, item, count, window_ms, from) do
    case Queue.offer(shard, lane, item, count, max(window_ms, 0), from) do
      :queued -> :ok
      :not_running -> GenServer.reply(from, {:error, :shutting_down})
      {:error, _} = error -> GenServer.reply(from, error)
    end
  end

  defp refuse(from, request), do: GenServer.reply(from, {:error, {:invalid_request, request}})

  defp window?(window_ms), do: is_integer(window_ms) and window_ms <= Settings.max_window_ms()

  defp count(:write_batch, list), do: Count.commands(list)
  defp count(_kind, list), do: Count.items(list)

  defp lane(:write_batch), do: :batch
  defp lane(:write_put_batch), do: :put_batch
  defp lane(:write_delete_batch), do: :delete_batch
end
