defmodule Ferricstore.Raft.WARaftBackend.Batcher.Families do
  @moduledoc false
  # What the library counts, as metric families: named and in units as Prometheus wants them. All exporters are made of
  # these.
  #
  # Invariant: names, units and help texts come from the library's own table; nothing is listed here a second time.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @typedoc "In the order of the table; the shard comes first."
  @type labels :: [{atom, term}]

  @typedoc "Of a distribution: upper bounds ascend, the last one is `:infinity`; counts are cumulative."
  @type histogram :: %{
          count: non_neg_integer,
          sum: number,
          max: number,
          p99: number,
          buckets: [{number | :infinity, non_neg_integer}]
        }

  @type t :: %{
          name: String.t(),
          type: :counter | :gauge | :histogram,
          help: String.t(),
          values: [{labels, number | histogram}]
        }

  @doc "Those of all open shards, now. Names are without a prefix."
  @spec now() :: [t]
  def now, do: of(Native.metrics(), Batcher.stats())

  @doc "Those of these statistics, by these definitions; those that no shard has a value of are left out."
  @spec of([tuple], %{Batcher.shard() => map}) :: [t]
  def of(definitions, stats) do
    shards = Enum.sort_by(stats, &elem(&1, 0))

    for {name, kind, unit, labels, help} <- definitions,
        values = Enum.flat_map(shards, &values(&1, name, kind, unit, labels)),
        values != [],
        do: %{
          name: name |> Atom.to_string() |> name(kind, unit),
          type: if(kind == :distribution, do: :histogram, else: kind),
          help: help,
          values: values
        }
  end

  defp values({shard, stats}, name, kind, unit, labels) do
    for {values, value} <- labelled(Map.get(stats, name), labels), value != nil do
      {[{:shard, shard} | Enum.zip(labels, values)], in_base_unit(value, kind, unit)}
    end
  end

  # As a list with the values of the labels.
  defp labelled(value, []), do: [{[], value}]
  defp labelled(nil, _labels), do: []

  defp labelled(by_label, [_]),
    do: for({label, value} <- Enum.sort(by_label), do: {[label], value})

  defp labelled(by_labels, _several),
    do: for({labels, value} <- Enum.sort(by_labels), do: {Tuple.to_list(labels), value})

  defp in_base_unit(distribution, :distribution, unit) do
    %{
      count: distribution.count,
      sum: scale(distribution.sum, unit),
      max: scale(distribution.max, unit),
      p99: scale(distribution.p99, unit),
      buckets: for({bound, count} <- distribution.buckets, do: {scale(bound, unit), count})
    }
  end

  defp in_base_unit(number, _kind, unit), do: scale(number, unit)

  defp scale(:infinity, _unit), do: :infinity
  defp scale(number, :microseconds), do: number / 1_000_000
  defp scale(number, _unit), do: number

  defp name(name, kind, :microseconds) do
    stem = name |> String.replace_suffix("_total", "") |> String.replace_suffix("_us", "")
    suffixed(stem <> "_seconds", kind)
  end

  defp name(name, kind, _unit), do: suffixed(name, kind)

  defp suffixed(name, :counter), do: String.replace_suffix(name, "_total", "") <> "_total"
  defp suffixed(name, _kind), do: name
end
