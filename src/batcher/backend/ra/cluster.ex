# Ra itself: its application, one server per shard and node, in the Ra systems of `Logs`.
# Invariant: nothing is ever deleted. A server is made anew only where Ra knows none of its name, under an id
# that depends on nothing but the shard, so that data left there is found again.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Cluster do
  @moduledoc false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.{Client, Config, Logs, Machine}

  @compile {:no_warn_undefined, :ra}

  # Ra takes no snapshot sooner than so many log entries after the last; the machine itself decides when one
  # is due, and its entries are whole batches, so Ra's usual thousands would come too late.
  @snapshot_interval 16

  @doc "Whether Ra can be called here."
  @spec check_available() :: :ok | {:error, {:ra_not_available, String.t()}}
  def check_available do
    cond do
      not Code.ensure_loaded?(:ra) -> not_available("Ra is not on the code path")
      not Code.ensure_loaded?(:ra_system) -> not_available("this Ra is older than 2.0")
      true -> :ok
    end
  end

  defp not_available(what) do
    {:error,
     {:ra_not_available,
      "#{what} (node #{node()}). Add {:ra, \"~> 2.0 or ~> 3.0\"} to the dependencies in mix.exs, or put the " <>
        "ebin folders of ra, gen_batch_server, aten and seshat on the code path (erl -pa)."}}
  end

  @doc """
  Starts `spec` on all its nodes and waits for a leader of each shard. Nodes that can't be reached are left
  out as long as the others are a majority; they join when they start themselves. Without a majority, nothing is made.
  """
  @spec start(Config.spec()) :: :ok | {:error, term()}
  def start(spec) do
    with :ok <- check_available(),
         :ok <- start_here(spec),
         {:ok, created} <- start_members(spec) do
      elect(spec, created)
    end
  end

  # A node that is no member has to call the others all the same.
  defp start_here(spec) do
    if node() in spec.nodes do
      :ok
    else
      with :ok <- Config.check_compatible(spec), do: Config.store(spec)
    end
  end

  # All are asked before anything is made: what is made once has its members for ever, mistaken ones too.
  defp start_members(spec) do
    with {:ok, _nothing} <- at_majority(spec, :ask_member), do: at_majority(spec, :start_member)
  end

  # The servers that a function of this module names on the nodes that can be reached.
  defp at_majority(spec, function) do
    results = :erpc.multicall(spec.nodes, __MODULE__, function, [spec])
    results = Enum.zip(spec.nodes, results)
    down = for {node, {:error, {:erpc, :noconnection}}} <- results, do: node

    failed =
      for {node, result} <- results,
          node not in down,
          not match?({:ok, {:ok, _}}, result),
          do: {node, result}

    case failed do
      [] when length(down) * 2 < length(spec.nodes) ->
        {:ok, for({_node, {:ok, {:ok, servers}}} <- results, server <- servers, do: server)}

      [] ->
        {:error,
         {:nodes_unreachable, down,
          "no majority of the members can be reached; start them first: #{inspect(down)}"}}

      [{_node, {:ok, {:error, reason}}} | _] ->
        {:error, reason}

      [{node, {class, reason}} | _] ->
        {:error, {:node_failed, node, {class, reason}}}
    end
  end

  @doc "Whether this node's members could be started. Starts no more than Ra's application, and makes nothing on disk."
  @spec ask_member(Config.spec()) :: {:ok, []} | {:error, term()}
  def ask_member(spec) do
    with :ok <- check_available(),
         :ok <- Config.check_compatible(spec),
         :ok <- ensure_application(),
         do: {:ok, []}
  end

  @doc "Starts this node's member of each shard. Returns those that did not exist before."
  @spec start_member(Config.spec()) :: {:ok, [Config.server()]} | {:error, term()}
  def start_member(spec) do
    one_by_one(fn ->
      # Asked again: another caller may have started something else meanwhile.
      with {:ok, []} <- ask_member(spec), do: start_logs_and_servers(spec)
    end)
  end

  # Two that start at once would both find no server, and the second one fail; one that stops meanwhile would give back the
  # lock on a directory whose servers are being started.
  defp one_by_one(fun), do: :global.trans({{__MODULE__, :start}, self()}, fun, [node()])

  defp start_logs_and_servers(spec) do
    with {:ok, logs} <- Logs.start(spec),
         {:ok, created} <- start_servers(spec, logs) do
      Config.store(%{spec | logs: logs})
      {:ok, created}
    else
      error ->
        # What has been started is known to nobody then.
        if Config.running() == nil, do: Logs.stop(spec)
        error
    end
  end

  defp ensure_application do
    case Application.ensure_all_started(:ra) do
      {:ok, _started} ->
        :ok

      {:error, {app, {~c"no such file or directory", _file}}} ->
        not_available("#{app} is missing")

      {:error, reason} ->
        {:error, {:ra_not_started, node(), reason}}
    end
  end

  defp start_servers(spec, logs) do
    Enum.reduce_while(spec.indexes, {:ok, []}, fn index, {:ok, created} ->
      server = {Config.cluster(spec, index), node()}

      case start_server(spec, Logs.of_shard(spec, logs, index), server) do
        :created -> {:cont, {:ok, [server | created]}}
        :known -> {:cont, {:ok, created}}
        {:error, reason} -> {:halt, {:error, {:server_not_started, server, reason}}}
      end
    end)
  end

  defp start_server(spec, system, server) do
    case :ra.restart_server(system, server) do
      :ok -> :known
      {:error, {:already_started, _pid}} -> :known
      {:error, :name_not_registered} -> create_server(spec, system, server)
      {:error, reason} -> {:error, reason}
    end
  end

  defp create_server(spec, system, {cluster, _node} = server) do
    uid = Atom.to_string(cluster)

    config = %{
      id: server,
      uid: uid,
      cluster_name: cluster,
      initial_members: for(node <- spec.nodes, do: {cluster, node}),
      machine: {:module, Machine, %{}},
      # Later versions call it min_snapshot_interval, and take this name still.
      log_init_args: %{uid: uid, snapshot_interval: @snapshot_interval}
    }

    with :ok <- :ra.start_server(system, config),
         :ok <- Logs.sync_directory(system),
         do: :created
  end

  ## Elections

  # A server whose log is empty waits to be told to elect; another one does so by itself, but a lone member need
  # not wait for its timer. The query is answered once the leader's first entry is committed: only then may a
  # server that is restarted at once, by Ra's own supervisor, be left to itself.
  defp elect(spec, created) do
    shards = Enum.map(spec.indexes, fn index -> elem(Config.shard(index), 1) end)
    alone? = length(spec.nodes) == 1
    for shard <- shards, alone? or created?(shard, created), do: trigger(shard)

    Enum.reduce_while(shards, :ok, fn shard, :ok ->
      with :ok <- await_leader(shard, spec.timeout),
           {:ok, _commits} <- Client.query(shard.index, {Machine, :commits, []}) do
        {:cont, :ok}
      else
        error -> {:halt, error}
      end
    end)
  end

  defp created?(shard, created), do: Enum.any?(Tuple.to_list(shard.servers), &(&1 in created))

  # Servers of a start that was broken off may still wait to be told.
  defp await_leader(shard, timeout) do
    with {:error, _reason} <- Client.await_leader(shard, min(timeout, 2_000)) do
      trigger(shard)
      Client.await_leader(shard, timeout)
    end
  end

  # One member is enough, this node's if it has one.
  defp trigger(shard) do
    shard.servers
    |> Tuple.to_list()
    |> Enum.sort_by(fn {_cluster, node} -> node != node() end)
    |> Enum.find(fn server ->
      try do
        :ra.trigger_election(server, 5_000) == :ok
      catch
        :exit, _reason -> false
      end
    end)
  end

  ## Watch

  @doc "The names of what should run here and does not: of Ra systems their supervisors of servers, and servers."
  @spec missing() :: [atom()]
  def missing do
    config = Config.running()

    # Nothing should run after a stop, nor on a node that is no member.
    if config != nil and node() in config.spec.nodes do
      servers = for {_index, shard} <- config.shards, do: shard.cluster
      Enum.filter(Logs.supervisors(config.spec) ++ servers, &(Process.whereis(&1) == nil))
    else
      []
    end
  end

  ## Stop

  @doc "Stops this node's servers and its Ra systems. The other members go on."
  @spec stop() :: :ok
  def stop, do: one_by_one(fn -> stop_member(Config.running()) end)

  defp stop_member(nil), do: :ok

  defp stop_member(%{spec: spec, shards: shards}) do
    :ok = Config.erase()

    if node() in spec.nodes and check_available() == :ok do
      for {index, shard} <- shards,
          system = Logs.of_shard(spec, spec.logs, index),
          do: Logs.quietly(fn -> :ra.stop_server(system, {shard.cluster, node()}) end)

      Logs.stop(spec)
    end

    :ok
  end
end
