defmodule Ferricstore.Raft.WARaftBackend.Batcher.Metrics do
  @moduledoc """
  What `Telemetry.Metrics` can make of the events of batchers (`Ferricstore.Raft.WARaftBackend.Batcher.Telemetry`), as
  plain data, so that this library needs no other.

      for {kind, name, options} <- Batcher.Metrics.definitions(),
          do: apply(Telemetry.Metrics, kind, [name, options])

  What is counted without any handler, `Batcher.stats/1`, has more and costs less.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.Telemetry.Events

  # Of metadata what has few values, and none that a caller chooses.
  @tags [:shard_index, :lane, :reason, :status, :cause]
  # These say the same as others.
  @twice [:queue_age_us, :total_duration_us]
  @gauges [:queued_items, :queued_bytes, :in_flight_items]

  @typedoc "A function of `Telemetry.Metrics` and its arguments."
  @type definition :: {:sum | :distribution | :last_value, name :: [atom, ...], keyword}

  @doc """
  A definition for each measurement of each event: of times and sizes a `:distribution`, of counts a `:sum`, of what is
  held at a moment a `:last_value`. Options are `:event_name`, `:measurement`, `:tags`, `:unit` and `:description`, and
  for a distribution `:reporter_options` with buckets, as reporters for Prometheus want them.
  """
  @spec definitions() :: [definition]
  def definitions do
    for %{event: event, measurements: measurements, metadata: metadata} <- Events.all(),
        {name, unit, help} <- measurements,
        name not in @twice do
      kind = kind(name)

      options = [
        event_name: event,
        measurement: name,
        tags: for({key, _help} <- metadata, key in @tags, do: key),
        unit: if(unit == :none, do: :unit, else: unit),
        description: help
      ]

      {kind, event ++ [name], options ++ buckets(kind, unit)}
    end
  end

  defp kind(:count), do: :sum
  defp kind(gauge) when gauge in @gauges, do: :last_value
  defp kind(_size_or_time), do: :distribution

  defp buckets(:distribution, :microsecond),
    do: [
      reporter_options: [
        buckets: [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000]
      ]
    ]

  defp buckets(:distribution, :byte),
    do: [reporter_options: [buckets: [1_024, 16_384, 262_144, 4_194_304, 67_108_864]]]

  defp buckets(:distribution, :none),
    do: [reporter_options: [buckets: [1, 4, 16, 64, 256, 1_024, 4_096, 16_384]]]

  defp buckets(_sum_or_gauge, _unit), do: []
end
