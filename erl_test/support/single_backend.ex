defmodule Ferricstore.Raft.WARaftBackend.Batcher.SingleBackend do
  @moduledoc false
  # `TestBackend` with the functions for one command as well (contract 16.2). In what is reported to the test, `list`
  # is the bare command there.
  #
  # Invariant: as ferricstore's, the function for a batch of one wraps the command's result, and no error.

  alias Ferricstore.Raft.WARaftBackend.Batcher.TestBackend

  defdelegate __commit_batch_direct__(shard, list), to: TestBackend
  defdelegate __commit_put_batch_direct__(shard, list), to: TestBackend
  defdelegate __commit_delete_batch_direct__(shard, list), to: TestBackend

  def __commit_single_direct__(shard, command),
    do: TestBackend.commit(:__commit_single_direct__, shard, command)

  def __commit_single_batch_direct__(shard, command) do
    case TestBackend.commit(:__commit_single_batch_direct__, shard, command) do
      {:error, _reason} = error -> error
      {:wrapped, result} -> result
      result -> {:ok, [result]}
    end
  end
end
