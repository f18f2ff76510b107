defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario do
  @moduledoc false
  # What a scenario is: it measures what a spec of the suite says and gives it out as lines.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Line, Suite}

  # A sample's beginning and end.
  @around_seconds 0.05

  @doc "Measures all of it; `emit` takes each line, `progress` is told what is being measured."
  @callback run(Suite.spec(), emit :: (Line.t() -> :ok), progress :: (String.t() -> :ok)) :: :ok

  @doc "About how many seconds that takes."
  @callback seconds(Suite.spec()) :: number

  @doc "About how many seconds so many samples of the usual kind take."
  @spec seconds(Suite.spec(), number) :: number
  def seconds(spec, samples),
    do: samples * spec.repeat * (spec.seconds + spec.warm_up + @around_seconds)

  @doc "How many combinations of the elements of these lists there are."
  @spec combinations([list]) :: non_neg_integer
  def combinations(lists), do: lists |> Enum.map(&length/1) |> Enum.product()

  @doc "The columns of one repetition: in their order, and in the opposite one the next time."
  @spec in_turn([column], pos_integer) :: [column] when column: term
  def in_turn(columns, repetition),
    do: if(rem(repetition, 2) == 1, do: columns, else: Enum.reverse(columns))
end
