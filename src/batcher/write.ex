defmodule Ferricstore.Raft.WARaftBackend.Batcher.Write do
  @moduledoc false
  # The path of a write: from the calling process into the library, and of a synchronous one its wait for the reply, or
  # its commit if it is alone.
  #
  # Invariant: a call that has ended will get no message any more, whether it was answered, waited too
  # long or gave up.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Alone, Budgets, Count, From, Native, Settings}

  @typedoc """
  `:invalid_batch_command_list`, `:shutting_down`, `:batcher_overloaded`, or what budgets and the host's
  measuring say (16.3).
  """
  @type error :: {:error, atom}

  @doc "Queues a write whose reply goes to `from`."
  @spec offer(integer, Native.lane(), term, Count.count(), non_neg_integer, From.native()) ::
          :queued | :not_running | error
  def offer(shard, lane, item, count, window_ms, from),
    do: offer(shard, lane, item, count, window_ms, from, nil)

  @doc """
  Queues a write and waits for its reply, `{:reply, reply}`, or `:timeout` after the window and the call timeout of
  these settings. One that is alone is committed instead (5.6).
  """
  @spec call(integer, Native.lane(), term, Count.count(), non_neg_integer, Settings.t()) ::
          {:reply, term} | :timeout | :not_running | error
  def call(shard, lane, item, count, window_ms, settings) do
    # Made by this process, so that the receive below skips all messages that were here before it.
    tag = make_ref()

    wait_ms = Settings.call_timeout_ms(settings) + window_ms

    case offer(shard, lane, item, count, window_ms, tag, wait_ms) do
      # The library sees to it that this wait ends: a timer of each caller's own would cost a quarter of
      # the whole call.
      :queued ->
        receive do
          {^tag, reply} -> {:reply, reply}
          {^tag} -> :timeout
        end

      {:alone, _permit, _bytes, _function} = alone ->
        {:reply, Alone.commit(shard, lane, item, count, window_ms, settings, alone)}

      refused ->
        refused
    end
  end

  @doc "Refuses an improper list (3.6)."
  @spec refuse_list(integer) :: {:error, :invalid_batch_command_list}
  def refuse_list(shard) do
    Native.refused(shard, :invalid)
    {:error, :invalid_batch_command_list}
  end

  defp offer(shard, _lane, _item, :improper, _window_ms, _from, _wait_ms), do: refuse_list(shard)

  defp offer(shard, lane, item, count, window_ms, from, wait_ms) do
    case Native.offer(shard, lane, item, count, window_ms, from, wait_ms, nil) do
      :queued -> :queued
      :large -> offer_large(shard, lane, item, count, window_ms, from, wait_ms, nil)
      :measure -> offer_measured(shard, lane, item, window_ms, from, wait_ms)
      refused -> offered(refused)
    end
  end

  defp offer_measured(shard, lane, item, window_ms, from, wait_ms) do
    case Budgets.measure(shard, lane, item) do
      {:ok, usage, count} ->
        case Native.offer(shard, lane, item, count, window_ms, from, wait_ms, usage) do
          :large -> offer_large(shard, lane, item, count, window_ms, from, wait_ms, usage)
          answer -> offered(answer)
        end

      {:error, _reason} = error ->
        Native.refused(shard, :budget)
        error
    end
  end

  # Copied on a dirty scheduler: there, a millisecond matters to nobody.
  defp offer_large(shard, lane, item, count, window_ms, from, wait_ms, usage),
    do: offered(Native.offer_large(shard, lane, item, count, window_ms, from, wait_ms, usage))

  defp offered({:alone, _permit, _bytes, _function} = alone), do: alone
  defp offered(accepted) when accepted in [:queued, :not_running], do: accepted
  defp offered(reason), do: {:error, reason}
end
