defmodule Ferricstore.Raft.WARaftBackend.Batcher.Told do
  @moduledoc false
  # What an owner tells of its shard, in the log and to telemetry (contract 13, 21): that it took over, that a committer
  # died, what was refused, what a drain left, what failed.
  #
  # Invariant: what it tells is what the library has counted; nothing that anybody wrote. What was refused is told once,
  # by whichever process asks next.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Log, Native, Telemetry}

  @queued [:queued_items, :queued_bytes, :in_flight_items]

  @typedoc "What a shard held at a moment: see `Native.numbers/1`."
  @type numbers :: map | :not_running

  @doc "The shard was opened; `before`: what it held then, left by another owner."
  @spec opened(integer, numbers) :: :ok
  def opened(_shard, :not_running), do: :ok

  def opened(shard, before) do
    Log.tell(shard, :adopted, held(before))
    Telemetry.Emit.tell(:adopted, Map.new(held(before)), %{shard_index: shard})
  end

  @doc "A committer has died."
  @spec committer_down(integer, term) :: :ok
  def committer_down(shard, reason) do
    reason = Log.shape(reason)
    Log.tell(shard, :committer_down, [reason: reason] ++ held(Native.numbers(shard)))
    Telemetry.Emit.tell(:committer_down, %{count: 1}, %{shard_index: shard, reason: reason})
  end

  @doc "Tells telemetry what was refused since it was told that last, and returns it, by cause."
  @spec refused(integer) :: [{cause :: atom, pos_integer}]
  def refused(shard) do
    refused = Enum.sort(Native.take_refused(shard))

    for {cause, count} <- refused,
        do: Telemetry.Emit.tell(:refused, %{count: count}, %{shard_index: shard, cause: cause})

    refused
  end

  @doc """
  Runs `close`, which ends a shard; it was drained, if `result` is `:ok`. Returns what it held before, and what was
  refused since that was told last.
  """
  @spec drained(integer, :ok | term, (() -> :ok)) :: {numbers, [{cause :: atom, pos_integer}]}
  def drained(shard, result, close) do
    left = Native.numbers(shard)
    close.()
    # No watcher looks at a shard any more that is closed.
    refused = refused(shard)
    if left != :not_running, do: ended(shard, result, left)
    {left, refused}
  end

  defp ended(shard, result, left) do
    if result != :ok and left.queued_items > 0, do: Log.tell(shard, :drain_refused, held(left))
    about = %{shard_index: shard, result: result}
    Telemetry.Emit.tell(:drained, Map.new(held(left)), about)
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

  # Nothing of a shard that is closed.
  defp held(:not_running), do: []
  defp held(numbers), do: Enum.to_list(Map.take(numbers, @queued))
end
