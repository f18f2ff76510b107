defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Phase do
  @moduledoc false
  # A column of the table as it is measured: batchers where it has any, then the writes, then the drain.
  # One invariant: no batcher of a phase runs when the next one begins.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Column, Meter, Metrics, Report, Shards}

  @typedoc """
  A phase that is over: seconds that it took, Raft commits that it made (nil: the backend has none), and what the
  function that wrote returned.
  """
  @type t :: %{
          meter: Meter.t(),
          seconds: float(),
          commits: non_neg_integer() | nil,
          result: term()
        }

  @doc "The phases of these columns, one after the other; `write` is given the column and its meter."
  @spec run_all([Column.t()], Shards.t(), (Column.t(), Meter.t() -> term())) ::
          {:ok, [t()]} | {:error, String.t()}
  def run_all(columns, shards, write) do
    Enum.reduce_while(columns, {:ok, []}, fn column, {:ok, phases} ->
      case run(column, shards, &write.(column, &1)) do
        {:ok, phase} -> {:cont, {:ok, phases ++ [phase]}}
        {:error, message} -> {:halt, {:error, message}}
      end
    end)
  end

  @spec run(Column.t(), Shards.t(), (Meter.t() -> term())) :: {:ok, t()} | {:error, String.t()}
  def run(%{via: :batched} = column, shards, write) do
    with {:ok, supervisor} <- Shards.start_batchers(column.shards, column.batcher),
         phase = measure(column, shards, write),
         # With the batchers goes what they have counted.
         :ok = Metrics.await_scrape(shards.metrics),
         :ok <- Shards.stop_batchers(supervisor, column.shards),
         do: {:ok, phase}
  end

  def run(column, shards, write), do: {:ok, measure(column, shards, write)}

  defp measure(column, shards, write) do
    meter = Meter.new(column.name, column.via, column.shards, column.unknown?)
    before = Shards.commits(shards, column.shards)
    {result, seconds} = Report.watch(meter, fn -> write.(meter) end)
    later = Shards.commits(shards, column.shards)
    commits = if before && later, do: later - before
    %{meter: meter, seconds: seconds, commits: commits, result: result}
  end
end
