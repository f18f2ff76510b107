# Snapshots of the state machine, in Ra's own file format.
# Invariant: a snapshot holds what the table held when the server had applied exactly the snapshot's index;
# what the server applies later never gets into it.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Snapshot do
  @moduledoc false

  # The callbacks of :ra_snapshot, of all versions of Ra from 2.0, without `@behaviour`, as the machine. What is on
  # disk, and on its way to other members, is Ra's business: ra_log_snapshot writes any term.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.{Machine, Table}

  @typedoc "A state that stays as it is: the rows in the place of the table."
  @type frozen :: %{
          rows: Table.chunks(),
          commits: non_neg_integer(),
          weight: non_neg_integer(),
          due: pos_integer()
        }

  @doc "The state as a term that stays as it is, and what its rows weigh. The server waits while they are copied."
  @spec freeze(Machine.state()) :: {frozen(), weight :: non_neg_integer()}
  def freeze(%{table: table} = state) do
    {chunks, weight} = Table.copy(table)
    {state |> Map.delete(:table) |> Map.put(:rows, chunks), weight}
  end

  defp thaw(%{rows: chunks} = frozen),
    do: frozen |> Map.delete(:rows) |> Map.put(:table, Table.restore(chunks))

  ## Callbacks that see a state

  # The machine freezes what it wants to be written; Ra 3 can also be told to write the last state as it is when a
  # server ends.
  @spec prepare(term(), Machine.state() | frozen()) :: frozen()
  def prepare(_meta, state), do: frozen(state)

  @spec write(:file.filename_all(), map(), Machine.state() | frozen()) :: term()
  def write(dir, meta, state), do: files(:write, [dir, meta, frozen(state)])

  @spec write(:file.filename_all(), map(), Machine.state() | frozen(), boolean()) :: term()
  def write(dir, meta, state, sync),
    do: files(:write, [dir, meta, frozen(state), sync])

  defp frozen(%{table: _} = state), do: state |> freeze() |> elem(0)
  defp frozen(%{rows: _} = frozen), do: frozen

  @spec recover(:file.filename_all()) :: {:ok, map(), Machine.state()} | {:error, term()}
  def recover(dir) do
    with {:ok, meta, frozen} <- files(:recover, [dir]), do: {:ok, meta, thaw(frozen)}
  end

  ## Callbacks that see files only

  @spec sync(term()) :: term()
  def sync(dir), do: files(:sync, [dir])

  @spec begin_read(term()) :: term()
  def begin_read(dir), do: files(:begin_read, [dir])

  @spec begin_read(term(), term()) :: term()
  def begin_read(dir, context), do: files(:begin_read, [dir, context])

  @spec read_chunk(term(), term(), term()) :: term()
  def read_chunk(state, bytes, dir), do: files(:read_chunk, [state, bytes, dir])

  @spec begin_accept(term(), term()) :: term()
  def begin_accept(dir, meta), do: files(:begin_accept, [dir, meta])

  @spec accept_chunk(term(), term()) :: term()
  def accept_chunk(chunk, state), do: files(:accept_chunk, [chunk, state])

  @spec complete_accept(term(), term()) :: term()
  def complete_accept(chunk, state), do: files(:complete_accept, [chunk, state])

  @spec validate(term()) :: term()
  def validate(dir), do: files(:validate, [dir])

  @spec read_meta(term()) :: term()
  def read_meta(dir), do: files(:read_meta, [dir])

  @spec context() :: term()
  def context, do: files(:context, [])

  @spec get_size(term()) :: term()
  def get_size(dir), do: files(:get_size, [dir])

  # Which of its functions there are depends on the version of Ra, which calls no others here.
  defp files(function, args), do: apply(:ra_log_snapshot, function, args)
end
