defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Closed do
  @moduledoc false
  # Callers in closed loops, all peers in turn, again and again: throughput, processor time, latency, commits; over
  # callers, groups, values, shards or namespaces.
  # One invariant: within a repetition every peer has its turn before any has its next, so that a machine that is
  # disturbed for a while disturbs all of them.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Backends, ClosedLoop, Line, Peer}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Scenario, Statistics, Work}

  # What the report draws a distribution from.
  @percents [1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99]

  @impl true
  def run(spec, emit, progress) do
    for callers <- spec.callers,
        group <- spec.groups,
        value <- spec.values,
        shards <- spec.shards,
        namespaces <- spec.namespaces do
      work =
        Work.new(
          callers: callers,
          backend: Backends.module(spec.backend),
          lane: spec.lane,
          group: group,
          value_size: value,
          shards: shards,
          namespaces: min(namespaces, callers)
        )

      compare(spec, work, emit, progress)
    end

    :ok
  end

  @impl true
  def seconds(spec) do
    [spec.callers, spec.groups, spec.values, spec.shards, spec.namespaces, spec.peers]
    |> Scenario.combinations()
    |> then(&Scenario.seconds(spec, &1))
  end

  defp compare(spec, work, emit, progress) do
    params = params(spec, work)
    watch? = spec.kind == :latency
    settings = %{seconds: spec.seconds, warm_up: spec.warm_up, watch?: watch?}

    rounds =
      for repetition <- 1..spec.repeat do
        for peer <- spec.peers do
          progress.("#{describe(spec, params)} #{peer} #{repetition}/#{spec.repeat}")
          {peer, ClosedLoop.sample(peer, work, settings)}
        end
      end

    samples = for peer <- spec.peers, do: {peer, for(round <- rounds, do: round[peer])}

    if watch?,
      do: emit_latency(params, samples, emit),
      else: emit_throughput(spec, params, samples, emit)
  end

  # Always what a reader expects, and whatever differs from the usual.
  defp params(spec, work) do
    usual = [group: work.group, value: work.value_size, shards: work.shards]
    own = [groups: :group, values: :value, shards: :shards, namespaces: :namespaces][spec.kind]

    extra =
      for {key, value} <- usual ++ [namespaces: work.namespaces],
          key == own or value != [group: 1, value: 16, shards: 1, namespaces: 1][key],
          do: {key, value}

    [lane: work.lane, callers: work.callers, backend: spec.backend] ++ extra
  end

  defp describe(spec, params),
    do: Enum.join([spec.kind | for({k, v} <- params, do: "#{k}=#{v}")], " ")

  defp emit_throughput(spec, params, samples, emit) do
    rates = figures(samples, fn s -> s.writes * 1.0e9 / s.ns end)
    costs = figures(samples, fn s -> s.cpu_ns / max(s.writes, 1) end)
    emit.(Line.compare(spec.kind, params, rates))
    emit.(Line.compare(:cpu, [of: spec.kind] ++ params, costs))
  end

  defp emit_latency(params, samples, emit) do
    for {peer, samples} <- samples do
      histograms = for sample <- samples, do: sample.latency
      emit.(Line.new(:latency, params ++ [peer: peer], latency(histograms)))
      emit.(Line.new(:distribution, params ++ [peer: peer], points: points(histograms)))
    end

    committing = for {peer, samples} <- samples, Peer.commits?(peer), do: {peer, samples}
    per_commit = figures(committing, fn s -> s.writes / max(s.commits, 1) end)
    if per_commit != [], do: emit.(Line.new(:commits, params, medians(per_commit)))
  end

  @doc "Median, 99 %, 99.9 % and the longest, in microseconds: medians over the repetitions."
  @spec latency([Histogram.t()]) :: keyword
  def latency(histograms) do
    for {name, percent} <- [p50_us: 50, p99_us: 99, p999_us: 99.9, max_us: 100],
        do: {name, at(histograms, percent)}
  end

  @doc "The whole distribution, `percent:microseconds` with commas between."
  @spec points([Histogram.t()]) :: String.t()
  def points(histograms),
    do: Enum.map_join(@percents, ",", fn percent -> "#{percent}:#{at(histograms, percent)}" end)

  defp at(histograms, percent) do
    micros = for h <- histograms, do: Histogram.percentile(h, percent) / 1_000
    Float.round(Statistics.median(micros), 1)
  end

  defp figures(samples, figure),
    do: for({peer, samples} <- samples, do: {peer, Enum.map(samples, figure)})

  defp medians(figures),
    do: for({peer, numbers} <- figures, do: {peer, Statistics.median(numbers)})
end
