# `mix batcher.top`: what it shows of another node, and what it says where it can't; 22.6 of the contract.
# Invariant: nodes that were started here are stopped, and a distribution that ran before stays.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.TopTaskTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import ExUnit.CaptureIO

  alias Ferricstore.Raft.WARaftBackend.Batcher.{TestJson, TestPeer}

  # A node without batchers.
  setup_all do
    {node, _, _} = peer = TestPeer.start()
    on_exit(fn -> TestPeer.stop(peer) end)
    %{empty: node}
  end

  # In a VM of its own, which has no name yet.
  defp top(arguments) do
    cookie = Atom.to_string(Node.get_cookie())
    arguments = ["batcher.top", "--cookie", cookie | arguments]
    # Of the build that is tested.
    System.cmd("mix", arguments, stderr_to_stdout: true, env: [{"MIX_ENV", "#{Mix.env()}"}])
  end

  # Mix may have compiled something before, and said so.
  defp last_line(output), do: output |> String.split("\n", trim: true) |> List.last()

  test "22.6 --json tells the shards and lanes of a running node, without a terminal", %{
    shard: shard
  } do
    start_batcher(shard)
    for i <- 1..3, do: Batcher.write(shard, "users", {:put, "k#{i}", "v", 0}, 1)

    assert {output, 0} = top(["#{node()}", "--json", "--interval", "50"])

    assert %{"node" => node, "seconds" => _, "shards" => shards, "lanes" => lanes} =
             output |> last_line() |> TestJson.decode!()

    assert node == "#{node()}"

    assert %{"writes_per_second" => nothing, "commit_p99_ms" => nil, "queued_items" => 0} =
             Enum.find(shards, &(&1["shard"] == shard))

    assert nothing == 0

    assert Enum.any?(lanes, &(&1["shard"] == shard and &1["lane"] == "users"))
  end

  test "22.6 --json tells lanes apart, whatever they are called", %{shard: shard} do
    start_batcher(shard)
    for prefix <- ["batch", <<255, 1>>, "<<255, 1>>"], do: Batcher.write(shard, prefix, {:a}, 1)
    Batcher.write_batch(shard, [{:a}])

    output =
      capture_io(fn -> Mix.Tasks.Batcher.Top.run(["#{node()}", "--json", "--interval", "1"]) end)

    told =
      for %{"shard" => ^shard} = lane <- TestJson.decode!(output)["lanes"],
          do: {lane["kind"], lane["lane"], lane["lane_base64"]}

    assert Enum.sort(told) == [
             {"batch", "batch", nil},
             {"namespace", "<<255, 1>>", nil},
             {"namespace", "<<255, 1>>", "/wE="},
             {"namespace", "batch", nil}
           ]
  end

  test "22.6 --once prints a page", %{shard: shard} do
    start_batcher(shard)
    assert {output, 0} = top(["#{node()}", "--once", "--interval", "50"])
    assert output =~ ~r/^ +shard +writes\/s/m
    assert output =~ ~r/^ *#{shard} +0 +0 +- +0 +0\.0 +- +0$/m
  end

  test "22.6 --help and -h say how it is called, with status 0" do
    for arguments <- [["--help"], ["-h"], ["a@b", "--help"]] do
      output = capture_io(fn -> assert Mix.Tasks.Batcher.Top.run(arguments) == :ok end)
      assert output =~ ~r/\AUsage: mix batcher.top NODE/

      for option <- ~w(once json interval cookie help),
          do: assert(output =~ ~r/^ +\* `--#{option}\b/m, option)
    end
  end

  test "22.6 says what is wrong, with status 1" do
    long = String.duplicate("n", 300)

    for {arguments, words} <- [
          {[], "takes one node, not 0"},
          {["a@b", "c@d"], "takes one node, not 2"},
          {["nonsense"], ~s("nonsense" is no name of a node)},
          {["a@b", "--interval", "0"], "--interval must be from 1 to"},
          {["a@b", "--interval", "x"], ~s(--interval can't be "x")},
          {["a@b", "--nonsense"], "--nonsense is no option"},
          {["nobody@127.0.0.1", "--json"], "nobody@127.0.0.1 can't be reached"},
          {["#{long}@127.0.0.1", "--json"], "the name of a node can't have 310 characters"},
          {["a@#{long}.org", "--once"], "the name of a node can't have 306 characters"},
          {["a@b", "--cookie", long], "--cookie can't have 300 characters"},
          {["a@b", "--cookie", String.duplicate("e\u0301", 150)], "--cookie can't have 300"},
          {[<<255>> <> "@b"], "<<255, 64, 98>> is no name of a node"},
          {["a@b", "--cookie", <<255>>], "--cookie can't be <<255>>"}
        ] do
      output =
        capture_io(:stderr, fn ->
          assert catch_exit(Mix.Tasks.Batcher.Top.run(arguments)) == {:shutdown, 1}
        end)

      assert output =~ words
    end
  end

  test "22.6 of a node without batchers says so", %{empty: empty} do
    for how <- [["--json", "--interval", "1"], ["--once", "--interval", "1"], []] do
      output =
        capture_io(:stderr, fn ->
          assert catch_exit(Mix.Tasks.Batcher.Top.run(["#{empty}" | how])) == {:shutdown, 1}
        end)

      assert output =~ "no batcher runs on #{empty}"
    end
  end

  test "22.6 of a node without this library says so" do
    {:ok, peer, bare} =
      :peer.start(%{name: :"bare_#{System.pid()}", host: ~c"127.0.0.1", longnames: true})

    output =
      capture_io(:stderr, fn ->
        assert catch_exit(Mix.Tasks.Batcher.Top.run(["#{bare}", "--once"])) == {:shutdown, 1}
      end)

    :peer.stop(peer)
    assert output =~ "has no batcher"
  end
end
