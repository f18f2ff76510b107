defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Call do
  @moduledoc false
  # One call of a caller, as data: made through the batcher, or as a commit of its own by the backend's function
  # for it. One invariant: a write counts as acknowledged only when its own reply says so.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.Command

  # What the synchronous functions wait besides their window (contract 3.7).
  @reply_timeout 30_000

  @type entry :: {binary(), binary(), non_neg_integer()}

  @type t ::
          {:write, non_neg_integer(), binary(), Command.write(), pos_integer()}
          | {:write_batch, non_neg_integer(), [Command.write()]}
          | {:write_put_batch | :write_put_batch_async, non_neg_integer(), [entry()]}
          | {:write_delete_batch | :write_delete_batch_async, non_neg_integer(), [binary()]}

  @typedoc "Through the batcher, straight to this backend, or to nobody: answered at once, nothing is done."
  @type via :: :batched | {:direct, module()} | :nobody

  @spec commands(t()) :: [Command.write()]
  def commands({:write, _shard, _prefix, command, _window_ms}), do: [command]
  def commands({:write_batch, _shard, commands}), do: commands

  def commands({name, _shard, entries}) when name in [:write_put_batch, :write_put_batch_async],
    do: for({key, value, expire_at_ms} <- entries, do: {:put, key, value, expire_at_ms})

  def commands({_write_delete_batch, _shard, keys}), do: for(key <- keys, do: {:delete, key})

  @doc "How many writes it makes."
  @spec count(t()) :: non_neg_integer()
  def count({:write, _shard, _prefix, _command, _window_ms}), do: 1
  def count({_name, _shard, list}), do: length(list)

  @doc """
  The replies, one for each command, or why there are none. Nothing that the call does escapes.
  """
  @spec run(t(), via()) :: {:ok, [term()]} | {:error, term()}
  def run(call, via) do
    case make(call, via) do
      {:error, reason} -> {:error, reason}
      {:ok, replies} when is_list(replies) -> counted(replies, count(call))
      other -> {:error, {:unexpected_result, other}}
    end
  catch
    # The reason of a timeout holds the arguments of the call, values and all.
    :exit, {:timeout, _call} -> {:error, :timeout}
    kind, reason -> {:error, {kind, reason}}
  end

  defp counted(replies, count) when length(replies) == count, do: {:ok, replies}
  defp counted(replies, count), do: {:error, {:reply_count, length(replies), :not, count}}

  @doc "Whether a reply says that the command was done."
  @spec verdict(Command.write(), term()) :: :ok | {:error, term()}
  def verdict(_command, :ok), do: :ok
  def verdict({:incr, _key, _by}, {:ok, sum}) when is_integer(sum), do: :ok
  def verdict(_command, {:error, reason}), do: {:error, reason}
  def verdict(_command, reply), do: {:error, {:unexpected_reply, reply}}

  @doc "How many of the replies say that their command was done."
  @spec acknowledged(t(), [term()]) :: non_neg_integer()
  def acknowledged({:write, _shard, _prefix, command, _window_ms}, [reply]),
    do: acknowledged([command], [reply], 0)

  def acknowledged({:write_batch, _shard, commands}, replies),
    do: acknowledged(commands, replies, 0)

  # Puts and deletes have one good reply, so the commands need not be made for this.
  def acknowledged(_puts_or_deletes, replies), do: Enum.count(replies, &(&1 == :ok))

  defp acknowledged([command | commands], [reply | replies], count) do
    case verdict(command, reply) do
      :ok -> acknowledged(commands, replies, count + 1)
      {:error, _reason} -> acknowledged(commands, replies, count)
    end
  end

  defp acknowledged([], [], count), do: count

  @doc "The errors among the replies of a call."
  @spec errors(t(), [term()]) :: [{:error, term()}]
  def errors(call, replies) do
    verdicts = Enum.zip_with(commands(call), replies, &verdict/2)
    Enum.reject(verdicts, &(&1 == :ok))
  end

  defp make(call, :nobody), do: {:ok, List.duplicate(:ok, count(call))}

  defp make({:write, shard, _prefix, command, _window_ms}, {:direct, backend}),
    do: backend.__commit_batch_direct__(shard, [command])

  defp make({:write_batch, shard, commands}, {:direct, backend}),
    do: backend.__commit_batch_direct__(shard, commands)

  defp make({name, shard, entries}, {:direct, backend})
       when name in [:write_put_batch, :write_put_batch_async],
       do: backend.__commit_put_batch_direct__(shard, entries)

  defp make({_write_delete_batch, shard, keys}, {:direct, backend}),
    do: backend.__commit_delete_batch_direct__(shard, keys)

  defp make({:write, shard, prefix, command, window_ms}, :batched) do
    case Batcher.write(shard, prefix, command, window_ms) do
      {:error, reason} -> {:error, reason}
      reply -> {:ok, [reply]}
    end
  end

  defp make({:write_batch, shard, commands}, :batched), do: Batcher.write_batch(shard, commands)

  defp make({:write_put_batch, shard, entries}, :batched),
    do: Batcher.write_put_batch(shard, entries)

  defp make({:write_delete_batch, shard, keys}, :batched),
    do: Batcher.write_delete_batch(shard, keys)

  defp make({:write_put_batch_async, shard, entries}, :batched),
    do: reply(&Batcher.write_put_batch_async(shard, entries, &1))

  defp make({:write_delete_batch_async, shard, keys}, :batched),
    do: reply(&Batcher.write_delete_batch_async(shard, keys, &1))

  # A reply that comes after the timeout stays unread: its tag is never waited for again.
  defp reply(enqueue) do
    tag = make_ref()

    case enqueue.({self(), tag}) do
      {:direct, result} ->
        result

      :ok ->
        receive do
          {^tag, result} -> result
        after
          @reply_timeout -> {:error, :timeout}
        end
    end
  end
end
