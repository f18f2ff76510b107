defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Memory do
  @moduledoc false
  # Bytes that the VM allocates for each queued write: callers wait behind a commit that stands still, and the memory
  # of the VM is compared with that before they called. What the library allocates outside of the VM is not in it;
  # `Depth` has that in the memory of the operating system's process.
  # One invariant: a figure is taken when every caller waits and nothing runs.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.Gated

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{
    ClosedLoop,
    Conductor,
    Line,
    Peer,
    Statistics
  }

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Work

  # Nothing is ready to run, so many looks in a row.
  @looks 5
  @look_ms 4

  @impl true
  def run(spec, emit, progress) do
    for callers <- spec.callers, value <- spec.values do
      rounds =
        for repetition <- 1..spec.repeat, peer <- spec.peers do
          progress.("memory value=#{value} #{peer} #{repetition}/#{spec.repeat}")
          {peer, sample(peer, callers, value)}
        end

      for {kind, index} <- [memory: 0, binary_memory: 1] do
        values =
          for peer <- spec.peers,
              do:
                {peer, Statistics.median(for {^peer, m} <- rounds, do: elem(m, index) / callers)}

        emit.(Line.new(kind, [lane: :namespace, callers: callers, value: value], values))
      end
    end

    :ok
  end

  @impl true
  # A sample is as long as it takes to have all callers waiting.
  def seconds(spec),
    do: 0.2 * spec.repeat * length(spec.callers) * length(spec.values) * length(spec.peers)

  # The memory of all kinds, and of binaries alone, that the waiting calls of all callers take.
  defp sample(name, callers, value) do
    work = Work.new(callers: callers, backend: Gated, value_size: value)

    Conductor.run(name, work, fn handle ->
      Gated.prepare()
      Gated.shut()

      [first | others] =
        callers =
        Conductor.callers(work.callers, fn caller ->
          call = Peer.module(name).call(handle, work, caller)

          fn ->
            receive do: (:go -> ClosedLoop.check(call.()))
          end
        end)

      send(first, :go)
      committer = Gated.closed()
      before = at_rest()
      Enum.each(others, &send(&1, :go))
      later = at_rest()
      Gated.open(committer)
      Conductor.gather(callers)
      Conductor.check()
      {later.total - before.total, later.binary - before.binary}
    end)
  end

  defp at_rest(looks \\ @looks)

  defp at_rest(0) do
    memory = :erlang.memory()
    %{total: memory[:total], binary: memory[:binary]}
  end

  defp at_rest(looks) do
    Process.sleep(@look_ms)

    if Enum.sum(:erlang.statistics(:run_queue_lengths_all)) == 0,
      do: at_rest(looks - 1),
      else: at_rest(@looks)
  end
end
