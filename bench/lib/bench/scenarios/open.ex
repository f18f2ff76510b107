defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Open do
  @moduledoc false
  # Writes that come at a fixed rate whether or not those before have been answered.
  # One invariant: latency counts from the moment a write was due, so that a peer that is late with one pays for all
  # that had to wait behind it.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Backends, ClosedLoop, Conductor, Line, Peer}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Statistics, Suite, Work}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Closed

  # Each caller has a write due so often; the callers' turns are spread over it, millisecond by millisecond.
  @period_ms 20

  @doc "Rates are multiples of this."
  @spec rate_step() :: pos_integer
  def rate_step, do: div(1_000, @period_ms)

  @spec run(Suite.spec(), (Line.t() -> :ok), (String.t() -> :ok)) :: :ok
  def run(spec, emit, progress) do
    for rate <- spec.rates do
      callers = max(div(rate, rate_step()), 1)
      work = Work.new(callers: callers, backend: Backends.module(spec.backend))
      params = [lane: :namespace, rate: rate, callers: callers, backend: spec.backend]

      rounds =
        for repetition <- 1..spec.repeat, peer <- spec.peers do
          progress.(
            "open rate=#{rate} backend=#{spec.backend} #{peer} #{repetition}/#{spec.repeat}"
          )

          {peer, sample(peer, work, spec)}
        end

      for peer <- spec.peers do
        samples = Keyword.get_values(rounds, peer)
        histograms = for {latency, _rate} <- samples, do: latency
        achieved = Statistics.median(for {_latency, rate} <- samples, do: rate)
        values = [achieved: achieved] ++ Closed.latency(histograms)
        emit.(Line.new(:open, params ++ [peer: peer], values))
      end
    end

    :ok
  end

  defp sample(name, work, spec) do
    latency = Histogram.new()
    writes = round(spec.seconds * 1_000 / @period_ms)

    Conductor.run(name, work, fn handle ->
      # All have been started by then.
      start_ms = System.monotonic_time(:millisecond) + 200

      callers =
        Conductor.callers(work.callers, fn caller ->
          call = Peer.module(name).call(handle, work, caller)
          first = start_ms + rem(caller, @period_ms)
          fn -> write(call, latency, first, writes, first) end
        end)

      ended = callers |> Conductor.gather() |> Enum.max()
      Conductor.check()
      {latency, work.callers * writes * 1_000 / max(ended - start_ms, 1)}
    end)
  end

  # Returns when the last one was answered.
  defp write(_call, _latency, _due_ms, 0, ended_ms), do: ended_ms

  defp write(call, latency, due_ms, left, _ended_ms) do
    wait(due_ms)
    ClosedLoop.check(call.())
    ended = System.monotonic_time(:nanosecond)
    Histogram.add(latency, max(ended - due_ms * 1_000_000, 0))
    write(call, latency, due_ms + @period_ms, left - 1, div(ended, 1_000_000))
  end

  defp wait(due_ms) do
    if System.monotonic_time(:millisecond) < due_ms do
      timer = :erlang.start_timer(due_ms, self(), :due, abs: true)

      receive do
        {:timeout, ^timer, :due} -> :ok
      end
    end
  end
end
