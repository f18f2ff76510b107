defmodule Ferricstore.Raft.WARaftBackend.Batcher.Herald do
  @moduledoc false
  # Tells the callers of one scheduler that their writes are committed: to wake a process of another
  # scheduler takes ten times as long as to wake a neighbour. Committers give it the replies.
  #
  # Invariant: no reply depends on it. What it has not sent when its batch is to end, the committer sends.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @doc "Starts the heralds of a shard, one for each scheduler; they end with the calling owner."
  @spec start_all(integer) :: [pid]
  def start_all(shard) do
    owner = self()

    for scheduler <- 1..System.schedulers_online(),
        do: start(fn -> init(shard, owner) end, scheduler)
  end

  # The VM does not document `:scheduler`. Without it a herald is none the worse but for its speed.
  defp start(init, scheduler) do
    apply(:erlang, :spawn_opt, [init, [scheduler: scheduler]])
  rescue
    ArgumentError -> spawn(init)
  end

  defp init(shard, owner) do
    monitor = Process.monitor(owner)
    loop(Native.attend(shard), monitor)
  end

  @doc false
  def loop(ref, monitor) do
    receive do
      {^ref, :relay} ->
        relay(ref)
        __MODULE__.loop(ref, monitor)

      {:DOWN, ^monitor, :process, _owner, _reason} ->
        :ok

      _stranger ->
        __MODULE__.loop(ref, monitor)
    end
  end

  # The library has been loaded anew: its committers end as well.
  defp relay(ref) do
    if Native.relay(ref), do: relay(ref)
  rescue
    ArgumentError -> exit({:shutdown, :library_reloaded})
  end
end
