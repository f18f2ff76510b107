defmodule Ferricstore.Raft.WARaftBackend.Batcher.Name do
  @moduledoc false
  # The name that the owner of a shard is registered under (contract 1.1).
  #
  # Invariant: made of the shard's index alone, and the same as in ferricstore.

  @doc "The name for a shard."
  @spec of(integer) :: atom
  def of(shard), do: :"ferricstore_waraft_backend_batcher_#{shard}"

  @doc "The process that has this name now."
  @spec owner(integer) :: pid | port | nil
  def owner(shard), do: Process.whereis(of(shard))
end
