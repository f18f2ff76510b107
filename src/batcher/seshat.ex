defmodule Ferricstore.Raft.WARaftBackend.Batcher.Seshat do
  @moduledoc """
  What `Batcher.stats/0` tells, in the shapes of [seshat](https://github.com/rabbitmq/seshat), which RabbitMQ and Ra keep
  their counters in: whatever shows or exports those takes these too.

  Nothing of seshat is needed for that. A distribution, which seshat does not have, is four numbers: `_count` and `_sum`,
  which are counters, `_p99` and `_max`, which are gauges.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Families

  @typedoc "By name, in seconds and bytes; labels are a map of atoms to text: `%{shard: \"0\", lane: \"batch\"}`."
  @type formatted :: %{
          String.t() => %{
            type: :counter | :gauge,
            help: String.t(),
            values: %{%{atom => String.t()} => number}
          }
        }

  @doc "As `seshat:format/1`: each metric with its type, its help text and its values by labels."
  @spec format() :: formatted
  def format, do: format(Families.now())

  @doc false
  @spec format([Families.t()]) :: formatted
  def format(families) do
    for family <- families, {name, type, pick} <- numbers(family), into: %{} do
      values = for {labels, value} <- family.values, into: %{}, do: {text(labels), pick.(value)}

      {name, %{type: type, help: family.help, values: values}}
    end
  end

  @doc """
  As `seshat:counters/1`: by shard the numbers of each metric, those of all labels added up, in the units and under the
  names of `Batcher.stats/1`. Distributions are left out.
  """
  @spec counters() :: %{Batcher.shard() => %{atom => number}}
  def counters do
    for {shard, stats} <- Batcher.stats(), into: %{}, do: {shard, sums(stats)}
  end

  defp sums(stats) do
    for {name, value} <- Map.delete(stats, :shard),
        sum = sum(value),
        into: %{},
        do: {name, sum}
  end

  defp sum(number) when is_number(number), do: number
  # Of a distribution not all values are numbers.
  defp sum(%{} = by_labels) do
    values = Map.values(by_labels)
    if Enum.all?(values, &is_number/1), do: Enum.sum(values)
  end

  defp sum(_none), do: nil

  defp numbers(%{type: :histogram, name: name}) do
    [
      {name <> "_count", :counter, & &1.count},
      {name <> "_sum", :counter, & &1.sum},
      {name <> "_p99", :gauge, & &1.p99},
      {name <> "_max", :gauge, & &1.max}
    ]
  end

  defp numbers(%{type: type, name: name}), do: [{name, type, & &1}]

  defp text(labels), do: Map.new(labels, fn {name, value} -> {name, to_string(value)} end)
end
