# What is said of the options outside Elixir is what the schema says.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.OptionDocsTest do
  use ExUnit.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Options.Schema
  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.OptionDocs

  test "the table in README.md and the comments of the engine's Config are those of the schema" do
    assert OptionDocs.stale() == [], "run `mix batcher.options`, which writes them"
  end

  test "the public module documents and types each option" do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(Batcher)
    {:ok, types} = Code.Typespec.fetch_types(Batcher)
    [option] = for {:type, {:option, type, []}} <- types, do: inspect(type, limit: :infinity)

    for {key, spec} <- Schema.table() do
      assert doc =~ "  * `#{inspect(key)}` (default #{Schema.default(spec)}) - #{spec[:doc]}."
      assert option =~ ~r/\{:atom, \d+, #{inspect(key)}\}/
    end
  end

  test "a default is a value of its option, or says itself what it is" do
    for {key, spec} <- Schema.table(), spec[:default_doc] == nil do
      assert Batcher.Options.Type.valid?(spec[:type], spec[:default]), inspect(key)
    end

    assert Schema.readme() =~ "| `:hot_batch_max` | `10_000` |"
  end
end
