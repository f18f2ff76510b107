defmodule Ferricstore.Raft.WARaftBackend.Batcher.Responder do
  @moduledoc false
  # Tells the callers of one scheduler that their writes are committed: to wake a process of another
  # scheduler takes ten times as long as to wake a neighbour. Committers give the replies to the responder.
  #
  # Invariant: no reply depends on a responder. What was not sent when a batch is to end, its committer sends.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{From, Library, Native}

  # Waits awake for so long if the handover before came no longer than `@near_us` ago.
  @stay_us 60
  @near_us 100

  @doc "Starts the responders of a shard, one for each scheduler; they end with the calling owner."
  @spec start_all(integer) :: [pid]
  def start_all(shard) do
    owner = self()

    for scheduler <- 1..System.schedulers_online(),
        do: start(fn -> init(shard, owner) end, scheduler)
  end

  # The VM does not document `:scheduler`. Without it a responder is none the worse but for its speed.
  defp start(init, scheduler) do
    apply(:erlang, :spawn_opt, [init, [scheduler: scheduler]])
  rescue
    ArgumentError -> spawn(init)
  end

  defp init(shard, owner) do
    if ref = Native.join_responder(shard), do: loop(ref, Process.monitor(owner), now_us())
  end

  @doc false
  def loop(ref, monitor, last_us) do
    receive do
      {^ref, :handover} ->
        __MODULE__.loop(ref, monitor, answer(ref, last_us))

      {:DOWN, ^monitor, :process, _owner, _reason} ->
        :ok

      _stranger ->
        __MODULE__.loop(ref, monitor, last_us)
    end
  end

  # Sends what was handed over; the time at which that was done.
  defp answer(ref, last_us) do
    respond(ref)
    now_us = now_us()

    if now_us - last_us < @near_us do
      stay(ref, now_us + @stay_us, now_us)
    else
      :erlang.yield()
      now_us
    end
  end

  # Commits follow each other so closely that to sleep between them would take longer than a commit, since a
  # scheduler that sleeps is woken by its operating system. So the scheduler is kept awake for the next handover. Any
  # other process that can run here does.
  defp stay(ref, until_us, last_us) do
    :erlang.yield()

    receive do
      {^ref, :handover} -> answer(ref, last_us)
    after
      0 -> if now_us() < until_us, do: stay(ref, until_us, last_us), else: last_us
    end
  end

  # Each handover on a time slice of its own, begun by waiting or by a yield: within one a process can't be killed, so
  # that whatever it was left to send is sent.
  defp respond(ref) do
    {more?, proxied} = Library.call(fn -> Native.respond(ref) end)
    From.deliver(proxied)

    if more? do
      :erlang.yield()
      respond(ref)
    end
  end

  defp now_us, do: System.monotonic_time(:microsecond)
end
