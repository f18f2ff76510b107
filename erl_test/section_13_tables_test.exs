# The table of events and what is made of it: section 13 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section13TablesTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Metrics, Telemetry}

  @batcher [:ferricstore, :waraft, :batcher]

  defp described(event), do: Enum.find(Telemetry.events(), &(&1.event == event))

  defp definitions(event),
    do:
      for({_, _, options} = one <- Metrics.definitions(), options[:event_name] == event, do: one)

  test "13.8 units: of what ends in _us microseconds, of bytes bytes, of all else none" do
    for %{measurements: measurements} <- Telemetry.events(), {name, unit, help} <- measurements do
      assert unit == unit(Atom.to_string(name)), "#{name}"
      assert help != ""
    end
  end

  defp unit(name) do
    cond do
      String.ends_with?(name, "_us") -> :microsecond
      String.ends_with?(name, "_bytes") -> :byte
      true -> :none
    end
  end

  test "13.8 each cause of a refusal is described", %{shard: shard} do
    start_batcher(shard)
    {:cause, help} = List.keyfind(described(@batcher ++ [:refused]).metadata, :cause, 0)
    causes = Map.keys(Batcher.stats(shard).refused_total)
    assert length(causes) > 6
    for cause <- causes, do: assert(help =~ "`#{inspect(cause)}`")
  end

  test "13.9 definitions: one for each measurement, but for those that say the same" do
    defined = for {_, name, _} <- Metrics.definitions(), do: name

    all =
      for %{event: event, measurements: measurements} <- Telemetry.events(),
          {name, _unit, _help} <- measurements,
          name not in [:queue_age_us, :total_duration_us],
          do: event ++ [name]

    assert Enum.sort(defined) == Enum.sort(all)
    assert defined == Enum.uniq(defined)
  end

  test "13.9 definitions: kinds, names, units and descriptions" do
    for {kind, name, options} <- Metrics.definitions() do
      assert name == options[:event_name] ++ [options[:measurement]]

      described =
        List.keyfind(described(options[:event_name]).measurements, options[:measurement], 0)

      assert {_name, unit, help} = described
      assert options[:unit] == if(unit == :none, do: :unit, else: unit)
      assert options[:description] == help
      assert kind == kind(options[:measurement]), inspect(name)
    end
  end

  defp kind(:count), do: :sum
  defp kind(held) when held in [:queued_items, :queued_bytes, :in_flight_items], do: :last_value
  defp kind(_other), do: :distribution

  test "13.9 definitions: tags are what the event has of few values, and never a prefix" do
    few = [:shard_index, :lane, :reason, :status, :cause]

    for {_kind, name, options} <- Metrics.definitions() do
      keys = for {key, _help} <- described(options[:event_name]).metadata, do: key
      assert options[:tags] == Enum.filter(keys, &(&1 in few)), inspect(name)
    end

    tags = fn event ->
      for {_, _, options} <- definitions(event), uniq: true, do: options[:tags]
    end

    assert tags.(@batcher ++ [:slot_flush]) == [[:shard_index, :lane, :reason]]

    assert tags.([:ferricstore, :batcher, :quorum_submit]) == [
             [:shard_index, :lane, :status, :reason]
           ]

    assert tags.(@batcher ++ [:refused]) == [[:shard_index, :cause]]
    assert tags.(@batcher ++ [:stuck]) == [[:shard_index, :lane]]
  end

  test "13.9 definitions: each distribution has buckets for its unit, ascending, and nothing else has" do
    for {kind, name, options} <- Metrics.definitions() do
      case {kind, options[:reporter_options]} do
        {:distribution, [buckets: [_, _ | _] = buckets]} ->
          assert buckets == Enum.sort(Enum.uniq(buckets)), inspect(name)
          assert Enum.all?(buckets, &(is_integer(&1) and &1 > 0))

        {_sum_or_last_value, none} ->
          assert {kind != :distribution, none} == {true, nil}, inspect(name)
      end
    end
  end

  test "13.9 the documentation names each event and measurement" do
    {:docs_v1, _, _, _, %{"en" => docs}, _, _} = Code.fetch_docs(Telemetry)

    for %{event: event, measurements: measurements} <- Telemetry.events() do
      assert docs =~ inspect(event)
      for {name, _unit, _help} <- measurements, do: assert(docs =~ "`#{inspect(name)}`")
    end
  end
end
