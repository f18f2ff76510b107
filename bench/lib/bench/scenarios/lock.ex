defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Lock do
  @moduledoc false
  # How long a call holds the lock of a shard, which whoever writes to the shard needs, in a closed loop as in
  # `Closed`, with a library that looks at the clock when the lock has been taken and given back.
  # One invariant: what a look at the clock takes, measured in the same VM, is taken off each figure.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{
    Backends,
    ClockedVm,
    ClosedLoop,
    Line,
    Scenario,
    Statistics,
    Suite,
    Work
  }

  @shares [p50_ns: 0.5, p90_ns: 0.9, p99_ns: 0.99]

  @impl true
  def run(spec, emit, progress) do
    progress.("lock: building a library that looks at the clock")

    ClockedVm.run(fn call ->
      for callers <- spec.callers do
        samples =
          for repetition <- 1..spec.repeat do
            progress.("lock callers=#{callers} #{repetition}/#{spec.repeat}")
            call.(__MODULE__, :sample, [callers, spec])
          end

        params = [lane: spec.lane, callers: callers, backend: spec.backend]
        emit.(Line.new(:lock, params, medians(samples)))
      end
    end)

    :ok
  end

  @impl true
  # The library is built first, if it has changed.
  def seconds(spec), do: 15 + Scenario.seconds(spec, length(spec.callers))

  defp medians([first | _] = samples) do
    for {key, _value} <- first,
        do: {key, Statistics.median(for sample <- samples, do: sample[key])}
  end

  @doc "In the VM with that library: the times of one sample, warm-up included."
  @spec sample(pos_integer, Suite.spec()) :: keyword
  def sample(callers, spec) do
    work = Work.new(callers: callers, lane: spec.lane, backend: Backends.module(spec.backend))
    settings = %{seconds: spec.seconds, warm_up: spec.warm_up, watch?: false}
    _before = Native.lock_times()
    ClosedLoop.sample(:batcher, work, settings)
    {times, clock_ns} = Native.lock_times()
    count = times |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    quantiles = for {key, share} <- @shares, do: {key, at(times, share * count) - clock_ns}
    [{least, _count} | _] = times
    [min_ns: least - clock_ns] ++ quantiles ++ [clock_ns: clock_ns, writes: count]
  end

  # The time that so many do not exceed.
  defp at([{ns, count} | rest], left) when rest == [] or left <= count, do: ns
  defp at([{_ns, count} | rest], left), do: at(rest, left - count)
end
