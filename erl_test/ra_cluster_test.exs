# The backend on Ra where more than one VM is needed: a cluster of three nodes on loopback, two VMs that want one
# directory, and a VM without Ra.
# Invariant: this VM stays undistributed; it speaks with the others over their standard input and output.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.ClusterTest do
  use ExUnit.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra

  @moduletag :ra

  @needs_ra if Code.ensure_loaded?(:ra),
              do: [cluster: true],
              else: [cluster: true, skip: "Ra is not on the code path: run `make setup`"]

  setup do
    dir = Path.join(System.tmp_dir!(), "ra_cluster_test_#{System.unique_integer([:positive])}")
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    %{dir: dir}
  end

  test "1.2: without Ra's libraries start says so, and nothing else fails later", %{dir: dir} do
    {:ok, peer, _node} = boot(%{}, &(not File.exists?(Path.join(&1, "ra.beam"))))
    assert {:error, {:ra_not_available, text}} = call(peer, :start, [[data_dir: dir]])
    assert text =~ "Ra is not on the code path"
    assert text =~ "{:ra, \"~> 2.0 or ~> 3.0\"}"
    assert {:error, :not_started} = call(peer, :__commit_put_batch_direct__, [0, [{"a", "1", 0}]])
    assert {:error, :not_started} = call(peer, :fetch, [0, "a"])
    assert :ok = call(peer, :stop, [])

    # One of Ra's own dependencies missing.
    {:ok, peer, _node} = boot(%{}, &(not File.exists?(Path.join(&1, "aten.beam"))))

    if :peer.call(peer, Code, :ensure_loaded?, [:ra]) do
      assert {:error, {:ra_not_available, "aten is missing" <> _}} =
               call(peer, :start, [[data_dir: dir]])
    end
  end

  @tag @needs_ra

  test "what was acknowledged is there after the VM was halted at once", %{dir: dir} do
    {:ok, peer, _node} = boot(%{}, fn _ebin -> true end)
    assert :ok = call(peer, :start, [[data_dir: dir]])
    for i <- 1..100, do: assert({:ok, [{:ok, ^i}]} = incr(peer))

    halt(peer)

    {:ok, peer, _node} = boot(%{}, fn _ebin -> true end)
    assert :ok = call(peer, :start, [[data_dir: dir]])
    assert {:ok, {"100", 0}} = call(peer, :fetch, [0, "n"])
    assert {:ok, 100} = call(peer, :commits, [0])
  end

  @tag @needs_ra

  # Before Ra's table of servers gets to the disk by itself, half a second after its last change.
  test "the first write of a new shard is there after the VM was halted at once", %{dir: dir} do
    {:ok, peer, _node} = boot(%{}, fn _ebin -> true end)
    assert :ok = call(peer, :start, [[data_dir: dir]])
    assert {:ok, [{:ok, 1}]} = incr(peer)
    halt(peer)

    {:ok, peer, _node} = boot(%{}, fn _ebin -> true end)
    assert :ok = call(peer, :start, [[data_dir: dir]])
    assert {:ok, {"1", 0}} = call(peer, :fetch, [0, "n"])
  end

  @tag @needs_ra

  test "19.6: a directory that a VM has is no other's until it stops, or is killed", %{dir: dir} do
    [{:ok, one, node}, {:ok, two, node}] = for _ <- 1..2, do: boot(%{}, fn _ebin -> true end)
    path = Path.join(dir, Atom.to_string(node))
    assert :ok = call(one, :start, [[data_dir: dir]])
    assert {:ok, [{:ok, 1}]} = incr(one)

    # Another name, too: the log of a directory is all of its shards'.
    for opts <- [[], [shards: 2], [name: "other"]] do
      assert {:error, {:data_dir, ^path, :in_use, text}} =
               call(two, :start, [[data_dir: dir] ++ opts])

      assert text =~ path
      assert [] = call(two, :shards, [])
      assert nil == :peer.call(two, Process, :whereis, [:ferricstore_batcher_0])
    end

    # More shards where it runs already; another directory where it does not.
    assert :ok = call(one, :start, [[data_dir: dir, shards: 2]])
    assert :ok = call(two, :start, [[data_dir: Path.join(dir, "two")]])
    assert :ok = call(two, :stop, [])

    assert {:ok, [{:ok, 2}]} = incr(one)
    assert :ok = call(one, :stop, [])
    assert :ok = call(two, :start, [[data_dir: dir]])
    assert {:ok, [{:ok, 3}]} = incr(two)
    assert {:error, {:data_dir, ^path, :in_use, _text}} = call(one, :start, [[data_dir: dir]])

    kill(two)
    assert :ok = call(one, :start, [[data_dir: dir]])
    assert {:ok, [{:ok, 4}]} = incr(one)
  end

  @tag @needs_ra

  test "19.6: a start that fails leaves the directory to others", %{dir: dir} do
    [{:ok, one, node}, {:ok, two, node}] = for _ <- 1..2, do: boot(%{}, fn _ebin -> true end)
    blocker = Path.join([dir, Atom.to_string(node), "names.dets"])
    File.mkdir_p!(blocker)

    assert {:error, {:ra_system_not_started, ^node, _dir, _reason}} =
             call(one, :start, [[data_dir: dir]])

    File.rmdir!(blocker)
    assert :ok = call(two, :start, [[data_dir: dir]])
    assert :ok = call(two, :stop, [])
    assert :ok = call(one, :start, [[data_dir: dir]])

    # Where something runs already it goes on, and has the directory still.
    File.write!(Path.join([dir, Atom.to_string(node), "ferricstore_batcher_1"]), "")

    assert {:error, {:server_not_started, _server, _reason}} =
             call(one, :start, [[data_dir: dir, shards: 2]])

    assert {:ok, [{:ok, 1}]} = incr(one)
    assert {:error, {:data_dir, _path, :in_use, _text}} = call(two, :start, [[data_dir: dir]])
  end

  @tag @needs_ra

  test "three members: a leader that is lost is followed, and comes back as a member", %{dir: dir} do
    peers = Map.new(1..3, fn _ -> boot_member() end)
    nodes = Map.keys(peers)
    opts = [data_dir: dir, nodes: nodes, command_timeout: 20_000]
    [first | _] = Map.values(peers)

    # Two of the three are started from the first one, and can be used without a start of their own.
    assert :ok = call(first, :start, [opts])
    for {_node, peer} <- peers, do: assert([0] = call(peer, :shards, []))
    assert {:ok, members} = call(first, :members, [0])
    assert members |> Enum.map(&elem(&1, 1)) |> Enum.sort() == Enum.sort(nodes)

    for {{_node, peer}, i} <- Enum.with_index(Map.to_list(peers), 1),
        do: assert({:ok, [{:ok, ^i}]} = incr(peer))

    {:ok, {_name, lost}} = call(first, :leader, [0])
    {lost_peer, survivors} = Map.pop(peers, lost)
    [one, two] = Map.values(survivors)

    halt(lost_peer)

    # What is begun while the loss is being noticed may end without an answer; what is begun after may not.
    unknown = Enum.count(for(_ <- 1..2, peer <- [one, two], do: incr(peer)), &unknown?/1)
    assert unknown <= 2
    assert {:ok, [{:ok, sum}]} = incr(one)
    assert sum in (8 - unknown)..8
    assert {:ok, {_name, leader}} = call(two, :leader, [0])
    assert leader in Map.keys(survivors)

    # The lost one starts on its old data, as it would at boot, and sees what it missed.
    {^lost, back} = boot_member(lost)
    assert :ok = call(back, :start, [opts])
    text = Integer.to_string(sum)
    assert {:ok, {^text, 0}} = call(back, :fetch, [0, "n"])
    assert {:ok, [{:ok, next}]} = incr(back)
    assert next == sum + 1

    # A member that is stopped for good, and its own call to start, leave the others at work.
    assert :ok = call(back, :stop, [])
    assert {:ok, [{:ok, _}]} = incr(one)
  end

  @tag @needs_ra

  test "19.1: a supervisor whose start fails leaves Ra running only where it ran", %{dir: dir} do
    [{a, peer_a}, {b, peer_b}] = for _ <- 1..2, do: boot_member()
    opts = [data_dir: dir, nodes: [a, b], command_timeout: 20_000]
    # Where the second node would keep the data of the shard.
    blocker = Path.join([dir, Atom.to_string(b), "ferricstore_batcher_0"])
    File.mkdir_p!(Path.dirname(blocker))
    File.write!(blocker, "")

    start = fn shards ->
      child = Batcher.Supervisor.child_spec(shards: shards, ra: opts)
      # Some supervisor that is there already.
      args = [:logger_sup, Map.put(child, :restart, :temporary)]
      {:error, {reason, _child}} = :peer.call(peer_a, :supervisor, :start_child, args, 60_000)
      reason
    end

    assert {:server_not_started, {:ferricstore_batcher_0, ^b}, _reason} = start.(1)
    assert [] = call(peer_a, :shards, [])
    assert nil == :peer.call(peer_a, Process, :whereis, [:ferricstore_batcher_0])

    File.rm!(blocker)
    assert :ok = call(peer_a, :start, [opts])
    assert {:ok, [{:ok, 1}]} = incr(peer_a)
    File.write!(Path.join([dir, Atom.to_string(b), "ferricstore_batcher_1"]), "")
    assert {:server_not_started, {:ferricstore_batcher_1, ^b}, _reason} = start.(2)
    assert 0 in call(peer_a, :shards, [])
    assert [0] = call(peer_b, :shards, [])
    assert {:ok, [{:ok, 2}]} = incr(peer_a)
  end

  @tag @needs_ra

  test "a member that was away gets a snapshot of what it missed", %{dir: dir} do
    [{a, peer_a}, {b, _peer_b}, {c, peer_c}] = for _ <- 1..3, do: boot_member()
    opts = [data_dir: dir, nodes: [a, b, c], command_timeout: 20_000]
    assert :ok = call(peer_a, :start, [opts])
    assert {:ok, [:ok, {:ok, 1}]} = commit(peer_a, [{:put, "old", "1", 0}, {:incr, "n", 1}])

    # What it has before, the snapshot takes the place of.
    assert :ok = call(peer_c, :stop, [])
    assert {:ok, [:ok]} = commit(peer_a, [{:delete, "old"}])
    pad = String.duplicate("p", 1_000_000)

    for i <- 2..30,
        do:
          assert(
            {:ok, [{:ok, ^i}, :ok]} =
              commit(peer_a, [{:incr, "n", 1}, {:put, "pad#{rem(i, 5)}", pad, i}])
          )

    await_snapshots(dir, [a, b])
    assert :ok = call(peer_c, :start, [opts])
    assert {:ok, all} = call(peer_a, :fetch_all, [0])
    assert {:ok, [{:ok, 31}]} = commit(peer_c, [{:incr, "n", 1}])

    # Asked of the member itself: to make it the leader while it catches up leaves some versions of Ra without one.
    {:ok, {name, _leader}} = call(peer_c, :leader, [0])
    await_commits(peer_c, {name, c}, 32)
    assert Path.wildcard("#{dir}/#{c}/#{name}/snapshots/*/snapshot.dat") != []
    all_of_c = of_member(peer_c, {name, c}, :fetch_all)
    assert all_of_c == %{all | "n" => {"31", 0}}
    refute is_map_key(all_of_c, "old")
  end

  @tag @needs_ra

  test "members that can't be reached: a majority is enough, and less is an error", %{dir: dir} do
    [{a, peer_a}, {b, peer_b}] = [boot_member(), boot_member()]
    client = boot_member() |> elem(1)
    [away, gone] = [:"away@127.0.0.1", :"gone@127.0.0.1"]

    assert {:error, {:nodes_unreachable, unreachable, text}} =
             call(peer_a, :start, [[data_dir: dir, name: "less", nodes: [a, away, gone]]])

    assert Enum.sort(unreachable) == [away, gone]
    assert text =~ "majority"
    assert text =~ inspect(away)

    # Nothing was made, so a mistaken list of nodes does not become that of the data.
    assert File.ls!(dir) == []
    assert [] = call(peer_a, :shards, [])
    assert :ok = call(peer_a, :start, [[data_dir: dir, name: "less", nodes: [a]]])
    assert {:ok, [{:ok, 1}]} = incr(peer_a)
    assert {:ok, [{:less_0, ^a}]} = call(peer_a, :members, [0])
    assert :ok = call(peer_a, :stop, [])

    # Nor where a node refuses.
    assert :ok = call(peer_b, :start, [[data_dir: dir, name: "less", nodes: [b]]])
    both = [data_dir: Path.join(dir, "both"), nodes: [a, b]]
    assert {:error, {:already_started, %{nodes: [^b]}, _text}} = call(peer_a, :start, [both])
    refute File.exists?(both[:data_dir])
    assert :ok = call(peer_b, :stop, [])

    # From a node that is no member, which uses the others all the same.
    opts = [data_dir: dir, nodes: [a, b, away]]
    assert :ok = call(client, :start, [opts])
    assert {:ok, [{:ok, 1}]} = incr(client)
    assert {:ok, {"1", 0}} = call(peer_a, :fetch, [0, "n"])
  end

  defp incr(peer), do: commit(peer, [{:incr, "n", 1}])
  defp commit(peer, batch), do: call(peer, :__commit_batch_direct__, [0, batch])

  # Ra writes a snapshot beside the commits, and tells nobody when it is there.
  defp await_snapshots(dir, nodes) do
    missing =
      for node <- nodes,
          Path.wildcard("#{dir}/#{node}/*/snapshots/*/snapshot.dat") == [],
          do: node

    if missing != [], do: await_snapshots(dir, nodes)
  end

  defp await_commits(peer, member, count),
    do: if(of_member(peer, member, :commits) < count, do: await_commits(peer, member, count))

  # What a member has applied itself, whoever leads. A question that comes while it takes a snapshot may be dropped.
  defp of_member(peer, member, question) do
    case :peer.call(peer, :ra, :local_query, [member, {Ra.Machine, question, []}, 200], 60_000) do
      {:ok, {_index_and_term, found}, _leader} -> found
      {:timeout, ^member} -> of_member(peer, member, question)
    end
  end

  defp unknown?({:ok, [{:ok, _sum}]}), do: false
  defp unknown?({:error, {tag, _}}) when tag in [:nodedown, :noproc, :timeout], do: true
  defp unknown?({:error, {:server_down, _, _}}), do: true

  defp halt(peer) do
    watch = Process.monitor(peer)
    :peer.cast(peer, :erlang, :halt, [1, [flush: false]])
    assert_receive {:DOWN, ^watch, :process, _, _}, 10_000
  end

  # At once, as by the system: nothing is closed in order.
  defp kill(peer) do
    watch = Process.monitor(peer)
    os_pid = :peer.call(peer, System, :pid, [])
    {_, 0} = System.cmd("kill", ["-KILL", os_pid])
    assert_receive {:DOWN, ^watch, :process, _, _}, 10_000
  end

  defp call(peer, function, args), do: :peer.call(peer, Ra, function, args, 60_000)

  defp boot_member(node \\ nil) do
    name =
      if node,
        do: node |> Atom.to_string() |> String.split("@") |> hd(),
        else: :peer.random_name(~c"ra")

    options = %{
      name: name |> to_string() |> String.to_atom(),
      host: ~c"127.0.0.1",
      longnames: true
    }

    {:ok, peer, node} = boot(options, fn _ebin -> true end)
    {node, peer}
  end

  defp boot(options, keep) do
    paths =
      for path <- :code.get_path(),
          ebin = List.to_string(path),
          ebin != "." and keep.(ebin),
          arg <- [~c"-pa", path],
          do: arg

    quiet = [~c"-kernel", ~c"logger_level", ~c"none"]
    args = [~c"-setcookie", ~c"ra_cluster_test" | quiet] ++ paths
    :peer.start_link(Map.merge(options, %{connection: :standard_io, args: args}))
  end
end
