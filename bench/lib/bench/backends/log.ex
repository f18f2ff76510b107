defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.Log do
  @moduledoc false
  # A log that stores nothing and takes so long for each commit, however large, one after the other in the order in
  # which they came, whoever commits: what a Raft group is whose every entry costs a disk sync of its own. A log for
  # each shard. It is a process, which the committing one asks and waits for.
  #
  # During a commit of some hundred microseconds it yields, as the BEAM's timers are too coarse, which costs the time
  # of a core that has nothing else to do; it is one process for all who wait, so that they cost nothing.
  # One invariant: no commit is shorter than the time it was started with.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Wait

  @behaviour Backend

  @doc "Starts the logs of shards from 0, linked to the calling process."
  @spec start(pos_integer, pos_integer) :: :ok
  def start(commit_us, shards) do
    logs = for _shard <- 1..shards, do: spawn_link(fn -> loop(1_000 * commit_us) end)
    :persistent_term.put(__MODULE__, List.to_tuple(logs))
  end

  @doc "Ends them. No commit is under way any more."
  @spec stop() :: :ok
  def stop do
    for log <- Tuple.to_list(:persistent_term.get(__MODULE__)), do: send(log, :stop)
    :persistent_term.erase(__MODULE__)
    :ok
  end

  @impl Backend
  def __commit_batch_direct__(shard, commands),
    do: synced(shard, Null.__commit_batch_direct__(shard, commands))

  @impl Backend
  def __commit_put_batch_direct__(shard, entries),
    do: synced(shard, Null.__commit_put_batch_direct__(shard, entries))

  @impl Backend
  def __commit_delete_batch_direct__(shard, keys),
    do: synced(shard, Null.__commit_delete_batch_direct__(shard, keys))

  defp synced(shard, result) do
    tag = make_ref()
    send(elem(:persistent_term.get(__MODULE__), shard), {self(), tag})

    receive do
      {^tag, :synced} -> result
    end
  end

  defp loop(commit_ns) do
    receive do
      {committer, tag} ->
        Wait.until(System.monotonic_time(:nanosecond) + commit_ns)
        send(committer, {tag, :synced})
        loop(commit_ns)

      :stop ->
        :ok
    end
  end
end
