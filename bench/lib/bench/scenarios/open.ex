defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Open do
  @moduledoc false
  # Latency over the rate at which writes come by themselves, in an open loop with Poisson arrivals. Rates are shares of
  # what saturates direct commits to the same backend, which is measured first, as it is for every column: in a closed
  # loop with many callers. The batcher has a column for each fixed window.
  # One invariant: a figure is given only if the generator was late by no more than a third of it.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Backends, ClosedLoop, Line, OpenLoop}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Scenario, Statistics, Work}

  # Of what saturates a column.
  @saturated %{seconds: 0.35, warm_up: 0.15, watch?: false}
  @saturated_repeat 3
  # Few writes a second take longer to say anything.
  @least_seconds 0.4
  # The generator is late by the time that it takes to wake a scheduler that sleeps, whoever is measured; beyond this share
  # of the median it would be most of what is measured.
  @late_share 0.33
  # Each of at least so many writes.
  @percents [{:p50_us, 50, 1}, {:p99_us, 99, 100}, {:p999_us, 99.9, 1_000}]

  @impl true
  def run(spec, emit, progress) do
    columns = columns(spec)
    direct = saturation(spec, columns, emit, progress)

    for load <- spec.loads do
      rate = max(round(direct * load / 100), 1)
      settings = %{rate: rate, seconds: length_of(spec, rate), warm_up: spec.warm_up}

      rounds =
        for repetition <- 1..spec.repeat, column <- Scenario.in_turn(columns, repetition) do
          progress.(
            "open backend=#{spec.backend} load=#{load}% #{name(column)} #{repetition}/#{spec.repeat}"
          )

          {peer, _window} = column
          seeded = Map.put(settings, :seed, repetition)
          {column, OpenLoop.sample(peer, work(spec, column), seeded)}
        end

      for column <- columns do
        samples = for {^column, sample} <- rounds, do: sample
        params = [backend: spec.backend, load: load, peer: name(column)]
        emit.(Line.new(:open, params, [rate: rate] ++ figures(samples)))
      end
    end

    :ok
  end

  @impl true
  def seconds(spec) do
    columns = length(columns(spec))
    # About a third of the rates has its writes sooner than in the longest time.
    length = 0.85 * spec.seconds + spec.warm_up + 0.1
    saturated = @saturated_repeat * (@saturated.seconds + @saturated.warm_up)
    columns * (saturated + length(spec.loads) * spec.repeat * length)
  end

  # The batcher once for each window; auto has the usual one, which is the longest that it may wait.
  defp columns(spec) do
    Enum.flat_map(spec.peers, fn
      :batcher -> for window <- spec.windows, do: {:batcher, window}
      peer -> [{peer, nil}]
    end)
  end

  defp name({peer, nil}), do: peer
  defp name({peer, window}), do: :"#{peer}_#{window}ms"

  defp work(spec, {_peer, window}) do
    fields = [callers: hd(spec.callers), backend: Backends.module(spec.backend)]
    Work.new(if window, do: [window_ms: window] ++ fields, else: fields)
  end

  # Writes per second of direct commits.
  defp saturation(spec, columns, emit, progress) do
    measured = if {:direct, nil} in columns, do: columns, else: columns ++ [{:direct, nil}]

    rounds =
      for repetition <- 1..@saturated_repeat, column <- Scenario.in_turn(measured, repetition) do
        progress.("open backend=#{spec.backend} saturation #{name(column)}")
        {peer, _window} = column
        sample = ClosedLoop.sample(peer, work(spec, column), @saturated)
        {column, sample.writes * 1.0e9 / sample.ns}
      end

    figures = for column <- measured, do: {name(column), for({^column, rate} <- rounds, do: rate)}
    params = [backend: spec.backend, callers: hd(spec.callers)]
    emit.(Line.compare(:saturation, params, figures))
    Statistics.median(figures[:direct])
  end

  defp length_of(spec, rate),
    do: min(spec.seconds, max(spec.writes / rate, @least_seconds))

  # Of all writes of the samples whose generator was in time; how late it was in all of them.
  defp figures(samples) do
    kept = Enum.filter(samples, &in_time?/1)

    percentiles(kept) ++
      [
        late_p50_us: micros(samples, :late, 50),
        late_p99_us: micros(samples, :late, 99),
        writes: writes(kept),
        dropped: length(samples) - length(kept)
      ]
  end

  defp in_time?(sample) do
    Histogram.percentile(sample.late, 50) <=
      @late_share * Histogram.percentile(sample.latency, 50)
  end

  defp percentiles(samples) do
    for {name, percent, least} <- @percents,
        writes(samples) >= least,
        do: {name, micros(samples, :latency, percent)}
  end

  defp micros(samples, key, percent) do
    merged = Histogram.merge(for sample <- samples, do: sample[key])
    Float.round(Histogram.percentile(merged, percent) / 1_000, 1)
  end

  defp writes(samples), do: samples |> Enum.map(& &1.writes) |> Enum.sum()
end
