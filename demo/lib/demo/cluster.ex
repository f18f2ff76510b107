defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Cluster do
  @moduledoc false
  # The members of a Raft cluster, each a VM of its own on this machine, on loopback. This VM joins them for as long as
  # they run, and is no member: what it writes goes to the leaders over the network.
  # One invariant: `stop/1` ends every VM that `start/1` began, and leaves this one undistributed, as it was.

  @loopback {127, 0, 0, 1}
  @boot_ms 60_000
  @epmd_ms 10_000
  @poll_ms 10

  @typedoc "A member: the process that holds its VM, and the VM's process in the operating system."
  @type member :: %{peer: pid(), os_pid: String.t()}
  @type t :: %{members: %{node() => member()}, interface: term(), epmd: :started | :ran}

  @doc "Starts so many VMs with this code, without Ra."
  @spec start(pos_integer()) :: {:ok, t()} | {:error, String.t()}
  def start(count) do
    id = "batcher_demo_#{System.pid()}_#{Base.encode16(:rand.bytes(4), case: :lower)}"

    with :ok <- check_undistributed(),
         {:ok, epmd} <- start_epmd(),
         cluster = %{members: %{}, interface: interface(), epmd: epmd},
         :ok <- distribute(cluster, id) do
      boot(cluster, id, count)
    end
  end

  @spec nodes(t()) :: [node()]
  def nodes(cluster), do: Map.keys(cluster.members)

  @doc "Kills a member's VM, without a chance to write or to say anything more, and waits for its end."
  @spec kill(t(), node()) :: :ok
  def kill(cluster, node) do
    %{peer: peer, os_pid: os_pid} = Map.fetch!(cluster.members, node)
    watch = Process.monitor(peer)
    {_output, _status} = System.cmd("kill", ["-9", os_pid], stderr_to_stdout: true)

    receive do
      {:DOWN, ^watch, :process, ^peer, _reason} -> :ok
    end
  end

  @spec stop(t()) :: :ok
  def stop(cluster) do
    for {_node, %{peer: peer}} <- cluster.members, Process.alive?(peer), do: stop_peer(peer)
    undistribute(cluster)
  end

  defp stop_peer(peer) do
    :peer.stop(peer)
  catch
    # It ended meanwhile.
    :exit, _reason -> :ok
  end

  # Members

  # At once: to boot is most of what a small run takes.
  defp boot(cluster, id, count) do
    cookie = Atom.to_charlist(:erlang.get_cookie())

    results =
      1..count
      |> Enum.map(&Task.async(fn -> boot_member(:"#{id}_#{&1}", cookie) end))
      |> Task.await_many(:infinity)

    cluster = %{
      cluster
      | members: Map.new(for {:ok, node, member} <- results, do: {node, member})
    }

    case for {:error, reason} <- results, do: reason do
      [] ->
        {:ok, cluster}

      [reason | _] ->
        stop(cluster)
        {:error, "a node of the cluster can't be started: #{inspect(reason)}"}
    end
  end

  # Not linked: it is to end by a kill. Over its standard input and output, so that it ends when this VM does.
  defp boot_member(name, cookie) do
    paths = for path <- :code.get_path(), arg <- [~c"-pa", path], do: arg
    # Several VMs share this machine's processors; none shall wait busily.
    quiet = [~c"-kernel", ~c"logger_level", ~c"none", ~c"+sbwt", ~c"none"]
    loopback = [~c"-kernel", ~c"inet_dist_use_interface", ~c"{127,0,0,1}"]

    started =
      :peer.start(%{
        name: name,
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        wait_boot: @boot_ms,
        args: [~c"-setcookie", cookie | quiet ++ loopback ++ paths]
      })

    with {:ok, peer, node} <- started,
         do: {:ok, node, %{peer: peer, os_pid: :peer.call(peer, System, :pid, [], @boot_ms)}}
  end

  # This VM

  defp check_undistributed do
    if Node.alive?(),
      do: {:error, "--nodes 3 needs a VM without a name of its own, and this one is #{node()}"},
      else: :ok
  end

  defp interface, do: Application.fetch_env(:kernel, :inet_dist_use_interface)

  defp distribute(cluster, id) do
    Application.put_env(:kernel, :inet_dist_use_interface, @loopback)

    case :net_kernel.start([:"#{id}@127.0.0.1", :longnames]) do
      {:ok, _pid} ->
        # Nobody else is to join.
        Node.set_cookie(String.to_atom(Base.encode16(:rand.bytes(16))))
        :ok

      {:error, reason} ->
        undistribute(cluster)
        {:error, "this VM can't join a cluster on 127.0.0.1: #{inspect(reason)}"}
    end
  end

  defp undistribute(cluster) do
    _ = :net_kernel.stop()

    case cluster.interface do
      {:ok, interface} -> Application.put_env(:kernel, :inet_dist_use_interface, interface)
      :error -> Application.delete_env(:kernel, :inet_dist_use_interface)
    end

    # Refused while it knows nodes of somebody else's.
    if cluster.epmd == :started, do: epmd(["-kill"])
    :ok
  end

  # The port mapper, without which the nodes don't find each other. `erl -name` would start it for all interfaces.
  defp start_epmd do
    if epmd_runs?() do
      {:ok, :ran}
    else
      epmd(["-daemon"])
      await_epmd(System.monotonic_time(:millisecond) + @epmd_ms)
    end
  end

  defp await_epmd(deadline) do
    cond do
      epmd_runs?() ->
        {:ok, :started}

      System.monotonic_time(:millisecond) >= deadline ->
        {:error, "epmd, which comes with Erlang, can't be started on 127.0.0.1"}

      true ->
        Process.sleep(@poll_ms)
        await_epmd(deadline)
    end
  end

  defp epmd_runs?, do: match?({:ok, _names}, :erl_epmd.names(@loopback))

  defp epmd(arguments) do
    beside_erl =
      Path.join([:code.root_dir(), "erts-#{:erlang.system_info(:version)}", "bin", "epmd"])

    System.cmd(System.find_executable("epmd") || beside_erl, arguments,
      env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}],
      stderr_to_stdout: true
    )
  end
end
