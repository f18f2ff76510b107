defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.CommandLine do
  @moduledoc false
  # The demo's command line. One invariant: what `parse/1` accepts can be run as it stands.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.CommandLine

  @program %{name: "the demo", takes: "takes", hint: "--help lists them"}

  @options [
    shards: [type: {:number, 1..256}, value: "N", default: 4, help: "number of shards"],
    callers: [
      type: {:number, 1..100_000},
      value: "N",
      default: 256,
      help: "number of concurrent callers"
    ],
    seconds: [
      type: {:number, 1..86_400},
      value: "N",
      default: 10,
      help: "how long they write, all columns together, and the run with the kill"
    ],
    value_size: [
      type: {:number, 0..16_777_216},
      value: "N",
      default: 128,
      help: "bytes per value"
    ],
    window: [
      type: {:number, 0..60_000},
      value: "MS",
      default: 1,
      help:
        "window of the put and delete lanes, and the shortest of the namespaces\n" <>
          "0: puts and deletes outside of namespaces are committed in the caller"
    ],
    pacing: [
      type: {:name, [:commit, :window, :auto]},
      value: "NAME",
      default: :auto,
      help:
        "when what gathered behind a commit is committed, in the third column\n" <>
          "commit: when that ends; window: when its own window has passed; auto: as the load has taught"
    ],
    commit_scope: [
      type: {:name, [:lane, :shard]},
      value: "NAME",
      default: :shard,
      help:
        "what one commit takes, in the third column\n" <>
          "lane: what is due of one lane; shard: what is due of all lanes of a shard"
    ],
    backend: [
      type: {:name, [:ra, :null]},
      value: "NAME",
      default: :ra,
      help: "ra: Raft on disk; null: answers at once and stores nothing"
    ],
    nodes: [
      # As names, since there is nothing between them: two nodes are no majority without each other.
      type: {:name, [:"1", :"3"]},
      value: "N",
      default: :"1",
      help:
        "members of each shard's Raft group\n" <>
          "1: in this VM; 3: each in a VM of its own on this machine, with files of its own, while the\n" <>
          "callers and the batchers stay in this VM. After the three columns the load of the third is\n" <>
          "written once more, and in its middle the leader's node is killed: for how long nothing was\n" <>
          "acknowledged is told, and how many writes are of unknown outcome, since the leader had them"
    ],
    no_kill: [
      type: :flag,
      default: false,
      help: "with --nodes 3: no node is killed. Nor is one with --input"
    ],
    data_dir: [
      type: :text,
      value: "DIR",
      help:
        "where Raft keeps its files: a new or empty directory, which is left in place\n" <>
          "(by default a fresh one, removed when all went well)"
    ],
    metrics_port: [
      type: {:number, 0..65_535},
      value: "N",
      help:
        "serve what the batchers count to Prometheus at http://127.0.0.1:N/metrics; 0: on any free port, which\n" <>
          "is told. If somebody scrapes that, each column with a batcher ends with one more scrape"
    ],
    input: [
      type: :file,
      value: "FILE",
      help:
        "replay the commands of FILE instead: a Redis append-only file in its text form\n" <>
          "(SET with EX, PX, EXAT, PXAT; DEL, INCR, INCRBY, DECR, DECRBY; the rest is reported)"
    ],
    expected: [
      type: :file,
      value: "FILE",
      help:
        "compare what the replay stored with FILE, one line for each key: the key in Base64, a tab,\n" <>
          "the value in Base64, a tab, 1 if it has an expiry, otherwise 0"
    ]
  ]

  @type t :: %{
          shards: pos_integer(),
          callers: pos_integer(),
          seconds: pos_integer(),
          value_size: non_neg_integer(),
          pacing: :commit | :window | :auto,
          commit_scope: :lane | :shard,
          nodes: 1 | 3,
          kill?: boolean(),
          window: non_neg_integer(),
          backend: :ra | :null,
          data_dir: Path.t() | nil,
          metrics_port: :inet.port_number() | nil,
          input: Path.t() | nil,
          expected: Path.t() | nil
        }

  @spec parse([String.t()]) :: {:ok, t()} | :help | {:error, String.t()}
  def parse(argv) do
    with {:ok, options} <- CommandLine.parse(argv, @program, @options) do
      cond do
        options.expected && !options.input ->
          {:error, "--expected compares the result of a replay, so it needs --input FILE"}

        options.expected && options.backend == :null ->
          {:error,
           "--expected compares what is stored, and the null backend stores nothing; use --backend ra"}

        options.nodes == :"3" && options.backend == :null ->
          {:error,
           "--nodes 3 makes a Raft cluster, and the null backend has none; use --backend ra"}

        options.no_kill && options.nodes == :"1" ->
          {:error, "--no-kill spares a node of a cluster, so it needs --nodes 3"}

        true ->
          {:ok, checked(options)}
      end
    end
  end

  defp checked(options) do
    {no_kill, options} = Map.pop(options, :no_kill)
    nodes = options.nodes |> Atom.to_string() |> String.to_integer()
    kill? = nodes == 3 and not no_kill and options.input == nil
    Map.merge(options, %{nodes: nodes, kill?: kill?})
  end

  @spec help() :: String.t()
  def help do
    """
    Usage: mix batcher.demo [options]

    Starts shards, lets many callers write to them at once, with a commit for each call, then through the batcher with
    its defaults, then through the batcher with --pacing and --commit-scope, compares the three, and reads every
    acknowledged write back.

    #{CommandLine.help(@options)}

    The last line is "N writes acknowledged, N read back, 0 lost" and the exit status 0; otherwise it is 1.
    """
  end
end
