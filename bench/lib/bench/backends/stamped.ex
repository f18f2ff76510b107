defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.Stamped do
  @moduledoc false
  # A backend that stores nothing but the moment at which its last commit began.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null

  @behaviour Backend

  @doc "Call once before the first commit."
  @spec prepare() :: :ok
  def prepare, do: :persistent_term.put(__MODULE__, :atomics.new(1, signed: true))

  @doc "When the last commit began, in nanoseconds of `System.monotonic_time/1`."
  @spec began() :: integer
  def began, do: :atomics.get(:persistent_term.get(__MODULE__), 1)

  @impl Backend
  def __commit_batch_direct__(shard, commands) do
    stamp()
    Null.__commit_batch_direct__(shard, commands)
  end

  @impl Backend
  def __commit_put_batch_direct__(shard, entries) do
    stamp()
    Null.__commit_put_batch_direct__(shard, entries)
  end

  @impl Backend
  def __commit_delete_batch_direct__(shard, keys) do
    stamp()
    Null.__commit_delete_batch_direct__(shard, keys)
  end

  defp stamp,
    do: :atomics.put(:persistent_term.get(__MODULE__), 1, System.monotonic_time(:nanosecond))
end
