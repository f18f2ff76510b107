# The documents: links that lead somewhere, code that compiles and runs, and nothing that operators see left out.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.DocsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Log, Native}

  @documents Enum.sort(Path.wildcard("*.md") ++ Path.wildcard("docs/*.md"))
  @link ~r/\[[^\]]*\]\(([^)\s]+)\)/
  @block ~r/```elixir\n(.*?)```/s

  defp text(path), do: File.read!(path)
  defp without_code(text), do: Regex.replace(~r/```.*?```|`[^`\n]*`/s, text, "")

  # As Git hosts make them of headings.
  defp anchors(path) do
    for [_, heading] <- Regex.scan(~r/^#+ (.+)$/m, text(path)) do
      heading
      |> String.downcase()
      |> String.replace(~r/[^\p{L}\p{N} _-]/u, "")
      |> String.replace(" ", "-")
    end
  end

  for document <- @documents do
    test "#{document}: each link leads somewhere" do
      document = unquote(document)

      for [_, link] <- Regex.scan(@link, without_code(text(document))),
          not String.starts_with?(link, ["http://", "https://", "mailto:"]) do
        [path | anchor] = String.split(link, "#")
        path = if path == "", do: document, else: Path.join(Path.dirname(document), path)
        assert File.exists?(path), "#{document} links to #{link}"

        for anchor <- anchor,
            do: assert(anchor in anchors(path), "#{document} links to #{link}")
      end
    end

    test "#{document}: Elixir is Elixir" do
      for [_, code] <- Regex.scan(@block, text(unquote(document))),
          do: assert({:ok, _} = Code.string_to_quoted(code))
    end
  end

  test "the links are looked at" do
    assert Enum.any?(@documents, &(Regex.scan(@link, without_code(text(&1))) != []))
    assert "docs/operating.md" in @documents
    assert "in-ferricstore" in anchors("README.md")
  end

  test "the backend of the guide is one", c do
    [[_, code]] = Regex.scan(@block, text("docs/backend.md"))
    name = TableBackend
    [{^name, _}] = Code.compile_string(code)
    on_exit(fn -> for it <- [:delete, :purge], do: apply(:code, it, [name]) end)
    :ets.new(name, [:named_table, :public])
    start_batcher(c.shard, backend: name, strict: true)
    assert Batcher.write(c.shard, "p", {:put, "a", "1", 0}, 1) == :ok
    assert Batcher.write_put_batch(c.shard, [{"b", "2", 9}, {"c", "3", 0}]) == {:ok, [:ok, :ok]}
    assert Batcher.write_delete_batch(c.shard, ["c"]) == {:ok, [:ok]}

    assert Batcher.write_batch(c.shard, [{:delete, "a"}, {:what}]) ==
             {:ok, [:ok, {:error, {:unknown_command, {:what}}}]}

    assert :ets.tab2list(name) == [{{c.shard, "b"}, "2", 9}]
    # One reply for each of what is within a command, whether that comes by itself or with others.
    nested =
      {:batch,
       [
         {:put_batch, [{"d", "4", 0}, {"e", "5", 0}, :what]},
         {:batch, [{:put, "f", "6", 0}]},
         {:batch, []},
         {:delete_batch, ["b", "d"]}
       ]}

    what = {:error, {:unknown_command, {:put_batch, :what}}}
    replies = [:ok, :ok, {:error, {:unknown_entry, :what}}, :ok, :ok, :ok]
    assert Batcher.write(c.shard, "p", nested, 1) == {:ok, replies}

    assert Batcher.write_batch(c.shard, [{:put_batch, :what}, nested, {:delete, "x"}]) ==
             {:ok, [what] ++ replies ++ [:ok]}

    assert Enum.sort(:ets.tab2list(name)) ==
             [{{c.shard, "e"}, "5", 0}, {{c.shard, "f"}, "6", 0}]
  end

  test "the settings of ferricstore's guide are ones", c do
    [[_, code] | _] =
      Enum.filter(Regex.scan(@block, text("docs/ferricstore.md")), &(hd(&1) =~ "import Config"))

    settings = Config.Reader.eval!("config.exs", code)
    start_batcher(c.shard, [strict: true] ++ settings[:ferricstore_batcher])

    for {key, value} <- settings[:ferricstore_batcher],
        do: assert({^value, :option} = Batcher.options(c.shard)[key])
  end

  test "what ferricstore's guide lets one run on a node calls functions that are there" do
    called =
      for [_, code] <- Regex.scan(~r/^\| `([^`]+)` \| /m, text("docs/ferricstore.md")),
          code =~ inspect(Batcher) <> ".",
          {:ok, quoted} = Code.string_to_quoted(code),
          {{:., _, [{:__aliases__, _, aliases}, name]}, _, arguments} <- Macro.prewalker(quoted),
          Module.concat(aliases) == Batcher,
          do: {name, length(arguments)}

    assert {:stats, 1} in called
    Code.ensure_loaded!(Batcher)

    for {name, arity} <- called,
        do: assert(function_exported?(Batcher, name, arity), "#{name}/#{arity}")
  end

  test "the documents name functions that are there" do
    named =
      for document <- @documents,
          [_, name, function, arity] <-
            Regex.scan(~r/\b([A-Z]\w*(?:\.[A-Z]\w*)*)\.([a-z]\w*\??)\/(\d+)/, text(document)),
          # Those of others are others' affair.
          module = own(name),
          do: {module, String.to_atom(function), String.to_integer(arity), document}

    assert {Batcher, :write, 4, "docs/tour.md"} in named

    for {module, function, arity, document} <- named,
        do:
          assert(function_exported?(module, function, arity), "#{document}: #{function}/#{arity}")
  end

  defp own(name) do
    module = Module.concat([Batcher | String.split(name, ".") -- ["Batcher"]])
    if Code.ensure_loaded?(module), do: module
  end

  test "README has each public function" do
    readme = text("README.md")

    for {name, _arity} <- Batcher.__info__(:functions),
        do: assert(readme =~ ~r/`#{Regex.escape("#{name}")}[(\/]/, "#{name} is missing")
  end

  test "each metric stands in the operator's guide" do
    guide = text("docs/operating.md")

    for {name, _kind, _unit, _labels, _help} <- Native.metrics(),
        do: assert(guide =~ "`#{name}`", "#{name} is missing")
  end

  test "so do each line of the log and each event" do
    guide = text("docs/operating.md")
    for kind <- Log.kinds(), do: assert(guide =~ "`#{kind}`", "#{kind} is missing")

    for %{event: event} <- Batcher.Telemetry.events(),
        do: assert(guide =~ ~r/`:#{List.last(event)}`/, "#{inspect(event)} is missing")
  end

  test "the public documentation says in words what clauses say" do
    {:ok, modules} = :application.get_key(:ferricstore_batcher, :modules)

    for module <- modules,
        {:docs_v1, _, _, _, moduledoc, _, docs} <- [Code.fetch_docs(module)],
        moduledoc != :hidden,
        doc <- [moduledoc | Enum.map(docs, &elem(&1, 3))],
        %{"en" => doc} <- [doc] do
      refute doc =~ ~r/\(\d+\.\d+[,) ]|contract \d/, "#{inspect(module)} cites a clause: #{doc}"
    end
  end
end
