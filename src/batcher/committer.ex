defmodule Ferricstore.Raft.WARaftBackend.Batcher.Committer do
  @moduledoc false
  # A committing process: takes a batch, calls the backend, has the callers answered, takes the next. Belongs to its
  # shard, not to the owner that started it: a committer outlives its owner.
  #
  # Invariant: between two batches its mailbox holds nothing that it will not throw away, and each
  # batch that it takes, with those of other lanes or by itself, is handed to the backend once and answered, whatever
  # the backend does, before anything else is taken.
  #
  # Messages, `committer` being what `Native.join/1` returned. From whatever makes a lane due:
  #
  #   * `:work`: there is something to `take/1`; from a stranger it does no harm, nor if it stands before what was taken
  #
  # What it takes, unless that is a small batch, sent by the library in its name:
  #
  #   * `{committer, :part, entries, bytes}`: entries of the batch that follows, and what they take
  #   * `{{committer, :with, lane, function}, entries, info}`: a batch that is committed with the one that follows
  #   * `{{committer, :commit, lane, function}, entries, info}`: the batch, or the last one of a commit of several; for
  #     `info` see `Telemetry.Emit`
  #   * `{committer, :answer, [reply]}`: the batches of a committer that has died; their callers get this
  #
  # And from its own timer `{committer, :look}`, to see whether it rests.
  #
  # What `:sys` asks is answered between two commits. One that is suspended is a committer no longer, so that what is
  # due is another's: it comes back when it is resumed, and ends with its owner.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Commit,
    From,
    Library,
    Log,
    Name,
    Native,
    Proposal,
    Settings,
    Shown,
    Telemetry
  }

  alias __MODULE__.Batch

  require Library
  use Shown, :committer

  # Rests this long before it gives memory back, or leaves if enough others rest.
  @rest_ms 5_000
  @resting 2
  # Of entries that were received: a time slice for half a megabyte.
  @bytes_per_reduction 128
  # For batches of so many bytes there is room, in words: for twice what they take, but not for the bytes of large
  # binaries, which lie elsewhere, and for the largest batches no more than that.
  @large 65_536
  @room_per_byte 2 / :erlang.system_info(:wordsize)
  @room_per_reply 64
  @most_room 1_000_000
  # After a commit of so many microseconds callers get some of its time, a 16th, to write again.
  @long_commit_us 200
  @patience 16
  @most_patience_us 200

  defstruct [
    :shard,
    :ref,
    :single_backend,
    # For `:sys`: an owner, for when there is none; whether this process is traced, and what is to be answered as soon as
    # nothing is taken, the last one first.
    :parent,
    debug: [],
    asked: [],
    # Of the batch that is being received, and the batches before it that are of the same commit, the last one first.
    parts: [],
    batches: [],
    # What was taken is in the mailbox, in whole or in part: nothing is asked for meanwhile, which would give it back.
    sent?: false,
    looks?: false,
    worked?: false
  ]

  @doc """
  Starts a committer, linked to the calling owner. `single_backend`: see `Commit.single_backend/1`.
  """
  @spec start_link(integer, module | nil) :: pid
  def start_link(shard, single_backend), do: spawn_opt(shard, single_backend, [:link])

  @doc "The same for an owner that is about to end, which could take it along before it traps exits."
  @spec start(integer, module | nil) :: pid
  def start(shard, single_backend), do: spawn_opt(shard, single_backend, [])

  # Messages that wait are no part of the heap: they would be copied whenever garbage is collected.
  defp spawn_opt(shard, single_backend, options) do
    options = [{:message_queue_data, :off_heap} | options]
    :proc_lib.spawn_opt(__MODULE__, :init, [shard, single_backend], options)
  end

  @doc false
  def init(shard, single_backend) do
    # The owner's end must not end a commit.
    Process.flag(:trap_exit, true)
    Shown.label(:committer, shard)

    %__MODULE__{shard: shard, single_backend: single_backend} |> joined() |> loop()
  end

  defp joined(%{shard: shard} = state) do
    ref = Native.join(shard)
    owner = link_to_owner(shard)
    look_later(%{state | ref: ref, parent: state.parent || owner || self()})
  end

  # The owner that started this committer may have been followed by another, which links itself to the committers
  # that had joined when it opened the shard.
  defp link_to_owner(shard) do
    case Name.owner(shard) do
      nil ->
        nil

      owner ->
        Process.link(owner)
        owner
    end
  end

  # Called by its full name, so that a committer that never rests takes up new code. With `wait` 0 it takes what is next
  # as soon as its mailbox is empty; of a batch that comes in several messages the last one does that, so that the others
  # need not.
  @doc false
  def loop(%__MODULE__{ref: ref} = state, wait \\ :infinity) do
    receive do
      {{^ref, :with, lane, function}, entries, info} ->
        batch = Batch.of(state.parts, {lane, function, entries, info})
        __MODULE__.loop(%{state | parts: [], batches: [batch | state.batches]})

      {{^ref, :commit, lane, function}, entries, info} ->
        batch = Batch.of(state.parts, {lane, function, entries, info})
        batches = [batch | state.batches]
        committed = commit(state, :lists.reverse(batches))
        next(committed, worked(cleaned(%{state | sent?: false}, batches)))

      {^ref, :part, entries, bytes} ->
        # The VM walks through all binaries of a message when it is received.
        :erlang.bump_reductions(1 + div(bytes, @bytes_per_reduction))
        __MODULE__.loop(%{state | parts: [entries | state.parts]})

      {^ref, :answer, [reply]} ->
        if answer(ref, :exit, reply) == :handed_over, do: finish(ref), else: :erlang.yield()
        take(worked(%{state | sent?: false}))

      :work when not state.sent? ->
        take(state)

      {^ref, :look} when state.worked? or state.asked != [] ->
        __MODULE__.loop(look_later(%{state | worked?: false}), wait)

      {^ref, :look} ->
        if Library.call(Native.retire(ref, @resting)),
          do: :ok,
          else: :proc_lib.hibernate(__MODULE__, :loop, [%{state | looks?: false}])

      # Whatever has been taken is here by now, and comes first.
      {:system, from, request} ->
        __MODULE__.loop(%{state | asked: [{from, request} | state.asked]}, 0)

      # Exits of owners, late replies to a backend that has stopped waiting for them.
      _stranger ->
        __MODULE__.loop(state, wait)
    after
      wait -> take(state)
    end
  end

  # What does not come as the answer comes as messages, before anything that others send later, and behind what they have
  # sent before.
  defp take(%{asked: [_ | _]} = state), do: answer_system(state)

  defp take(%{ref: ref} = state) do
    taken(state, Library.call(Native.take(ref)))
  end

  defp taken(%{ref: ref} = state, taken) do
    case taken do
      {:commit, small} ->
        committed = commit(state, Batch.small(small))
        next(committed, worked(state))

      :leave ->
        :ok

      :large ->
        taken(state, Library.call(Native.take_large(ref)))

      :deliver ->
        finish(ref)
        take(state)

      :sent ->
        __MODULE__.loop(%{state | sent?: true})

      :rest ->
        __MODULE__.loop(state)
    end
  end

  # After a commit. Messages first: of a committer that never rests there would be more and more.
  defp next(:rest, %{asked: []} = state), do: __MODULE__.loop(state)
  defp next(_committed, state), do: __MODULE__.loop(state, 0)

  # --- What `:sys` asks for

  defp answer_system(state) do
    [{from, request} | later] = :lists.reverse(state.asked)
    for {from, request} <- later, do: send(self(), {:system, from, request})
    state = %{state | asked: []}
    # Suspended for how long nobody knows.
    state = if request == :suspend, do: left(state), else: state
    # While it is suspended it ends with the owner that is there now.
    parent = Name.owner(state.shard) || state.parent
    :sys.handle_system_msg(request, from, parent, __MODULE__, state.debug, state)
  end

  defp left(%{ref: ref} = state) do
    :ok = Library.call(Native.leave(ref))
    %{state | ref: nil, looks?: false, worked?: false}
  end

  @doc false
  def system_continue(_parent, debug, %{ref: nil} = state),
    do: take(joined(%{state | debug: debug}))

  def system_continue(_parent, debug, state), do: take(%{state | debug: debug})

  @doc false
  def system_terminate(reason, _parent, _debug, state) do
    if state.ref, do: left(state)
    Shown.forget_messages()
    exit(reason)
  end

  defp shown(state),
    do: %{shard: state.shard, takes_batches?: state.ref != nil}

  # --- Memory

  # One timer for many batches: one for each would take a tenth of the time of a small one.
  defp worked(%{looks?: true, worked?: true} = state), do: state
  defp worked(%{looks?: true} = state), do: %{state | worked?: true}
  defp worked(state), do: look_later(%{state | worked?: true})

  defp look_later(state) do
    Process.send_after(self(), {state.ref, :look}, @rest_ms)
    %{state | looks?: true}
  end

  # The VM collects garbage when a message takes more than is free of the heap, which is in the midst of its batch:
  # then all of that is copied. So there is room, and garbage is collected when nothing of the batch is left.
  defp cleaned(state, batches) do
    {replies, _items, _groups, bytes} = Batch.counts(batches)
    state = without_batches(state)
    if bytes >= @large, do: collect(replies, bytes)
    state
  end

  defp collect(replies, bytes) do
    room = min(trunc(@room_per_byte * bytes), @room_per_reply * replies)
    usual = Process.flag(:min_heap_size, min(room, @most_room))
    :erlang.garbage_collect(self(), type: :minor)
    # What is there stays until the heap is collected as a whole, as when this process rests.
    Process.flag(:min_heap_size, usual)
  end

  defp without_batches(%{parts: [], batches: []} = state), do: state
  defp without_batches(state), do: %{state | parts: [], batches: []}

  # The order of effects: contract 8. `batches`: of the lanes that are committed together, mostly one. `:rest`: it is
  # known that there is nothing to take.
  defp commit(%{shard: shard, ref: ref, single_backend: single_backend}, batches) do
    told = if Telemetry.Emit.loaded?(), do: emit_start(shard, batches)
    started = :erlang.monotonic_time(:microsecond)
    {expected, items, groups, bytes} = Batch.counts(batches)
    proposal = Proposal.of(Batch.parts(batches), items)
    settings = Settings.of(shard)
    backend = Settings.backend(settings)
    proposal = single(single_backend, batches, proposal, backend)
    outcome = Commit.outcome(shard, backend, proposal, expected)
    commit_us = :erlang.monotonic_time(:microsecond) - started
    {how, reply, result} = outcome
    awaited = if commit_us >= @long_commit_us, do: callers_to_await(ref, groups)

    logs? = Log.commit?(how, commit_us, Settings.slow_commit_us(settings))

    # The callers just answered run first: their next writes are the next batch. One that is alone and writes again and
    # again need not: its lane lingers (5.4), and the committer rests at once if it does nothing else behind the answer.
    lone_writer? = groups == 1 and Batch.lingers?(batches)
    busy? = told != nil or awaited != nil or logs? or bytes >= @large
    answered = answer(ref, how, reply, lone_writer? and not busy?)

    case answered do
      :handed_over -> finish(ref)
      :done when not lone_writer? -> :erlang.yield()
      _done_or_rest -> :ok
    end

    if told, do: emit(shard, batches, told, commit_us, result)

    if logs?,
      do: Log.commit(shard, how, result, commit_us, {Batch.lanes(batches), groups, items, bytes})

    if awaited,
      do: gather(ref, awaited, :erlang.monotonic_time(:microsecond) + patience(commit_us))

    answered
  end

  defp single(single_backend, [{lane, _part, _info}], proposal, backend),
    do: Proposal.single(proposal, lane, single_backend, backend)

  defp single(_single_backend, _batches, proposal, _backend), do: proposal

  # What metadata say of the commit.
  defp emit_start(shard, batches) do
    commit = Telemetry.Emit.of_commit(batches)

    for {lane, _part, info} <- batches,
        do: Telemetry.Emit.start(shard, lane, info, commit)

    commit
  end

  defp emit(shard, batches, commit, commit_us, result) do
    for {lane, _part, info} <- batches,
        do: Telemetry.Emit.commit(shard, lane, info, commit_us, result, commit)
  end

  # After a long commit the callers just answered get a moment more: on a scheduler that has to wake first,
  # they are too late otherwise, and wait for one commit of others and then for their own.
  defp gather(ref, awaited, until) do
    gathered = gathered(ref)

    if gathered != nil and gathered < awaited and :erlang.monotonic_time(:microsecond) < until do
      :erlang.yield()
      gather(ref, awaited, until)
    end
  end

  defp callers_to_await(ref, groups) do
    behind = gathered(ref)
    behind && behind + groups
  end

  defp gathered(ref), do: Library.call(Native.gathered(ref))

  defp patience(commit_us), do: min(div(commit_us, @patience), @most_patience_us)

  # `rests?`: see `Native.answer/4`.
  defp answer(ref, how, reply, rests? \\ false),
    do: answered(ref, how, Library.call(Native.answer(ref, how, reply, rests?)))

  defp answered(ref, how, {:more, rest}), do: answer(ref, how, rest)

  defp answered(ref, how, {:large, rest}) do
    # What was handed over stands before it.
    finish(ref)
    answered(ref, how, Library.call(Native.answer_large(ref, how, rest)))
  end

  # A caller that was passed is answered, and any other is left to the committer that goes on with this batch.
  defp answered(ref, how, {:own, proxied, rest}) do
    From.pass([proxied], fn -> Native.pass(ref) end)
    answer(ref, how, rest)
  end

  defp answered(_ref, _how, done), do: done

  # Until all replies have been sent that were handed over: mostly responders have done so by now. In between those just
  # answered run.
  defp finish(ref) do
    :erlang.yield()

    case Library.call(Native.finish(ref)) do
      :done ->
        :ok

      :more ->
        finish(ref)

      {:own, proxied} ->
        From.pass(proxied, fn -> Native.pass_finish(ref) end)
        finish(ref)
    end
  end
end
