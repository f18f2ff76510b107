# What the demo and the benchmarks share.
# Invariant: nothing of either is needed here, nor there of the other.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.ToolsTest do
  use ExUnit.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.{CommandLine, Histogram}

  test "demo and benchmarks don't name each other, what they share names neither, the library none of them" do
    for {folder, others} <- [
          {"demo", ["Bench"]},
          {"bench", ["Demo"]},
          {"tools", ["Bench", "Demo"]},
          {"src", ["Bench", "Demo", "Tools"]}
        ],
        path <- Path.wildcard("#{folder}/**/*.ex"),
        other <- others,
        do: refute(File.read!(path) =~ ~r/\b#{other}\b/, "#{path} names #{other}")
  end

  test "latencies are at most 1/1024 above what they were" do
    histogram = Histogram.new()
    assert Histogram.percentile(histogram, 50) == 0

    for value <- [
          0,
          1,
          1000,
          1023,
          1024,
          1025,
          2047,
          2048,
          2049,
          1_000_000,
          123_456_789,
          60_000_000_000
        ] do
      histogram = Histogram.new()
      Histogram.add(histogram, value)
      Histogram.add(histogram, 2 * value + 1_000_000)
      assert Histogram.percentile(histogram, 50) in value..(value + div(value, 1024))
      assert Histogram.percentile(histogram, 100) == 2 * value + 1_000_000
      assert Histogram.max(histogram) == 2 * value + 1_000_000
    end
  end

  test "latencies of several histograms are those of one" do
    [one, other] = [Histogram.new(), Histogram.new()]
    for value <- 1..10, do: Histogram.add(one, value)
    for value <- 11..30, do: Histogram.add(other, value)

    merged = Histogram.merge([one, other, Histogram.new()])
    assert Histogram.percentile(merged, 50) == 15
    assert Histogram.max(merged) == 30
    assert Histogram.percentile(Histogram.merge([]), 50) == 0
  end

  describe "a command line" do
    @program %{name: "the program", takes: "takes"}
    @options [
      callers: [type: {:number, 1..9}, value: "N", default: 4, help: "how many\nat once"],
      rates: [type: {:numbers, 50..200//50}, value: "LIST", help: "how fast"],
      warm_up: [type: {:seconds, 60}, value: "S", default: 0.5, help: "how long before"],
      backend: [type: {:name, [:null, :slow, :ra]}, value: "NAME", default: :ra, help: "where"],
      peers: [type: {:names, [:one, :two]}, value: "NAMES", help: "who"],
      input: [type: :file, value: "FILE", help: "from where"],
      data_dir: [type: :text, value: "DIR", help: "to where"],
      quick: [type: :flag, default: false, help: "in short"]
    ]
    @defaults %{
      callers: 4,
      rates: nil,
      warm_up: 0.5,
      backend: :ra,
      peers: nil,
      input: nil,
      data_dir: nil,
      quick: false
    }

    defp parse(argv), do: CommandLine.parse(argv, @program, @options)

    test "has a value for each option: the given one, the last of several, or the default" do
      assert parse([]) == {:ok, @defaults}

      given =
        ~w(--callers 1 --callers 9 --rates 50,200 --warm-up 60 --backend null --peers two,one
                 --data-dir somewhere --quick) ++ ["--input", __ENV__.file]

      assert parse(given) ==
               {:ok,
                %{
                  callers: 9,
                  rates: [50, 200],
                  warm_up: 60.0,
                  backend: :null,
                  peers: [:two, :one],
                  input: __ENV__.file,
                  data_dir: "somewhere",
                  quick: true
                }}

      assert parse(["--no-quick"]) == {:ok, @defaults}
    end

    test "that is wrong is told the option, its value and what is allowed" do
      all = "--callers --rates --warm-up --backend --peers --input --data-dir --quick --help"

      for {argv, message} <- [
            {["--callers", "0"], "--callers must be from 1 to 9, not 0"},
            {["--callers", "x"], ~s(--callers takes a whole number, not "x")},
            {["--rates", "50,"], "--rates takes whole numbers with commas between, not 50,"},
            {["--rates", "50,60"], "--rates takes multiples of 50, not 50,60"},
            {["--rates", "250"], "--rates must be from 50 to 200, not 250"},
            {["--warm-up", "x"], ~s(--warm-up takes a number, not "x")},
            {["--warm-up", "0"], "--warm-up must be more than 0 and at most 60 seconds, not 0.0"},
            {["--backend", "etcd"], ~s(--backend must be null, slow or ra, not "etcd")},
            {["--peers", "one,six"], "--peers takes names out of one, two, not one,six"},
            {["--input", "/no/such"], "--input /no/such: no such file or directory"},
            {["--quick=5"], ~s(--quick takes no value, not "5")},
            {["--callers"],
             "--callers is no option of the program or lacks its value; allowed: #{all}"},
            {["--nonsense"],
             "--nonsense is no option of the program or lacks its value; allowed: #{all}"},
            {["nonsense"], ~s(the program takes options only, not "nonsense"; allowed: #{all})}
          ] do
        assert parse(argv) == {:error, message}
      end
    end

    test "whose program has a hint gives that in place of the list" do
      program = Map.put(@program, :hint, "look there")
      assert {:error, message} = CommandLine.parse(["nonsense"], program, @options)
      assert message == ~s(the program takes options only, not "nonsense"; look there)
    end

    test "asks for help with --help or -h, whatever else it has" do
      assert parse(["--help"]) == :help
      assert parse(["-h", "--callers", "0"]) == :help

      assert CommandLine.help(@options) == """
               --callers N       how many (4)
                                 at once
               --rates LIST      how fast
               --warm-up S       how long before (0.5)
               --backend NAME    where (ra)
               --peers NAMES     who
               --input FILE      from where
               --data-dir DIR    to where
               --quick           in short
               --help            this text\
             """
    end
  end
end
