defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.OpenLoop do
  @moduledoc false
  # Writes that come when they are due, whether or not those before have been answered: Poisson arrivals, as of very
  # many callers that know nothing of each other.
  #
  # A pacer goes through a schedule that was made before, the same one for every peer, and starts a process for each
  # write when that is due: nobody who waits for a reply keeps a write from coming. There is one pacer, since it yields
  # while the next write is near: many would take from those who are measured what they themselves gain in time.
  # One invariant: latency counts from the moment a write was due, whenever it was sent, and how late that was is kept
  # beside it.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{ClosedLoop, Conductor, Peer, Wait, Work}

  # The pacer waits by then.
  @start_ns 20_000_000

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
      start = now() + @start_ns
      run = Map.merge(sample, %{from: start + warm_up, to_come: to_come(schedule), all: self()})

      pacer = Conductor.callers(1, fn 0 -> fn -> pace(schedule, start, calls, 0, run) end end)
      Conductor.gather(pacer)
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

  defp pace([], _start, _calls, _number, _run), do: :ok

  defp pace([offset | schedule], start, calls, number, run) do
    due = start + offset
    Wait.until(due)
    call = elem(calls, rem(number, tuple_size(calls)))
    spawn(fn -> write(call, due, run) end)
    pace(schedule, start, calls, number + 1, run)
  end

  defp write(call, due, run) do
    sent = now()
    ClosedLoop.check(call.())
    answered = now()

    if due >= run.from do
      Histogram.add(run.latency, answered - due)
      Histogram.add(run.late, sent - due)
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
