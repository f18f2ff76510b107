defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo do
  @moduledoc """
  The demo behind `mix batcher.demo`: many callers write to shards on Ra, with a commit for each call, through the
  batcher with its defaults, and through the batcher with the chosen options; the three are compared, and every
  acknowledged write is read back. With `--input` the writes come from a Redis append-only file.

  One invariant: the status is 0 only if every call was answered, every acknowledged write was found again, and a file
  was whole; what could not be done is said in words before.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{
    Column,
    CommandLine,
    Cost,
    Load,
    Outage,
    Phase,
    Plan,
    ReadBack,
    Replay,
    Report,
    Shards,
    Tally,
    Verdict
  }

  # So often do the columns of the load take turns, each time with callers of their own.
  @turns 3

  @doc """
  Runs the demo with these command line arguments (`["--help"]` lists them) and returns the exit status, 0 or 1.

  Prints to the standard output of the calling process, errors to the standard error output. It sets the application
  environment of `:ferricstore` while it runs and uses shards from 0, so it needs a VM without batchers.
  """
  @spec main([String.t()]) :: 0 | 1
  def main(argv) do
    with {:ok, options} <- CommandLine.parse(argv),
         {:ok, shards} <- Shards.open(options, Column.shard_count(options)) do
      run(options, shards)
    else
      :help ->
        IO.write(CommandLine.help())
        0

      {:error, message} ->
        Report.error(message)
        1
    end
  end

  defp run(options, shards) do
    introduce(options, shards)
    if options.input, do: replay(options, shards), else: load(options, shards)
  catch
    kind, reason ->
      Shards.close(shards, true)
      :erlang.raise(kind, reason, __STACKTRACE__)
  else
    # {what to print at the very end, what went wrong}
    {last_line, problems} ->
      kept = Shards.close(shards, problems != [])
      if kept && problems != [], do: IO.puts("The data is kept in #{kept}")
      if last_line, do: IO.puts(last_line)
      Enum.each(problems, &Report.error/1)
      if problems == [], do: 0, else: 1
  end

  defp introduce(options, shards) do
    where = if shards.directory, do: "Ra in #{shards.directory}", else: "the null backend"
    where = if options.nodes > 1, do: "#{options.nodes} nodes of #{where}", else: where

    what =
      if options.input,
        do: "replaying #{options.input}",
        else: "values of #{options.value_size} bytes"

    IO.puts("#{options.shards} shards on #{where}, #{options.callers} callers, #{what}")
    IO.puts(Column.legend(options))
  end

  defp load(options, shards) do
    columns = Column.all(options, shards.backend)
    parts = length(columns) + if options.kill?, do: 1, else: 0
    milliseconds = div(options.seconds * 1000, parts)

    write = fn column, meter, milliseconds, turn ->
      plan = Plan.new(column.shards, options.window, options.value_size)
      callers = (turn * options.callers)..((turn + 1) * options.callers - 1)
      {plan, Load.run(plan, meter, callers, milliseconds)}
    end

    in_turn = fn column, meter, turn ->
      write.(column, meter, div(milliseconds, @turns), turn)
    end

    cost = Cost.per_write(options)

    with_phases(columns, shards, @turns, in_turn, fn phases ->
      Report.table(phases)
      Report.cost(cost)

      with {:ok, more} <- outage(options, shards, milliseconds, write) do
        phases = Enum.map(phases ++ more, &{&1, load_expectations(&1.results)})
        Verdict.read_back(shards, phases)
      else
        {:error, message} -> {nil, [message]}
      end
    end)
  end

  # A phase of its own: the columns can be compared since nobody was killed in them.
  defp outage(%{kill?: false}, _shards, _milliseconds, _write), do: {:ok, []}

  defp outage(options, %{cluster: cluster} = shards, milliseconds, write) do
    column = Column.outage(options)
    load = &write.(column, &1, milliseconds, 0)
    kill = &Outage.during(cluster, &1, div(milliseconds, 2), fn -> load.(&1) end)

    with {:ok, %{meter: meter, results: [{written, outage}]} = phase} <-
           Phase.run(column, shards, kill),
         {:ok, outage} <- outage do
      Report.outage(meter, outage)
      {:ok, [%{phase | results: [written]}]}
    end
  end

  # The plan is the same one in each turn.
  defp load_expectations([{plan, _traces} | _] = results) do
    traces = Enum.flat_map(results, fn {_plan, traces} -> traces end)
    &ReadBack.expectations(plan, traces, &1)
  end

  # The columns that are only there for comparison take no longer than the load's; the last one replays the whole file.
  defp replay(options, shards) do
    columns = Column.all(options, shards.backend)
    chosen = List.last(columns)
    milliseconds = div(options.seconds * 1000, length(columns))
    window_ms = max(options.window, 1)

    write = fn column, meter, 0 ->
      limit = if column == chosen, do: :infinity, else: milliseconds
      replay = Replay.run(options.input, meter, options.callers, window_ms, limit)
      if replay.result == :halted, do: Report.halted(column.name, replay.commands)
      replay
    end

    cost = Cost.per_write(options)

    with_phases(columns, shards, 1, write, fn phases ->
      Report.table(phases)
      Report.cost(cost)
      {compared, [%{results: [replay]} = phase]} = Enum.split(phases, -1)
      describe(replay)

      compared_problems =
        Enum.flat_map(compared, fn phase -> elem(replay_read_back(shards, phase), 1) end)

      {last_line, problems} = replay_read_back(shards, phase)
      compared = Verdict.compare(shards, options.expected, chosen.shards)
      broken = broken(options.input, replay.result)
      {last_line, compared_problems ++ problems ++ compared ++ broken}
    end)
  end

  defp replay_read_back(shards, %{meter: meter, results: [replay]} = phase),
    do: Verdict.read_back(shards, [{phase, &Replay.expectations(replay, meter.shards, &1)}])

  defp describe(replay) do
    IO.puts("#{replay.commands} commands read")
    Report.list("Ignored, all databases share one space of keys:", Tally.lines(replay.ignored))
    Report.list("Skipped, #{Tally.total(replay.skipped)} in all:", Tally.lines(replay.skipped))

    Report.list(
      "Refused by the store, #{Tally.total(replay.refused)} in all:",
      Tally.lines(replay.refused)
    )
  end

  defp broken(path, {:error, message, offset}), do: ["#{path}: byte #{offset}: #{message}"]
  defp broken(_path, :ok), do: []

  defp with_phases(columns, shards, turns, write, finish) do
    case Phase.run_all(columns, shards, turns, write) do
      {:ok, phases} -> finish.(phases)
      {:error, message} -> {nil, [message]}
    end
  end
end
