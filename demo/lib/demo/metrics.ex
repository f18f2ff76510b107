defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Metrics do
  @moduledoc false
  # Serves what the batchers count to Prometheus while the demo runs, at /metrics of a port of this machine.
  # One invariant: what was counted before `await_scrape/1` has been sent to whoever scrapes when that returns, if
  # somebody does.

  use GenServer

  require Record

  alias Ferricstore.Raft.WARaftBackend.Batcher

  Record.defrecordp(:mod, Record.extract(:mod, from_lib: "inets/include/httpd.hrl"))

  @registry :ferricstore_batcher_demo
  # As long as Prometheus waits between two scrapes unless it is told otherwise.
  @await_ms 60_000

  @doc "Starts to serve; 0 is any free port. Returns the process that serves, and where."
  @spec start(:inet.port_number()) :: {:ok, pid(), url :: String.t()} | {:error, String.t()}
  def start(port) do
    if Code.ensure_loaded?(:prometheus_registry) do
      for app <- [:prometheus, :inets], do: {:ok, _started} = Application.ensure_all_started(app)
      :prometheus_registry.register_collector(@registry, Batcher.Prometheus)

      case GenServer.start(__MODULE__, port, name: __MODULE__) do
        {:ok, server} ->
          {:ok, server, GenServer.call(server, :url)}

        {:error, reason} ->
          {:error, "the metrics can't be served on port #{port}: #{inspect(reason)}"}
      end
    else
      {:error, "--metrics-port needs prometheus.erl: run `make setup`"}
    end
  end

  @doc """
  Returns when a scrape that began after this call has been answered; at once if nobody has scraped so far, and in any
  case after a minute.
  """
  @spec await_scrape(pid() | nil) :: :ok
  def await_scrape(nil), do: :ok
  def await_scrape(server), do: GenServer.call(server, :await_scrape, :infinity)

  @spec stop(pid() | nil) :: :ok
  def stop(nil), do: :ok

  def stop(server) do
    GenServer.stop(server)
    :prometheus_registry.deregister_collector(@registry, Batcher.Prometheus)
  end

  # The server. `scrapes` are those that are being answered, by the monitor of their process, with their number.

  @impl GenServer
  def init(port) do
    Process.flag(:trap_exit, true)

    # A process for each request, which ends when that has been answered: hence no `keep_alive`.
    config = [
      port: port,
      bind_address: {127, 0, 0, 1},
      server_name: ~c"batcher.demo",
      server_root: String.to_charlist(System.tmp_dir!()),
      document_root: String.to_charlist(System.tmp_dir!()),
      keep_alive: false,
      modules: [__MODULE__]
    ]

    case :inets.start(:httpd, config) do
      {:ok, httpd} -> {:ok, %{httpd: httpd, scraped: 0, scrapes: %{}, waiting: []}}
      {:error, reason} -> {:stop, reason}
    end
  end

  @impl GenServer
  def handle_call(:url, _from, state) do
    [port: port] = :httpd.info(state.httpd, [:port])
    {:reply, "http://127.0.0.1:#{port}/metrics", state}
  end

  def handle_call({:scrape, process}, _from, state) do
    number = state.scraped + 1
    scrapes = Map.put(state.scrapes, Process.monitor(process), number)
    {:reply, :ok, %{state | scraped: number, scrapes: scrapes}}
  end

  def handle_call(:await_scrape, _from, %{scraped: 0} = state), do: {:reply, :ok, state}

  def handle_call(:await_scrape, from, state) do
    Process.send_after(self(), {:give_up, from}, @await_ms)
    {:noreply, %{state | waiting: [{from, state.scraped} | state.waiting]}}
  end

  @impl GenServer
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    {number, scrapes} = Map.pop(state.scrapes, monitor)
    {told, waiting} = Enum.split_with(state.waiting, fn {_from, after_} -> number > after_ end)
    for {from, _after} <- told, do: GenServer.reply(from, :ok)
    {:noreply, %{state | scrapes: scrapes, waiting: waiting}}
  end

  def handle_info({:give_up, from}, state) do
    {late, waiting} = Enum.split_with(state.waiting, &(elem(&1, 0) == from))
    for {from, _after} <- late, do: GenServer.reply(from, :ok)
    {:noreply, %{state | waiting: waiting}}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, state), do: :inets.stop(:httpd, state.httpd)

  # What httpd calls for each request, in a process of its own.
  @doc false
  def unquote(:do)(request) do
    case {mod(request, :method), mod(request, :request_uri)} do
      {~c"GET", ~c"/metrics"} ->
        :ok = GenServer.call(__MODULE__, {:scrape, self()})

        answer(
          200,
          :prometheus_text_format.content_type(),
          :prometheus_text_format.format(@registry)
        )

      _other ->
        answer(404, "text/plain", "The metrics are at /metrics.\n")
    end
  end

  defp answer(status, type, body) do
    head = [
      code: status,
      content_type: to_charlist(type),
      content_length: Integer.to_charlist(byte_size(body))
    ]

    {:proceed, [response: {:response, head, body}]}
  end
end
