defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Phase do
  @moduledoc false
  # A column of the table as it is measured: batchers where it has any, then the writes, then the drain. All of it once,
  # or in turns with the other columns, so that what changes on the machine meanwhile changes all of them alike.
  # One invariant: no batcher of a column runs while there are writes to another one.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Column, Meter, Metrics, Report, Shards}

  @typedoc """
  A phase that is over: seconds that it took, Raft commits that it made (nil: the backend has none), and what the
  function that wrote returned in each turn.
  """
  @type t :: %{
          meter: Meter.t(),
          seconds: float(),
          commits: non_neg_integer() | nil,
          results: [term()]
        }

  @doc "The phases of these columns, in so many turns; `write` is given the column, its meter, and the turn, from 0."
  @spec run_all([Column.t()], Shards.t(), pos_integer(), write) ::
          {:ok, [t()]} | {:error, String.t()}
        when write: (Column.t(), Meter.t(), turn :: non_neg_integer() -> term())
  def run_all(columns, shards, turns, write) do
    steps = for turn <- 0..(turns - 1), column <- columns, do: {turn, column}

    phases =
      Enum.reduce_while(steps, Map.new(columns, &{&1, new(&1)}), fn {turn, column}, phases ->
        last? = turn == turns - 1

        case run_turn(column, phases[column], shards, last?, &write.(column, &1, turn)) do
          {:ok, phase} -> {:cont, %{phases | column => phase}}
          {:error, message} -> {:halt, {:error, message}}
        end
      end)

    with %{} <- phases, do: {:ok, for(column <- columns, do: phases[column])}
  end

  @doc "One phase in one turn."
  @spec run(Column.t(), Shards.t(), (Meter.t() -> term())) :: {:ok, t()} | {:error, String.t()}
  def run(column, shards, write), do: run_turn(column, new(column), shards, true, write)

  defp new(column) do
    meter = Meter.new(column.name, column.via, column.shards, column.unknown?)
    %{meter: meter, seconds: 0.0, commits: 0, results: []}
  end

  defp run_turn(%{via: :batched} = column, phase, shards, last?, write) do
    with {:ok, supervisor} <- Shards.start_batchers(column.shards, column.batcher),
         phase = measure(column, phase, shards, write),
         # What a shard has counted can be seen until its batcher is stopped, and again when it is started.
         :ok = if(last?, do: Metrics.await_scrape(shards.metrics), else: :ok),
         :ok <- Shards.stop_batchers(supervisor, column.shards),
         do: {:ok, phase}
  end

  defp run_turn(column, phase, shards, _last?, write),
    do: {:ok, measure(column, phase, shards, write)}

  defp measure(column, %{meter: meter} = phase, shards, write) do
    before = Shards.commits(shards, column.shards)
    {result, seconds} = Report.watch(meter, phase.seconds, fn -> write.(meter) end)
    later = Shards.commits(shards, column.shards)
    commits = if phase.commits && before && later, do: phase.commits + later - before
    results = phase.results ++ [result]
    %{phase | seconds: phase.seconds + seconds, commits: commits, results: results}
  end
end
