defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Mix do
  @moduledoc false
  # Few and many callers, shards and namespaces, in closed loops: is the batcher never worse than direct commits? A cell
  # for each combination, all peers in each. Samples are short and many, one peer shortly after the other and in the
  # opposite order each time, so that what changes on the machine meanwhile changes all of them alike.
  # One invariant: all figures of a sample are of the same writes; to watch them costs every peer the same.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Backends, ClosedLoop, Line, Scenario, Work}

  # So few callers make few writes in a sample, and each of these waits for the disk: it takes more samples to tell.
  @few_callers 4
  @more 3

  @impl true
  def run(spec, emit, progress) do
    for shards <- spec.shards, namespaces <- spec.namespaces, callers <- spec.callers do
      cell = [shards: shards, namespaces: namespaces, callers: callers]
      work = Work.new([backend: Backends.module(spec.backend)] ++ cell)
      settings = %{seconds: spec.seconds, warm_up: spec.warm_up, watch?: true}
      repeat = spec.repeat * more(callers)

      rounds =
        for repetition <- 1..repeat, peer <- Scenario.in_turn(spec.peers, repetition) do
          progress.("mix #{describe(cell)} #{peer} #{repetition}/#{repeat}")
          {peer, figures(ClosedLoop.sample(peer, work, settings))}
        end

      [{_peer, first} | _] = rounds

      for {figure, _value} <- first do
        numbers = for peer <- spec.peers, do: {peer, for({^peer, f} <- rounds, do: f[figure])}
        emit.(Line.compare(:mix, [figure: figure, backend: spec.backend] ++ cell, numbers))
      end
    end

    :ok
  end

  @impl true
  def seconds(spec) do
    cells = Scenario.combinations([spec.shards, spec.namespaces, spec.peers])
    Scenario.seconds(spec, cells * (spec.callers |> Enum.map(&more/1) |> Enum.sum()))
  end

  defp more(callers), do: if(callers <= @few_callers, do: @more, else: 1)

  defp describe(cell), do: Enum.map_join(cell, " ", fn {key, value} -> "#{key}=#{value}" end)

  # Writes and commits are per second, processor time is per write.
  defp figures(sample) do
    seconds = sample.ns / 1.0e9
    micros = fn percent -> Histogram.percentile(sample.latency, percent) / 1_000 end

    [
      writes: sample.writes / seconds,
      cpu_us: sample.cpu_ns / max(sample.writes, 1) / 1_000,
      p50_us: micros.(50),
      p99_us: micros.(99),
      p999_us: micros.(99.9),
      commits: sample.commits / seconds
    ]
  end
end
