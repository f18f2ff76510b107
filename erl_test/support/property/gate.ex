defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Gate do
  @moduledoc false
  # The sync gate of the property test. Invariant: each release is one event of the log.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Property.Log

  @doc "Releases a token."
  def leave(token) do
    Log.left(token)
    :ok
  end
end
