defmodule Ferricstore.Raft.WARaftBackend.Batcher.Write.Raw do
  @moduledoc false
  # Writes that reach the owner as messages (contract 3.8, 16.1): from other nodes, and from code that
  # was written for a batcher that was a plain GenServer.
  #
  # Invariant: a call of a known kind is answered, a token that came with a cast is released once,
  # and nothing that is in a message harms the owner, or is written to a log.

  import Ferricstore.Raft.WARaftBackend.Batcher.From, only: [is_from: 1]

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Count,
    From,
    Log,
    Native,
    Settings,
    SyncToken,
    Write
  }

  @lists [:write_batch, :write_put_batch, :write_delete_batch]

  @doc "A call: `from` gets its reply when it is committed, an error at once."
  @spec call(integer, term, GenServer.from()) :: :ok
  def call(shard, {:write, prefix, command, window_ms} = request, from) do
    if is_binary(prefix) and is_tuple(command) and window?(window_ms),
      do: offer(shard, prefix, command, Count.command(command), window_ms, from, request),
      else: refuse(shard, from, request)
  end

  def call(shard, {kind, list, window_ms} = request, from) when kind in @lists do
    if is_list(list) and window?(window_ms),
      do: offer(shard, lane(kind), list, count(kind, list), window_ms, from, request),
      else: refuse(shard, from, request)
  end

  def call(_shard, _unknown, _from), do: :ok

  @doc "A cast of an async function: `from` gets the reply, the token is released."
  @spec cast(integer, term) :: :ok
  def cast(shard, {kind, list, window_ms, from, sync_token}) when kind in @lists do
    case from do
      {:single, from} when kind == :write_batch and is_from(from) ->
        single(shard, list, window_ms, from)

      from when is_from(from) ->
        call(shard, {kind, list, window_ms}, from)

      _none ->
        Log.tell(shard, :cast_dropped, request: kind)
    end

    SyncToken.release(shard, sync_token)
  catch
    kind, reason ->
      Log.tell(shard, :token_not_released, reason: describe(kind, reason))
  end

  def cast(_shard, _unknown), do: :ok

  # One command, whose reply is bare.
  defp single(shard, commands, window_ms, from) do
    request = {:write_batch, commands, window_ms}

    if match?([_command], commands) and window?(window_ms),
      do: offer(shard, :single, commands, Count.commands(commands), window_ms, from, request),
      else: refuse(shard, from, request)
  end

  defp offer(shard, lane, item, count, window_ms, from, request) do
    case Write.offer(shard, lane, item, count, max(window_ms, 0), From.others(from)) do
      :queued -> :ok
      :not_running -> refuse_late(shard, from)
      {:error, _} = error -> GenServer.reply(from, error)
    end
  catch
    # The host's modules (16.3) failed to measure a command that they do not understand.
    _kind, _reason -> refuse(shard, from, request)
  end

  # The owner has closed the shard and answers what is left in its mailbox.
  defp refuse_late(shard, from) do
    Native.refused(shard, :shutting_down)
    GenServer.reply(from, {:error, :shutting_down})
  end

  defp refuse(shard, from, request) do
    Native.refused(shard, :invalid)
    GenServer.reply(from, {:error, {:invalid_request, request}})
  end

  # The kind of a failure, without the terms that failed.
  defp describe(:error, %module{}), do: inspect(module)
  defp describe(kind, _reason), do: inspect(kind)

  defp window?(window_ms), do: is_integer(window_ms) and window_ms <= Settings.max_window_ms()

  defp count(:write_batch, list), do: Count.commands(list)
  defp count(_kind, list), do: Count.items(list)

  defp lane(:write_batch), do: :batch
  defp lane(:write_put_batch), do: :put_batch
  defp lane(:write_delete_batch), do: :delete_batch
end
