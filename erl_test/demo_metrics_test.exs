# A demo that a real Prometheus scrapes, and the dashboard on top of that: clause 22.3 of the contract.
# Invariant: the demo runs in a VM of its own, on files of its own, and it and Prometheus end with their test.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.DemoMetricsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{PrometheusServer, TestJson}

  @dashboard Path.expand("../docs/grafana.json", __DIR__)
  @modules Enum.all?([:prometheus_text_format, :ra], &Code.ensure_loaded?/1)
  @programs Enum.all?(["prometheus", "promtool"], &PrometheusServer.program/1)

  unless @modules and @programs,
    do: @moduletag(skip: "Ra, prometheus.erl or Prometheus is not there: run `make setup`")

  import PrometheusServer, only: [directory: 1]
  setup :directory

  @tag timeout: 300_000
  test "22.3 a Prometheus that scrapes a demo has all the writes that the demo tells of, and answers every query of the dashboard",
       %{directory: directory} do
    port = PrometheusServer.free_port()
    server = PrometheusServer.start(directory, port, 2)
    lines = run_demo(port, directory)

    # What the first column commits past the batcher is not counted.
    [_label, _direct, default, auto] =
      lines |> Enum.find(&(&1 =~ ~r/\Aacknowledged writes /)) |> String.split(~r/\s{2,}/)

    writes = String.to_integer(default) + String.to_integer(auto)
    items = "sum(max_over_time(ferricstore_batcher_items_total[1h]))"
    # Each look takes a tenth of a second.
    wait_until(fn -> number(server, items) == writes end, 300)

    # When the last scrape was that found something: what is queued and the like has no value later.
    times = "max_over_time(timestamp(ferricstore_batcher_queued_items)[1h:1s])"
    last = number(server, "max(#{times})")

    for {query, names} <- queries() do
      series =
        case PrometheusServer.query(server, query, last) do
          {:ok, [_ | _] = series} -> series
          nothing -> flunk("#{query} is answered #{inspect(nothing)}")
        end

      for name <- names, do: assert(Enum.all?(series, &(&1 =~ ~s(#{name}="))), query)
    end
  end

  # In a VM of its own, whose batchers have counted nothing yet. Returns the lines that it printed.
  defp run_demo(port, directory) do
    {:ok, _started} = Application.ensure_all_started(:inets)

    arguments =
      ~w(batcher.demo --seconds 12 --shards 2 --callers 16 --metrics-port #{port} --data-dir) ++
        [Path.join(directory, "raft")]

    demo =
      Port.open({:spawn_executable, System.find_executable("mix")}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 10_000,
        # Of the build that is tested.
        env: [{~c"MIX_ENV", ~c"#{Mix.env()}"}],
        args: arguments
      ])

    lines = read_demo(demo, port, [])
    assert List.last(lines) =~ ~r/\A\d+ writes acknowledged, \d+ read back, 0 lost\z/
    lines
  end

  defp read_demo(demo, port, lines) do
    receive do
      {^demo, {:data, {_eol, "metrics for Prometheus at " <> url}}} ->
        # From now on the demo ends no column before it was scraped, however slowly Prometheus comes to that.
        assert {:ok, {{_version, 200, _phrase}, _head, _body}} =
                 :httpc.request(String.to_charlist(url))

        assert url == "http://127.0.0.1:#{port}/metrics"
        read_demo(demo, port, lines)

      {^demo, {:data, {_eol, line}}} ->
        read_demo(demo, port, [line | lines])

      {^demo, {:exit_status, status}} ->
        lines = Enum.reverse(lines)
        assert status == 0, Enum.join(lines, "\n")
        lines
    after
      120_000 -> flunk("the demo says nothing any more: #{inspect(lines)}")
    end
  end

  defp number(server, query) do
    with {:ok, [line]} <- PrometheusServer.query(server, query, System.os_time(:second)),
         [_all, number] <- Regex.run(~r/ => (\S+) @/, line),
         {number, ""} <- Float.parse(number),
         do: number,
         else: (_none -> nil)
  end

  # The queries of the dashboard, with its variables as they are for all shards, and the labels that their legends name.
  defp queries do
    dashboard = @dashboard |> File.read!() |> TestJson.decode!()

    panels =
      for panel <- dashboard["panels"],
          %{"expr" => query, "legendFormat" => legend} <- panel["targets"] || [],
          do: {query, legend}

    variables =
      for %{"type" => "query", "query" => %{"query" => query}} <- dashboard["templating"]["list"] do
        [_all, metric, label] = Regex.run(~r/\Alabel_values\((.+), (\w+)\)\z/, query)
        {"count by (#{label}) (#{metric})", "{{#{label}}}"}
      end

    for {query, legend} <- panels ++ variables do
      query =
        Enum.reduce([{"$__rate_interval", "1m"}, {"$job", ".*"}, {"$shard", ".*"}], query, fn
          {variable, value}, query -> String.replace(query, variable, value)
        end)

      refute query =~ "$"
      {query, for([_all, name] <- Regex.scan(~r/{{(\w+)}}/, legend), do: name)}
    end
  end
end
