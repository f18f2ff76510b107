defmodule Ferricstore.Raft.WARaftBackend.Batcher.Queue do
  @moduledoc false
  # A call's way into the library and its wait for the reply.
  #
  # Invariant: a caller that gives up has withdrawn its ticket or received its reply, so that no
  # reply ever reaches a mailbox where nobody waits.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Count, Native, Settings}

  # A reply that has been sent is here at once; only a crash could keep it.
  @sent_ms 5_000

  @type error :: {:error, :invalid_batch_command_list | :shutting_down | :batcher_overloaded}

  @doc "Queues a write whose reply goes to `from`."
  @spec offer(integer, Native.lane(), term, Count.count(), non_neg_integer, GenServer.from()) ::
          {:queued, ticket :: non_neg_integer} | :not_running | error
  def offer(_shard, _lane, _item, :improper, _window_ms, _from),
    do: {:error, :invalid_batch_command_list}

  def offer(shard, lane, item, count, window_ms, from) do
    case Native.offer(shard, lane, item, count, window_ms, from) do
      # Copied on a dirty scheduler: there, a millisecond matters to nobody.
      :large -> queued(Native.offer_large(shard, lane, item, count, window_ms, from))
      answer -> queued(answer)
    end
  end

  defp queued(ticket) when is_integer(ticket), do: {:queued, ticket}
  defp queued(:not_running), do: :not_running
  defp queued(reason), do: {:error, reason}

  @doc """
  Queues a write and waits for its reply: `{:reply, reply}`, or `:timeout` after the window and
  30 s.
  """
  @spec write(integer, Native.lane(), term, Count.count(), non_neg_integer) ::
          {:reply, term} | :timeout | :not_running | error
  def write(shard, lane, item, count, window_ms) do
    # Made here, so that the receive below skips all messages that were here before it.
    tag = make_ref()

    case offer(shard, lane, item, count, window_ms, {self(), tag}) do
      {:queued, ticket} ->
        receive do
          {^tag, reply} -> {:reply, reply}
        after
          wait_ms(window_ms) -> give_up(Native.cancel(shard, lane, ticket), tag)
        end

      refused ->
        refused
    end
  end

  @doc "Waits until every write accepted so far has been answered."
  @spec flush(integer, timeout) :: {:reply, term} | :timeout | :not_running
  def flush(shard, timeout) do
    tag = make_ref()

    case Native.flush(shard, tag) do
      :not_running ->
        :not_running

      number ->
        receive do
          {^tag, result} -> {:reply, result}
        after
          timeout -> give_up(Native.cancel_flush(shard, number), tag)
        end
    end
  end

  @doc "Releases a sync token (12.1)."
  @spec release(term) :: :ok
  def release(nil), do: :ok

  def release(sync_token) do
    Settings.sync_gate().leave(sync_token)
    :ok
  end

  defp give_up(:cancelled, _tag), do: :timeout

  defp give_up(:sent, tag) do
    receive do
      {^tag, result} -> {:reply, result}
    after
      @sent_ms -> :timeout
    end
  end

  defp wait_ms(window_ms),
    do: min(Settings.call_timeout_ms() + window_ms, Settings.max_window_ms())
end
