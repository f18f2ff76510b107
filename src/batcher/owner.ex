defmodule Ferricstore.Raft.WARaftBackend.Batcher.Owner do
  @moduledoc false
  # The process that is registered for a shard: opens it, starts committers when the library asks
  # for some, watches them, drains at the end. No write passes through it, but for the raw messages
  # of contract 3.8.
  #
  # Not a `GenServer`, though it speaks like one: a `GenServer` shows its own state to `:sys.get_state/1` and lets it
  # be replaced; what the host wants to see there is the state of the shard (3.9).
  #
  # Invariant: what is queued belongs to the shard. If this process is killed, another owner takes
  # it over; only an orderly end closes the shard. No payload is left in what others are shown of it.

  import Ferricstore.Raft.WARaftBackend.Batcher.From, only: [is_from: 1]

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Backend,
    Budgets,
    Commit,
    Committer,
    Log,
    Name,
    Native,
    Options,
    Responder,
    Settings,
    Shown,
    Snapshot,
    Telemetry,
    Told,
    Watch,
    Write
  }

  alias __MODULE__.Trace

  # Ready before the first write.
  @committers 2

  defstruct [
    :shard,
    :parent,
    :supervised?,
    :options,
    # What a commit may be to the host's state machine.
    :budgets,
    :single_backend,
    :watch,
    # Those that this owner has found or started, `pid => true`.
    committers: %{},
    # What `:sys` keeps, such as whether this process is traced.
    debug: [],
    flushes: %{},
    stops: [],
    # `{tag, timer, reason}`: it ends with this reason when `{tag, result}` has come.
    ending: nil
  ]

  @spec start_link(non_neg_integer, Options.t()) :: GenServer.on_start()
  def start_link(shard, options),
    do: :proc_lib.start_link(__MODULE__, :init, [self(), shard, options])

  @doc false
  def init(parent, shard, options) do
    Process.flag(:trap_exit, true)
    Shown.label(:owner, shard)
    options = Map.merge(options, configured(shard))

    # Before the name is taken: to look for a module that isn't there takes time, and callers who write to a
    # shard that is not open yet commit directly.
    :ok = Telemetry.Emit.prepare()
    measured = Budgets.find(Options.get(options, :apply_context))

    with :ok <- available(options),
         :ok <- register(Name.of(shard)),
         budgets = Budgets.open(shard, measured),
         :ok = Settings.put(shard, options),
         before = Native.numbers(shard),
         {:ok, committers} <- Native.open(shard, Options.native(options, budgets)) do
      state = %__MODULE__{
        shard: shard,
        parent: parent,
        supervised?: supervisor?(parent),
        options: options,
        budgets: budgets,
        single_backend: Commit.single_backend(backend(options)),
        watch: Watch.start(shard, Log.open(shard))
      }

      Enum.each(committers, &Process.link/1)
      state = %{state | committers: Map.new(committers, &{&1, true})}
      state = start_committers(state, @committers - length(committers))
      :proc_lib.init_ack(parent, {:ok, self()})
      Told.opened(shard, before)
      loop(state)
    else
      {:error, reason} when is_tuple(reason) -> give_up(parent, {:error, reason})
      {:error, reason} -> give_up(parent, {:error, {:thread_not_started, reason}})
    end
  end

  # What was changed while the shard ran holds for whoever takes it over, as its queue does (18.5).
  defp configured(shard) do
    if Native.open?(shard), do: Options.configured(Settings.given(Settings.of(shard))), else: %{}
  end

  defp available(options) do
    backend = backend(options)
    Backend.Check.forget(backend)

    lazy? = Options.get(options, :backend_check) == :lazy
    if lazy?, do: :ok, else: Backend.Check.available(backend)
  end

  defp supervisor?(parent),
    do: match?({:supervisor, _, _}, :proc_lib.translate_initial_call(parent))

  defp give_up(parent, error) do
    Process.unlink(parent)
    :proc_lib.init_ack(parent, error)
  end

  defp register(name) do
    Process.register(self(), name)
    :ok
  rescue
    ArgumentError ->
      case Process.whereis(name) do
        # The process that had the name has ended meanwhile.
        nil -> register(name)
        pid -> {:error, {:already_started, pid}}
      end
  end

  @doc false
  def loop(%{parent: parent} = state) do
    receive do
      {:system, from, request} ->
        :sys.handle_system_msg(request, from, parent, __MODULE__, state.debug, state)

      {:EXIT, ^parent, reason} ->
        go_on(parent_down(state, reason))

      message ->
        go_on(
          guarded(%{state | debug: Trace.received(state.debug, state.shard, message)}, message)
        )
    after
      # With nothing of this module on its stack: it is taken along by a change of code, whenever that comes.
      0 -> :proc_lib.hibernate(__MODULE__, :loop, [state])
    end
  end

  defp go_on(%__MODULE__{} = state), do: __MODULE__.loop(state)
  defp go_on({:exit, reason}), do: exit(reason)

  # --- What `:sys` asks for

  @doc false
  def system_continue(_parent, debug, state), do: loop(%{state | debug: debug})

  @doc false
  def system_terminate(reason, _parent, debug, state) do
    state = %{state | debug: debug}
    go_on(if orderly?(reason), do: ending(state, reason), else: crash(state, reason))
  end

  @doc false
  def system_get_state(state), do: {:ok, snapshot(state)}

  # There is nothing here that others could replace.
  @doc false
  def system_replace_state(_replace, state), do: {:ok, snapshot(state), state}

  @doc false
  def system_code_change(state, _module, _version, _extra), do: {:ok, state}

  @doc false
  def format_status(_reason, [_dictionary, _status, _parent, _debug, state] = status) do
    about = %{flushes: map_size(state.flushes), ending?: state.ending != nil}
    Shown.status(:owner, state.shard, Map.merge(Snapshot.counts(snapshot(state)), about), status)
  end

  defp snapshot(state), do: Snapshot.take(state.shard) || Snapshot.empty()

  # --- Messages

  # The state, or `{:exit, reason}`. What fails here ends this process, but not with the message in its last words.
  defp guarded(state, message) do
    handle(message, state)
  catch
    kind, reason ->
      Told.owner_failed(state.shard, __STACKTRACE__)
      crash(state, {:owner_failed, failure(kind, reason)})
  end

  defp failure(:error, %module{}), do: module
  defp failure(kind, _reason), do: kind

  defp handle({:"$gen_call", from, request}, state), do: handle_call(request, from, state)

  defp handle({:"$gen_cast", :stop}, state), do: ending(state, :normal)

  defp handle({:"$gen_cast", request}, state) do
    Write.Raw.cast(state.shard, request)
    state
  end

  # The library has failed: that is what this owner ends with, as soon as it is told (10.5).
  defp handle({tag, {:error, {:batcher_crashed, _text}}}, %{ending: {tag, _, _}} = state),
    do: state

  defp handle({tag, result}, %{ending: {tag, timer, reason}} = state),
    do: finish(state, result, timer, reason)

  # The library has failed and has told everybody who waited (10.5).
  defp handle({:batcher_crashed, text} = reason, state) when is_binary(text) do
    Told.library_failed(state.shard, text)
    crash(state, reason)
  end

  defp handle({:spawn_committers, count}, state) when is_integer(count),
    do: start_committers(state, count)

  defp handle(:spawn_responders, state) do
    Responder.start_all(state.shard)
    state
  end

  defp handle({:EXIT, pid, _reason}, %{watch: pid} = state),
    do: %{state | watch: Watch.start(state.shard, Log.owners(state.shard))}

  defp handle({:EXIT, pid, :normal}, state),
    do: %{state | committers: Map.delete(state.committers, pid)}

  defp handle({:EXIT, pid, reason}, state) when is_pid(pid) and node(pid) == node() do
    Native.committer_down(state.shard, pid, {:error, {:backend_exit, reason}})
    {committer?, committers} = Map.pop(state.committers, pid, false)
    if committer?, do: Told.committer_down(state.shard, reason)
    %{state | committers: committers}
  end

  defp handle({tag, result}, state) when is_map_key(state.flushes, tag) do
    {from, flushes} = Map.pop!(state.flushes, tag)
    GenServer.reply(from, result)
    %{state | flushes: flushes}
  end

  # Stale timers of older versions, and whatever else.
  defp handle(_unknown, state), do: state

  defp handle_call(:stop, from, state) when is_from(from),
    do: ending(%{state | stops: [from | state.stops]}, :normal)

  defp handle_call({:configure, changes}, from, state)
       when is_from(from) and length(changes) >= 0 do
    {answer, state} = configure(state, changes)
    GenServer.reply(from, answer)
    state
  end

  defp handle_call(:flush, from, state) when is_from(from) do
    tag = make_ref()

    case Native.flush(state.shard, tag) do
      :not_running ->
        GenServer.reply(from, :ok)
        state

      _number ->
        put_in(state.flushes[tag], from)
    end
  end

  defp handle_call(request, from, state) when is_from(from) do
    Write.Raw.call(state.shard, request, from)
    state
  end

  # The sender of a made-up `from` can't be answered.
  defp handle_call(_request, _from, state), do: state

  defp backend(options), do: Settings.backend(Settings.made_of(options))

  # All of it, or nothing (18.4).
  defp configure(%{ending: nil} = state, changes) do
    with {:ok, options} <- Options.change(state.options, changes),
         :ok <- if(changes[:backend], do: available(options), else: :ok) do
      :ok = Settings.put(state.shard, options)
      :ok = Native.configure(state.shard, Options.native(options, state.budgets))
      {:ok, %{state | options: options, single_backend: Commit.single_backend(backend(options))}}
    else
      error -> {error, state}
    end
  end

  defp configure(state, _changes), do: {{:error, :shutting_down}, state}

  defp start_committers(state, count) do
    started = for _ <- 1..count//1, do: Committer.start_link(state.shard, state.single_backend)
    %{state | committers: Enum.into(started, state.committers, &{&1, true})}
  end

  # --- The end

  # A supervisor that crashes starts another owner soon, which shall not wait for this one (10.4). Any other parent
  # takes this owner along when it ends, in whatever way.
  defp parent_down(state, reason) do
    cond do
      orderly?(reason) -> ending(state, reason, Options.get(state.options, :shutdown_timeout))
      state.supervised? -> crash(state, reason)
      true -> ending(state, {:shutdown, :parent_down})
    end
  end

  defp orderly?(reason) when reason in [:normal, :shutdown], do: true
  defp orderly?({:shutdown, _}), do: true
  defp orderly?(_reason), do: false

  defp ending(state, reason) do
    option = if reason == :normal, do: :drain_timeout, else: :shutdown_timeout
    ending(state, reason, Options.get(state.options, option))
  end

  # Refuses new writes and has everything queued committed (11.3, 11.6). Goes on as before meanwhile, until the
  # library says that it is done, or it is too late for that.
  defp ending(%{ending: nil} = state, reason, timeout) do
    tag = make_ref()
    timer = Process.send_after(self(), {tag, :too_late}, timeout)

    case Native.stop(state.shard, tag) do
      :not_running -> finish(state, :ok, timer, reason)
      _number -> %{state | ending: {tag, timer, reason}}
    end
  end

  # Asked to end once more, perhaps with less time. A supervisor wants to see its own reason.
  defp ending(%{ending: {tag, timer, before}} = state, reason, timeout) do
    left = Process.cancel_timer(timer) || 0
    timer = Process.send_after(self(), {tag, :too_late}, min(left, timeout))
    %{state | ending: {tag, timer, if(reason == :normal, do: before, else: reason)}}
  end

  # Leaves the shard to a successor (10.4).
  defp crash(state, reason) do
    sweep(state, nil)
    {:exit, reason}
  end

  # What the backend did not get by now is answered, what is in flight ends by itself.
  defp finish(state, result, timer, reason) do
    Process.cancel_timer(timer)

    # The committers that are there may all hang, and only a process can answer some of the callers.
    if result != :ok, do: Committer.start(state.shard, state.single_backend)
    {left, refused} = Told.drained(state.shard, result, fn -> Native.close(state.shard) end)
    Watch.closed(state.watch, left, refused)
    name = Name.of(state.shard)
    if Process.whereis(name) == self(), do: Process.unregister(name)
    flushed = if result == :ok, do: :ok, else: {:error, :shutting_down}
    Enum.each(state.flushes, fn {_tag, from} -> GenServer.reply(from, flushed) end)
    state = sweep(%{state | flushes: %{}}, flushed)
    Enum.each(state.stops, &GenServer.reply(&1, :ok))
    {:exit, reason}
  end

  # Callers that came too late are answered as well. `flushed` is the answer to a flush; `nil`: there is none, and who
  # waits for it hears of the owner's death. Nothing is left to be shown in a report.
  defp sweep(state, flushed) do
    receive do
      {:"$gen_call", from, :stop} when is_from(from) ->
        sweep(%{state | stops: [from | state.stops]}, flushed)

      {:"$gen_call", from, :flush} when is_from(from) ->
        if flushed, do: GenServer.reply(from, flushed)
        sweep(state, flushed)

      {:"$gen_call", from, request} when is_from(from) ->
        Write.Raw.call(state.shard, request, from)
        sweep(state, flushed)

      {:"$gen_cast", request} ->
        Write.Raw.cast(state.shard, request)
        sweep(state, flushed)

      _other ->
        sweep(state, flushed)
    after
      0 -> state
    end
  end
end
