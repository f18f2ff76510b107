defmodule Ferricstore.Raft.WARaftBackend.Batcher.Tools.OptionDocs do
  @moduledoc false
  # Where the texts of the schema of options stand outside Elixir: the table in README.md, and the comments of the
  # engine's `Config`.
  #
  # Invariant: a file that was written once is not changed by writing it again.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Options.Schema

  @readme "README.md"
  @config "native/batcher_core/src/config.rs"
  @from "<!-- The options: written by `mix batcher.options`, from src/batcher/options/schema.ex. -->\n"
  @to "<!-- End of the options. -->\n"
  @fields [
    namespace_max: :namespace_batch_max,
    hot_max: :hot_batch_max,
    overflow: :overflow,
    pacing: :pacing,
    commit_scope: :commit_scope,
    max_in_flight: :max_in_flight,
    max_items: :max_queue_items,
    max_bytes: :max_queue_bytes,
    adoption_timeout: :adoption_timeout
  ]
  @columns 100

  @doc "The files, each with the text that it should have."
  @spec files() :: [{Path.t(), String.t()}]
  def files,
    do: [{@readme, readme(File.read!(@readme))}, {@config, config(File.read!(@config))}]

  @doc "Those of them whose text is another."
  @spec stale() :: [Path.t()]
  def stale, do: for({path, text} <- files(), File.read!(path) != text, do: path)

  defp readme(text) do
    [before, rest] = String.split(text, @from, parts: 2)
    [_table, behind] = String.split(rest, @to, parts: 2)
    Enum.join([before, @from, "\n", Schema.readme(), "\n", @to, behind])
  end

  defp config(text) do
    for {field, key} <- @fields, reduce: text do
      text ->
        comment = "Option `#{inspect(key)}`: #{Schema.fetch(key)[:doc]}."
        found = Regex.compile!("(?:^ *///[^\n]*\n)+(?= *pub #{field}:)", "m")
        true = Regex.match?(found, text)
        Regex.replace(found, text, fn _old -> comment(comment) end)
    end
  end

  defp comment(text) do
    start = "    ///"

    text
    |> String.split()
    |> Enum.reduce([start], fn word, [line | lines] ->
      longer = "#{line} #{word}"

      if String.length(longer) <= @columns,
        do: [longer | lines],
        else: ["#{start} #{word}", line | lines]
    end)
    |> Enum.reverse()
    |> Enum.map_join(&"#{&1}\n")
  end
end
