defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Window do
  @moduledoc false
  # How long after a write its commit begins, when there is no other: the window, and by how much it is missed.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.Stamped

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{
    ClosedLoop,
    Conductor,
    Line,
    Peer,
    Statistics
  }

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Work

  # A pause between two writes, so that the lane is idle and the timers' ticks are met at all places.
  @pause_ms 1..5

  @impl true
  def run(spec, emit, progress) do
    Stamped.prepare()

    for window <- spec.windows, peer <- spec.peers do
      progress.("window window_ms=#{window} #{peer}")
      waits = sample(peer, window, spec)

      emit.(
        Line.new(:window, [window_ms: window, peer: peer],
          p50_ms: Statistics.median(waits) / 1,
          p99_ms: Statistics.quantile(waits, 0.99) / 1,
          max_ms: Enum.max(waits) / 1,
          writes: length(waits)
        )
      )
    end

    :ok
  end

  @impl true
  def seconds(spec), do: length(spec.windows) * length(spec.peers) * spec.seconds

  defp sample(name, window, spec) do
    work = Work.new(callers: 1, backend: Stamped, window_ms: window)
    writes = max(round(spec.seconds * 1_000 / (window + Enum.max(@pause_ms))), 10)

    Conductor.run(name, work, fn handle ->
      call = Peer.module(name).call(handle, work, 0)

      callers = Conductor.callers(1, fn 0 -> fn -> for(_ <- 1..writes, do: wait(call)) end end)

      [waits] = Conductor.gather(callers)
      waits
    end)
  end

  # In milliseconds.
  defp wait(call) do
    Process.sleep(Enum.random(@pause_ms))
    started = System.monotonic_time(:nanosecond)
    ClosedLoop.check(call.())
    (Stamped.began() - started) / 1_000_000
  end
end
