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
  # another owner, or runs no more: that of an owner that was killed stays until then. A line that says that something
  # is over follows one that said that it is so.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Log,
    Native,
    Options,
    Settings,
    Shown,
    Telemetry,
    Told
  }

  use Shown, :watcher

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
  # Refusals that are told of: by the bounds of the shard, of all shards, and of a lane.
  @overload [:items, :bytes, :total_bytes, :overflow]
  # Among so many lanes those are looked for that are stuck.
  @lanes 1_024

  defstruct [
    :shard,
    # The number of its owner: see `Log.open/1`.
    :number,
    :owner,
    :monitor,
    :timer,
    # What was seen last: see `kept/1`.
    :seen,
    # Of a commit that is told to be stuck: `age_us` when it was seen last, whether a line said so (`told?`), and
    # whether it has ended (`over?`).
    stuck: nil,
    # Of an overload: how many writes were `refused` since it began, how many looks have passed since the last of these
    # (`quiet`), and whether a line said so (`told?`).
    overload: nil,
    idle: 0,
    filling?: false,
    # Whether the owner has left the shard to another.
    orphaned?: false,
    # What `:sys` keeps.
    debug: []
  ]

  @doc "Starts the watcher of the calling owner, whose number is `number`, linked to it."
  @spec start(integer, pos_integer) :: pid
  def start(shard, number) do
    {:ok, pid} = :proc_lib.start_link(__MODULE__, :init, [self(), shard, number])
    pid
  end

  @doc false
  def init(owner, shard, number) do
    # It does not end with its owner.
    Process.flag(:trap_exit, true)
    Shown.label(:watcher, shard)
    seen = with %{} = stats <- Native.numbers(shard), do: kept(stats)
    monitor = Process.monitor(owner)
    state = %__MODULE__{shard: shard, number: number, owner: owner, monitor: monitor, seen: seen}
    :proc_lib.init_ack(owner, {:ok, self()})
    loop(later(state))
  end

  @doc false
  def loop(%{monitor: monitor} = state) do
    receive do
      :look ->
        look(state)

      # The owner has ended: is the shard closed, or does it wait for another one?
      {:DOWN, ^monitor, :process, _owner, reason} ->
        look(%{state | orphaned?: left_behind?(reason)})

      {:system, from, request} ->
        :sys.handle_system_msg(request, from, state.owner, __MODULE__, state.debug, state)

      _stranger ->
        __MODULE__.loop(state)
    after
      # Between two looks there is next to nothing of it.
      0 -> :proc_lib.hibernate(__MODULE__, :loop, [state])
    end
  end

  # An orderly end closes the shard, and so does the library when it has failed.
  defp left_behind?(reason) when reason in [:normal, :shutdown], do: false
  defp left_behind?({:shutdown, _}), do: false
  defp left_behind?({:batcher_crashed, _text}), do: false
  defp left_behind?(_reason), do: true

  # --- What `:sys` asks for

  @doc false
  def system_continue(_parent, debug, state), do: loop(%{state | debug: debug})

  @doc false
  def system_terminate(reason, _parent, _debug, _state) do
    Shown.forget_messages()
    exit(reason)
  end

  defp shown(state), do: %{shard: state.shard}

  # --- A look

  defp look(%{shard: shard, number: number} = state) do
    stats = Native.numbers(shard)

    cond do
      Log.owners(shard) != number -> :ok
      stats == :not_running -> ended(state)
      true -> state |> seen(stats) |> later() |> __MODULE__.loop()
    end
  end

  defp kept(stats), do: Map.take(stats, [:queued_items, :queued_bytes])

  # Closed by its owner at an orderly end, or by nobody, since nobody came.
  defp ended(%{shard: shard} = state) do
    Told.refused(shard)

    with %{orphaned?: true, seen: %{} = seen} <- state,
         do: Log.tell(shard, :nobody_adopted, Enum.to_list(seen))

    :ok
  end

  defp seen(state, stats) do
    refused = Told.refused(state.shard)
    idle? = stats.lanes == 0 and refused == []
    state = state |> stuck(stats) |> filling(stats) |> overload(stats, refused)
    %{state | seen: kept(stats), idle: if(idle?, do: state.idle + 1, else: 0)}
  end

  defp later(state) do
    if state.timer, do: Process.cancel_timer(state.timer)
    idle? = state.idle >= @idle_looks and state.overload == nil and state.stuck == nil
    at_ms = System.monotonic_time(:millisecond) + if(idle?, do: @idle_ms, else: @look_ms)
    at_ms = at_ms - Integer.mod(at_ms, @tick_ms)
    %{state | timer: Process.send_after(self(), :look, at_ms, abs: true)}
  end

  # --- A commit that hangs

  defp stuck(%{shard: shard, stuck: stuck} = state, %{oldest_commit_age_us: age_us} = stats) do
    cond do
      age_us > 0 and age_us >= stuck_us(shard) ->
        about = [lane: stuck_lane(shard), pid: stats.oldest_commit_pid]
        new? = stuck == nil or stuck.over?
        if new?, do: emit_stuck(shard, age_us, about, stats)
        told? = stuck != nil and stuck.told?
        if new? and told?, do: Log.leave_out(shard, :commit_stuck)
        told? = told? or tell_stuck(shard, age_us, about, stats)
        %{state | stuck: %{age_us: age_us, told?: told?, over?: false}}

      stuck == nil ->
        state

      over?(shard, stuck.told?, :commit_stuck, :commit_ended, age_us: stuck.age_us) ->
        %{state | stuck: nil}

      true ->
        %{state | stuck: %{stuck | over?: true}}
    end
  end

  defp tell_stuck(shard, age_us, about, stats) do
    facts = fn -> [age_us: age_us, at: at(about[:pid])] ++ about ++ held(stats) end
    tell_if_due(shard, :commit_stuck, facts)
  end

  defp emit_stuck(shard, age_us, about, stats) do
    measurements = Map.take(stats, [:queued_items, :in_flight_items])
    metadata = Map.new([shard_index: shard] ++ about)
    Telemetry.Emit.tell(:stuck, Map.put(measurements, :age_us, age_us), metadata)
  end

  # Greater than any number, if it is `:infinity`.
  defp stuck_us(shard) do
    stuck_ms = Options.get(Settings.given(Settings.of(shard)), :stuck_ms)
    if is_integer(stuck_ms), do: 1_000 * stuck_ms, else: stuck_ms
  end

  # The lanes of one commit have been in flight for the same time.
  defp stuck_lane(shard) do
    with [_ | _] = lanes <- Native.busiest_lanes(shard, @lanes),
         in_flight =
           for({lane, _given, _queued, _age_us, us} when us != nil <- lanes, do: {us, lane}),
         [_ | _] <- in_flight do
      {longest, _lane} = Enum.max(in_flight)
      Log.lanes(for {^longest, lane} <- in_flight, do: lane)
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

  # --- A queue that fills

  defp filling(state, stats) do
    part =
      Enum.max([
        percent(stats.queued_items + stats.in_flight_items, stats.max_queue_items),
        percent(stats.queued_bytes + stats.in_flight_bytes, stats.max_queue_bytes),
        percent(stats.total_queue_bytes, stats.max_total_queue_bytes)
      ])

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

  # 0: there is no such bound.
  defp percent(_part, 0), do: 0
  defp percent(part, whole), do: div(100 * part, whole)

  # --- An overload

  defp overload(%{shard: shard} = state, stats, refused) do
    refused = Keyword.take(refused, @overload)
    count = refused |> Keyword.values() |> Enum.sum()

    case state.overload do
      before when count > 0 ->
        before = before || %{refused: 0, quiet: 0, told?: false}
        facts = fn -> [refused: refused] ++ held(stats) end
        told? = before.told? or tell_if_due(shard, :overload_began, facts)
        overload = %{refused: before.refused + count, quiet: 0, told?: told?}
        %{state | overload: overload}

      nil ->
        state

      %{quiet: quiet} = before when quiet + 1 < @quiet_looks ->
        %{state | overload: %{before | quiet: quiet + 1}}

      %{told?: told?, refused: refused} ->
        over? = over?(shard, told?, :overload_began, :overload_ended, refused: refused)
        if over?, do: %{state | overload: nil}, else: state
    end
  end

  # --- Lines in pairs

  # A line that may not be written yet is written at a later look, if what it tells of goes on until then.
  defp tell_if_due(shard, kind, facts) do
    due? = Log.due?(shard, kind)
    if due?, do: Log.tell(shard, kind, facts.())
    due?
  end

  # Whether it is over, in the log too: what nobody was told of is left out as a whole, and what was told of goes on
  # until the line that ends it may be written.
  defp over?(shard, false, began, _ended, _facts) do
    Log.leave_out(shard, began)
    true
  end

  defp over?(shard, true, _began, ended, facts), do: tell_if_due(shard, ended, fn -> facts end)

  defp held(stats) do
    keys = ~w(queued_items queued_bytes in_flight_items in_flight_bytes)a
    bounds = ~w(max_queue_items max_queue_bytes total_queue_bytes max_total_queue_bytes)a
    Enum.to_list(Map.take(stats, keys ++ bounds))
  end
end
