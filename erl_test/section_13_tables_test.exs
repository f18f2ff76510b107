# The table of events and what is made of it: section 13 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section13TablesTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.LogLines, only: [listen: 1]

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Metrics, Telemetry}

  @moduletag :capture_log

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

  test "13.8 the default logger: each event by its name, sorted, without prefixes and references",
       %{
         shard: shard
       } do
    listen(shard)
    assert Telemetry.attach_default_logger(:notice) == :ok
    on_exit(fn -> Telemetry.detach_default_logger() end)
    several = %{commit: make_ref(), lanes: 2}
    flush = %{batch_size: 1, queue_wait_us: 2, duration_us: 3}
    error = {:error, {:no, "s3cret"}}

    for {event, measurements, metadata, text} <- [
          {:start, %{caller_count: 1, batch_size: 2}, Map.put(several, :reason, :window),
           "start batch_size=2 caller_count=1 lanes=2 reason=:window"},
          {:slot_flush, flush, %{prefix: "s3cret", lane: :namespace, result: error},
           "slot_flush batch_size=1 duration_us=3 queue_wait_us=2 lane=:namespace result={:error, {:no, _}}"},
          {:hot_flush, flush, %{kind: :batch, window_ms: 5},
           "hot_flush batch_size=1 duration_us=3 queue_wait_us=2 kind=:batch window_ms=5"},
          {:direct, %{duration_us: 7}, %{result: :exit}, "direct duration_us=7 result=:exit"},
          {:refused, %{count: 3}, %{cause: :items}, "refused count=3 cause=:items"},
          {:stuck, %{age_us: 1}, %{pid: self(), lane: :batch},
           "stuck age_us=1 lane=:batch pid=#{inspect(self())}"},
          {:stuck, %{age_us: 1}, %{pid: nil}, "stuck age_us=1 pid=nil"},
          {:committer_down, %{count: 1}, %{reason: "{:error, _}"},
           "committer_down count=1 reason={:error, _}"},
          {:adopted, %{queued_items: 1}, %{}, "adopted queued_items=1 "},
          {:drained, %{queued_items: 1}, %{result: :ok}, "drained queued_items=1 result=:ok"}
        ] do
      metadata = Map.put(metadata, :shard_index, shard)
      :telemetry.execute(@batcher ++ [event], measurements, metadata)
      assert_received {:log, :notice, %{shard: ^shard}, line}
      assert line == "batcher #{shard}: " <> text
    end

    metadata = %{shard_index: shard, backend: :waraft}
    :telemetry.execute([:ferricstore, :batcher, :quorum_submit], %{}, metadata)
    assert_received {:log, :notice, _, line}
    assert line == "batcher #{shard}: quorum_submit  backend=:waraft"
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
