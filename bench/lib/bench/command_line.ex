defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.CommandLine do
  @moduledoc false
  # The command line of the benchmarks. One invariant: what `parse/1` accepts can be run as it stands.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Backends, Peer, Suite}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.CommandLine

  @program %{name: "the benchmarks", takes: "take"}

  # What is `nil` is the suite's to say, for each of its parts.
  @type t :: %{
          only: [atom] | nil,
          peers: [Peer.name()] | nil,
          backend: Backends.name() | nil,
          callers: [pos_integer] | nil,
          groups: [pos_integer] | nil,
          values: [non_neg_integer] | nil,
          shards: [pos_integer] | nil,
          namespaces: [pos_integer] | nil,
          loads: [pos_integer] | nil,
          windows: [non_neg_integer] | nil,
          depths: [pos_integer] | nil,
          repeat: pos_integer | nil,
          seconds: float | nil,
          warm_up: float | nil,
          data_dir: Path.t(),
          quick: boolean,
          report: boolean
        }

  @spec parse([String.t()]) :: {:ok, t} | :help | {:error, String.t()}
  def parse(argv) do
    with {:ok, options} <- CommandLine.parse(argv, @program, options()),
         options = with_report(options),
         # Options that are right each may not go together.
         {:ok, _specs} <- Suite.specs(options),
         do: {:ok, options}
  end

  # Unless asked for, only the whole of it makes a report.
  defp with_report(%{report: nil} = options) do
    others = options |> Map.drop([:data_dir, :report]) |> Map.values()
    %{options | report: Enum.all?(others, &(&1 in [nil, false]))}
  end

  defp with_report(options), do: options

  defp options do
    [
      only: names(Suite.names(), " (all)"),
      peers: names(Peer.names(), "; figures are compared with the first one's"),
      backend: [
        type: {:name, Backends.names()},
        value: "NAME",
        help:
          Enum.join(Backends.names(), ", ") <>
            ":\nanswers at once; takes 1 ms; Raft on disk; a log whose commits take so long, one after the other"
      ],
      callers: list(1..100_000, "how many callers write at once"),
      groups: list(1..100_000, "entries in one call of the put lane (groups, async)"),
      values: list(0..16_777_216, "bytes of a value"),
      shards: list(1..256, "how many shards the callers are spread over"),
      namespaces: list(1..10_000, "and how many namespaces in each"),
      loads: list(1..1_000, "rates in percent of what saturates direct commits (open)"),
      windows: list(0..60_000, "windows in milliseconds (window, open)"),
      depths: list(1..10_000_000, "queued writes (depth)"),
      repeat: [
        type: {:number, 1..1_000},
        value: "N",
        help: "samples of each figure, in mix three times as many of up to 4 callers"
      ],
      seconds: [type: {:seconds, 3_600}, value: "S", help: "length of a sample"],
      warm_up: [type: {:seconds, 3_600}, value: "S", help: "what goes before it"],
      data_dir: [
        type: :text,
        value: "DIR",
        default: "_build/bench/data",
        help: "where Raft keeps its files while it is measured, on a real disk"
      ],
      quick: [
        type: :flag,
        default: false,
        help: "a first impression: fewer numbers, shorter, less than four minutes"
      ],
      report: [
        type: :flag,
        help:
          "write bench/REPORT.md and its plots (--no-report: don't; the default of a whole run)"
      ]
    ]
  end

  defp names(allowed, more),
    do: [type: {:names, allowed}, value: "NAMES", help: Enum.join(allowed, ", ") <> more]

  defp list(range, help), do: [type: {:numbers, range}, value: "LIST", help: help]

  @spec help() :: String.t()
  def help do
    """
    Usage: mix batcher.bench [options]

    Measures the batcher against a GenServer batcher, gen_batch_server, direct commits and the floor of what a call
    through a process costs, all in one run, in turn, and compares the medians with the goals.

    #{CommandLine.help(options())}

    For one figure: mix batcher.bench --only throughput --callers 2000 --backend null --peers batcher,floor
    The exit status is 0 if everything was measured, whatever came out, 1 if not, 2 for a bad option.
    """
  end
end
