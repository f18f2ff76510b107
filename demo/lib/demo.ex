defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo do
  @moduledoc """
  The demo behind `mix batcher.demo`: many callers write to shards on Ra, with a commit for each call and then through
  the batcher, the two are compared, and every acknowledged write is read back. With `--input` the writes come from a
  Redis append-only file.

  One invariant: the status is 0 only if every call was answered, every acknowledged write was found again, and a file
  was whole; what could not be done is said in words before.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{
    CommandLine,
    Expected,
    Load,
    Meter,
    Plan,
    ReadBack,
    Replay,
    Report,
    Shards,
    Tally
  }

  @doc """
  Runs the demo with these command line arguments (`["--help"]` lists them) and returns the exit status, 0 or 1.

  Prints to the standard output of the calling process, errors to the standard error output. It sets the application
  environment of `:ferricstore` while it runs and uses shards from 0, so it needs a VM without batchers.
  """
  @spec main([String.t()]) :: 0 | 1
  def main(argv) do
    with {:ok, options} <- CommandLine.parse(argv),
         {:ok, shards} <- Shards.open(options, 2 * options.shards) do
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

    what =
      if options.input,
        do: "replaying #{options.input}",
        else: "values of #{options.value_size} bytes"

    IO.puts("#{options.shards} shards on #{where}, #{options.callers} callers, #{what}")
  end

  # Each phase has shards of its own, so that both begin with nothing stored: the batched one the lower half,
  # the direct one the upper.
  defp ranges(%{shards: count}), do: {count..(2 * count - 1), 0..(count - 1)}

  defp load(options, shards) do
    {direct_range, range} = ranges(options)
    milliseconds = div(options.seconds * 1000, 2)

    write = fn meter ->
      plan = Plan.new(meter.shards, options.window, options.value_size)
      {plan, Load.run(plan, meter, options.callers, milliseconds)}
    end

    {direct, direct_written} = phase(shards, direct_meter(shards, direct_range), write)

    batched(range, fn ->
      {batched, written} = phase(shards, Meter.new("batched", :batched, range), write)
      Report.table(direct, batched)

      fn ->
        read_back(shards, [
          {direct.meter, load_expectations(direct_written)},
          {batched.meter, load_expectations(written)}
        ])
      end
    end)
  end

  defp load_expectations({plan, traces}), do: &ReadBack.expectations(plan, traces, &1)

  # The direct phase of a replay may take as long as the load's; the batched one replays the whole file.
  defp replay(options, shards) do
    {direct_range, range} = ranges(options)
    window_ms = max(options.window, 1)

    write = fn milliseconds ->
      &Replay.run(options.input, &1, options.callers, window_ms, milliseconds)
    end

    {direct, direct_replay} =
      phase(shards, direct_meter(shards, direct_range), write.(div(options.seconds * 1000, 2)))

    if direct_replay.result == :halted,
      do: IO.puts("direct: the first #{direct_replay.commands} commands, as many as time allowed")

    batched(range, fn ->
      {batched, replay} = phase(shards, Meter.new("batched", :batched, range), write.(:infinity))

      Report.table(direct, batched)
      describe(replay)

      fn ->
        {_line, direct_problems} = replay_read_back(shards, direct.meter, direct_replay)
        {last_line, problems} = replay_read_back(shards, batched.meter, replay)
        problems = direct_problems ++ problems ++ compare(options, shards, range)
        {last_line, problems ++ broken(options.input, replay.result)}
      end
    end)
  end

  defp replay_read_back(shards, meter, replay) do
    read_back(shards, [{meter, &Replay.expectations(replay, meter.shards, &1)}])
  end

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

  # What both have in common

  defp direct_meter(shards, range), do: Meter.new("direct", {:direct, shards.backend}, range)

  defp phase(shards, meter, write) do
    before = Shards.commits(shards, meter.shards)
    {result, seconds} = Report.watch(meter, fn -> write.(meter) end)
    later = Shards.commits(shards, meter.shards)
    commits = if before && later, do: later - before
    {%{meter: meter, seconds: seconds, commits: commits}, result}
  end

  # `work` writes while the batchers run and returns what is to be done when they have drained and ended.
  defp batched(range, work) do
    with {:ok, supervisor} <- Shards.start_batchers(range),
         finish = work.(),
         :ok <- Shards.stop_batchers(supervisor, range) do
      finish.()
    else
      {:error, message} -> {nil, [message]}
    end
  end

  # Phases are given with a function from a shard to what it must hold.
  defp read_back(shards, phases) do
    acknowledged =
      phases |> Enum.map(fn {meter, _} -> Meter.acknowledged(meter) end) |> Enum.sum()

    failures = Enum.flat_map(phases, fn {meter, _} -> failures(meter) end)

    if Shards.readable?(shards) do
      {result, errors} =
        Enum.reduce(phases, {ReadBack.none(), []}, fn {meter, expectations}, {sum, errors} ->
          compare = &ReadBack.compare(&2, expectations.(&1))
          {result, more} = each_shard(shards, meter.shards, ReadBack, compare)
          {ReadBack.merge(sum, result), errors ++ more}
        end)

      last_line =
        "#{acknowledged} writes acknowledged, #{result.read_back} read back, #{result.lost} lost"

      {last_line, failures ++ errors ++ problems(result, acknowledged)}
    else
      {"#{acknowledged} writes acknowledged; the null backend stores nothing to read back",
       failures}
    end
  end

  defp problems(result, acknowledged) do
    unknown = acknowledged - result.read_back - result.lost

    [
      {result.lost > 0, ["#{result.lost} acknowledged writes are lost"]},
      {result.unexpected > 0, ["#{result.unexpected} keys are stored that no write explains"]},
      {unknown != 0, ["#{unknown} acknowledged writes could not be checked"]},
      {true, result.examples}
    ]
    |> Enum.flat_map(fn {applies?, lines} -> if applies?, do: lines, else: [] end)
  end

  defp compare(%{expected: nil}, _shards, _range), do: []

  defp compare(%{expected: path}, shards, range) do
    mine? = fn shard -> &(Replay.shard(range, &1) == shard) end
    compare = fn shard, stored -> Expected.compare(path, stored, mine?.(shard)) end
    {result, errors} = each_shard(shards, range, Expected, compare)
    IO.puts("#{result.equal} keys are as #{path} has them, #{result.wrong} are not")
    if result.wrong > 0, do: errors ++ ["not as in #{path}:" | result.examples], else: errors
  end

  # A few shards at once: each takes the memory of all that it holds.
  defp each_shard(shards, range, results, fun) do
    range
    |> Task.async_stream(
      fn shard ->
        case Shards.stored(shards, shard) do
          {:ok, stored} -> {:ok, fun.(shard, stored)}
          {:error, reason} -> {:error, "shard #{shard} can't be read back: #{inspect(reason)}"}
        end
      end,
      timeout: :infinity,
      ordered: false
    )
    |> Enum.reduce({results.none(), []}, fn
      {:ok, {:ok, result}}, {sum, errors} -> {results.merge(sum, result), errors}
      {:ok, {:error, error}}, {sum, errors} -> {sum, [error | errors]}
    end)
  end

  defp failures(meter) do
    for {reason, count} <- Meter.failures(meter),
        do: "#{meter.name}: #{count} failed: #{reason}"
  end
end
