defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Report do
  @moduledoc false
  # Writes bench/REPORT.md out of bench/REPORT.template.md: `{{name}}` stands for a table, `{{plot name}}` for a plot,
  # `{{notes}}` for bench/notes.md, which is written by hand. The lines behind it all go to bench/plots/lines.txt.
  # One invariant: a plot that could not be drawn is not shown, not even an old one.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Goals, Line, Plots, Progress, Tables}

  @folder "bench"
  @template "REPORT.template.md"
  @report "REPORT.md"
  @notes "notes.md"

  @spec write([Line.t()], [Goals.goal()]) :: {:ok, Path.t()} | {:error, String.t()}
  def write(lines, goals) do
    path = Path.join(@folder, @report)

    with {:ok, template} <- read(@template),
         {:ok, notes} <- read(@notes),
         plots = plots(lines),
         :ok <- File.write(path, fill(template, lines, goals, notes, plots)) do
      {:ok, path}
    else
      {:error, reason} when is_atom(reason) ->
        {:error, "#{path} can't be written: #{:file.format_error(reason)}"}

      {:error, message} ->
        {:error, message}
    end
  end

  defp read(name) do
    path = Path.join(@folder, name)

    with {:error, reason} <- File.read(path),
         do:
           {:error, "#{path}, a part of the report, can't be read: #{:file.format_error(reason)}"}
  end

  defp plots(lines) do
    case Plots.draw(Enum.map(lines, &Line.to_string/1), Path.join(@folder, "plots")) do
      {:ok, plots} ->
        plots

      {:error, message} ->
        Progress.error("the report has no plots: #{message}")
        []
    end
  end

  defp fill(template, lines, goals, notes, plots) do
    Regex.replace(~r/\{\{([\w -]+)\}\}/, template, fn
      _all, "notes" -> String.trim(notes)
      _all, "plot " <> name -> plot(name, plots)
      all, marker -> marker(Tables.render(marker, lines, goals), all)
    end)
  end

  defp plot(name, plots) do
    if name in plots, do: "![#{name}](plots/#{name}.svg)", else: ""
  end

  # A slip in the template: it stays to be seen.
  defp marker(:unknown, marker), do: marker
  defp marker(text, _marker), do: text
end
