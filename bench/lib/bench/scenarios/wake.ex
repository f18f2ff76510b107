defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenarios.Wake do
  @moduledoc false
  # How long a bare message takes to a process of another scheduler that has had nothing to do for a while, as the
  # second one of two has during a commit that the first one works at.
  # One invariant: both processes are bound to their schedulers, and nobody else has work.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Scenario

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Conductor, Line, Statistics}

  @idle_us [100, 1_000]

  @impl true
  def run(spec, emit, progress) do
    # On a single scheduler nobody needs to be woken.
    for idle_us <- @idle_us, System.schedulers_online() > 1 do
      progress.("wake idle_us=#{idle_us}")
      waits = sample(idle_us, max(round(spec.seconds * 1_000), 10))

      emit.(
        Line.new(:wake, [idle_us: idle_us, peer: :floor],
          mean_us: Enum.sum(waits) / length(waits) / 1_000,
          p50_us: Statistics.median(waits) / 1_000,
          p99_us: Statistics.quantile(waits, 0.99) / 1_000,
          messages: length(waits)
        )
      )
    end

    :ok
  end

  @impl true
  def seconds(spec), do: length(@idle_us) * spec.seconds

  # In nanoseconds, from sending to receiving.
  defp sample(idle_us, count) do
    Conductor.run(fn ->
      conductor = self()
      sleeper = bound(2, &answer/0)

      bound(1, fn ->
        send(conductor, {self(), for(_ <- 1..count, do: wait(sleeper, idle_us * 1_000))})
      end)

      receive do
        {_pid, waits} when is_list(waits) -> waits
      end
    end)
  end

  # The VM does not document `:scheduler`.
  defp bound(scheduler, function),
    do: apply(:erlang, :spawn_opt, [function, [:link, scheduler: scheduler]])

  defp answer do
    receive do
      {sender, tag} -> send(sender, {tag, now()})
    end

    answer()
  end

  # Idles as `Backends.Slow` does.
  defp wait(sleeper, idle_ns) do
    idle_until(now() + idle_ns)
    tag = make_ref()
    sent = now()
    send(sleeper, {self(), tag})

    receive do
      {^tag, received} -> received - sent
    end
  end

  defp idle_until(time) do
    if now() < time do
      :erlang.yield()
      idle_until(time)
    end
  end

  defp now, do: System.monotonic_time(:nanosecond)
end
