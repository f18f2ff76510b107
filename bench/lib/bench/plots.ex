defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Plots do
  @moduledoc false
  # Has bench/plots.py draw the lines of a run, with a Python of its own below _build, made at the first use.
  # One invariant: the folder holds the plots of this run, or none.

  @script "bench/plots.py"
  @requirements "bench/requirements.txt"
  @venv "_build/bench/venv"

  @doc "The names of the plots, each `<name>.svg` in `folder`, or why there are none."
  @spec draw([String.t()], Path.t()) :: {:ok, [String.t()]} | {:error, String.t()}
  def draw(lines, folder) do
    File.rm_rf!(folder)
    File.mkdir_p!(folder)
    data = Path.join(folder, "lines.txt")
    File.write!(data, Enum.map(lines, &[&1, ?\n]))

    with {:ok, python} <- python(),
         {:ok, _output} <- run(python, [@script, data, folder]) do
      {:ok,
       for(path <- Path.wildcard(Path.join(folder, "*.svg")), do: Path.basename(path, ".svg"))}
    end
  end

  defp python do
    python = Path.expand(Path.join(@venv, "bin/python"))

    with {:error, _not_yet} <- run(python, ["-c", "import matplotlib"]),
         {:ok, system} <- find_python(),
         {:ok, _output} <- run(system, ["-m", "venv", "--clear", @venv]),
         {:ok, _output} <- run(python, ["-m", "pip", "install", "--quiet", "-r", @requirements]) do
      {:ok, python}
    else
      {:ok, _output} -> {:ok, python}
      error -> error
    end
  end

  defp find_python do
    case System.find_executable("python3") do
      nil -> {:error, "python3 was not found on the PATH; install it, with its module venv"}
      python -> {:ok, python}
    end
  end

  defp run(program, arguments) do
    case System.cmd(program, arguments, stderr_to_stdout: true) do
      {output, 0} ->
        {:ok, output}

      {output, status} ->
        tail = output |> String.split("\n", trim: true) |> Enum.take(-3) |> Enum.join(" / ")
        {:error, "#{Enum.join([program | arguments], " ")} ended with status #{status}: #{tail}"}
    end
  rescue
    error in ErlangError ->
      {:error, "#{program} can't be run: #{inspect(error.original)}"}
  end
end
