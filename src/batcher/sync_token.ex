defmodule Ferricstore.Raft.WARaftBackend.Batcher.SyncToken do
  @moduledoc false
  # The sync tokens that come with asynchronous writes, and the host's gate that gave them out (contract 12, 16.4).
  # `nil` is no token.
  #
  # Invariant: a token that was not transferred is still its former owner's, who has to release it.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Settings

  @doc "Releases a token of a write to this shard (12.1)."
  @spec release(integer, term) :: :ok
  def release(_shard, nil), do: :ok

  def release(shard, sync_token) do
    gate(shard).leave(sync_token)
    :ok
  end

  @doc "Whether a token has an owner: not all gates know of owners."
  @spec owned?(integer, term) :: boolean
  def owned?(_shard, nil), do: false
  def owned?(shard, _sync_token), do: Settings.exports?(gate(shard), :transfer, 2)

  @doc "Makes a process the owner of a token, if the token has one. False: the gate refused, or failed."
  @spec transfer(integer, term, pid) :: boolean
  def transfer(shard, sync_token, to) do
    not owned?(shard, sync_token) or gate(shard).transfer(sync_token, to) == :ok
  catch
    _kind, _reason -> false
  end

  defp gate(shard), do: Settings.sync_gate(Settings.of(shard))
end
