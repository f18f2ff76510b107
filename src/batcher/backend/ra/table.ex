# The table of a state machine, which holds the rows of its shard, and copies of it.
# Invariant: a process has one table at most, the last one that it made.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Table do
  @moduledoc false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Pieces

  # The rows that are copied out of the table in one go, and put back by one insert.
  @chunk 1_000

  # What a row weighs besides its external format, as in the machine.
  @row_overhead 16

  @typedoc "Chunks of rows, each in the external term format; large binaries are shared, not copied."
  @type chunks :: [[binary()]]

  @doc """
  An empty table of the calling process. The one that it had before is deleted: a server makes another only to
  start anew from a snapshot that its leader sent, and has no use for the old state then.
  """
  @spec new() :: :ets.table()
  def new do
    table = :ets.new(__MODULE__, [:set, :protected])

    case Process.put(__MODULE__, table) do
      nil -> :ok
      former -> :ets.delete(former)
    end

    table
  end

  @doc "All rows of a table, and what they weigh. The server waits while they are copied."
  @spec copy(:ets.table()) :: {chunks(), weight :: non_neg_integer()}
  def copy(table), do: copy(:ets.select(table, [{:_, [], [:"$_"]}], @chunk), [], 0)

  defp copy(:"$end_of_table", chunks, weight), do: {chunks, weight}

  defp copy({rows, continuation}, chunks, weight) do
    chunk = Pieces.of(rows)
    weight = weight + :erlang.iolist_size(chunk) + @row_overhead * length(rows)
    copy(:ets.select(continuation), [chunk | chunks], weight)
  end

  @doc "A table of the calling process, as with `new/0`, with these rows."
  @spec restore(chunks()) :: :ets.table()
  def restore(chunks) do
    table = new()

    for chunk <- chunks,
        do: :ets.insert(table, chunk |> :erlang.iolist_to_binary() |> :erlang.binary_to_term())

    table
  end
end
