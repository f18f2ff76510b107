defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peers.Direct do
  @moduledoc false
  # No batching: each caller commits its own write, in its own process, as the batcher's functions do where no batcher
  # runs. Commits of several callers run side by side, as far as the backend lets them.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Work

  @impl true
  def start(_work), do: :ok

  @impl true
  def stop(:ok, _work), do: :ok

  @impl true
  def call(:ok, %{lane: :put, backend: backend} = work, caller) do
    shard = Work.shard(work, caller)
    entries = Work.entries(work, caller)
    fn -> backend.__commit_put_batch_direct__(shard, entries) end
  end

  def call(:ok, %{backend: backend} = work, caller) do
    shard = Work.shard(work, caller)
    commands = [Work.command(work, caller)]

    fn ->
      case backend.__commit_batch_direct__(shard, commands) do
        {:ok, [reply]} -> reply
        error -> error
      end
    end
  end
end
