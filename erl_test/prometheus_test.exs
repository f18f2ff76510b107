# What the library counts, as Prometheus and RabbitMQ's tools take it: clauses 22.1 and 22.2 of the contract.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.PrometheusTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Families,
    Native,
    Prometheus,
    PrometheusServer,
    Seshat
  }

  @collects? Code.ensure_loaded?(:prometheus_text_format)
  @needs_prometheus if @collects?,
                      do: [],
                      else: [skip: "prometheus.erl is not there: run `make setup`"]
  @needs_promtool if @collects? && PrometheusServer.program("promtool"),
                    do: [],
                    else: [skip: "prometheus.erl or promtool is not there: run `make setup`"]

  import PrometheusServer, only: [directory: 1]
  setup :directory

  @definitions [
    {:writes_total, :counter, :none, [:lane], "Calls accepted"},
    {:commits_total, :counter, :none, [:reason, :result], "Commits"},
    {:busy_us_total, :counter, :microseconds, [], "Time"},
    {:queued_bytes, :gauge, :bytes, [], "Bytes queued"},
    {:oldest_write_age_us, :gauge, :microseconds, [], "Age"},
    {:commit_us, :distribution, :microseconds, [], "Time of a commit"},
    {:absent_total, :counter, :none, [], "Nobody has this"}
  ]
  @distribution %{
    count: 3,
    sum: 1_500_000,
    min: 1,
    max: 1_400_000,
    mean: 500_000.0,
    p50: 2_500,
    p90: 1_400_000,
    p99: 1_300_000,
    p99_9: 1_400_000,
    buckets: [{1_000, 1}, {2_500, 2}, {:infinity, 3}]
  }
  @stats %{
    7 => %{
      shard: 7,
      writes_total: %{batch: 1, namespace: 2},
      commits_total: %{{:window, :ok} => 3, {:commit, :error} => 4},
      busy_us_total: 2_500_000,
      queued_bytes: 5,
      oldest_write_age_us: 1_500,
      commit_us: @distribution
    },
    0 => %{shard: 0, writes_total: %{batch: 6, namespace: 0}}
  }

  defmodule Canned do
    # A collector of numbers that a test has made.
    def collect_mf(_registry, callback) do
      for family <- :persistent_term.get(__MODULE__),
          do: callback.(Prometheus.metric_family(family))

      :ok
    end

    def deregister_cleanup(_registry), do: :ok
  end

  describe "22.1 families" do
    test "have base units and the suffixes of Prometheus, labels with the shard first, and shards in order" do
      families = Families.of(@definitions, @stats)

      assert for(family <- families, do: {family.name, family.type}) == [
               {"writes_total", :counter},
               {"commits_total", :counter},
               {"busy_seconds_total", :counter},
               {"queued_bytes", :gauge},
               {"oldest_write_age_seconds", :gauge},
               {"commit_seconds", :histogram}
             ]

      values = Map.new(families, &{&1.name, &1.values})

      assert values["writes_total"] == [
               {[shard: 0, lane: :batch], 6},
               {[shard: 0, lane: :namespace], 0},
               {[shard: 7, lane: :batch], 1},
               {[shard: 7, lane: :namespace], 2}
             ]

      assert values["commits_total"] == [
               {[shard: 7, reason: :commit, result: :error], 4},
               {[shard: 7, reason: :window, result: :ok], 3}
             ]

      assert values["busy_seconds_total"] == [{[shard: 7], 2.5}]
      assert values["queued_bytes"] == [{[shard: 7], 5}]
      assert values["oldest_write_age_seconds"] == [{[shard: 7], 0.0015}]

      assert [{[shard: 7], %{count: 3, sum: 1.5, max: 1.4, p99: 1.3, buckets: buckets}}] =
               values["commit_seconds"]

      assert buckets == [{0.001, 1}, {0.0025, 2}, {:infinity, 3}]
    end
  end

  describe "22.2 in the shapes of seshat" do
    test "each metric has a type that seshat knows, and text as labels" do
      formatted = Seshat.format(Families.of(@definitions, @stats))

      assert formatted["commits_total"] == %{
               type: :counter,
               help: "Commits",
               values: %{
                 %{shard: "7", reason: "commit", result: "error"} => 4,
                 %{shard: "7", reason: "window", result: "ok"} => 3
               }
             }

      for {suffix, type, value} <- [
            {"count", :counter, 3},
            {"sum", :counter, 1.5},
            {"p99", :gauge, 1.3},
            {"max", :gauge, 1.4}
          ] do
        assert %{type: ^type, values: %{%{shard: "7"} => ^value}} =
                 formatted["commit_seconds_" <> suffix]
      end

      refute Map.has_key?(formatted, "commit_seconds")
    end

    test "the counters of a shard are the sums over all labels", %{shard: shard} do
      start_batcher(shard)
      for i <- 1..3, do: write(shard, i)
      Batcher.write_put_batch(shard, [{"k", "v", 0}])

      counters = Seshat.counters()[shard]
      assert counters.writes_total == 4
      assert Enum.all?(counters, fn {name, value} -> is_atom(name) and is_number(value) end)

      for name <- [:commit_us, :shard, :oldest_commit_pid],
          do: refute(Map.has_key?(counters, name))
    end
  end

  describe "22.1 the collector" do
    @tag @needs_prometheus
    test "tells every metric of the library, of open shards only", %{shard: shard} do
      start_batcher(shard)
      for i <- 1..3, do: write(shard, i)
      text = scrape()
      families = Families.now()
      assert length(families) == length(Native.metrics())

      for %{name: name, type: type, help: help} <- families do
        assert text =~ "# TYPE ferricstore_batcher_#{name} #{type}\n"
        assert text =~ "# HELP ferricstore_batcher_#{name} #{help}\n"
        suffix = if type == :histogram, do: "_count", else: ""
        assert text =~ ~s(\nferricstore_batcher_#{name}#{suffix}{shard="#{shard}")
      end

      assert text =~ ~s(\nferricstore_batcher_writes_total{shard="#{shard}",lane="namespace"} 3\n)
      stop_supervised!({Batcher, shard})
      refute scrape() =~ ~s(shard="#{shard}")
    end

    @tag @needs_prometheus
    test "a distribution has its buckets, its sum and its count; times are in seconds" do
      :persistent_term.put(Canned, Families.of(@definitions, @stats))
      text = scrape(Canned)

      for line <- [
            ~s(ferricstore_batcher_commit_seconds_bucket{shard="7",le="+Inf"} 3),
            ~s(ferricstore_batcher_commit_seconds_count{shard="7"} 3),
            ~s(ferricstore_batcher_commit_seconds_sum{shard="7"} 1.5),
            ~s(ferricstore_batcher_oldest_write_age_seconds{shard="7"} 0.0015),
            ~s(ferricstore_batcher_commits_total{shard="7",reason="commit",result="error"} 4)
          ],
          do: assert(text =~ "\n" <> line <> "\n")
    end

    @tag @needs_promtool
    test "promtool finds no fault", %{shard: shard, directory: directory} do
      start_batcher(shard)
      for i <- 1..3, do: write(shard, i)
      assert PrometheusServer.check(scrape(), directory) == ""
    end

    @tag @needs_promtool
    test "promtool finds fault with what is no metric", %{directory: directory} do
      assert PrometheusServer.check("# TYPE writes counter\nwrites 1\n", directory) =~ "status"
    end
  end

  defp write(shard, i), do: Batcher.write(shard, "users", {:put, "k#{i}", "v", 0}, 1)

  # As a host serves it: in a registry that has this collector only.
  defp scrape(collector \\ Prometheus) do
    {:ok, _started} = Application.ensure_all_started(:prometheus)
    registry = Module.concat(__MODULE__, collector)
    :prometheus_registry.register_collector(registry, collector)
    :prometheus_text_format.format(registry)
  end
end
