defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Report do
  @moduledoc false
  # What the demo prints: a progress line each second, the table, the verdict.
  # One invariant: it only reads; a phase runs the same whether somebody watches or not.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Meter, Outage, Phase}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.{Histogram, Terminal}

  @interval 1000
  @no_value "-"

  @doc """
  Runs `fun`, with a progress line each second meanwhile, and returns its result and the seconds it took. So many
  seconds there were in turns before.
  """
  @spec watch(Meter.t(), float(), (() -> result)) :: {result, float()} when result: term()
  def watch(meter, seconds_before, fun) do
    ticks = round(seconds_before * 1000 / @interval)
    started = System.monotonic_time(:millisecond) - ticks * @interval
    ticker = Task.async(fn -> tick(meter, started, ticks, Meter.acknowledged(meter)) end)
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
        ", #{Meter.failed(meter)} failed" <>
        unknown(Meter.unknown(meter))

    if Terminal.watched?(), do: Terminal.overwrite(:stdio, line), else: IO.puts(line)
  end

  defp unknown(0), do: ""
  defp unknown(writes), do: ", #{writes} of unknown outcome"

  defp waiting(%{via: :batched, shards: shards}) do
    {queued, in_flight} =
      for shard <- shards, state = Batcher.snapshot(shard), reduce: {0, 0} do
        {queued, in_flight} -> {queued + queued(state), in_flight + commits(state)}
      end

    ", #{queued} queued, #{in_flight} commits in flight"
  end

  defp waiting(_direct), do: ""

  defp queued(state) do
    hot = for slot <- [state.batch_slot, state.put_slot, state.delete_slot], slot != nil, do: slot
    Enum.sum(for slot <- hot ++ Map.values(state.slots), do: slot.count)
  end

  @doc "The phases side by side; the first one is what the others are compared with."
  @spec table([Phase.t()]) :: :ok
  def table([first | _] = phases) do
    names = for phase <- phases, do: phase.meter.name
    columns = for phase <- phases, do: figures(phase, rate(first))

    rows =
      for [{label, _unit, _value} | _] = row <- Enum.zip_with(columns, & &1),
          do: [label | for({_label, unit, value} <- row, do: cell(value, unit))]

    IO.puts("")
    print([["" | names] | rows])
  end

  defp figures(%{meter: meter, commits: commits} = phase, first_rate) do
    writes = Meter.acknowledged(meter)

    [
      {"acknowledged writes", :count, writes},
      {"writes/s", :count, round(rate(phase))},
      {"times direct", :ratio, quotient(rate(phase), first_rate)},
      {"latency p50", :milliseconds, Histogram.percentile(meter.latency, 50)},
      {"latency p99", :milliseconds, Histogram.percentile(meter.latency, 99)},
      {"latency max", :milliseconds, Histogram.max(meter.latency)},
      {"Raft commits", :count, commits},
      {"writes per commit", :mean, quotient(writes, commits)}
    ]
  end

  defp rate(%{meter: meter, seconds: seconds}),
    do: Meter.acknowledged(meter) / max(seconds, 0.000001)

  defp quotient(_a, b) when b == nil or b == 0, do: nil
  defp quotient(a, b), do: a / b

  defp cell(nil, _unit), do: @no_value
  defp cell(value, :count), do: "#{value}"
  defp cell(value, :mean), do: decimal(value, 1)
  defp cell(value, :ratio), do: decimal(value, 2)

  defp cell(value, :milliseconds),
    do: decimal(value / 1_000_000, 3) <> " ms"

  defp decimal(value, digits), do: :erlang.float_to_binary(value, decimals: digits)

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

  @doc "What the demo takes of the processors' time, which all columns pay."
  @spec cost(float() | nil) :: :ok
  def cost(nil), do: :ok

  def cost(microseconds) do
    IO.puts(
      "the demo itself takes #{decimal(microseconds, 2)} us per write, measured without a backend\n"
    )
  end

  @doc "What a kill cost."
  @spec outage(Meter.t(), Outage.t()) :: :ok
  def outage(meter, outage) do
    IO.puts("""
    #{outage.node} was killed after #{outage.before} acknowledged writes, #{outage.later} came later
    longest time without an acknowledgement: #{outage.gap_ms} ms
    writes of unknown outcome, not counted as acknowledged: #{Meter.unknown(meter)}\
    """)

    list(
      "They were answered:",
      for({name, count} <- Meter.unknowns(meter), do: "#{count}: #{name}")
    )
  end

  @doc "Says that a replay was ended early."
  @spec halted(String.t(), non_neg_integer()) :: :ok
  def halted(name, commands),
    do: Terminal.puts(:stdio, "#{name}: the first #{commands} commands, as many as time allowed")

  @doc "A heading with what belongs to it below; nothing if there is nothing."
  @spec list(String.t(), [String.t()]) :: :ok
  def list(_heading, []), do: :ok
  def list(heading, lines), do: IO.puts([heading, "\n" | Enum.map(lines, &["  ", &1, "\n"])])

  @spec error(String.t()) :: :ok
  def error(message), do: IO.puts(:stderr, "batcher.demo: " <> message)

  # Lanes that are committed together have the same reference.
  defp commits(state), do: state.in_flight |> Map.values() |> Enum.uniq() |> length()
end
