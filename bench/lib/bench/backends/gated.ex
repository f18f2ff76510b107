defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.Gated do
  @moduledoc false
  # A backend that stores nothing, whose commits wait while its gate is shut, so that writes queue up behind one.
  # One invariant: a commit that finds the gate shut has told so before it waits, and is let go by `open/1` alone.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null

  @behaviour Backend

  @open 0
  @shut 1

  @doc "Call once, in the process that will open and shut; the gate is open."
  @spec prepare() :: :ok
  def prepare, do: :persistent_term.put(__MODULE__, {:atomics.new(1, []), self()})

  @doc "Commits wait from now on."
  @spec shut() :: :ok
  def shut, do: put(@shut)

  @doc "Waits until a commit stands before the gate."
  @spec closed() :: pid
  def closed do
    receive do
      {__MODULE__, :waits, committer} -> committer
    end
  end

  @doc "Lets the waiting commit go, and all after it."
  @spec open(pid) :: :ok
  def open(committer) do
    put(@open)
    send(committer, {__MODULE__, :go})
    :ok
  end

  defp put(state) do
    {gate, _keeper} = :persistent_term.get(__MODULE__)
    :atomics.put(gate, 1, state)
  end

  @impl Backend
  def __commit_batch_direct__(shard, commands) do
    pass()
    Null.__commit_batch_direct__(shard, commands)
  end

  @impl Backend
  def __commit_put_batch_direct__(shard, entries) do
    pass()
    Null.__commit_put_batch_direct__(shard, entries)
  end

  @impl Backend
  def __commit_delete_batch_direct__(shard, keys) do
    pass()
    Null.__commit_delete_batch_direct__(shard, keys)
  end

  defp pass do
    {gate, keeper} = :persistent_term.get(__MODULE__)

    if :atomics.get(gate, 1) == @shut do
      send(keeper, {__MODULE__, :waits, self()})

      receive do
        {__MODULE__, :go} -> :ok
      end
    end
  end
end
