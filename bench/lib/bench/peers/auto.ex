defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peers.Auto do
  @moduledoc false
  # The batcher with the options that leave nothing to choose: how long a slot is held is learned, a write that is
  # alone is committed by its caller, and one commit takes what is due of all lanes of a shard.
  # One invariant: these options are all that sets it apart from `Peers.Batcher`.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peers.Batcher

  @options [pacing: :auto, commit_scope: :shard]

  @spec options() :: keyword
  def options, do: @options

  @impl true
  def start(work), do: Batcher.start(work, @options)

  @impl true
  defdelegate stop(handle, work), to: Batcher

  @impl true
  defdelegate call(handle, work, caller), to: Batcher
end
