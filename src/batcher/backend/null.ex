# A backend that stores nothing.
# Invariant: it answers as many replies as contract 6.2 counts, so that the batcher can't tell it from a real one.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null do
  @moduledoc """
  A backend that stores nothing and answers `:ok` to each command, at once: for demos and
  benchmarks that are to show the batcher alone.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend

  @behaviour Backend

  @impl Backend
  def __commit_batch_direct__(_shard, commands), do: oks(Backend.reply_count(commands))

  @impl Backend
  def __commit_put_batch_direct__(_shard, entries), do: oks(length(entries))

  @impl Backend
  def __commit_delete_batch_direct__(_shard, keys), do: oks(length(keys))

  defp oks(count), do: {:ok, List.duplicate(:ok, count)}
end
