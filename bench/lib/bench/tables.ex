defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Tables do
  @moduledoc false
  # Lines of a run as tables in Markdown.
  # One invariant: a table shows what the lines hold and computes nothing anew.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Goals, Line, Peer}

  @none "Not measured in this run."
  @peers %{
    batcher: "batcher",
    auto: "auto",
    genserver: "GenServer",
    gbs: "gen_batch_server",
    floor: "floor",
    direct: "direct"
  }

  @doc "Markdown for a marker of the report's template."
  @spec render(String.t(), [Line.t()], [Goals.goal()]) :: String.t() | :unknown
  def render("goals", _lines, goals),
    do: table(["goal", "bound", "figure", ""], Enum.map(goals, &Goals.cells/1))

  def render("summary", _lines, goals), do: Goals.summary(goals)

  def render("machine", lines, _goals) do
    rows =
      for kind <- [:machine, :versions, :vm, :options, :disturbance],
          line <- lines,
          line.kind == kind,
          {key, value} <- line.values,
          do: ["#{kind}", "#{key}", "#{value}"]

    table(["", "", ""], rows)
  end

  def render("throughput-" <> backend, lines, _goals),
    do: peers(lines, :throughput, [backend: backend(backend)], :callers)

  def render("cpu-" <> backend, lines, _goals),
    do: peers(lines, :cpu, [of: :throughput, backend: backend(backend)], :callers)

  def render("commits-" <> backend, lines, _goals),
    do: peers(lines, :commits, [backend: backend(backend)], :callers)

  def render("latency-" <> backend, lines, _goals),
    do: each(lines, :latency, [backend: backend(backend)], [:callers, :peer])

  def render("groups", lines, _goals), do: peers(lines, :groups, [], :group)
  def render("values", lines, _goals), do: peers(lines, :values, [], :value)
  def render("shards", lines, _goals), do: peers(lines, :shards, [], :shards)
  def render("shards-cpu", lines, _goals), do: peers(lines, :cpu, [of: :shards], :shards)
  def render("namespaces", lines, _goals), do: peers(lines, :namespaces, [], :namespaces)
  def render("memory", lines, _goals), do: peers(lines, :memory, [], :value)
  def render("binary-memory", lines, _goals), do: peers(lines, :binary_memory, [], :value)

  def render("open-" <> backend, lines, _goals),
    do: each(lines, :open, [backend: backend(backend)], [:load, :peer])

  def render("saturation", lines, _goals), do: peers(lines, :saturation, [], :backend)

  def render("mix-" <> figure, lines, _goals),
    do: peers(lines, :mix, [figure: atom(figure)], [:shards, :namespaces, :callers])

  def render("window", lines, _goals), do: each(lines, :window, [], [:window_ms, :peer])
  def render("depth", lines, _goals), do: each(lines, :depth, [], [:queued, :peer])
  def render("async", lines, _goals), do: each(lines, :async, [], [:callers, :group, :from])
  def render("wake", lines, _goals), do: each(lines, :wake, [], [:idle_us])
  def render("lock", lines, _goals), do: each(lines, :lock, [], [:callers])
  def render("behind", lines, _goals), do: behind(lines)
  def render(_marker, _lines, _goals), do: :unknown

  defp backend(name), do: atom(name)
  defp atom(name), do: String.to_existing_atom(name)

  # A row for each line, a column for each peer, then the ratios of the first one to the others.
  defp peers(lines, kind, params, keys) do
    keys = List.wrap(keys)

    case Enum.filter(lines, &(&1.kind == kind and params -- &1.params == [])) do
      [] ->
        @none

      [first | _] = lines ->
        [{own, _value} | _] = first.values
        columns = for {key, _value} <- first.values, do: key
        headers = Enum.map(keys, &header/1) ++ Enum.map(columns, &header(&1, name("#{own}")))

        rows =
          for line <- lines do
            Enum.map(keys, &label(line.params[&1])) ++
              Enum.map(columns, &cell(&1, line.values[&1]))
          end

        table(headers, rows)
    end
  end

  # A row for each line, a column for each value.
  defp each(lines, kind, params, keys) do
    case Enum.filter(lines, &(&1.kind == kind and params -- &1.params == [])) do
      [] ->
        @none

      lines ->
        # In the order of a line that has them all.
        fullest = Enum.sort_by(lines, &length(&1.values), :desc)
        columns = fullest |> Enum.flat_map(&Keyword.keys(&1.values)) |> Enum.uniq()

        rows =
          for line <- lines do
            Enum.map(keys, &label(line.params[&1])) ++
              Enum.map(columns, &cell(&1, line.values[&1]))
          end

        table(Enum.map(keys ++ columns, &header/1), rows)
    end
  end

  # Where a peer that commits in batches, or commits at all, does more than the batcher.
  defp behind(lines) do
    rows =
      for line <- lines,
          line.kind in [:throughput, :groups, :async, :values, :shards, :namespaces],
          {key, ratio} <- line.values,
          key in [:ratio_genserver, :ratio_gbs, :ratio_direct],
          # Direct commits to a backend that does nothing are function calls: no peer.
          not (key == :ratio_direct and line.params[:backend] == :null),
          ratio < 1 do
        "ratio_" <> peer = "#{key}"
        where = Enum.map_join(line.params, ", ", fn {k, v} -> "#{k} #{v}" end)
        ["#{line.kind}: #{where}", @peers[String.to_existing_atom(peer)], cell(key, ratio)]
      end

    if rows == [],
      do: "In this run, nowhere: no peer that commits made more writes per second.",
      else: table(["where", "behind", "batcher / it"], rows)
  end

  defp header(key, own \\ "batcher") do
    case "#{key}" do
      "ratio_" <> peer -> "#{own} / #{name(peer)}"
      "spread_" <> peer -> "spread of #{name(peer)}"
      name -> name(name)
    end
  end

  defp name(key) do
    if key in Enum.map(Peer.names(), &Atom.to_string/1),
      do: @peers[String.to_existing_atom(key)],
      else: String.replace(key, "_", " ")
  end

  defp label(peer) when is_atom(peer), do: name("#{peer}")
  defp label(number), do: number(number)

  defp cell(_key, nil), do: ""

  defp cell(key, value) do
    case "#{key}" do
      "ratio_" <> _ -> :erlang.float_to_binary(value / 1, decimals: 2)
      "spread_" <> _ -> "#{round(100 * value)} %"
      _number -> number(value)
    end
  end

  # Thousands apart.
  defp number(number) when is_integer(number) do
    number
    |> Integer.digits()
    |> Enum.reverse()
    |> Enum.chunk_every(3)
    |> Enum.map_join(" ", &Enum.join/1)
    |> String.reverse()
  end

  defp number(number) when abs(number) >= 100, do: number(round(number))

  defp number(number),
    do: :erlang.float_to_binary(number / 1, decimals: if(abs(number) >= 10, do: 1, else: 2))

  defp table(headers, rows) do
    # Names to the left, figures to the right.
    rule =
      for cell <- hd(rows ++ [headers]), do: if(cell =~ ~r/^[\d. %]*$/, do: "---:", else: "---")

    Enum.map_join([headers, rule | rows], "\n", &"| #{Enum.join(&1, " | ")} |")
  end
end
