defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.Slow do
  @moduledoc false
  # A commit that takes one millisecond and stores nothing.
  #
  # The BEAM's timers are too coarse for that: a sleep of 1 ms takes up to two. So it waits by yielding, which lets
  # every other process run first, and costs the time of a core that has nothing else to do.
  # One invariant: no commit is shorter than a millisecond.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null

  @behaviour Backend

  @commit_us 1_000

  @impl Backend
  def __commit_batch_direct__(shard, commands),
    do: slowly(fn -> Null.__commit_batch_direct__(shard, commands) end)

  @impl Backend
  def __commit_put_batch_direct__(shard, entries),
    do: slowly(fn -> Null.__commit_put_batch_direct__(shard, entries) end)

  @impl Backend
  def __commit_delete_batch_direct__(shard, keys),
    do: slowly(fn -> Null.__commit_delete_batch_direct__(shard, keys) end)

  # The work counts as part of the commit.
  defp slowly(commit) do
    until = System.monotonic_time() + System.convert_time_unit(@commit_us, :microsecond, :native)
    result = commit.()
    wait(until)
    result
  end

  defp wait(until) do
    if System.monotonic_time() < until do
      :erlang.yield()
      wait(until)
    else
      :ok
    end
  end
end
