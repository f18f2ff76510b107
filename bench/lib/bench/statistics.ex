defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Statistics do
  @moduledoc false
  # Medians, quantiles and ratios of a few figures.

  @doc "Of numbers; `nil` of none."
  @spec median([number]) :: number | nil
  def median(numbers), do: quantile(numbers, 0.5)

  @doc "The number that a share of all do not exceed; between two of them for the median of an even count."
  @spec quantile([number], float) :: number | nil
  def quantile([], _share), do: nil

  def quantile(numbers, share) do
    sorted = Enum.sort(numbers)
    place = share * (length(sorted) - 1)
    low = Enum.at(sorted, floor(place))
    high = Enum.at(sorted, ceil(place))
    low + (high - low) * (place - floor(place))
  end

  @doc """
  The median of `a / b`, pair by pair: both were measured one after the other, so what disturbed the machine for a
  while has disturbed both.
  """
  @spec ratio([number], [number]) :: float | nil
  def ratio(as, bs), do: median(for {a, b} <- Enum.zip(as, bs), b > 0, do: a / b)

  @doc "How far apart the figures are: highest less lowest, in parts of the median."
  @spec spread([number]) :: float | nil
  def spread(numbers) do
    case median(numbers) do
      nil -> nil
      zero when zero == 0 -> nil
      median -> (Enum.max(numbers) - Enum.min(numbers)) / median
    end
  end
end
