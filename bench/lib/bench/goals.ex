defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Goals do
  @moduledoc false
  # What the batcher is to reach, and whether it did, from the lines of one run.
  # One invariant: a goal whose figures were not measured is neither met nor missed.

  import Ferricstore.Raft.WARaftBackend.Batcher.Bench.Goals.Figures

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Goals.{Auto, Figures}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Line

  @callers [16, 256, 2_000, 10_000]
  # Against each peer at each number of callers: at least so many times its writes per second.
  @throughput [
    floor: [0.75, 0.95, 0.95, 0.95],
    gbs: [1.2, 1.5, 1.7, 1.4],
    genserver: [20, 2.6, 3.2, 2]
  ]
  # At most so many times the floor's processor time per write.
  @cpu [1.3, 1.1, 1.1, 1.1]
  @on_disk [
    direct: [{16, 1}, {256, 3}, {2_000, 5}],
    genserver: [{16, 4}, {256, 1.5}, {2_000, 1.5}]
  ]
  @aliases [:call_alias, :process_alias]
  @flat 1.15
  @slow_commit_ms 1
  @lock_ns 200
  @value 65_536
  @peers %{
    floor: "the floor",
    gbs: "gen_batch_server",
    genserver: "the GenServer batcher",
    direct: "direct commits"
  }

  @typedoc "`figure` is `nil` if it was not measured; where it was is part of the text if it is the worst of several."
  @type goal :: %{
          text: String.t(),
          bound: {:at_least | :at_most, number},
          figure: number | nil,
          met: boolean | nil
        }

  @typedoc "What is to be reached, as it is judged."
  @type to_reach :: {String.t(), {:at_least | :at_most, number}, Figures.figure()}

  @spec judge([Line.t()]) :: [goal]
  def judge(lines) do
    for {text, bound, figure} <- goals() ++ Auto.goals(), do: judge(text, bound, figure.(lines))
  end

  defp judge(text, bound, {figure, where}), do: judge("#{text} (#{where})", bound, figure)

  defp judge(text, bound, nil), do: %{text: text, bound: bound, figure: nil, met: nil}

  defp judge(text, {how, limit} = bound, figure) do
    met = if how == :at_least, do: figure >= limit, else: figure <= limit
    %{text: text, bound: bound, figure: figure, met: met}
  end

  defp goals do
    throughput() ++
      cpu() ++
      alone() ++ groups() ++ async() ++ values() ++ slow() ++ on_disk() ++ costs() ++ lock()
  end

  defp throughput do
    for {peer, bounds} <- @throughput, {callers, bound} <- Enum.zip(@callers, bounds) do
      {"#{callers} callers: writes/s against #{@peers[peer]}", {:at_least, bound},
       value(:throughput, [backend: :null, callers: callers], :"ratio_#{peer}")}
    end
  end

  defp cpu do
    for {callers, bound} <- Enum.zip(@callers, @cpu) do
      {"#{callers} callers: processor time per write against the floor", {:at_most, bound},
       value(:cpu, [of: :throughput, backend: :null, callers: callers], :ratio_floor)}
    end
  end

  defp alone do
    [
      {"1 caller: writes/s against gen_batch_server", {:at_least, 1},
       value(:throughput, [backend: :null, callers: 1], :ratio_gbs)},
      {"1 caller: latency p99.9 below the window of 1 ms, in us", {:at_most, 1_000},
       value(:latency, [backend: :null, callers: 1, peer: :batcher], :p999_us)}
    ]
  end

  defp groups do
    for {peer, bound, of} <- [
          {:genserver, 2, "the GenServer batcher"},
          {:floor, 1 / 1.2, "one copy of the list between two processes"}
        ] do
      {"groups of 100: entries/s against #{of}", {:at_least, bound},
       value(:groups, [backend: :null, group: 100], :"ratio_#{peer}")}
    end
  end

  defp async do
    for callers <- [256, 2_000],
        group <- [1, 10],
        {figure, bound, of} <- [
          {:against_pid, 0.9, "replies to pids"},
          {:ratio_genserver, 2, "the GenServer batcher"}
        ] do
      {"#{callers} callers, groups of #{group}, replies to aliases: entries/s against #{of}",
       {:at_least, bound},
       lowest(
         for from <- @aliases,
             params = [backend: :null, callers: callers, group: group, from: from],
             do: value(:async, params, figure)
       )}
    end
  end

  # As many bytes as a reference, its caller and the slot take, which is far from 64 KiB.
  defp values do
    for {kind, of} <- [memory: "bytes allocated", binary_memory: "bytes of binaries allocated"] do
      {"values of 64 KiB: #{of} per queued write", {:at_most, 1_024},
       value(kind, [value: @value], :batcher)}
    end
  end

  defp slow do
    for callers <- [16, 64, 256] do
      {"commit of 1 ms, #{callers} callers: writes/s against callers / 1 ms", {:at_least, 0.95},
       fn lines ->
         rate = value(:throughput, [backend: :slow, callers: callers], :batcher).(lines)
         rate && rate / (callers * 1_000 / @slow_commit_ms)
       end}
    end
  end

  defp on_disk do
    for {peer, bounds} <- @on_disk, {callers, bound} <- bounds do
      {"Ra on disk, #{callers} callers: writes/s against #{@peers[peer]}", {:at_least, bound},
       value(:throughput, [backend: :ra, callers: callers], :"ratio_#{peer}")}
    end
  end

  defp costs do
    [
      {"window of 5 ms, idle machine: commit begins after, median in ms", {:at_most, 5.3},
       value(:window, [window_ms: 5, peer: :batcher], :p50_ms)},
      {"time per write up to 1 000 000 queued, against 1 000 queued", {:at_most, @flat},
       growth(:depth, [peer: :batcher], {:queued, 1_000, 1_000_000}, :ns_per_write)},
      {"processor time per write up to 64 shards, against 1 shard", {:at_most, @flat},
       growth(:cpu, [of: :shards], {:shards, 1, 64}, :batcher)}
    ]
  end

  # A caller alone opens a slot with each write, of many nearly all join one.
  defp lock do
    for {callers, who} <- [{256, "256 callers"}, {1, "1 caller"}] do
      {"#{who}, small commands: shard lock held by a write, median in ns", {:at_most, @lock_ns},
       value(:lock, [lane: :namespace, callers: callers], :p50_ns)}
    end
  end

  @doc "The goals in columns, for a terminal."
  @spec table([goal]) :: String.t()
  def table(goals) do
    rows = for goal <- goals, do: cells(goal)
    width = rows |> Enum.map(&String.length(hd(&1))) |> Enum.max()

    lines =
      for [text, bound, figure, verdict] <- [["goal", "bound", "figure", ""] | rows] do
        [text, bound, figure] = [
          String.pad_trailing(text, width),
          String.pad_leading(bound, 9),
          String.pad_leading(figure, 9)
        ]

        String.trim_trailing("#{text} #{bound} #{figure}  #{verdict}")
      end

    Enum.join(["" | lines] ++ [summary(goals)], "\n")
  end

  @doc "How many are met."
  @spec summary([goal]) :: String.t()
  def summary(goals) do
    met = Enum.count(goals, & &1.met)
    missed = Enum.count(goals, &(&1.met == false))
    "#{met} goals met, #{missed} not met, #{length(goals) - met - missed} not measured"
  end

  @doc "A goal as text: what, bound, figure, verdict."
  @spec cells(goal) :: [String.t()]
  def cells(%{text: text, bound: {how, bound}, figure: figure, met: met}) do
    sign = if how == :at_least, do: ">= ", else: "<= "
    verdict = %{true: "met", false: "NOT MET", nil: "not measured"}[met]
    [text, sign <> number(bound), if(figure, do: number(figure), else: "-"), verdict]
  end

  defp number(number) when is_integer(number), do: Integer.to_string(number)
  defp number(number) when number >= 100, do: Integer.to_string(round(number))
  defp number(number), do: :erlang.float_to_binary(number / 1, decimals: 2)
end
