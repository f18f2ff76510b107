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
      help: "how long they write, both phases together"
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
    backend: [
      type: {:name, [:ra, :null]},
      value: "NAME",
      default: :ra,
      help: "ra: Raft on disk; null: answers at once and stores nothing"
    ],
    data_dir: [
      type: :text,
      value: "DIR",
      help:
        "where Raft keeps its files: a new or empty directory, which is left in place\n" <>
          "(by default a fresh one, removed when all went well)"
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
          window: non_neg_integer(),
          backend: :ra | :null,
          data_dir: Path.t() | nil,
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

        true ->
          {:ok, options}
      end
    end
  end

  @spec help() :: String.t()
  def help do
    """
    Usage: mix batcher.demo [options]

    Starts shards, lets many callers write to them at once, first with a commit for each call, then through the
    batcher, compares the two, and reads every acknowledged write back.

    #{CommandLine.help(@options)}

    The last line is "N writes acknowledged, N read back, 0 lost" and the exit status 0; otherwise it is 1.
    """
  end
end
