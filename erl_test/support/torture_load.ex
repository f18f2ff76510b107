defmodule Ferricstore.Raft.WARaftBackend.Batcher.Torture.Load do
  @moduledoc false
  # On each node of the torture test: a batcher, the callers that write through it, and a meter of their pace.
  #
  # Invariant: a caller writes one operation at a time and goes on after whatever error; it ends when told to,
  # with an empty mailbox.

  use GenServer

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.TestTelemetry
  alias Ferricstore.Raft.WARaftBackend.Batcher.Torture.{Ledger, Workload}

  @shard 0
  @tick_ms 25
  # The pace before a kill is taken over so many ms, and the one after it.
  @before_ms 2_000
  @after_ms 250
  # Between two operations of a caller, so that the nodes leave each other the processors.
  @pause_ms 20

  @type config :: %{
          site: atom,
          life: pos_integer,
          callers: pos_integer,
          ledger: Path.t(),
          backend: module,
          way: keyword
        }

  @doc "Starts it all, linked to nothing."
  @spec start(config) :: :ok
  def start(config) do
    {:ok, _} = Application.ensure_all_started(:elixir)
    TestTelemetry.start()
    Application.put_env(:ferricstore, :waraft_backend_batcher_backend, config.backend)
    {:ok, _pid} = GenServer.start(__MODULE__, config, name: __MODULE__)
    :ok
  end

  @doc "Waits for two seconds of traffic. Answers its pace, in acknowledged operations per second."
  @spec pace() :: float
  def pace, do: GenServer.call(__MODULE__, :pace, 60_000)

  @doc """
  Waits until the pace since `since` (ms of the system's clock) is at least half of `pace`. Answers how many ms
  after `since` that was, and the longest time in between without any acknowledgement.
  """
  @spec recovery(integer, float, pos_integer) ::
          {:ok, ms :: integer, silence_ms :: integer} | {:error, :timeout}
  def recovery(since, pace, timeout_ms) do
    deadline = since + timeout_ms
    GenServer.call(__MODULE__, {:recovery, since, pace / 2, deadline}, timeout_ms + 10_000)
  end

  @doc "Ends the callers, once each has been answered what it is waiting for."
  @spec stop() :: :ok
  def stop, do: GenServer.call(__MODULE__, :stop, 150_000)

  @impl GenServer
  def init(config) do
    {:ok, _} = Supervisor.start_link([{Batcher, {@shard, config.way}}], strategy: :one_for_one)
    acks = :counters.new(1, [:write_concurrency])

    callers =
      for n <- 1..config.callers,
          do: spawn_link(fn -> begin({config.site, config.life, n}, config.ledger, acks) end)

    {:ok, tick(%{acks: acks, callers: callers, samples: [], waiting: []})}
  end

  @impl GenServer
  def handle_call(:pace, from, state),
    do: {:noreply, %{state | waiting: [{:pace, from, now()} | state.waiting]}}

  def handle_call({:recovery, since, pace, deadline}, from, state) do
    waiting = {:recovery, from, since, pace, deadline}
    {:noreply, %{state | waiting: [waiting | state.waiting]}}
  end

  def handle_call(:stop, from, state) do
    for caller <- state.callers, do: Process.monitor(caller)
    Enum.each(state.callers, &send(&1, :stop))
    {:noreply, %{state | waiting: [{:stop, from} | state.waiting]}}
  end

  @impl GenServer
  def handle_info(:tick, state) do
    state = tick(state)
    {:noreply, %{state | waiting: Enum.reject(state.waiting, &answered?(&1, state.samples))}}
  end

  # A caller that ends otherwise takes this process with it.
  def handle_info({:DOWN, _, :process, caller, :normal}, state) do
    state = %{state | callers: List.delete(state.callers, caller)}

    if state.callers == [],
      do: for({:stop, from} <- state.waiting, do: GenServer.reply(from, :ok))

    {:noreply, state}
  end

  ## The meter

  defp tick(state) do
    Process.send_after(self(), :tick, @tick_ms)
    %{state | samples: [{now(), :counters.get(state.acks, 1)} | state.samples]}
  end

  defp answered?({:pace, from, since}, [{now, count} = last | _] = samples) do
    case since(samples, since) |> List.last() do
      {begun, before} = first when now - begun >= @before_ms and count > before ->
        GenServer.reply(from, pace(first, last))
        true

      _not_yet ->
        false
    end
  end

  defp answered?({:recovery, from, since, pace, deadline}, [{now, _} = last | _] = samples) do
    samples = since(samples, since)
    span = Enum.find(samples, fn {at, _count} -> now - at >= @after_ms end)

    cond do
      span != nil and pace(span, last) >= pace ->
        GenServer.reply(from, {:ok, now - since, silence(Enum.reverse(samples), since)})
        true

      now > deadline ->
        GenServer.reply(from, {:error, :timeout})
        true

      true ->
        false
    end
  end

  defp answered?({:stop, _from}, _samples), do: false

  # Newest first.
  defp since(samples, since), do: Enum.take_while(samples, fn {at, _count} -> at >= since end)

  defp pace({t0, count0}, {t1, count1}), do: (count1 - count0) * 1_000 / max(t1 - t0, 1)

  defp silence([], _since), do: 0

  defp silence([{_, count} | _] = samples, since) do
    {_, _, longest} =
      Enum.reduce(samples, {since, count, 0}, fn {at, count}, {last, before, longest} ->
        if count > before, do: {at, count, max(longest, at - last)}, else: {last, before, longest}
      end)

    longest
  end

  defp now, do: :os.system_time(:millisecond)

  ## The callers

  defp begin(id, ledger, acks), do: call(id, 0, %{}, Ledger.open(ledger, id), acks)

  defp call(id, seq, sums, file, acks) do
    receive do
      :stop -> finish(file)
    after
      @pause_ms ->
        {call, effects} = Workload.operation(id, seq)
        {outcome, sums} = Workload.judge(call, effects, Workload.run(call), sums)
        Ledger.append(file, outcome)
        if outcome == :acked, do: :counters.add(acks, 1, 1)
        call(id, seq + 1, sums, file, acks)
    end
  end

  # Replies to calls that were given up must not arrive (3.7).
  defp finish(file) do
    {:messages, messages} = Process.info(self(), :messages)
    for message <- messages, do: Ledger.append(file, {:odd, "a message #{inspect(message)}"})
    Ledger.append(file, :stopped)
  end
end
