defmodule Ferricstore.Raft.WARaftBackend.Batcher.Owner do
  @moduledoc false
  # The process that is registered for a shard: opens it, starts committers when the library asks
  # for some, watches them, drains at the end. No write passes through it, but for the raw messages
  # of contract 3.8.
  #
  # Invariant: what is queued belongs to the shard. If this process is killed, another owner takes
  # it over; only an orderly end closes the shard.

  use GenServer

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.{Committer, Native, Options, Raw, Telemetry}

  # Ready before the first write.
  @committers 2

  defstruct [:shard, :drain_timeout, :telemetry?, flushes: %{}, stops: []]

  @spec start_link(non_neg_integer, Options.t()) :: GenServer.on_start()
  def start_link(shard, options),
    do: GenServer.start_link(__MODULE__, {shard, options}, name: Batcher.name(shard))

  @impl true
  def init({shard, options}) do
    Process.flag(:trap_exit, true)

    case Native.open(shard, Options.native(options)) do
      {:ok, committers} ->
        state = %__MODULE__{
          shard: shard,
          drain_timeout: options.drain_timeout,
          telemetry?: Telemetry.available?()
        }

        Enum.each(committers, &Process.link/1)
        start_committers(state, @committers - length(committers))
        {:ok, state}

      {:error, reason} ->
        {:stop, {:thread_not_started, reason}}
    end
  end

  @impl true
  def handle_call(:stop, from, state),
    do: {:stop, :normal, %{state | stops: [from | state.stops]}}

  def handle_call(request, from, state), do: {:noreply, handle_request(request, from, state)}

  @impl true
  def handle_cast(:stop, state), do: {:stop, :normal, state}

  def handle_cast(request, state) do
    Raw.cast(state.shard, request)
    {:noreply, state}
  end

  # The library has failed and has told everybody who waited (10.5).
  @impl true
  def handle_info({:batcher_crashed, _text} = reason, state), do: {:stop, reason, state}
  def handle_info(message, state), do: {:noreply, handle_message(message, state)}

  # A crash leaves the shard to a successor.
  @impl true
  def terminate(reason, state) do
    if orderly?(reason), do: drain(state)
  end

  defp orderly?(reason) when reason in [:normal, :shutdown], do: true
  defp orderly?({:shutdown, _}), do: true
  defp orderly?(_reason), do: false

  defp handle_request(:flush, from, state) do
    tag = make_ref()

    case Native.flush(state.shard, tag) do
      :not_running ->
        GenServer.reply(from, :ok)
        state

      _number ->
        put_in(state.flushes[tag], from)
    end
  end

  defp handle_request(request, from, state) do
    Raw.call(state.shard, request, from)
    state
  end

  defp handle_message({:spawn_committers, count}, state) do
    start_committers(state, count)
    state
  end

  defp handle_message({:EXIT, _pid, :normal}, state), do: state

  defp handle_message({:EXIT, pid, reason}, state) do
    result = {:error, {:backend_exit, reason}}
    Committer.deliver(Native.committer_down(state.shard, pid, result))
    state
  end

  defp handle_message({tag, result}, state) when is_map_key(state.flushes, tag) do
    {from, flushes} = Map.pop!(state.flushes, tag)
    GenServer.reply(from, result)
    %{state | flushes: flushes}
  end

  # Stale timers of older versions, and whatever else.
  defp handle_message(_unknown, state), do: state

  defp start_committers(state, count) when count > 0 do
    for _ <- 1..count, do: Committer.start_link(state.shard, state.telemetry?)
  end

  defp start_committers(_state, _count), do: []

  # Refuses new writes, has everything queued committed, and closes the shard; what the backend
  # did not get within the time is answered, what is in flight ends by itself (11.3, 11.6).
  defp drain(state) do
    drained = make_ref()
    deadline = Process.send_after(self(), {drained, :too_late}, state.drain_timeout)

    state =
      case Native.stop(state.shard, drained) do
        :not_running -> state
        _number -> drain(state, drained)
      end

    Process.cancel_timer(deadline)
    Native.close(state.shard)
    name = Batcher.name(state.shard)
    if Process.whereis(name) == self(), do: Process.unregister(name)
    Enum.each(state.stops, &GenServer.reply(&1, :ok))
  end

  defp drain(state, drained) do
    receive do
      {^drained, _} ->
        state

      {:"$gen_call", from, :stop} ->
        drain(%{state | stops: [from | state.stops]}, drained)

      {:"$gen_call", from, request} ->
        drain(handle_request(request, from, state), drained)

      {:"$gen_cast", request} ->
        Raw.cast(state.shard, request)
        drain(state, drained)

      message ->
        drain(handle_message(message, state), drained)
    end
  end
end
