# What the demo and the benchmarks share.
# Invariant: nothing of either is needed here.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.ToolsTest do
  use ExUnit.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram

  test "latencies are at most 1/32 above what they were" do
    histogram = Histogram.new()
    assert Histogram.percentile(histogram, 50) == 0

    for value <- [0, 1, 31, 32, 33, 1000, 1023, 1024, 1_000_000, 123_456_789, 60_000_000_000] do
      histogram = Histogram.new()
      Histogram.add(histogram, value)
      Histogram.add(histogram, 2 * value + 1_000_000)
      assert Histogram.percentile(histogram, 50) in value..(value + div(value, 32))
      assert Histogram.percentile(histogram, 100) == 2 * value + 1_000_000
      assert Histogram.max(histogram) == 2 * value + 1_000_000
    end
  end
end
