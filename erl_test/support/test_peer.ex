defmodule Ferricstore.Raft.WARaftBackend.Batcher.TestPeer do
  @moduledoc false
  # Another node for the tests, on the loopback interface, and what runs there.
  #
  # Invariant: what was started here is stopped here; a distribution or an epmd that ran before stays.

  import Ferricstore.Raft.WARaftBackend.Batcher.Case, only: [await_reply: 1, mailbox: 0]

  @interface {127, 0, 0, 1}

  @doc "Starts a node and, if need be, the distribution of this one. Answers what `stop/1` takes."
  def start do
    started = start_distribution()

    {:ok, peer, node} =
      :peer.start(%{
        name: :"batcher_peer_#{System.pid()}",
        host: ~c"127.0.0.1",
        longnames: true,
        args: [~c"-kernel", ~c"inet_dist_use_interface", ~c"{127,0,0,1}"]
      })

    :ok = :erpc.call(node, :code, :add_paths, [:code.get_path()])
    {node, peer, started}
  end

  def stop({_node, peer, started}) do
    :peer.stop(peer)
    if :distribution in started, do: :net_kernel.stop()
    if :epmd in started, do: System.cmd("epmd", ["-kill"])
  end

  defp start_distribution do
    cond do
      Node.alive?() -> []
      epmd_runs?() -> start_net_kernel([:distribution])
      true -> start_epmd([:distribution, :epmd])
    end
  end

  defp epmd_runs?, do: match?({_, 0}, System.cmd("epmd", ["-names"], stderr_to_stdout: true))

  defp start_epmd(started) do
    {_, 0} = System.cmd("epmd", ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])
    # The command ends before the daemon listens.
    true = Enum.any?(1..10_000, fn _ -> epmd_runs?() end)
    start_net_kernel(started)
  end

  defp start_net_kernel(started) do
    Application.put_env(:kernel, :inet_dist_use_interface, @interface)
    {:ok, _} = :net_kernel.start([:"batcher_test_#{System.pid()}@127.0.0.1", :longnames])
    started
  end

  @doc "There: calls in vain, reports `{:gave_up, request}` each time, shows its mailbox when asked."
  def give_up(node, test, server, requests) do
    :erlang.spawn(node, __MODULE__, :give_up, [test, server, requests])
  end

  @doc false
  def give_up(test, server, requests) do
    for request <- requests do
      try do
        send(test, {:answered, GenServer.call(server, request, 20)})
      catch
        :exit, {:timeout, _} -> send(test, {:gave_up, request})
      end
    end

    receive do
      {^test, :show} -> send(test, {:mailbox, mailbox()})
    end
  end

  @doc "There: waits for the reply to a tag and reports it as `{:there, reply}`."
  def listen(node, test, tag), do: :erlang.spawn(node, __MODULE__, :listen, [test, tag])

  @doc false
  def listen(test, tag), do: send(test, {:there, await_reply(tag)})

  @doc "There: links itself with a process of this node, and crashes."
  def crash_linked(node, pid), do: :erlang.spawn(node, __MODULE__, :crash_linked, [pid])

  @doc false
  def crash_linked(pid) do
    Process.link(pid)
    exit(:boom)
  end
end
