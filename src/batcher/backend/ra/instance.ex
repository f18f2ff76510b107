defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Instance do
  @moduledoc false
  # Ra in a supervision tree: the shards run for as long as this process does.
  #
  # Invariant: it is started when each shard has a leader, and ended in order when the servers of this node have stopped;
  # where it can't be started nothing runs that did not before. It ends when something of Ra has ended that Ra does not
  # start again. If it is killed they go on, and the next one finds them.

  use GenServer

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.{Cluster, Config}

  # What is missing at two looks is not started again by Ra. It starts a server again at once, which has its name before it
  # loads anything; of a system that has to be started again it leaves the servers away.
  @look_ms 1_000

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts), do: GenServer.start_link(__MODULE__, opts)

  @impl GenServer
  def init(opts) do
    Process.flag(:trap_exit, true)

    ran = Config.running()

    case Backend.Ra.start(opts) do
      :ok ->
        look_later()
        {:ok, []}

      {:error, reason} ->
        # What ran before is not this process's to stop.
        if ran == nil, do: Backend.Ra.stop()
        {:stop, reason}
    end
  end

  @impl GenServer
  def handle_info(:look, missing_before) do
    missing = Cluster.missing()

    case Enum.find(missing, &(&1 in missing_before)) do
      nil ->
        look_later()
        {:noreply, missing}

      name ->
        {:stop, {:ra_ended, name}, missing}
    end
  end

  # The end of a port or of a process that was linked to this one.
  def handle_info(_other, missing), do: {:noreply, missing}

  defp look_later, do: Process.send_after(self(), :look, @look_ms)

  @impl GenServer
  def terminate(_reason, _state), do: Backend.Ra.stop()
end
