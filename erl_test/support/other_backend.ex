defmodule Ferricstore.Raft.WARaftBackend.Batcher.OtherBackend do
  @moduledoc false
  # A backend that is not `TestBackend`, and whose replies say so.

  def __commit_batch_direct__(shard, list), do: {:ok, Enum.map(list, &{:other, shard, &1})}
  def __commit_put_batch_direct__(shard, list), do: __commit_batch_direct__(shard, list)
  def __commit_delete_batch_direct__(shard, list), do: __commit_batch_direct__(shard, list)
end
