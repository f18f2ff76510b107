defmodule Ferricstore.Raft.WARaftBackend.Batcher.Torture.Cluster do
  @moduledoc false
  # The nodes of the torture test: operating-system processes of this machine, on loopback. Three are members of
  # one Ra cluster; the fourth, the host, is none, and has most of the callers.
  #
  # Invariant: every node that was started is known here, so that `clean/1` leaves no process and no file,
  # whatever became of the test. This VM stays undistributed: it speaks with the nodes over their standard
  # input and output, and they end when it does.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra
  alias Ferricstore.Raft.WARaftBackend.Batcher.Torture.{Ledger, Load}

  @members [:a, :b, :c]
  @sites [:host | @members]
  @callers %{host: 64, a: 8, b: 8, c: 8}
  @shard 0
  @call_ms 200_000
  @command_timeout_ms 10_000

  @type site :: :host | :a | :b | :c
  @type t :: pid

  @doc "Makes a directory and nothing else yet. `backend` is what the batchers commit with, `way` how (see `Ways`)."
  @spec new(module, keyword) :: t
  def new(backend, way) do
    id = "torture_#{System.pid()}_#{System.unique_integer([:positive])}"
    dir = Path.join(System.tmp_dir!(), id)
    File.mkdir_p!(Path.join(dir, "ledger"))

    state = %{
      id: id,
      dir: dir,
      backend: backend,
      way: way,
      epmd: start_epmd(),
      nodes: %{},
      lives: %{}
    }

    # Linked to nothing: it outlives the test.
    {:ok, cluster} =
      Agent.start(fn ->
        Map.put(state, :output, spawn_link(&swallow/0))
      end)

    cluster
  end

  @doc "Kills what runs and removes what was stored."
  @spec clean(t) :: :ok
  def clean(cluster) do
    for site <- sites(cluster), do: kill(cluster, site)
    %{dir: dir, epmd: epmd} = Agent.get(cluster, & &1)
    Agent.stop(cluster)
    File.rm_rf!(dir)
    # Refused while it knows nodes of somebody else's.
    if epmd == :started, do: System.cmd("epmd", ["-kill"], stderr_to_stdout: true)
    :ok
  end

  @doc "The sites whose nodes run."
  @spec sites(t) :: [site]
  def sites(cluster), do: Agent.get(cluster, &Map.keys(&1.nodes))

  @doc "The members whose nodes run."
  @spec survivors(t) :: [site]
  def survivors(cluster), do: for(site <- sites(cluster), site in @members, do: site)

  @doc "Starts all nodes, and Ra on them."
  @spec boot_all(t) :: :ok
  def boot_all(cluster) do
    for(site <- @sites, do: Task.async(fn -> boot_node(cluster, site) end))
    |> Task.await_many(@call_ms)

    # The first one starts Ra on the other members too.
    for site <- [:a, :host], do: :ok = start_ra(cluster, site)
    :ok
  end

  @doc "Starts a node that was killed, as it would at boot: its member of the cluster, then its load."
  @spec boot(t, site) :: :ok
  def boot(cluster, site) do
    boot_node(cluster, site)
    :ok = start_ra(cluster, site)
    start_load(cluster, site)
  end

  defp boot_node(cluster, site) do
    %{id: id, output: output} = Agent.get(cluster, & &1)
    # Nodes that come back tell on their standard output which files they had to repair.
    before = Process.group_leader()
    Process.group_leader(self(), output)
    paths = for path <- :code.get_path(), arg <- [~c"-pa", path], do: arg

    # Several nodes share this machine's processors; none shall wait busily.
    quiet = [~c"-kernel", ~c"logger_level", ~c"none", ~c"+sbwt", ~c"none"]
    loopback = [~c"-kernel", ~c"inet_dist_use_interface", ~c"{127,0,0,1}"]

    # Linked until it is known, so that it ends should this be broken off.
    {:ok, peer, _node} =
      :peer.start_link(%{
        name: name(id, site),
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        args: [~c"-setcookie", String.to_charlist(id) | quiet ++ loopback ++ paths]
      })

    Process.group_leader(self(), before)
    pid = :peer.call(peer, System, :pid, [], @call_ms)
    Agent.update(cluster, &put_in(&1.nodes[site], {peer, pid}))
    Process.unlink(peer)
  end

  defp start_ra(cluster, site) do
    %{id: id, dir: dir} = Agent.get(cluster, & &1)
    nodes = for member <- @members, do: :"#{name(id, member)}@127.0.0.1"
    opts = [data_dir: Path.join(dir, "ra"), nodes: nodes, command_timeout: @command_timeout_ms]
    call(cluster, site, Ra, :start, [opts])
  end

  @doc "Starts batcher and callers on a node."
  @spec start_load(t, site) :: :ok
  def start_load(cluster, site) do
    state = Agent.get(cluster, & &1)
    life = life(cluster, site) + 1
    Agent.update(cluster, &put_in(&1.lives[site], life))

    call(cluster, site, Load, :start, [
      %{
        site: site,
        life: life,
        callers: @callers[site],
        ledger: Path.join(state.dir, "ledger"),
        backend: state.backend,
        way: state.way
      }
    ])
  end

  @doc "Which life of a node it is, from 1."
  @spec life(t, site) :: non_neg_integer
  def life(cluster, site), do: Agent.get(cluster, &Map.get(&1.lives, site, 0))

  @doc "Kills the process of a node and waits for its end. Answers the time of the kill on the system's clock, in ms."
  @spec kill(t, site) :: integer
  def kill(cluster, site) do
    {peer, pid} = Agent.get(cluster, & &1.nodes[site])
    watch = Process.monitor(peer)
    # Fails where the process has ended by itself.
    {_output, _status} = System.cmd("kill", ["-9", pid], stderr_to_stdout: true)
    killed_at = :os.system_time(:millisecond)

    receive do
      {:DOWN, ^watch, :process, _, _} -> :ok
    end

    Agent.update(cluster, fn state -> %{state | nodes: Map.delete(state.nodes, site)} end)
    killed_at
  end

  @doc "The site of the leader, as the host sees it."
  @spec leader(t) :: site
  def leader(cluster) do
    {:ok, {_name, node}} = call(cluster, :host, Ra, :leader, [@shard])
    %{id: id} = Agent.get(cluster, & &1)
    Enum.find(@members, &(:"#{name(id, &1)}@127.0.0.1" == node))
  end

  @doc "Compares what was acknowledged with what the shard holds, as a member sees it."
  @spec audit(t, site, :running | :ended) :: Ledger.report()
  def audit(cluster, site, phase) do
    %{dir: dir} = Agent.get(cluster, & &1)
    call(cluster, site, Ledger, :audit, [Path.join(dir, "ledger"), phase])
  end

  @spec call(t, site, module, atom, list) :: term
  def call(cluster, site, module, function, args) do
    {peer, _pid} = Agent.get(cluster, & &1.nodes[site])
    :peer.call(peer, module, function, args, @call_ms)
  end

  defp name(id, site), do: :"#{id}_#{site}"

  # An I/O device for the nodes.
  defp swallow do
    receive do
      {:io_request, from, ref, _request} -> send(from, {:io_reply, ref, :ok})
    end

    swallow()
  end

  defp start_epmd do
    if epmd_runs?() do
      :ran
    else
      {_, 0} = System.cmd("epmd", ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])
      # The command ends before the daemon listens.
      true = Enum.any?(1..10_000, fn _ -> epmd_runs?() end)
      :started
    end
  end

  defp epmd_runs?, do: match?({_, 0}, System.cmd("epmd", ["-names"], stderr_to_stdout: true))
end
