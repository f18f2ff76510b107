defmodule Ferricstore.Raft.WARaftBackend.Batcher.Watch do
  @moduledoc false
  # The process that looks at a shard once a second, and tells in the log and to telemetry what nobody is there to tell
  # when it happens: a commit that hangs, a queue that fills, writes that are refused, queued writes that no owner came
  # for (contract 13, 21).
  #
  # A shard that has held nothing for a while is looked at once in 5 s only; between two looks the watcher keeps next to
  # nothing.
  #
  # Invariant: it reads what is counted anyway, so that no write and no refusal pays for it. It ends when the shard has
  # another owner, or runs no more: that of an owner that was killed stays until then.

  use GenServer

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Log,
    Name,
    Native,
    Options,
    Settings,
    Shown,
    Telemetry
  }

  @look_ms 1_000
  @idle_ms 5_000
  # Watchers look at these moments only, several at a time: to wake a scheduler takes longer than a look.
  @tick_ms 100
  # So many looks without anything held or refused, and it is looked less often.
  @idle_looks 10
  # So many looks without a refusal, and the overload is over.
  @quiet_looks 3
  # Of a bound, in percent: from here on a queue fills, and from here down it fills no more.
  @filling 80
  @filling_no_more 60
  @overload [:items, :bytes, :total_bytes]
  # Among so many lanes the one is looked for that is stuck.
  @lanes 1_024

  defstruct [
    :shard,
    # The number of its owner: see `Log.open/1`.
    :number,
    :timer,
    # What was seen last: see `kept/2`.
    :seen,
    # The age of the commit that was told to be stuck, in us, when it was seen last.
    :stuck_us,
    idle: 0,
    filling?: false,
    # Refused since the overload began, and looks since the last refusal.
    overload: nil
  ]

  @doc "Starts the watcher of the calling owner, whose number is `number`, linked to it."
  @spec start(integer, pos_integer) :: pid
  def start(shard, number) do
    # Not `start_link/3`: it would end with its owner.
    {:ok, pid} = GenServer.start(__MODULE__, {shard, number}, [])
    Process.link(pid)
    pid
  end

  @impl true
  def init({shard, number}) do
    Process.flag(:trap_exit, true)
    Shown.label(:watcher, shard)
    seen = with %{} = stats <- Native.numbers(shard), do: kept(stats, false)
    {:ok, later(%__MODULE__{shard: shard, number: number, seen: seen}), :hibernate}
  end

  @impl true
  def handle_info(:look, state), do: look(state)
  # The owner has ended: is the shard closed, or does it wait for another one?
  def handle_info({:EXIT, _owner, _reason}, state), do: look(state)
  def handle_info(_stranger, state), do: {:noreply, state, :hibernate}

  @impl true
  def handle_call(_request, _from, state), do: {:noreply, state, :hibernate}

  @impl true
  def handle_cast(_request, state), do: {:noreply, state, :hibernate}

  defp look(%{shard: shard, number: number} = state) do
    stats = Native.numbers(shard)

    cond do
      Log.owners(shard) != number -> {:stop, :normal, state}
      stats == :not_running -> ended(state)
      true -> {:noreply, state |> seen(stats) |> later(), :hibernate}
    end
  end

  defp kept(stats, orphaned?) do
    stats
    |> Map.take([:refused_total, :queued_items, :queued_bytes])
    |> Map.put(:orphaned?, orphaned?)
  end

  # Closed by its owner at an orderly end, or by nobody, since nobody came.
  defp ended(%{seen: %{orphaned?: true} = seen} = state) do
    facts = Map.take(seen, [:queued_items, :queued_bytes])
    Log.tell(state.shard, :nobody_adopted, Enum.to_list(facts))
    {:stop, :normal, state}
  end

  defp ended(state), do: {:stop, :normal, state}

  defp seen(state, stats) do
    refused = refused(state.seen, stats)
    emit_refused(state.shard, refused)
    idle? = stats.lanes == 0 and refused == []
    state = state |> stuck(stats) |> filling(stats) |> overload(stats, refused)
    seen = kept(stats, Name.owner(state.shard) == nil)
    %{state | seen: seen, idle: if(idle?, do: state.idle + 1, else: 0)}
  end

  defp later(state) do
    if state.timer, do: Process.cancel_timer(state.timer)
    idle? = state.idle >= @idle_looks and state.overload == nil and state.stuck_us == nil
    at_ms = System.monotonic_time(:millisecond) + if(idle?, do: @idle_ms, else: @look_ms)
    at_ms = at_ms - Integer.mod(at_ms, @tick_ms)
    %{state | timer: Process.send_after(self(), :look, at_ms, abs: true)}
  end

  # What was refused since the last look, by cause. A counter may have been zeroed meanwhile.
  defp refused(:not_running, _stats), do: []

  defp refused(seen, stats) do
    for {cause, count} <- Enum.sort(stats.refused_total),
        before = Map.get(seen.refused_total, cause, 0),
        more = if(count >= before, do: count - before, else: count),
        more > 0,
        do: {cause, more}
  end

  defp emit_refused(shard, refused) do
    for {cause, count} <- refused,
        do: Telemetry.Emit.tell(:refused, %{count: count}, %{shard_index: shard, cause: cause})
  end

  defp stuck(state, %{oldest_commit_age_us: age_us} = stats) do
    stuck? = age_us > 0 and age_us >= stuck_us(state.shard)

    cond do
      stuck? and state.stuck_us == nil ->
        pid = stats.oldest_commit_pid
        about = [lane: stuck_lane(state.shard), pid: pid]

        Log.tell(
          state.shard,
          :commit_stuck,
          [age_us: age_us, at: at(pid)] ++ about ++ held(stats)
        )

        measurements = Map.take(stats, [:queued_items, :in_flight_items])
        metadata = Map.new([shard_index: state.shard] ++ about)
        Telemetry.Emit.tell(:stuck, Map.put(measurements, :age_us, age_us), metadata)
        %{state | stuck_us: age_us}

      stuck? ->
        %{state | stuck_us: age_us}

      state.stuck_us != nil ->
        Log.tell(state.shard, :commit_ended, age_us: state.stuck_us)
        %{state | stuck_us: nil}

      true ->
        state
    end
  end

  # Greater than any number, if it is `:infinity`.
  defp stuck_us(shard) do
    stuck_ms = Options.get(Settings.given(Settings.of(shard)), :stuck_ms)
    if is_integer(stuck_ms), do: 1_000 * stuck_ms, else: stuck_ms
  end

  defp stuck_lane(shard) do
    with [_ | _] = lanes <- Native.busiest_lanes(shard, @lanes),
         {lane, _given, _queued, _age_us, in_flight_us} when in_flight_us != nil <-
           Enum.max_by(lanes, &(elem(&1, 4) || -1)) do
      Log.lane(lane)
    else
      _none -> :unknown
    end
  end

  # The function, without what it was called with.
  defp at(pid) do
    with true <- is_pid(pid) and node(pid) == node(),
         {:current_function, {module, function, arity}} <- Process.info(pid, :current_function) do
      Exception.format_mfa(module, function, arity)
    else
      _gone -> "no function any more"
    end
  end

  defp filling(state, stats) do
    part =
      max(
        percent(stats.queued_items + stats.in_flight_items, stats.max_queue_items),
        percent(stats.queued_bytes + stats.in_flight_bytes, stats.max_queue_bytes)
      )

    cond do
      not state.filling? and part >= @filling ->
        Log.tell(state.shard, :queue_filling, held(stats))
        %{state | filling?: true}

      state.filling? and part < @filling_no_more ->
        %{state | filling?: false}

      true ->
        state
    end
  end

  defp percent(_part, 0), do: 0
  defp percent(part, whole), do: div(100 * part, whole)

  defp overload(state, stats, refused) do
    refused = Keyword.take(refused, @overload)
    count = refused |> Keyword.values() |> Enum.sum()

    case state.overload do
      nil when count > 0 ->
        Log.tell(state.shard, :overload_began, [refused: refused] ++ held(stats))
        %{state | overload: {count, 0}}

      {before, _quiet} when count > 0 ->
        %{state | overload: {before + count, 0}}

      {before, quiet} when quiet + 1 >= @quiet_looks ->
        Log.tell(state.shard, :overload_ended, refused: before)
        %{state | overload: nil}

      {before, quiet} ->
        %{state | overload: {before, quiet + 1}}

      nil ->
        state
    end
  end

  defp held(stats) do
    keys = ~w(queued_items queued_bytes in_flight_items in_flight_bytes)a
    Enum.to_list(Map.take(stats, keys ++ ~w(max_queue_items max_queue_bytes)a))
  end
end
