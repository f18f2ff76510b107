defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Depth do
  @moduledoc false
  # What a write costs when so many are queued already: one process queues writes behind a commit that stands still,
  # then the commit goes on, and all are committed and answered. The floor: messages to a process that stands still.
  # One invariant: a round ends when each of its writes has been answered.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.Gated
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Conductor, Cpu, Line, Statistics}

  @shard 0
  @environment [waraft_backend_batcher_backend: Gated, waraft_hot_batch_window_ms: 1]
  # As many rounds as it takes to queue the writes asked for, but for the shallow ones.
  @max_rounds 200
  # What waits is no part of a process's heap: it would be copied whenever that is cleaned.
  @off_heap [:link, {:message_queue_data, :off_heap}]

  @impl true
  def run(spec, emit, progress) do
    samples =
      for repetition <- 1..spec.repeat, depth <- spec.depths, peer <- spec.peers do
        progress.("depth queued=#{depth} peer=#{peer} #{repetition}/#{spec.repeat}")
        {{depth, peer}, sample(peer, depth, spec)}
      end

    for depth <- spec.depths, peer <- spec.peers do
      own = for {{^depth, ^peer}, sample} <- samples, do: sample
      emit.(line(depth, peer, own))
    end

    :ok
  end

  @impl true
  # A write takes some two microseconds, and less of the floor.
  def seconds(spec) do
    writes = for depth <- spec.depths, do: depth * rounds(spec, depth)
    1.5e-6 * Enum.sum(writes) * spec.repeat * length(spec.peers)
  end

  defp rounds(spec, depth), do: min(max(div(spec.writes, depth), spec.repeat), @max_rounds)

  defp line(depth, peer, samples) do
    rounds = Enum.flat_map(samples, fn {rounds, _taken} -> rounds end)
    figure = fn key -> Statistics.median(for round <- rounds, do: round[key] / depth) end
    taken = fn key -> for {_rounds, taken} <- samples, do: taken[key] / depth end

    Line.new(:depth, [lane: :put, queued: depth, backend: :null, peer: peer],
      ns_per_write: figure.(:queue_ns) + figure.(:drain_ns),
      queue_ns: figure.(:queue_ns),
      drain_ns: figure.(:drain_ns),
      cpu_ns: Statistics.median(taken.(:cpu_ns)),
      # Of little depth it is lost in what the process had before, and later on in what it has kept.
      resident_bytes: if(depth >= 100_000, do: Enum.max(taken.(:resident))),
      rounds: length(rounds)
    )
  end

  defp sample(peer, depth, spec) do
    count = rounds(spec, depth)

    Conductor.run(fn ->
      Process.flag(:trap_exit, true)
      server = start(peer, depth)
      # The queue of an ordinary process: the high one would keep all others waiting.
      Process.flag(:priority, :normal)
      fill_and_drain(server, min(depth, 1_000))
      before = Cpu.resident_bytes()
      started = Cpu.read()
      rounds = for _ <- 1..count, do: fill_and_drain(server, depth)

      taken = %{
        cpu_ns: (Cpu.read() - started) / count,
        resident: (rounds |> Enum.map(& &1.resident) |> Enum.max()) - before
      }

      stop(server)
      {rounds, taken}
    end)
  end

  defp start(:batcher, depth) do
    for {key, value} <- @environment, do: Application.put_env(:ferricstore, key, value)
    Gated.prepare()

    {:ok, _owner} =
      Batcher.start_link(@shard,
        max_queue_items: 2 * depth + 1,
        max_queue_bytes: 1_000 * 2 * depth
      )

    :batcher
  end

  defp start(:floor, _depth), do: :erlang.spawn_opt(&answer/0, @off_heap)

  defp answer do
    receive do
      {{to, tag}, _entries} -> send(to, {tag, {:ok, [:ok]}})
    end

    answer()
  end

  defp stop(:batcher) do
    :ok = Batcher.stop(@shard)
    for {key, _value} <- @environment, do: Application.delete_env(:ferricstore, key)
  end

  defp stop(pid), do: Process.exit(pid, :kill)

  defp fill_and_drain(server, depth) do
    tag = make_ref()
    sink = sink(tag, depth + 1)
    entries = [{"key", "0123456789abcdef", 0}]
    from = {sink, tag}
    shut = shut(server, entries, from)
    started = now()
    queue(server, entries, from, depth)
    queued = now()
    resident = Cpu.resident_bytes()
    opened = now()
    open(server, shut)

    receive do
      {^sink, :answered, at} ->
        %{queue_ns: queued - started, drain_ns: at - opened, resident: resident}

      {:EXIT, _pid, reason} when reason != :normal ->
        exit({:crashed, reason})
    end
  end

  # Behind the first write all others wait.
  defp shut(:batcher, entries, from) do
    Gated.shut()
    queue(:batcher, entries, from, 1)
    Gated.closed()
  end

  defp shut(pid, entries, from) do
    :erlang.suspend_process(pid)
    queue(pid, entries, from, 1)
  end

  defp open(:batcher, committer), do: Gated.open(committer)
  defp open(pid, _), do: :erlang.resume_process(pid)

  defp queue(_server, _entries, _from, 0), do: :ok

  defp queue(:batcher, entries, from, left) do
    :ok = Batcher.write_put_batch_async(@shard, entries, from)
    queue(:batcher, entries, from, left - 1)
  end

  defp queue(pid, entries, from, left) do
    send(pid, {from, entries})
    queue(pid, entries, from, left - 1)
  end

  defp sink(tag, count) do
    conductor = self()

    :erlang.spawn_opt(
      fn ->
        receive_all(tag, count)
        send(conductor, {self(), :answered, now()})
      end,
      @off_heap
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
