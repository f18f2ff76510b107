defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.Counted do
  @moduledoc false
  # A backend that counts the commits of another one. The same for every peer.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend

  @behaviour Backend

  @doc "From now on `inner` commits."
  @spec around(module) :: :ok
  def around(inner),
    do: :persistent_term.put(__MODULE__, {inner, :counters.new(1, [:write_concurrency])})

  @doc "Commits since `around/1`."
  @spec commits() :: non_neg_integer
  def commits do
    {_inner, count} = :persistent_term.get(__MODULE__)
    :counters.get(count, 1)
  end

  @impl Backend
  def __commit_batch_direct__(shard, commands),
    do: counted().__commit_batch_direct__(shard, commands)

  @impl Backend
  def __commit_put_batch_direct__(shard, entries),
    do: counted().__commit_put_batch_direct__(shard, entries)

  @impl Backend
  def __commit_delete_batch_direct__(shard, keys),
    do: counted().__commit_delete_batch_direct__(shard, keys)

  defp counted do
    {inner, count} = :persistent_term.get(__MODULE__)
    :counters.add(count, 1, 1)
    inner
  end
end
