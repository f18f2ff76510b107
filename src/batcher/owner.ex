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

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Committer,
    Herald,
    Native,
    Options,
    Raw,
    Telemetry
  }

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
  def handle_call(:stop, {pid, _tag} = from, state) when is_pid(pid),
    do: {:stop, :normal, %{state | stops: [from | state.stops]}}

  def handle_call(request, from, state), do: {:noreply, handle_request(request, from, state)}

  @impl true
  def handle_cast(:stop, state), do: {:stop, :normal, state}
  def handle_cast(request, state), do: {:noreply, handle_request(request, state)}

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

  defp handle_request(:flush, {pid, _tag} = from, state) when is_pid(pid) do
    tag = make_ref()

    case Native.flush(state.shard, tag) do
      :not_running ->
        GenServer.reply(from, :ok)
        state

      _number ->
        put_in(state.flushes[tag], from)
    end
  end

  defp handle_request(request, {pid, _tag} = from, state) when is_pid(pid) do
    Raw.call(state.shard, request, from)
    state
  end

  # Whoever made this up can't be answered.
  defp handle_request(_request, _from, state), do: state

  defp handle_request(request, state) do
    Raw.cast(state.shard, request)
    state
  end

  defp handle_message({:spawn_committers, count}, state) when is_integer(count) do
    start_committers(state, count)
    state
  end

  defp handle_message(:spawn_heralds, state) do
    Herald.start_all(state.shard)
    state
  end

  defp handle_message({:EXIT, _pid, :normal}, state), do: state

  defp handle_message({:EXIT, pid, reason}, state) when is_pid(pid) and node(pid) == node() do
    Native.committer_down(state.shard, pid, {:error, {:backend_exit, reason}})
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

    {result, state} =
      case Native.stop(state.shard, drained) do
        :not_running -> {:ok, state}
        _number -> drain(state, drained)
      end

    Process.cancel_timer(deadline)
    Native.close(state.shard)
    name = Batcher.name(state.shard)
    if Process.whereis(name) == self(), do: Process.unregister(name)
    flushed = if result == :ok, do: :ok, else: {:error, :shutting_down}
    Enum.each(state.flushes, fn {_tag, from} -> GenServer.reply(from, flushed) end)
    state = sweep(%{state | flushes: %{}})
    Enum.each(state.stops, &GenServer.reply(&1, :ok))
  end

  defp drain(state, drained) do
    receive do
      {^drained, result} -> {result, state}
      message -> drain(handle_while_ending(message, state), drained)
    end
  end

  # Whoever called when it was too late is answered as well.
  defp sweep(state) do
    receive do
      message -> sweep(handle_while_ending(message, state))
    after
      0 -> state
    end
  end

  defp handle_while_ending({:"$gen_call", {pid, _tag} = from, :stop}, state) when is_pid(pid),
    do: %{state | stops: [from | state.stops]}

  defp handle_while_ending({:"$gen_call", from, request}, state),
    do: handle_request(request, from, state)

  defp handle_while_ending({:"$gen_cast", request}, state), do: handle_request(request, state)
  defp handle_while_ending(message, state), do: handle_message(message, state)
end
