defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Depth do
  @moduledoc false
  # What a write costs when so many are queued already: one process queues writes behind a commit that stands still,
  # then the commit goes on, and all are committed and answered.
  # One invariant: a round ends when each of its writes has been answered.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.Gated
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Conductor, Cpu, Line, Statistics, Suite}

  @shard 0
  @environment [waraft_backend_batcher_backend: Gated, waraft_hot_batch_window_ms: 1]
  # As many rounds as it takes to queue the writes asked for, but for the shallow ones.
  @max_rounds 200

  @spec run(Suite.spec(), (Line.t() -> :ok), (String.t() -> :ok)) :: :ok
  def run(spec, emit, progress) do
    samples =
      for repetition <- 1..spec.repeat, depth <- spec.depths do
        progress.("depth queued=#{depth} #{repetition}/#{spec.repeat}")
        {depth, sample(depth, spec)}
      end

    for depth <- spec.depths,
        do: emit.(line(depth, for({^depth, sample} <- samples, do: sample)))

    :ok
  end

  defp line(depth, samples) do
    rounds = Enum.flat_map(samples, fn {rounds, _taken} -> rounds end)
    figure = fn key -> Statistics.median(for round <- rounds, do: round[key] / depth) end
    taken = fn key -> for {_rounds, taken} <- samples, do: taken[key] / depth end

    Line.new(:depth, [lane: :put, queued: depth, backend: :null],
      ns_per_write: figure.(:queue_ns) + figure.(:drain_ns),
      queue_ns: figure.(:queue_ns),
      drain_ns: figure.(:drain_ns),
      cpu_ns: Statistics.median(taken.(:cpu_ns)),
      # Of little depth it is lost in what the process had before, and later on in what it has kept.
      resident_bytes: if(depth >= 100_000, do: Enum.max(taken.(:resident))),
      rounds: length(rounds)
    )
  end

  defp sample(depth, spec) do
    count = min(max(div(spec.writes, depth), spec.repeat), @max_rounds)

    Conductor.run(fn ->
      Process.flag(:trap_exit, true)
      for {key, value} <- @environment, do: Application.put_env(:ferricstore, key, value)
      Gated.prepare()

      {:ok, _owner} =
        Batcher.start_link(@shard,
          max_queue_items: 2 * depth + 1,
          max_queue_bytes: 1_000 * 2 * depth
        )

      # The queue of an ordinary process: the high one would keep all others waiting.
      Process.flag(:priority, :normal)
      fill_and_drain(min(depth, 1_000))
      before = Cpu.resident_bytes()
      cpu = Cpu.open()
      started = Cpu.read(cpu)
      rounds = for _ <- 1..count, do: fill_and_drain(depth)

      taken = %{
        cpu_ns: (Cpu.read(cpu) - started) / count,
        resident: (rounds |> Enum.map(& &1.resident) |> Enum.max()) - before
      }

      Cpu.close(cpu)
      :ok = Batcher.stop(@shard)
      for {key, _value} <- @environment, do: Application.delete_env(:ferricstore, key)
      {rounds, taken}
    end)
  end

  defp fill_and_drain(depth) do
    tag = make_ref()
    sink = sink(tag, depth + 1)
    entries = [{"key", "0123456789abcdef", 0}]
    from = {sink, tag}
    Gated.shut()
    :ok = Batcher.write_put_batch_async(@shard, entries, from)
    committer = Gated.closed()
    started = now()
    queue(entries, from, depth)
    queued = now()
    resident = Cpu.resident_bytes()
    opened = now()
    Gated.open(committer)

    receive do
      {^sink, :answered, at} ->
        %{queue_ns: queued - started, drain_ns: at - opened, resident: resident}

      {:EXIT, _pid, reason} when reason != :normal ->
        exit({:crashed, reason})
    end
  end

  defp queue(_entries, _from, 0), do: :ok

  defp queue(entries, from, left) do
    :ok = Batcher.write_put_batch_async(@shard, entries, from)
    queue(entries, from, left - 1)
  end

  defp sink(tag, count) do
    conductor = self()

    # Its mailbox may get long: kept beside the heap, it is not collected over and over.
    :erlang.spawn_opt(
      fn ->
        receive_all(tag, count)
        send(conductor, {self(), :answered, now()})
      end,
      [:link, {:message_queue_data, :off_heap}]
    )
  end

  defp receive_all(_tag, 0), do: :ok

  defp receive_all(tag, left) do
    receive do
      {^tag, {:ok, [:ok]}} -> receive_all(tag, left - 1)
      {^tag, other} -> exit({:write_failed, other})
    end
  end

  defp now, do: System.monotonic_time(:nanosecond)
end
