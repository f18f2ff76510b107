defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.ClosedLoop do
  @moduledoc false
  # Callers that write one after the other: each makes its next call when the one before has been answered.
  # One invariant: what is counted began and ended its count with every caller at work, warm-up and end left out.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Backends, Conductor, Cpu, Peer, Work}

  @warm_up 0
  @count 1
  @stop 2

  @typedoc """
  `writes` in `ns` of time and `cpu_ns` of processor time. `commits` and `latency` only if asked for: to take the time
  of each call costs as much as a tenth of it, so throughput is measured without.
  """
  @type sample :: %{
          writes: non_neg_integer,
          ns: pos_integer,
          cpu_ns: non_neg_integer,
          commits: non_neg_integer | nil,
          latency: Histogram.t() | nil
        }

  @spec sample(Peer.name(), Work.t(), %{
          seconds: number,
          warm_up: number,
          watch?: boolean
        }) :: sample
  def sample(name, work, %{watch?: watch?} = settings) do
    if watch?, do: Backends.Counted.around(work.backend)
    work = if watch?, do: %{work | backend: Backends.Counted}, else: work
    latency = if watch?, do: Histogram.new()

    Conductor.run(name, work, fn handle ->
      phase = :atomics.new(1, [])

      callers =
        Conductor.callers(work.callers, fn caller ->
          call = Peer.module(name).call(handle, work, caller)

          if watch?,
            do: fn -> timed(call, phase, latency, 0) end,
            else: fn -> counted(call, phase, 0) end
        end)

      sample = measure(phase, settings)
      calls = callers |> Conductor.gather() |> Enum.sum()
      Conductor.check()
      Map.merge(sample, %{writes: calls * work.group, latency: latency})
    end)
  end

  defp measure(phase, settings) do
    Process.sleep(milliseconds(settings.warm_up))
    commits = commits(settings)
    {started, started_cpu} = {System.monotonic_time(), Cpu.read()}
    :atomics.put(phase, 1, @count)
    Process.sleep(milliseconds(settings.seconds))
    :atomics.put(phase, 1, @stop)
    {ended, ended_cpu} = {System.monotonic_time(), Cpu.read()}
    made = if commits, do: commits(settings) - commits

    %{
      ns: System.convert_time_unit(ended - started, :native, :nanosecond),
      cpu_ns: ended_cpu - started_cpu,
      commits: made
    }
  end

  defp milliseconds(seconds), do: round(seconds * 1_000)

  defp commits(%{watch?: true}), do: Backends.Counted.commits()
  defp commits(_settings), do: nil

  defp counted(call, phase, count) do
    check(call.())

    case :atomics.get(phase, 1) do
      @count -> counted(call, phase, count + 1)
      @warm_up -> counted(call, phase, count)
      @stop -> count
    end
  end

  defp timed(call, phase, latency, count) do
    started = System.monotonic_time()
    check(call.())
    elapsed = System.monotonic_time() - started

    case :atomics.get(phase, 1) do
      @count ->
        Histogram.add(latency, System.convert_time_unit(elapsed, :native, :nanosecond))
        timed(call, phase, latency, count + 1)

      @warm_up ->
        timed(call, phase, latency, count)

      @stop ->
        count
    end
  end

  @doc "A reply that is an error ends the measurement: its figures would mean nothing."
  @spec check(term) :: :ok
  def check({:error, reason}), do: exit({:write_failed, reason})
  def check(_reply), do: :ok
end
