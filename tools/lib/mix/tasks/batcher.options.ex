defmodule Mix.Tasks.Batcher.Options do
  @shortdoc "Writes what README.md and the engine say of the options"
  @moduledoc """
  Writes the table of options in README.md, and the comments of the engine's `Config`, from the schema of the options in
  `src/batcher/options/schema.ex`. For those who have changed that: a test fails until this has been run.

      mix batcher.options
  """

  use Mix.Task

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.OptionDocs

  @impl true
  def run(_args) do
    Mix.Task.run("compile")

    for {path, text} <- OptionDocs.files() do
      changed? = File.read!(path) != text
      if changed?, do: File.write!(path, text)
      Mix.shell().info("#{path}: #{if changed?, do: "written", else: "up to date"}")
    end
  end
end
