defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.OpenLoop do
  @moduledoc false
  # Writes that come when they are due, whether or not those before have been answered: Poisson arrivals, as of very
  # many callers that know nothing of each other.
  #
  # A program outside the VM, the pacer, goes through a schedule that was made before, the same one for every peer, and
  # says when each write is due; a process is started for it then: nobody who waits for a reply keeps a write from coming.
  # One invariant: latency counts from the moment a write was due, whenever it was sent, and how late that was is kept
  # beside it.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{ClosedLoop, Conductor, Peer, Work}

  # The pacer knows the schedule by then.
  @start_ns 20_000_000
  @pacer Path.expand("../../pacer.py", __DIR__)

  @typedoc "Of the writes that were due after the warm-up. `late`: how long after it was due each of them was sent."
  @type sample :: %{latency: Histogram.t(), late: Histogram.t(), writes: non_neg_integer}

  @doc """
  `rate` is writes per second, `seed` that of their pattern, which is the same one at each rate. Their calls are those
  of the work's callers, in turn.
  """
  @spec sample(Peer.name(), Work.t(), %{
          rate: number,
          seed: integer,
          seconds: number,
          warm_up: number
        }) :: sample
  def sample(name, work, settings) do
    schedule = schedule(settings)
    warm_up = round(settings.warm_up * 1.0e9)
    writes = Enum.count(schedule, &(&1 >= warm_up))
    sample = %{latency: Histogram.new(), late: Histogram.new(), writes: writes}

    Conductor.run(name, work, fn handle ->
      calls =
        for caller <- 0..(work.callers - 1), do: Peer.module(name).call(handle, work, caller)

      calls = List.to_tuple(calls)
      run = Map.merge(sample, %{to_come: to_come(schedule), all: self()})
      pace = fn 0 -> fn -> pace(schedule, warm_up, calls, run) end end
      Conductor.gather(Conductor.callers(1, pace))
      await_replies()
      Conductor.check()
      sample
    end)
  end

  # Nanoseconds from the start, at least one.
  defp schedule(%{rate: rate, seed: seed} = settings) do
    last = (settings.warm_up + settings.seconds) * 1.0e9
    schedule(:rand.seed_s(:exsss, seed), 1.0e9 / rate, 0.0, last, [])
  end

  defp schedule(_random, _mean, due, last, [_ | _] = offsets) when due > last,
    do: Enum.reverse(offsets)

  defp schedule(random, mean, due, last, offsets) do
    {share, random} = :rand.uniform_s(random)
    due = due - mean * :math.log(1.0 - share)
    schedule(random, mean, due, last, [round(due) | offsets])
  end

  defp to_come(schedule) do
    count = :atomics.new(1, [])
    :atomics.put(count, 1, length(schedule))
    count
  end

  defp pace(schedule, warm_up, calls, run) do
    # A process of high priority starts writes before those that have been started go on.
    Process.flag(:priority, :high)
    options = [:binary, :use_stdio, :exit_status, args: [@pacer]]
    port = Port.open({:spawn_executable, python()}, options)
    # It is ready.
    1 = due_now(port)
    {start, system_start} = {now() + @start_ns, System.os_time(:nanosecond) + @start_ns}
    numbers = [system_start, length(schedule) | schedule]
    true = Port.command(port, for(number <- numbers, into: <<>>, do: <<number::little-64>>))
    due = Enum.map(schedule, &(start + &1))
    start_writes(port, due, calls, 0, Map.put(run, :from, start + warm_up))
    # It has said all that it had to say.
    receive do
      {^port, {:exit_status, 0}} -> :ok
      {^port, {:exit_status, status}} -> exit({:pacer_failed, status})
    end
  end

  defp start_writes(_port, [], _calls, _number, _run), do: :ok

  defp start_writes(port, due, calls, number, run) do
    count = due_now(port)
    {now_due, later} = Enum.split(due, count)

    for {due, place} <- Enum.with_index(now_due, number) do
      call = elem(calls, rem(place, tuple_size(calls)))
      spawn(fn -> write(call, due, run) end)
    end

    start_writes(port, later, calls, number + count, run)
  end

  defp due_now(port) do
    receive do
      {^port, {:data, bytes}} -> byte_size(bytes)
      {^port, {:exit_status, status}} -> exit({:pacer_failed, status})
    end
  end

  defp python do
    System.find_executable("python3") ||
      raise "the open loop needs python3, which says when writes are due"
  end

  defp write(call, due, run) do
    sent = now()
    ClosedLoop.check(call.())
    answered = now()

    if due >= run.from do
      # The pacer goes by a clock that the VM's follows, at times some microseconds behind.
      Histogram.add(run.latency, max(answered - due, 0))
      Histogram.add(run.late, max(sent - due, 0))
    end

    if :atomics.sub_get(run.to_come, 1, 1) == 0, do: send(run.all, :all_answered)
  catch
    kind, reason -> send(run.all, {:write_failed, {kind, reason}})
  end

  defp await_replies do
    receive do
      :all_answered -> :ok
      {:write_failed, reason} -> exit({:caller_failed, reason})
      {:EXIT, _pid, reason} when reason != :normal -> exit({:crashed, reason})
    end
  end

  defp now, do: System.monotonic_time(:nanosecond)
end
