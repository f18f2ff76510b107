defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Instance do
  @moduledoc false
  # Ra in a supervision tree: the shards run for as long as this process does.
  #
  # Invariant: it is started when each shard has a leader, and ended in order when the servers of this node have stopped;
  # where it can't be started nothing runs that did not before.
  # If it is killed they go on, and the next one finds them.

  use GenServer

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Config

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts), do: GenServer.start_link(__MODULE__, opts)

  @impl GenServer
  def init(opts) do
    Process.flag(:trap_exit, true)

    ran = Config.running()

    case Backend.Ra.start(opts) do
      :ok ->
        {:ok, nil}

      {:error, reason} ->
        # What ran before is not this process's to stop.
        if ran == nil, do: Backend.Ra.stop()
        {:stop, reason}
    end
  end

  @impl GenServer
  def terminate(_reason, _state), do: Backend.Ra.stop()
end
