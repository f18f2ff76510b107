defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Report do
  @moduledoc false
  # What the demo prints: a progress line each second, the table, the verdict.
  # One invariant: it only reads; a phase runs the same whether somebody watches or not.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.Meter
  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.{Histogram, Terminal}

  @interval 1000
  @no_value "-"

  @typedoc "A phase that is over: seconds that it took, Raft commits that it made (nil: the backend has none)."
  @type phase :: %{meter: Meter.t(), seconds: float(), commits: non_neg_integer() | nil}

  @doc """
  Runs `fun`, with a progress line each second meanwhile, and returns its result and the seconds it took.
  """
  @spec watch(Meter.t(), (() -> result)) :: {result, float()} when result: term()
  def watch(meter, fun) do
    ticker = Task.async(fn -> tick(meter, System.monotonic_time(:millisecond), 0, 0) end)
    started = System.monotonic_time(:microsecond)
    result = fun.()
    seconds = (System.monotonic_time(:microsecond) - started) / 1_000_000
    send(ticker.pid, :stop)
    Task.await(ticker, :infinity)
    {result, seconds}
  end

  defp tick(meter, started, ticks, before) do
    next = started + (ticks + 1) * @interval

    receive do
      :stop -> Terminal.overwrite(:stdio, "")
    after
      max(next - System.monotonic_time(:millisecond), 0) ->
        acknowledged = Meter.acknowledged(meter)
        progress(meter, ticks + 1, acknowledged, acknowledged - before)
        tick(meter, started, ticks + 1, acknowledged)
    end
  end

  defp progress(meter, seconds, acknowledged, last_second) do
    line =
      String.pad_trailing(meter.name, 8) <>
        String.pad_leading("#{seconds} s", 6) <>
        String.pad_leading("#{acknowledged}", 10) <>
        " acknowledged" <>
        String.pad_leading("#{last_second}/s", 10) <>
        waiting(meter) <>
        ", #{Meter.failed(meter)} failed"

    if Terminal.watched?(), do: Terminal.overwrite(:stdio, line), else: IO.puts(line)
  end

  defp waiting(%{via: :batched, shards: shards}) do
    {queued, in_flight} =
      for shard <- shards, state = Batcher.snapshot(shard), reduce: {0, 0} do
        {queued, in_flight} -> {queued + queued(state), in_flight + map_size(state.in_flight)}
      end

    ", #{queued} queued, #{in_flight} commits in flight"
  end

  defp waiting(_direct), do: ""

  defp queued(state) do
    hot = for slot <- [state.batch_slot, state.put_slot, state.delete_slot], slot != nil, do: slot
    Enum.sum(for slot <- hot ++ Map.values(state.slots), do: slot.count)
  end

  @spec table(phase(), phase()) :: :ok
  def table(direct, batched) do
    [left, right] = Enum.map([direct, batched], &figures/1)

    rows =
      for {{label, unit, a}, {label, unit, b}} <- Enum.zip(left, right) do
        [label, cell(a, unit), cell(b, unit), ratio(a, b)]
      end

    IO.puts("")
    print([["", "direct", "batched", "batched / direct"] | rows])
  end

  defp figures(%{meter: meter, seconds: seconds, commits: commits}) do
    writes = Meter.acknowledged(meter)

    [
      {"writes", :count, writes},
      {"writes/s", :count, round(writes / max(seconds, 0.000001))},
      {"Raft commits", :count, commits},
      {"writes per commit", :mean, if(commits in [nil, 0], do: nil, else: writes / commits)},
      {"latency p50", :milliseconds, Histogram.percentile(meter.latency, 50)},
      {"latency p99", :milliseconds, Histogram.percentile(meter.latency, 99)},
      {"latency max", :milliseconds, Histogram.max(meter.latency)}
    ]
  end

  defp cell(nil, _unit), do: @no_value
  defp cell(value, :count), do: "#{value}"
  defp cell(value, :mean), do: :erlang.float_to_binary(value * 1.0, decimals: 1)

  defp cell(value, :milliseconds),
    do: :erlang.float_to_binary(value / 1_000_000, decimals: 3) <> " ms"

  defp ratio(a, b) when a in [nil, 0] or b == nil, do: @no_value
  defp ratio(a, b), do: :erlang.float_to_binary(b / a, decimals: 2)

  defp print(rows) do
    widths =
      rows
      |> Enum.zip_with(& &1)
      |> Enum.map(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)

    for [label | cells] <- rows do
      [first | rest] = widths
      right = Enum.zip_with(cells, rest, &String.pad_leading/2)
      IO.puts(Enum.join([String.pad_trailing(label, first) | right], "  "))
    end

    IO.puts("")
  end

  @doc "A heading with what belongs to it below; nothing if there is nothing."
  @spec list(String.t(), [String.t()]) :: :ok
  def list(_heading, []), do: :ok
  def list(heading, lines), do: IO.puts([heading, "\n" | Enum.map(lines, &["  ", &1, "\n"])])

  @spec error(String.t()) :: :ok
  def error(message), do: IO.puts(:stderr, "batcher.demo: " <> message)
end
