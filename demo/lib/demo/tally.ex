defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Tally do
  @moduledoc false
  # How often something came up in a file, by name, and where it did first.
  # One invariant: it stays small whatever the file holds; names beyond the first thousand share one entry.

  @max_names 1000
  @others "(other names)"

  @typedoc "Name => how often, number of the first such command, byte at which that one begins."
  @type t :: %{String.t() => {pos_integer(), pos_integer(), non_neg_integer()}}

  @spec add(t(), String.t(), pos_integer(), non_neg_integer()) :: t()
  def add(tally, name, index, offset) do
    name = if map_size(tally) < @max_names or is_map_key(tally, name), do: name, else: @others
    Map.update(tally, name, {1, index, offset}, &join(&1, {1, index, offset}))
  end

  @spec merge(t(), t()) :: t()
  def merge(one, other), do: Map.merge(one, other, fn _name, a, b -> join(a, b) end)

  @spec total(t()) :: non_neg_integer()
  def total(tally), do: tally |> Map.values() |> Enum.map(&elem(&1, 0)) |> Enum.sum()

  @doc "The most frequent first."
  @spec lines(t()) :: [String.t()]
  def lines(tally) do
    for {name, {count, index, offset}} <-
          Enum.sort_by(tally, fn {name, {count, _, _}} -> {-count, name} end) do
      "#{name}: #{count}, first as command #{index} at byte #{offset}"
    end
  end

  defp join({count, index, offset}, {more, other_index, other_offset}) do
    {count + more, min(index, other_index), min(offset, other_offset)}
  end
end
