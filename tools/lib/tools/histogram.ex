defmodule Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram do
  @moduledoc false
  # Latencies in log-linear buckets, 1 024 to each power of two, filled by many processes at once: so fine that of 10 ms a
  # difference of 20 us is seen.
  # One invariant: what is read from it is at most 1/1024 above what was put in, and the maximum is exact.

  import Bitwise

  @sub_bits 10
  @sub 1 <<< @sub_bits
  # 2^40 ns are 18 minutes, far beyond every timeout; anything longer is counted there.
  @max_exponent 40
  @buckets (@max_exponent - @sub_bits + 2) * @sub

  @opaque t :: %{buckets: :counters.counters_ref(), max: :atomics.atomics_ref()}

  @spec new() :: t()
  def new,
    do: %{
      # Each scheduler counts on its own, so that they don't fight for the memory of the usual latencies.
      buckets: :counters.new(@buckets, [:write_concurrency]),
      max: :atomics.new(1, signed: false)
    }

  @spec add(t(), non_neg_integer()) :: :ok
  def add(%{buckets: buckets, max: max}, nanoseconds) do
    :counters.add(buckets, bucket(nanoseconds) + 1, 1)
    raise_max(max, nanoseconds, :atomics.get(max, 1))
  end

  @doc "What was put into all of them."
  @spec merge([t()]) :: t()
  def merge(histograms) do
    merged = new()

    for histogram <- histograms do
      for index <- 1..@buckets,
          do: :counters.add(merged.buckets, index, :counters.get(histogram.buckets, index))

      raise_max(merged.max, max(histogram), max(merged))
    end

    merged
  end

  @spec max(t()) :: non_neg_integer()
  def max(%{max: max}), do: :atomics.get(max, 1)

  @doc """
  The latency that `percent` percent of the calls did not exceed, in nanoseconds; 0 when there were none.
  """
  @spec percentile(t(), number()) :: non_neg_integer()
  def percentile(%{buckets: buckets} = histogram, percent) do
    counts = for index <- 1..@buckets, do: :counters.get(buckets, index)
    rank = ceil(Enum.sum(counts) * percent / 100)
    if rank == 0, do: 0, else: min(nth(counts, 0, rank), max(histogram))
  end

  defp nth([count | _rest], index, rank) when count >= rank, do: highest(index)
  defp nth([count | rest], index, rank), do: nth(rest, index + 1, rank - count)

  defp raise_max(_max, nanoseconds, highest) when nanoseconds <= highest, do: :ok

  defp raise_max(max, nanoseconds, highest) do
    case :atomics.compare_exchange(max, 1, highest, nanoseconds) do
      :ok -> :ok
      higher -> raise_max(max, nanoseconds, higher)
    end
  end

  defp bucket(value) when value < @sub, do: value
  defp bucket(value) when value >= 1 <<< @max_exponent, do: @buckets - 1

  defp bucket(value) do
    shift = trunc(:math.log2(value)) - @sub_bits
    shift * @sub + (value >>> shift)
  end

  # The largest value that falls into a bucket.
  defp highest(index) when index < @sub, do: index

  defp highest(index) do
    shift = div(index, @sub) - 1
    ((index - shift * @sub + 1) <<< shift) - 1
  end
end
