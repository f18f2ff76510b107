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
  # is over follows one that said that it is so, whichever watcher wrote that: how far it was told of, `Log` keeps. So
  # the watcher of a closed shard stays until it has told that an overload, or a commit that hung, is over.

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
  # Of what goes on: the line that says that it does, the one that says that it is over, if there is one, and what that
  # has the number as.
  @lines [
    stuck: {:commit_stuck, :commit_ended, :age_us},
    overload: {:overload_began, :overload_ended, :refused},
    filling: {:queue_filling, nil, nil}
  ]

  defstruct [
    :shard,
    # The number of its owner: see `Log.open/1`.
    :number,
    :owner,
    :monitor,
    :timer,
    # What was seen last: see `kept/1`.
    :seen,
    # How its owner has ended: `nil`, it lives; `:in_order`, the shard is closed; `:dead`, it has left it to another.
    :ended,
    # How many looks have passed since the last refusal that is told of.
    quiet: 0,
    idle: 0,
    # What `:sys` keeps.
    debug: []
  ]

  @doc "Starts the watcher of the calling owner, whose number is `number`, linked to it."
  @spec start(integer, pos_integer) :: pid
  def start(shard, number) do
    {:ok, pid} = :proc_lib.start_link(__MODULE__, :init, [self(), shard, number])
    pid
  end

  @doc "Its owner has closed the shard, which held that by then, and had refused so much since it was told of last."
  @spec closed(pid, Told.numbers(), [{cause :: atom, pos_integer}]) :: :ok
  def closed(pid, left, refused) do
    send(pid, {:closed, left, refused})
    :ok
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
        look(%{state | ended: how_ended(reason)})

      {:closed, left, refused} ->
        last_look(state, left, refused)
        __MODULE__.loop(state)

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
  defp how_ended(reason) when reason in [:normal, :shutdown], do: :in_order
  defp how_ended({:shutdown, _}), do: :in_order
  defp how_ended({:batcher_crashed, _text}), do: :in_order
  defp how_ended(_reason), do: :dead

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
      stats != :not_running -> state |> seen(stats) |> later() |> __MODULE__.loop()
      # It is about to end.
      state.ended == nil -> state |> later() |> __MODULE__.loop()
      true -> ended(state)
    end
  end

  defp kept(stats), do: Map.take(stats, [:queued_items, :queued_bytes])

  # Closed by its owner at an orderly end, or by nobody, since nobody came.
  defp ended(%{shard: shard} = state) do
    add_refused(shard, Told.refused(shard))

    with %{ended: :dead, seen: %{} = seen} <- state,
         do: Log.tell(shard, :nobody_adopted, Enum.to_list(seen))

    Enum.each([:overload, :filling], &over(shard, &1))
    if over?(shard, :stuck), do: over(shard, :stuck)

    if over?(shard, :overload) or over?(shard, :stuck),
      do: __MODULE__.loop(later(%{state | ended: :in_order})),
      else: :ok
  end

  # A commit that hangs still is told of by the watcher of the next life, if there is one.
  defp last_look(%{shard: shard, number: number}, left, refused) do
    if Log.owners(shard) == number do
      add_refused(shard, refused)
      over(shard, :filling)
      hangs? = left == :not_running or hangs?(shard, left)
      if not hangs?, do: over(shard, :stuck)
    end
  end

  defp add_refused(shard, refused) do
    {stage, before} = told = Log.told(shard, :overload)
    if stage != :none, do: Log.change(shard, :overload, told, {stage, before + overload(refused)})
  end

  defp seen(state, stats) do
    refused = Told.refused(state.shard)
    idle? = stats.lanes == 0 and refused == []
    stuck(state.shard, stats)
    filling(state.shard, stats)
    state = overload(state, stats, refused)
    %{state | seen: kept(stats), idle: if(idle?, do: state.idle + 1, else: 0)}
  end

  defp later(state) do
    if state.timer, do: Process.cancel_timer(state.timer)
    going_on? = Enum.any?([:stuck, :overload], &goes_on?(state.shard, &1))
    idle? = state.idle >= @idle_looks and not going_on?
    at_ms = System.monotonic_time(:millisecond) + if(idle?, do: @idle_ms, else: @look_ms)
    at_ms = at_ms - Integer.mod(at_ms, @tick_ms)
    %{state | timer: Process.send_after(self(), :look, at_ms, abs: true)}
  end

  # --- A commit that hangs

  defp stuck(shard, stats) do
    {stage, _} = before = Log.told(shard, :stuck)
    now = how_far(shard, :stuck, stage)

    cond do
      not hangs?(shard, stats) -> over(shard, :stuck)
      not Log.change(shard, :stuck, before, {now, stats.oldest_commit_age_us}) -> :ok
      stage == now -> :ok
      true -> tell_stuck(shard, stage, now, stats)
    end
  end

  defp hangs?(shard, %{oldest_commit_age_us: age_us}),
    do: age_us > 0 and age_us >= stuck_us(shard)

  defp tell_stuck(shard, stage, now, %{oldest_commit_age_us: age_us} = stats) do
    about = [lane: stuck_lane(shard), pid: stats.oldest_commit_pid]
    if stage in [:none, :over], do: emit_stuck(shard, age_us, about, stats)

    cond do
      # One has ended, and another hangs: the log knows of one.
      stage == :over ->
        Log.leave_out(shard, :commit_stuck)

      now == :told ->
        facts = [age_us: age_us, at: at(about[:pid])] ++ about ++ held(stats)
        Log.tell(shard, :commit_stuck, facts)

      true ->
        :ok
    end
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

  defp filling(shard, stats) do
    part =
      Enum.max([
        percent(stats.queued_items + stats.in_flight_items, stats.max_queue_items),
        percent(stats.queued_bytes + stats.in_flight_bytes, stats.max_queue_bytes),
        percent(stats.total_queue_bytes, stats.max_total_queue_bytes)
      ])

    {stage, 0} = before = Log.told(shard, :filling)

    cond do
      part < @filling_no_more ->
        over(shard, :filling)

      part >= @filling and stage != :told ->
        now = how_far(shard, :filling, stage)
        changed? = Log.change(shard, :filling, before, {now, 0})
        if changed? and now == :told, do: Log.tell(shard, :queue_filling, held(stats))

      true ->
        :ok
    end
  end

  # 0: there is no such bound.
  defp percent(_part, 0), do: 0
  defp percent(part, whole), do: div(100 * part, whole)

  # --- An overload

  defp overload(%{shard: shard} = state, stats, refused) do
    {stage, before} = told = Log.told(shard, :overload)
    count = overload(refused)

    cond do
      count > 0 ->
        now = how_far(shard, :overload, stage)
        changed? = Log.change(shard, :overload, told, {now, before + count})

        if changed? and now == :told and stage in [:none, :untold],
          do: began(shard, refused, stats)

        %{state | quiet: 0}

      state.quiet + 1 < @quiet_looks and stage != :over ->
        %{state | quiet: state.quiet + 1}

      true ->
        over(shard, :overload)
        state
    end
  end

  # How many of the calls that were refused an overload consists of.
  defp overload(refused), do: refused |> Keyword.take(@overload) |> Keyword.values() |> Enum.sum()

  defp began(shard, refused, stats) do
    facts = [refused: Keyword.take(refused, @overload)] ++ held(stats)
    Log.tell(shard, :overload_began, facts)
  end

  # --- Lines in pairs

  defp goes_on?(shard, ongoing), do: not match?({:none, _}, Log.told(shard, ongoing))

  # Whether it has ended, and that is to be told.
  defp over?(shard, ongoing), do: match?({:over, _}, Log.told(shard, ongoing))

  # How far it is told of from now on: a line that may not be written yet is written at a later look, if what it tells
  # of goes on until then.
  defp how_far(shard, ongoing, stage) do
    {began, _ended, _number} = @lines[ongoing]
    if stage in [:told, :over] or Log.due?(shard, began), do: :told, else: :untold
  end

  # It is over, in the log too: what nobody was told of is left out as a whole, and what was told of goes on until the
  # line that ends it may be written.
  defp over(shard, ongoing) do
    {began, ended, name} = @lines[ongoing]
    {stage, number} = told = Log.told(shard, ongoing)
    ends? = stage == :untold or ended == nil or Log.due?(shard, ended)
    now = if ends?, do: {:none, 0}, else: {:over, number}

    if stage != :none and Log.change(shard, ongoing, told, now) do
      cond do
        stage == :untold -> Log.leave_out(shard, began)
        ends? and ended != nil -> Log.tell(shard, ended, [{name, number}])
        true -> :ok
      end
    end
  end

  defp held(stats) do
    keys = ~w(queued_items queued_bytes in_flight_items in_flight_bytes)a
    bounds = ~w(max_queue_items max_queue_bytes total_queue_bytes max_total_queue_bytes)a
    Enum.to_list(Map.take(stats, keys ++ bounds))
  end
end
