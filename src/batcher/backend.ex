# The behaviour of a backend: what the batcher calls to commit, and how the replies of a commit are counted.
# Invariant: one reply per command as `reply_count/1` counts, whatever the nesting.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend do
  @moduledoc """
  What the batcher needs of a Raft backend: three functions that commit a batch.

  Each is called once per commit, in a process of the batcher's or, without one or for a write that is alone, in the caller; it returns when the outcome is known:

    * `{:ok, replies}`: committed. `replies` is a flat list in the order of the batch, one per command as
      `reply_count/1` counts. An error of one command is its element of the list, such
      as `{:error, reason}`. A list of another length is a mistake of the backend's, and every caller gets
      `{:error, {:batch_result_mismatch, expected, actual}}`.
    * any other term, such as `{:error, reason}`: every caller of the batch gets that term.

  Exits, errors and throws are caught by the batcher. An empty list is committed like any
  other and answered with `{:ok, []}`.

  ## Commit straight

  Each function must hand its batch to Raft itself, once, and must not go through the public write
  functions of the backend: those come back into the batcher and its gate, and wait there for the very
  lane, or shard, that is calling. Nor may it retry what Raft may have accepted: the batcher promises that a command
  is handed over at most once.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Count, Log}

  @typedoc "What a caller wrote: `{:put, key, value, expire_at_ms}`, `{:batch, commands}` or any other term."
  @type command :: term()

  @typedoc "Key, value and the moment it expires at, in ms of the Unix clock; 0 is never."
  @type entry :: {key :: binary(), value :: binary(), expire_at_ms :: integer()}

  @typedoc "`{:ok, replies}`, or a term that every caller of the batch gets."
  @type result :: {:ok, [reply :: term()]} | {:error, reason :: term()} | term()

  @doc """
  Commits `commands` of the generic lane, mixed ones of a namespace lane, or those of several lanes, in this order.
  """
  @callback __commit_batch_direct__(shard :: non_neg_integer(), commands :: [command()]) ::
              result()

  @doc "Commits puts, one reply per entry. Entries of `write_put_batch` come unchecked."
  @callback __commit_put_batch_direct__(shard :: non_neg_integer(), entries :: [entry()]) ::
              result()

  @doc "Commits deletes, one reply per key. Keys of `write_delete_batch` come unchecked."
  @callback __commit_delete_batch_direct__(shard :: non_neg_integer(), keys :: [binary()]) ::
              result()

  @doc """
  Commits the only command of a generic batch: `{:ok, [reply]}`. Without this function it comes to
  `__commit_batch_direct__/2` as a list of one.
  """
  @callback __commit_single_batch_direct__(shard :: non_neg_integer(), command()) :: result()

  @doc """
  Commits one command for a caller without a batcher and returns its reply, bare. Without this
  function it comes to `__commit_batch_direct__/2` as a list of one.
  """
  @callback __commit_single_direct__(shard :: non_neg_integer(), command()) :: reply :: term()

  @optional_callbacks __commit_single_batch_direct__: 2, __commit_single_direct__: 2

  @doc """
  How many replies `commands` get: `{:put_batch, list}` and `{:delete_batch, list}` one per
  item, `{:batch, list}` the sum of its members, anything else one. Raises `ArgumentError` if one of these
  lists is improper: the batcher refuses them.
  """
  @spec reply_count([command()]) :: non_neg_integer()
  def reply_count(commands) when is_list(commands) do
    case Count.commands(commands) do
      :improper -> raise ArgumentError, "an improper list: #{improper(commands, 1)}"
      count -> count
    end
  end

  # Where it is, without what callers wrote.
  defp improper([command | rest], place) do
    if Count.commands([command]) == :improper,
      do: "that of command #{place}, #{Log.shape(command)}",
      else: improper(rest, place + 1)
  end

  defp improper(_tail, place),
    do: "that of all commands, which are #{place - 1} and something else"
end
