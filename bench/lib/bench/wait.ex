defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Wait do
  @moduledoc false
  # Waits to the microsecond, where the BEAM's timers are a millisecond or two late: it sleeps while the moment is far
  # away and yields for the rest, which lets every other process run first, and keeps a scheduler awake that has nothing
  # else to do.
  # One invariant: it never ends early.

  # A sleep begins no closer to the moment than this, and ends so long before it.
  @near_ns 2_000_000
  @ms_ns 1_000_000

  @doc "Until a moment, in nanoseconds of `System.monotonic_time/1`."
  @spec until(integer) :: :ok
  def until(moment) do
    left = moment - System.monotonic_time(:nanosecond)

    cond do
      left <= 0 ->
        :ok

      left < @near_ns + @ms_ns ->
        :erlang.yield()
        until(moment)

      true ->
        receive do
        after
          div(left - @near_ns, @ms_ns) -> until(moment)
        end
    end
  end
end
