# The demo as its user sees it, and the parts that decide whether something was lost.
# Invariant: a test runs the demo in a directory of its own, and nothing of Ra runs or lies about after it.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.DemoTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo
  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Command, Expected, ReadBack}

  @moduletag :capture_log

  @fixtures Path.expand("fixtures", __DIR__)
  @sample Path.join(@fixtures, "redis-7.0-sample.aof")
  @expected Path.join(@fixtures, "redis-7.0-sample.expected.tsv")

  if Code.ensure_loaded?(:ra) do
    @ra []
  else
    @ra [skip: "Ra is not on the code path: run `make setup`, or add {:ra, \"~> 2.0 or ~> 3.0\"}"]
  end

  setup do
    directory = Path.join(System.tmp_dir!(), "demo-test-#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{directory: directory}
  end

  defp demo(argv) do
    test = self()

    errors =
      capture_io(:stderr, fn ->
        output = capture_io(fn -> send(test, {:status, Demo.main(argv)}) end)
        send(test, {:output, output})
      end)

    assert_received {:status, status}
    assert_received {:output, output}
    {status, String.split(output, "\n", trim: true), errors}
  end

  # With a data directory that is in place already, and empty.
  defp demo_on_ra(argv, directory) do
    data = Path.join(directory, "data")
    File.rm_rf!(data)
    File.mkdir_p!(data)
    demo(argv ++ ["--data-dir", data])
  end

  defp file(directory, name, content) do
    path = Path.join(directory, name)
    File.write!(path, content)
    path
  end

  describe "the command line" do
    test "--help lists the options" do
      {0, lines, ""} = demo(["--help"])

      for option <- ~w(shards callers seconds value-size window pacing commit-scope backend nodes
            no-kill data-dir metrics-port input expected) do
        assert Enum.any?(lines, &(&1 =~ "  --#{option} "))
      end
    end

    test "a bad option is named, with its value", %{directory: directory} do
      taken = Path.dirname(file(directory, "taken", ""))

      for {argv, words} <- [
            {["--shards", "0"], "--shards must be from 1 to 256, not 0"},
            {["--callers", "many"], ~s(--callers takes a whole number, not "many")},
            {["--window", "-1"], "--window must be from 0"},
            {["--backend", "etcd"], ~s(not "etcd")},
            {["--pacing", "fast"], ~s(--pacing must be commit, window or auto, not "fast")},
            {["--commit-scope", "all"], ~s(--commit-scope must be lane or shard, not "all")},
            {["--nodes", "2"], ~s(--nodes must be 1 or 3, not "2")},
            {["--nodes", "3", "--backend", "null"], "--nodes 3 makes a Raft cluster"},
            {["--no-kill"], "--no-kill spares a node of a cluster, so it needs --nodes 3"},
            {["--metrics-port", "70000"], "--metrics-port must be from 0 to 65535, not 70000"},
            {["--nonsense"], "--nonsense is no option"},
            {["nonsense"], ~s(not "nonsense")},
            {["--input", "/no/such/file"], "/no/such/file: no such file"},
            {["--expected", @expected], "needs --input"},
            {["--data-dir", taken], "is not empty"}
          ] do
        assert {1, [], errors} = demo(argv)
        assert errors =~ words
      end
    end

    test "the Mix task ends with the status of the demo" do
      capture_io(:stderr, fn ->
        assert catch_exit(Mix.Tasks.Batcher.Demo.run(["--shards", "0"])) == {:shutdown, 1}
      end)
    end
  end

  describe "the load" do
    test "on the null backend: all is answered, nothing can be read back" do
      {0, lines, ""} = demo(~w(--backend null --seconds 1 --callers 8 --shards 2))

      assert List.last(lines) =~
               ~r/\A[1-9]\d* writes acknowledged; the null backend stores nothing/
    end

    @tag @ra
    test "on Ra: what was acknowledged is read back, with and without the batcher", %{
      directory: directory
    } do
      before = Application.get_all_env(:ferricstore)
      {0, lines, ""} = demo_on_ra(~w(--seconds 1 --callers 16 --shards 2), directory)

      assert [_, writes, writes] =
               Regex.run(
                 ~r/\A(\d+) writes acknowledged, (\d+) read back, 0 lost\z/,
                 List.last(lines)
               )

      assert String.to_integer(writes) > 0

      assert Enum.any?(lines, &(&1 =~ ~r/\A +direct +default +auto\z/))
      assert Enum.any?(lines, &(&1 =~ ~r/\Athe demo itself takes \d+\.\d\d us per write/))

      for row <- [
            "acknowledged writes",
            "writes/s",
            "times direct",
            "Raft commits",
            "writes per commit",
            "latency p50",
            "latency p99",
            "latency max"
          ] do
        assert Enum.any?(lines, &String.starts_with?(&1, row))
      end

      assert Application.get_all_env(:ferricstore) == before
    end
  end

  describe "the replay" do
    @describetag @ra

    test "of a real file ends in exactly what Redis held", %{directory: directory} do
      {0, lines, ""} = demo_on_ra(["--input", @sample, "--expected", @expected], directory)
      assert List.last(lines) == "5650 writes acknowledged, 5650 read back, 0 lost"
      assert "3344 keys are as #{@expected} has them, 0 are not" in lines
      assert "  HSET: 173, first as command 11 at byte 1106" in lines
    end

    test "of a truncated file commits what is whole, then gives the byte offset", %{
      directory: directory
    } do
      path = file(directory, "cut.aof", binary_part(File.read!(@sample), 0, 300_000))
      {1, lines, errors} = demo_on_ra(["--input", path], directory)
      assert "2989 commands read" in lines
      assert "2999 writes acknowledged, 2999 read back, 0 lost" in lines
      assert errors =~ "#{path}: byte 300000: the file is truncated"
    end

    test "keeps the order of each key among many callers and lanes", %{directory: directory} do
      :rand.seed(:exsss, {1, 2, 3})

      commands =
        for n <- 1..4000 do
          key = Enum.random(["a", "ns:b", "ns:c", "d", "e:f:g"])

          case :rand.uniform(4) do
            1 -> ["SET", key, "#{n}"]
            2 -> ["SET", key, "#{n}", "PXAT", "#{n}"]
            3 -> ["DEL", key]
            4 -> ["INCRBY", key, "#{n}"]
          end
        end

      stored = Enum.reduce(commands, %{}, &apply_command/2)

      input =
        file(
          directory,
          "order.aof",
          for(command <- commands, do: [Enum.join(command, " "), "\n"])
        )

      expected =
        for {key, {value, flag}} <- stored do
          "#{Base.encode64(key)}\t#{Base.encode64(value)}\t#{flag}\n"
        end

      argv = [
        "--input",
        input,
        "--expected",
        file(directory, "order.tsv", expected),
        "--shards",
        "2"
      ]

      {0, lines, ""} = demo_on_ra(argv, directory)
      assert List.last(lines) == "4000 writes acknowledged, 4000 read back, 0 lost"
    end

    test "reports what it skips and what the store refuses, with count and place", %{
      directory: directory
    } do
      content = """
      set text word
      incr text
      SET other 1 NX
      MULTI
      SET other 2
      EXEC
      SELECT 1
      set other 3 nx
      DEL text other none
      """

      {0, lines, ""} = demo_on_ra(["--input", file(directory, "inline.aof", content)], directory)

      for line <- [
            "  SET NX: 2, first as command 3 at byte 24",
            "  MULTI: 1, first as command 4 at byte 39",
            "  EXEC: 1, first as command 6 at byte 57",
            "  SELECT 1: 1, first as command 7 at byte 62",
            "  :not_an_integer: 1, first as command 2 at byte 14"
          ] do
        assert line in lines
      end

      assert List.last(lines) == "5 writes acknowledged, 5 read back, 0 lost"
    end

    test "that ends in something else is status 1, and names the key", %{directory: directory} do
      input = file(directory, "in.aof", "SET a 1\nSET b 2\nSET c 3 PXAT 9\n")

      expected =
        for {key, value, flag} <- [{"a", "1", 0}, {"b", "x", 0}, {"d", "4", 0}],
            do: [Base.encode64(key), ?\t, Base.encode64(value), "\t#{flag}\n"]

      {1, lines, errors} =
        demo_on_ra(
          ["--input", input, "--expected", file(directory, "e.tsv", expected)],
          directory
        )

      assert Enum.any?(lines, &(&1 =~ "1 keys are as "))
      assert errors =~ ~s("b" has another value)
      assert errors =~ ~s("d" is missing)
    end
  end

  describe "commands" do
    test "expiries become absolute milliseconds" do
      for {options, expire_at_ms} <- [
            {[], 0},
            {["EX", "2"], 1_002_000},
            {["px", "2"], 1_000_002},
            {["ExAt", "2"], 2000},
            {["PXAT", "2"], 2}
          ] do
        assert Command.parse(["set", "k", "v" | options], 1_000_000) ==
                 {:writes, [{:put, "k", "v", expire_at_ms}]}
      end
    end

    test "what can't be honoured is skipped under a name that says so" do
      for {args, name} <- [
            {["SET", "k", "v", "NX"], "SET NX"},
            {["SET", "k", "v", "PX", "9", "keepttl"], "SET KEEPTTL"},
            {["SET", "k", "v", "EX", "0"], "SET (invalid expiry)"},
            {["SET", "k", "v", "EX", "9223372036854775807"], "SET (invalid expiry)"},
            {["SET", "k", "v", "EX", "1", "PX", "1"], "SET (syntax error)"},
            {["SET", "k", "v", "EX"], "SET (syntax error)"},
            {["SET", "k"], "SET (wrong number of arguments)"},
            {["DEL"], "DEL (wrong number of arguments)"},
            {["INCRBY", "k", "1.5"], "INCRBY (increment is no 64-bit integer)"},
            {["INCRBY", "k", "+1"], "INCRBY (increment is no 64-bit integer)"},
            {["DECRBY", "k", "-9223372036854775808"], "DECRBY (increment is no 64-bit integer)"},
            {["json.set", "k"], "JSON.SET"}
          ] do
        assert Command.parse(args, 0) == {:skip, name}
      end
    end

    test "counters and deletes" do
      assert Command.parse(["incr", "k"], 0) == {:writes, [{:incr, "k", 1}]}
      assert Command.parse(["DECR", "k"], 0) == {:writes, [{:incr, "k", -1}]}
      assert Command.parse(["INCRBY", "k", "-5"], 0) == {:writes, [{:incr, "k", -5}]}
      assert Command.parse(["DECRBY", "k", "5"], 0) == {:writes, [{:incr, "k", -5}]}
      assert Command.parse(["DEL", "a", "b"], 0) == {:writes, [{:delete, "a"}, {:delete, "b"}]}
    end
  end

  describe "what was lost is found" do
    test "a write that is absent, another's, still there or done twice, and a key from nowhere" do
      stored = %{
        "kept" => {"v", 0},
        "other" => {"w", 0},
        "expiry" => {"v", 1},
        "there" => {"v", 0},
        "sum" => {"8", 0},
        "extra" => {"v", 0}
      }

      expectations = [
        {"kept", [{"v", 0}], 1},
        {"absent", [{"v", 0}], 1},
        {"other", [{"v", 0}], 2},
        {"expiry", [{"v", 0}], 4},
        {"there", [:absent], 8},
        {"sum", [{:sum, 7..7}], 16}
      ]

      result = ReadBack.compare(stored, expectations)
      assert %{read_back: 1, lost: 31, unexpected: 1} = result
      assert length(result.examples) == 5
    end

    test "a write of unknown outcome may or may not be there" do
      for stored <- [%{}, %{"k" => {"v", 0}}, %{"k" => {"w", 0}}] do
        result = ReadBack.compare(stored, [{"k", [:absent, {"v", 0}, {"w", 0}], 3}])
        assert %{read_back: 3, lost: 0, unexpected: 0} = result
      end

      assert %{read_back: 0, lost: 0} =
               ReadBack.compare(%{"k" => {"v", 0}}, [{"k", [:unknown], 3}])
    end

    test "a file of expectations is compared in both directions", %{directory: directory} do
      line = fn key, value, flag ->
        "#{Base.encode64(key)}\t#{Base.encode64(value)}\t#{flag}\n"
      end

      path = file(directory, "e.tsv", [line.("a", "1", 0), line.("b", "2", 1), "not a line\n"])

      assert %{equal: 2, wrong: 1} =
               Expected.compare(path, %{"a" => {"1", 0}, "b" => {"2", 9}}, fn _ -> true end)

      assert %{equal: 1, wrong: 3} =
               Expected.compare(path, %{"a" => {"1", 0}, "z" => {"", 0}}, fn _ -> true end)

      assert %{equal: 1, wrong: 0} = Expected.compare(path, %{"a" => {"1", 0}}, &(&1 == "a"))
    end
  end

  # What Redis would do, one command after the other.
  defp apply_command(["SET", key, value], stored), do: Map.put(stored, key, {value, 0})
  defp apply_command(["SET", key, value, "PXAT", _], stored), do: Map.put(stored, key, {value, 1})
  defp apply_command(["DEL", key], stored), do: Map.delete(stored, key)

  defp apply_command(["INCRBY", key, by], stored) do
    {value, flag} = Map.get(stored, key, {"0", 0})
    Map.put(stored, key, {"#{String.to_integer(value) + String.to_integer(by)}", flag})
  end
end
