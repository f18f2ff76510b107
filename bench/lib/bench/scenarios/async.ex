defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Async do
  @moduledoc false
  # Asynchronous writes to the put lane by callers in closed loops, each kind of `from` in turn: whether a reply to an
  # alias costs more than one to a pid.
  # One invariant: within a repetition every kind has its turn with every peer before any has its next one.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Backends, ClosedLoop, From, Line}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Scenario, Statistics, Work}

  @impl true
  def run(spec, emit, progress) do
    for callers <- spec.callers, group <- spec.groups do
      params = [lane: spec.lane, callers: callers, backend: spec.backend, group: group]

      rounds =
        for repetition <- 1..spec.repeat, from <- From.kinds(), peer <- spec.peers do
          progress.(
            "async callers=#{callers} backend=#{spec.backend} group=#{group} from=#{from} " <>
              "#{peer} #{repetition}/#{spec.repeat}"
          )

          {{from, peer}, sample(peer, [from: from] ++ params, spec)}
        end

      rates = fn from, peer -> for {{^from, ^peer}, rate} <- rounds, do: rate end

      for from <- From.kinds() do
        figures = for peer <- spec.peers, do: {peer, rates.(from, peer)}
        line = Line.compare(:async, params ++ [from: from], figures)
        [{peer, own} | _] = figures
        against_pid = Statistics.ratio(own, rates.(:pid, peer))
        emit.(%{line | values: line.values ++ [against_pid: against_pid]})
      end
    end

    :ok
  end

  @impl true
  def seconds(spec) do
    [spec.callers, spec.groups, From.kinds(), spec.peers]
    |> Scenario.combinations()
    |> then(&Scenario.seconds(spec, &1))
  end

  # Entries per second.
  defp sample(peer, params, spec) do
    work = Work.new(Keyword.replace!(params, :backend, Backends.module(spec.backend)))
    settings = %{seconds: spec.seconds, warm_up: spec.warm_up, watch?: false}
    sample = ClosedLoop.sample(peer, work, settings)
    sample.writes * 1.0e9 / sample.ns
  end
end
