defmodule Ferricstore.Raft.WARaftBackend.Batcher.Committer do
  @moduledoc false
  # A committing process: takes a batch, calls the backend, has the callers answered, takes the next. Belongs to its
  # shard, not to the owner that started it: a committer outlives its owner.
  #
  # Invariant: between two batches its mailbox holds nothing that it will not throw away, and each
  # batch that it takes is handed to the backend once and answered, whatever the backend does.
  #
  # Messages, `committer` being what `Native.join/1` returned. From whatever makes a lane due:
  #
  #   * `{committer, :work}`: there is something to `take/1`
  #
  # What it takes, unless that is a small batch, sent by the library in its name:
  #
  #   * `{committer, :part, entries, bytes}`: entries of the batch that follows, and what they take
  #   * `{{committer, :commit, lane, function}, entries, info}`: the batch; for `info` see `Telemetry`
  #   * `{committer, :answer, [reply]}`: the batch of a committer that has died; its callers get this
  #   * `{committer, :deliver, [{to, message}]}`: replies that only a process can send
  #
  # And from its own timer `{committer, :look}`, to see whether it rests.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Commit,
    Count,
    From,
    Library,
    Name,
    Native,
    Settings,
    Telemetry
  }

  # Rests this long before it gives memory back, or leaves if enough others rest.
  @rest_ms 5_000
  @resting 2
  # Of entries that were received: a time slice for half a megabyte.
  @bytes_per_reduction 128
  # A batch of so many items is put together at a stretch, and so are its replies counted: a third of a millisecond.
  @short 10_000
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

  defstruct [:shard, :ref, :telemetry?, :single_backend, parts: [], looks?: false, worked?: false]

  @doc """
  Starts a committer, linked to the calling owner. `single_backend`: see `Commit.single_backend/0`.
  """
  @spec start_link(integer, boolean, module | nil) :: pid
  def start_link(shard, telemetry?, single_backend) do
    # Messages that wait are no part of the heap: they would be copied whenever garbage is collected.
    options = [:link, message_queue_data: :off_heap]
    :proc_lib.spawn_opt(__MODULE__, :init, [shard, telemetry?, single_backend], options)
  end

  @doc false
  def init(shard, telemetry?, single_backend) do
    # The owner's end must not end a commit.
    Process.flag(:trap_exit, true)
    ref = Native.join(shard)
    link_to_owner(shard)

    state = %__MODULE__{
      shard: shard,
      ref: ref,
      telemetry?: telemetry?,
      single_backend: single_backend
    }

    loop(look_later(state))
  end

  # The owner that started this committer may have been followed by another, which links itself to the committers
  # that had joined when it opened the shard.
  defp link_to_owner(shard) do
    case Name.owner(shard) do
      nil -> :ok
      owner -> Process.link(owner)
    end
  end

  # Called by its full name, so that a committer that never rests takes up new code.
  @doc false
  def loop(%__MODULE__{ref: ref} = state, wait \\ :infinity) do
    receive do
      {{^ref, :commit, lane, function}, entries, info} ->
        commit(state, lane, function, entries(state, lane, entries, info), info)
        take(worked(cleaned(state, info)))

      {^ref, :part, entries, bytes} ->
        # The VM walks through all binaries of a message when it is received.
        :erlang.bump_reductions(1 + div(bytes, @bytes_per_reduction))
        __MODULE__.loop(%{state | parts: [entries | state.parts]})

      {^ref, :answer, [reply]} ->
        if answer(ref, :each, reply) == :handed_over, do: finish(ref), else: :erlang.yield()
        take(worked(state))

      {^ref, :deliver, proxied} ->
        From.deliver(proxied)
        take(state)

      {^ref, :work} ->
        take(state)

      {^ref, :look} when state.worked? ->
        __MODULE__.loop(look_later(%{state | worked?: false}), wait)

      {^ref, :look} ->
        if Library.call(fn -> Native.retire(ref, @resting) end),
          do: :ok,
          else: :proc_lib.hibernate(__MODULE__, :loop, [%{state | looks?: false}])

      # Exits of owners, late replies to a backend that has stopped waiting for them.
      _stranger ->
        __MODULE__.loop(state, wait)
    after
      wait -> take(state)
    end
  end

  # What does not come as the answer comes as messages, before anything that others send later.
  defp take(%{ref: ref} = state) do
    taken(state, Library.call(fn -> Native.take(ref) end))
  end

  defp taken(%{ref: ref} = state, taken) do
    case taken do
      {:commit, lane, function, entries, info} ->
        commit(state, lane, function, entries(state, lane, entries, info), info)
        # Messages first: of one that never rests there would be more and more.
        __MODULE__.loop(worked(state), 0)

      :leave ->
        :ok

      :large ->
        taken(state, Library.call(fn -> Native.take_large(ref) end))

      _sent_or_rest ->
        __MODULE__.loop(state)
    end
  end

  # One timer for many batches: one for each would take a tenth of the time of a small one.
  defp worked(%{looks?: true} = state), do: %{state | worked?: true}
  defp worked(state), do: look_later(%{state | worked?: true})

  defp look_later(state) do
    Process.send_after(self(), {state.ref, :look}, @rest_ms)
    %{state | looks?: true}
  end

  # The VM collects garbage when a message takes more than is free of the heap, which is in the midst of its batch:
  # then all of that is copied. So there is room, and garbage is collected when nothing of the batch is left.
  defp cleaned(state, {{replies, _weight, _groups, bytes}, _, _, _}) when bytes >= @large do
    state = without_parts(state)
    room = min(trunc(@room_per_byte * bytes), @room_per_reply * replies)
    usual = Process.flag(:min_heap_size, min(room, @most_room))
    :erlang.garbage_collect(self(), type: :minor)
    # What is there stays until the heap is collected as a whole, as when this process rests.
    Process.flag(:min_heap_size, usual)
    state
  end

  defp cleaned(state, _info), do: without_parts(state)

  defp without_parts(%{parts: []} = state), do: state
  defp without_parts(state), do: %{state | parts: []}

  # A namespace lane comes as entries, a hot one as the callers' lists.
  defp entries(%{parts: []}, lane, entries, _info) when is_binary(lane), do: entries

  defp entries(%{parts: parts}, lane, entries, {{_replies, weight, groups, _bytes}, _, _, _}) do
    count = max(weight, groups)
    entries = concat(:lists.reverse(parts, [entries]), count)
    if is_binary(lane), do: entries, else: concat(entries, count)
  end

  # Lists of `count` items together. What `++` copies, or `:lists.reverse/2` turns, before it yields
  # takes 10 ms.
  defp concat([list], _count), do: list
  defp concat(lists, count) when count <= @short, do: :lists.append(lists)
  defp concat(lists, _count), do: prepend(lists, [])

  defp prepend([list], reversed), do: reverse(reversed, list)
  defp prepend([list | lists], reversed), do: prepend(lists, reverse(list, reversed))

  defp reverse([item | rest], reversed), do: reverse(rest, [item | reversed])
  defp reverse([], reversed), do: reversed

  # The order of effects: contract 8.
  defp commit(state, lane, function, list, {{expected, _, groups, _}, _, _, reason} = info) do
    started = System.monotonic_time(:microsecond)
    {function, writes} = call(state, lane, function, list)
    result = run(state.shard, function, writes)
    commit_us = System.monotonic_time(:microsecond) - started
    {how, reply, outcome} = verdict(function, result, expected)
    awaited = if commit_us >= @long_commit_us, do: callers_to_await(state.ref, groups)
    answered = answer(state.ref, how, reply)

    # The callers just answered run first: their next writes are the next batch. One that is alone and writes again and
    # again need not: its lane lingers (5.4).
    cond do
      answered == :handed_over -> finish(state.ref)
      groups == 1 and reason == :commit -> :ok
      true -> :erlang.yield()
    end

    if state.telemetry?, do: Telemetry.emit(state.shard, lane, info, commit_us, outcome)

    if awaited,
      do: gather(state.ref, awaited, System.monotonic_time(:microsecond) + patience(commit_us))
  end

  # After a long commit the callers just answered get a moment more: on a scheduler that has to wake first,
  # they are too late otherwise, and wait for one commit of others and then for their own.
  defp gather(ref, awaited, until) do
    gathered = gathered(ref)

    if gathered != nil and gathered < awaited and System.monotonic_time(:microsecond) < until do
      :erlang.yield()
      gather(ref, awaited, until)
    end
  end

  defp callers_to_await(ref, groups) do
    behind = gathered(ref)
    behind && behind + groups
  end

  defp gathered(ref), do: Library.call(fn -> Native.gathered(ref) end)

  defp patience(commit_us), do: min(div(commit_us, @patience), @most_patience_us)

  # 16.2, if no other backend has been configured since.
  defp call(%{single_backend: backend}, :batch, function, [command]) when backend != nil do
    if backend == Settings.backend(),
      do: {:__commit_single_batch_direct__, command},
      else: {function, [command]}
  end

  defp call(_state, _lane, function, list), do: {function, list}

  # 9.4
  defp run(shard, function, writes) do
    Commit.run(shard, function, writes)
  catch
    :exit, reason -> {:error, {:backend_exit, reason}}
    kind, reason -> {:error, {:backend_error, kind, reason}}
  end

  # How the callers are answered, with what, and what telemetry is told.
  defp verdict(:__commit_single_batch_direct__, result, expected) when expected != 1,
    do: unfold(result, expected)

  defp verdict(_function, result, expected), do: verdict(result, expected)

  # The backend may have put all replies of a command that counts other than 1 into its one result. Such a command
  # has the batch to itself, so that any other result is a result of this command.
  defp unfold(result, expected) do
    replies =
      case result do
        {:ok, [{:ok, replies}]} when is_list(replies) -> replies
        {:ok, [replies]} when is_list(replies) -> replies
        {:ok, replies} when is_list(replies) -> replies
        _other -> nil
      end

    if is_list(replies) and count(replies, expected) == expected,
      do: {:slices, replies, result},
      else: {:each, result, result}
  end

  # 9.1 to 9.3
  defp verdict({:ok, list} = result, expected) when is_list(list) do
    case count(list, expected) do
      ^expected ->
        {:slices, list, result}

      :improper ->
        {:each, result, :other}

      actual ->
        mismatch = {:error, {:batch_result_mismatch, expected, actual}}
        {:each, mismatch, mismatch}
    end
  end

  defp verdict(result, _expected), do: {:each, result, result}

  # Mostly the backend has given as many replies as it should.
  defp count(list, expected) when expected <= @short,
    do: if(Count.exactly?(list, expected), do: expected, else: Count.items(list))

  defp count(list, _expected), do: Count.items(list)

  defp answer(ref, how, reply),
    do: answered(ref, how, Library.call(fn -> Native.answer(ref, how, reply) end))

  defp answered(ref, how, {:more, rest}), do: answer(ref, how, rest)

  defp answered(ref, how, {:large, rest}) do
    # What was handed over stands before it.
    finish(ref)
    answered(ref, how, Library.call(fn -> Native.answer_large(ref, how, rest) end))
  end

  # A process may be killed between two of its time slices, never within one: a caller that was passed is answered, and
  # any other is left to the committer that goes on with this batch.
  defp answered(ref, how, {:own, proxied, rest}) do
    :erlang.yield()
    :ok = Library.call(fn -> Native.pass(ref) end)
    From.deliver([proxied])
    answer(ref, how, rest)
  end

  defp answered(_ref, _how, done), do: done

  # Until all replies have been sent that were handed over: mostly responders have done so by now. Each time on a time
  # slice of its own, as above, and between two of them those just answered run.
  defp finish(ref) do
    :erlang.yield()
    {progress, proxied} = Library.call(fn -> Native.finish(ref) end)
    From.deliver(proxied)
    if progress == :more, do: finish(ref)
  end
end
