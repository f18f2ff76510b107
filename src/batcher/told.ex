defmodule Ferricstore.Raft.WARaftBackend.Batcher.Told do
  @moduledoc false
  # What an owner tells of its shard, in the log (contract 21): that it took over, that a committer died, what a drain
  # refused, what failed.
  #
  # Invariant: what it tells is what the library has counted; nothing that anybody wrote.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Log, Native}

  @queued [:queued_items, :queued_bytes, :in_flight_items]

  @typedoc "What a shard held at a moment: see `Native.gauges/1`."
  @type gauges :: map | :not_running

  @doc "The shard was opened; `before`: what it held then, left by another owner."
  @spec opened(integer, gauges) :: :ok
  def opened(_shard, :not_running), do: :ok
  def opened(shard, before), do: Log.tell(shard, :adopted, held(before))

  @doc """
  Runs `down`, which tells the library that a process has died with `reason`, and says so in the log if it was a
  committer.
  """
  @spec down(integer, term, (() -> :ok)) :: :ok
  def down(shard, reason, down) do
    before = deaths(shard)
    down.()

    if deaths(shard) > before,
      do: Log.tell(shard, :committer_down, reason: Log.shape(reason)),
      else: :ok
  end

  defp deaths(shard) do
    case Native.stats(shard) do
      :not_running -> 0
      stats -> stats.committer_deaths_total
    end
  end

  @doc "Runs `close`, which ends a shard; it was drained, if `result` is `:ok`."
  @spec drained(integer, :ok | term, (() -> :ok)) :: :ok
  def drained(shard, result, close) do
    left = Native.gauges(shard)
    close.()

    if result != :ok and left != :not_running and left.queued_items > 0,
      do: Log.tell(shard, :drain_refused, held(left)),
      else: :ok
  end

  @doc "The library has failed."
  @spec library_failed(integer, String.t()) :: :ok
  def library_failed(shard, text), do: Log.tell(shard, :library_failed, text: text)

  @doc "The owner has failed there."
  @spec owner_failed(integer, Exception.stacktrace()) :: :ok
  def owner_failed(shard, stack) do
    where = for {module, function, _, _} <- Enum.take(stack, 1), do: {module, function}
    Log.tell(shard, :owner_failed, where: where)
  end

  defp held(gauges), do: Enum.to_list(Map.take(gauges, @queued))
end
