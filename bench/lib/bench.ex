defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench do
  @moduledoc """
  The benchmarks behind `mix batcher.bench`: the batcher against its peers, in turn, in one run.

  One invariant: a figure is printed only if every write behind it was answered without an error.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{
    Backends,
    CommandLine,
    Goals,
    Line,
    Machine,
    Plan,
    Progress,
    Report,
    Suite
  }

  @doc """
  Runs what these command line arguments ask for (`["--help"]` lists them) and returns the exit status: 0 if all of it
  was measured, 1 if something failed, 2 for a bad option.

  Lines for machines and the table of goals go to the standard output, progress and errors to the standard error
  output. It needs a VM without batchers: it uses shards from 0 and sets the application environment of
  `:ferricstore`.
  """
  @spec main([String.t()]) :: 0 | 1 | 2
  def main(argv) do
    with {:ok, options} <- CommandLine.parse(argv),
         {:ok, specs} <- Suite.specs(options) do
      run(specs, options)
    else
      :help ->
        IO.write(CommandLine.help())
        0

      {:error, message} ->
        Progress.error(message)
        2
    end
  end

  defp run(specs, options) do
    load_code()
    Progress.plan(Plan.table(specs))
    progress = Progress.start(length(specs))
    lines = Enum.map(Machine.lines(options.data_dir), &print/1)
    mark = Machine.mark()

    case measure(specs, options, progress, lines) do
      {:ok, lines} ->
        Progress.stop(progress)
        lines = lines ++ Enum.map(Machine.disturbance(mark), &print/1)
        goals = Goals.judge(lines)
        IO.puts(Goals.table(goals))
        if options.report, do: report(lines, goals), else: 0

      {:error, message} ->
        Progress.stop(progress)
        Progress.error(message)
        1
    end
  end

  # Nothing is loaded while something is measured, and a build meanwhile changes nothing.
  defp load_code do
    {:ok, modules} = :application.get_key(:ferricstore_batcher, :modules)
    :ok = :code.ensure_modules_loaded(modules)
  end

  defp measure([], _options, _progress, lines), do: {:ok, lines}

  defp measure([spec | specs], options, progress, lines) do
    Progress.next(progress)

    with {:ok, backend} <- Backends.open(spec.backend, Enum.max(spec.shards), options.data_dir),
         {:ok, more} <- collect(spec, progress, backend),
         do: measure(specs, options, progress, lines ++ more)
  end

  defp collect(spec, progress, backend) do
    {:ok, lines} = Agent.start_link(fn -> [] end)

    emit = fn line ->
      print(line)
      Agent.update(lines, &[line | &1])
    end

    spec.module.run(spec, emit, &Progress.tell(progress, &1))
    {:ok, lines |> Agent.get(& &1) |> Enum.reverse()}
  catch
    :exit, {:sample_failed, reason} ->
      {:error, "#{spec.kind} on #{spec.backend} could not be measured: #{Progress.brief(reason)}"}
  after
    Backends.close(backend)
  end

  defp print(line) do
    Progress.print(Line.to_string(line))
    line
  end

  defp report(lines, goals) do
    case Report.write(lines, goals) do
      {:ok, path} ->
        IO.puts("The report is in #{path}")
        0

      {:error, message} ->
        Progress.error(message)
        1
    end
  end
end
