defmodule Ferricstore.Raft.WARaftBackend.Batcher.PrometheusServer do
  @moduledoc false
  # A real Prometheus for one test: `prometheus` and `promtool` from the PATH, or as `make setup` unpacks them.
  #
  # Invariant: the server ends with the process that started it, and its files with the test's directory.

  @folder Path.expand("../../.prometheus", __DIR__)
  @ready "Server is ready to receive web requests."
  @ready_ms 60_000

  @doc "The path of one of the programs; `nil` if it is not there."
  @spec program(String.t()) :: Path.t() | nil
  def program(name) do
    beside = Path.join(@folder, name)
    System.find_executable(name) || if(File.regular?(beside), do: beside)
  end

  @doc "For `setup`: a directory of the test's own, gone with the test."
  @spec directory(map) :: %{directory: Path.t()}
  def directory(_context) do
    name = "prometheus-test-#{System.pid()}-#{System.unique_integer([:positive])}"
    directory = Path.join(System.tmp_dir!(), name)
    File.mkdir_p!(directory)
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(directory) end)
    %{directory: directory}
  end

  @doc "A port of this machine that nobody listens on."
  @spec free_port() :: :inet.port_number()
  def free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)
    port
  end

  @doc """
  Starts a server that scrapes `port` of this machine every `seconds`, keeps its data in `directory`, and is ready.
  Returns its address.
  """
  @spec start(Path.t(), :inet.port_number(), pos_integer) :: String.t()
  def start(directory, port, seconds) do
    config = Path.join(directory, "prometheus.yml")

    File.write!(config, """
    scrape_configs:
      - job_name: demo
        scrape_interval: #{seconds}s
        scrape_timeout: #{seconds}s
        static_configs:
          - targets: ["127.0.0.1:#{port}"]
    """)

    address = "127.0.0.1:#{free_port()}"

    # A shell that ends the server when its own input ends, which is when the port is closed or this VM has died.
    script = ~S("$@" </dev/null & server=$!; cat >/dev/null; kill -9 $server)

    server =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 10_000,
        args: [
          "-c",
          script,
          "prometheus",
          program("prometheus"),
          "--config.file=#{config}",
          "--storage.tsdb.path=#{Path.join(directory, "data")}",
          "--web.listen-address=#{address}"
        ]
      ])

    await_ready(server, [])
    "http://#{address}"
  end

  defp await_ready(server, lines) do
    receive do
      {^server, {:data, {_eol, line}}} ->
        unless line =~ @ready, do: await_ready(server, [line | lines])
    after
      @ready_ms ->
        raise "Prometheus did not become ready:\n" <> Enum.join(Enum.reverse(lines), "\n")
    end
  end

  @doc "What the server answers to a query, at a moment in seconds of the Unix clock: one line for each series."
  @spec query(String.t(), String.t(), number) :: {:ok, [String.t()]} | {:error, String.t()}
  def query(address, query, at) do
    arguments = ["query", "instant", "--time=#{:erlang.float_to_binary(at / 1, decimals: 3)}"]

    case System.cmd(program("promtool"), arguments ++ [address, query], stderr_to_stdout: true) do
      {output, 0} -> {:ok, String.split(output, "\n", trim: true)}
      {output, _status} -> {:error, output}
    end
  end

  @doc "What promtool finds fault with in this text of metrics; empty if all is well."
  @spec check(iodata, Path.t()) :: String.t()
  def check(text, directory) do
    path = Path.join(directory, "metrics.txt")
    File.write!(path, text)
    script = ~S(exec "$1" check metrics <"$2")
    arguments = ["-c", script, "promtool", program("promtool"), path]
    {output, status} = System.cmd("/bin/sh", arguments, stderr_to_stdout: true)
    if status == 0, do: output, else: "status #{status}\n" <> output
  end
end
