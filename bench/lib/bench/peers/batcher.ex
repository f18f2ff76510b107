defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peers.Batcher do
  @moduledoc false
  # The batcher itself, through its public functions, with the backend and the window as options, as the README
  # has it, and the defaults otherwise.
  #
  # A namespace's window is at least 1 ms. Without a window a write goes through the generic lane, as a group of one:
  # its window is 0 unless the environment says otherwise.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{From, Work}

  @impl true
  def start(work), do: start(work, [])

  @doc "The same with options of the shards."
  @spec start(Work.t(), keyword) :: :ok
  def start(work, options) do
    options = [backend: work.backend, hot_batch_window_ms: work.window_ms] ++ options
    for shard <- 0..(work.shards - 1), do: {:ok, _owner} = Batcher.start_link(shard, options)
    :ok
  end

  @impl true
  def stop(:ok, work) do
    for shard <- 0..(work.shards - 1), do: :ok = Batcher.stop(shard)
    :ok
  end

  @impl true
  def call(:ok, %{lane: :put} = work, caller) do
    shard = Work.shard(work, caller)
    entries = Work.entries(work, caller)

    if work.from,
      do: From.call(work.from, &Batcher.write_put_batch_async(shard, entries, &1)),
      else: fn -> Batcher.write_put_batch(shard, entries) end
  end

  def call(:ok, %{window_ms: 0} = work, caller) do
    shard = Work.shard(work, caller)
    commands = [Work.command(work, caller)]

    fn ->
      case Batcher.write_batch(shard, commands) do
        {:ok, [reply]} -> reply
        error -> error
      end
    end
  end

  def call(:ok, %{window_ms: window_ms} = work, caller) do
    shard = Work.shard(work, caller)
    prefix = Work.prefix(work, caller)
    command = Work.command(work, caller)
    fn -> Batcher.write(shard, prefix, command, window_ms) end
  end
end
