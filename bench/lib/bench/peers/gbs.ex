defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peers.Gbs do
  @moduledoc false
  # RabbitMQ's `gen_batch_server`: a process whose mailbox is the batch. One server for each lane, with default
  # options, commits in the server itself. It has no windows: a batch is what has arrived while the one before ran.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer
  # No `@behaviour :gen_batch_server`: this compiles where that library is not there.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Work

  @timeout_ms 30_000

  @impl true
  def start(work) do
    Map.new(Work.lanes(work), fn {shard, _name} = lane ->
      {:ok, pid} = :gen_batch_server.start_link(__MODULE__, {shard, work.lane, work.backend})
      {lane, pid}
    end)
  end

  @impl true
  def stop(servers, _work) do
    for {_lane, pid} <- servers, do: :gen_batch_server.stop(pid)
    :ok
  end

  @impl true
  def call(servers, work, caller) do
    server = Map.fetch!(servers, {Work.shard(work, caller), Work.lane(work, caller)})
    request = request(work, caller)
    fn -> :gen_batch_server.call(server, request, @timeout_ms) end
  end

  defp request(%{lane: :put} = work, caller), do: Work.entries(work, caller)
  defp request(work, caller), do: Work.command(work, caller)

  @doc false
  def init({_shard, _lane, _backend} = state), do: {:ok, state}

  @doc false
  def handle_batch(calls, {shard, :namespace, backend} = state) do
    entries = for {:call, _from, {:put, key, value, expire}} <- calls, do: {key, value, expire}
    {:ok, replies} = backend.__commit_put_batch_direct__(shard, entries)
    {:ok, single(calls, replies), state}
  end

  def handle_batch(calls, {shard, :put, backend} = state) do
    entries = :lists.append(for {:call, _from, entries} <- calls, do: entries)
    {:ok, replies} = backend.__commit_put_batch_direct__(shard, entries)
    {:ok, sliced(calls, replies), state}
  end

  defp single([{:call, from, _command} | calls], [reply | replies]),
    do: [{:reply, from, reply} | single(calls, replies)]

  defp single([], []), do: []

  defp sliced([{:call, from, entries} | calls], replies) do
    {slice, rest} = Enum.split(replies, length(entries))
    [{:reply, from, {:ok, slice}} | sliced(calls, rest)]
  end

  defp sliced([], []), do: []
end
