defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peers.Floor do
  @moduledoc false
  # The least that a call through a process costs: a message to it and one back, with a plain reference as tag, no
  # monitor, no timeout, no batch and no commit. One process for each shard. In the put lane that is one copy of the
  # caller's list from one process to another.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{From, Work}

  @impl true
  def start(work) do
    Map.new(0..(work.shards - 1), fn shard -> {shard, spawn_link(&loop/0)} end)
  end

  @impl true
  def stop(servers, _work) do
    for {_shard, pid} <- servers do
      monitor = Process.monitor(pid)
      send(pid, :stop)

      receive do
        {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
      end
    end

    :ok
  end

  @impl true
  def call(servers, work, caller) do
    server = Map.fetch!(servers, Work.shard(work, caller))
    message = message(work, caller)

    if work.from,
      do: From.call(work.from, fn from -> cast(server, from, message) end),
      else: fn -> call(server, message) end
  end

  defp cast(server, {_to, tag} = from, message) do
    send(server, {From.destination(from), tag, message})
    :ok
  end

  defp message(%{lane: :put} = work, caller), do: Work.entries(work, caller)
  defp message(work, caller), do: Work.command(work, caller)

  defp call(server, message) do
    tag = make_ref()
    send(server, {self(), tag, message})

    receive do
      {^tag, reply} -> reply
    end
  end

  defp loop do
    receive do
      {to, tag, _message} ->
        send(to, {tag, :ok})
        loop()

      :stop ->
        :ok
    end
  end
end
