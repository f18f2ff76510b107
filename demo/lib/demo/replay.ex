defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Replay do
  @moduledoc false
  # Replays the commands of a file by many callers and keeps, for each key, what it must hold afterwards.
  #
  # One invariant: the writes of a key are done in the order of the file. The lanes of a shard have no order
  # among each other (contract 4.3), so a SET in one and a DEL in another would race if both were under way.
  # Hence all writes of a key go to one caller, found by the key's hash, and a caller makes its next call when
  # the last one was answered: by then it was committed. Writes of different keys need no order, and that is
  # where the concurrency is: as many calls are under way as there are callers. What has piled up for one key
  # goes as one group of the generic lane, whose order is the caller's; otherwise a key that is written all the
  # time would hold up the rest. A DEL of several keys becomes a write for each.
  #
  # Memory is bounded by the keys, not by the file: the reader stops while callers have enough to do.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Aof, Call, Command, Meter, ReadBack, Tally}

  # Work that may wait at the callers, in commands per caller and in bytes over all of them.
  @ahead 32
  @ahead_bytes 64 * 1024 * 1024
  # How many writes of what waits for it a caller looks through for more of one key.
  @look_ahead 64
  # How many writes for each caller are read before they are handed out, and how many a caller does before it says so.
  # A caller that has nothing else to do says so at once.
  @share 8
  @told 16
  # Prefixes of keys become namespaces; a file may have any number of them, and each namespace is a lane.
  @namespaces 8

  @typedoc """
  What a replay came to. `result` is the reader's; `refused` are writes that the store answered with an error and did
  not do, as Redis would; `model` holds `{key, contents, acknowledged writes}` for each key written.
  """
  @type t :: %{
          result: :ok | :halted | Aof.failure(),
          commands: non_neg_integer(),
          skipped: Tally.t(),
          ignored: Tally.t(),
          refused: Tally.t(),
          model: :ets.table()
        }

  @doc """
  Through or around the batcher, as the meter says, on the meter's shards. `milliseconds` ends it early.
  """
  @spec run(Path.t(), Meter.t(), pos_integer(), pos_integer(), timeout()) :: t()
  def run(path, meter, callers, window_ms, milliseconds \\ :infinity) do
    model = :ets.new(:batcher_demo_model, [:public, write_concurrency: true])
    context = %{meter: meter, model: model, window_ms: window_ms, reader: self(), ref: make_ref()}
    tasks = for _ <- 1..callers, do: Task.async(fn -> caller(context) end)

    state = %{
      callers: tasks |> Enum.map(& &1.pid) |> List.to_tuple(),
      ref: context.ref,
      deadline: deadline(milliseconds),
      shares: %{},
      shared: 0,
      under_way: 0,
      bytes: 0,
      commands: 0,
      skipped: %{},
      ignored: %{}
    }

    {result, state} = Aof.fold(path, state, &command/2)
    state = deliver(state)
    for task <- tasks, do: send(task.pid, {context.ref, :end})
    refused = tasks |> Task.await_many(:infinity) |> Enum.reduce(%{}, &Tally.merge/2)
    forget(context.ref)

    state
    |> Map.take([:commands, :skipped, :ignored])
    |> Map.merge(%{result: result, refused: refused, model: model})
  end

  @doc "What one of the shards must hold, for `ReadBack.compare/2`."
  @spec expectations(t(), Range.t(), non_neg_integer()) :: [ReadBack.expectation()]
  def expectations(%{model: model}, shards, shard) do
    pick = fn {key, _contents, _writes} = entry, entries ->
      if shard(shards, key) == shard, do: [entry | entries], else: entries
    end

    :ets.foldl(pick, [], model)
  end

  @spec shard(Range.t(), binary()) :: non_neg_integer()
  def shard(shards, key), do: shards.first + :erlang.phash2(key, Range.size(shards))

  # The reader

  defp command({:command, args, index, offset}, state) do
    state = %{state | commands: index}

    cond do
      state.deadline != :infinity and System.monotonic_time(:millisecond) >= state.deadline ->
        {:halt, %{state | commands: index - 1}}

      true ->
        case Command.parse(args, System.os_time(:millisecond)) do
          {:writes, writes} ->
            {:cont, Enum.reduce(writes, state, &hand_over(&1, index, offset, &2))}

          {:ignore, name} ->
            {:cont, update_in(state.ignored, &Tally.add(&1, name, index, offset))}

          {:skip, name} ->
            {:cont, update_in(state.skipped, &Tally.add(&1, name, index, offset))}
        end
    end
  end

  defp hand_over(write, index, offset, state) do
    bytes = bytes(write)
    state = make_room(state, bytes)
    caller = :erlang.phash2(Command.key(write), tuple_size(state.callers))
    work = {write, index, offset, bytes}

    shares =
      case state.shares do
        %{^caller => share} -> %{state.shares | caller => [work | share]}
        shares -> Map.put(shares, caller, [work])
      end

    state = %{
      state
      | shares: shares,
        shared: state.shared + 1,
        under_way: state.under_way + 1,
        bytes: state.bytes + bytes
    }

    if state.shared == @share * tuple_size(state.callers), do: deliver(state), else: state
  end

  # One message to each caller for many writes: a message for each write would wake a caller for each.
  defp deliver(state) do
    for {caller, share} <- state.shares,
        do: send(elem(state.callers, caller), {state.ref, :write, Enum.reverse(share)})

    %{state | shares: %{}, shared: 0}
  end

  defp make_room(%{under_way: under_way, bytes: held} = state, bytes) do
    if under_way < @ahead * tuple_size(state.callers) and held + bytes <= @ahead_bytes,
      do: state,
      else: state |> deliver() |> wait(bytes)
  end

  # Until half of the work is done: with less room, each caller would be woken for a write or two. A write larger than
  # all that may wait goes when nothing else is under way.
  defp wait(%{ref: ref, under_way: under_way, bytes: held} = state, bytes) do
    if under_way == 0 or
         (2 * under_way <= @ahead * tuple_size(state.callers) and held + bytes <= @ahead_bytes) do
      state
    else
      receive do
        {^ref, :done, writes, done} ->
          wait(%{state | under_way: under_way - writes, bytes: held - done}, bytes)
      end
    end
  end

  defp bytes({:put, key, value, _expire_at_ms}), do: byte_size(key) + byte_size(value)
  defp bytes(write), do: byte_size(Command.key(write))

  defp deadline(:infinity), do: :infinity
  defp deadline(milliseconds), do: System.monotonic_time(:millisecond) + milliseconds

  defp forget(ref) do
    receive do
      {^ref, :done, _writes, _bytes} -> forget(ref)
    after
      0 -> :ok
    end
  end

  # A caller, with the work that it has taken out of its mailbox: by key, the last one first, and the keys in the order
  # in which they came.

  defp caller(context) do
    state = %{work: %{}, order: :queue.new(), waiting: 0, refused: %{}, done: 0, bytes: 0}
    serve(context, state).refused
  end

  defp serve(context, state) do
    state = collect(context, state)

    case :queue.out(state.order) do
      {:empty, _order} ->
        state

      {{:value, key}, order} ->
        {group, work} = Map.pop(state.work, key)
        writes = length(group)

        state = %{
          state
          | work: work,
            order: order,
            waiting: state.waiting - writes,
            done: state.done + writes,
            bytes: Enum.reduce(group, state.bytes, fn {_, _, _, bytes}, sum -> sum + bytes end)
        }

        state = write(context, key, Enum.reverse(group), state)
        serve(context, if(state.done >= @told, do: tell(context, state), else: state))
    end
  end

  # Waits only if there is nothing to do, and tells the reader before that; nothing comes after `:end`.
  defp collect(%{ref: ref} = context, %{waiting: 0} = state) do
    receive do
      {^ref, :write, share} -> collect(context, Enum.reduce(share, state, &take/2))
      {^ref, :end} -> state
    after
      if(state.done == 0, do: :infinity, else: 0) -> collect(context, tell(context, state))
    end
  end

  defp collect(%{ref: ref} = context, %{waiting: waiting} = state) when waiting < @look_ahead do
    receive do
      {^ref, :write, share} -> collect(context, Enum.reduce(share, state, &take/2))
    after
      0 -> state
    end
  end

  defp collect(_context, state), do: state

  defp take({write, _index, _offset, _bytes} = work, state) do
    key = Command.key(write)

    case state.work do
      %{^key => group} ->
        %{state | work: %{state.work | key => [work | group]}, waiting: state.waiting + 1}

      others ->
        order = :queue.in(key, state.order)
        %{state | work: Map.put(others, key, [work]), order: order, waiting: state.waiting + 1}
    end
  end

  defp tell(context, state) do
    send(context.reader, {context.ref, :done, state.done, state.bytes})
    %{state | done: 0, bytes: 0}
  end

  defp write(%{meter: meter} = context, key, group, state) do
    {contents, writes} = known(context.model, key)

    case Meter.call(meter, call(context, key, for({write, _, _, _} <- group, do: write))) do
      {:ok, replies, _acknowledged} ->
        {contents, writes, refused} =
          group
          |> Enum.zip(replies)
          |> Enum.reduce({contents, writes, state.refused}, &answered(&1, &2, meter))

        :ets.insert(context.model, {key, contents, writes})
        %{state | refused: refused}

      # Nobody knows whether and when it was or will be done.
      {:error, reason} ->
        Meter.failed(meter, reason, length(group))
        :ets.insert(context.model, {key, [:unknown], writes})
        state
    end
  end

  # In a table of all: as a map of each caller's, its garbage collections would go through all values again and again.
  defp known(model, key) do
    case :ets.lookup(model, key) do
      [{^key, contents, writes}] -> {contents, writes}
      [] -> {[:absent], 0}
    end
  end

  defp answered({{write, index, offset, _bytes}, reply}, {contents, writes, refused}, meter) do
    case Call.verdict(write, reply) do
      :ok ->
        {after_write(write, reply, contents, meter), writes + 1, refused}

      # In the place of this write's own reply: the store looked at it and did not do it.
      {:error, reason} ->
        {contents, writes, Tally.add(refused, inspect(reason), index, offset)}
    end
  end

  defp after_write(_write, _reply, [:unknown], _meter), do: [:unknown]

  defp after_write({:put, _key, value, expire_at_ms}, :ok, _contents, _meter),
    do: [{value, expire_at_ms}]

  defp after_write({:delete, _key}, :ok, _contents, _meter), do: [:absent]
  # The null backend knows no sums.
  defp after_write({:incr, _key, _by}, :ok, _contents, _meter), do: [:unknown]

  # The sum tells more than that it was done: done twice, or on something else, would show here.
  defp after_write({:incr, key, by}, {:ok, sum}, [content], meter) do
    {before, expire_at_ms} = if content == :absent, do: {"0", 0}, else: content

    case Command.integer(before) do
      {:ok, number} when number + by == sum -> :ok
      _other -> Meter.failed(meter, {:wrong_sum, key, before, by, sum}, 1)
    end

    [{Integer.to_string(sum), expire_at_ms}]
  end

  # Each kind of write in another lane, as in a store: SETs in a namespace by the key's prefix, each with a
  # window of its own, or else in the put lane; DELs in the delete lane; counters in the generic lane.
  defp call(%{meter: meter, window_ms: window_ms}, key, writes) do
    shard = shard(meter.shards, key)

    case {writes, :binary.split(key, ":")} do
      {[{:put, _key, _value, _expire_at_ms} = write], [prefix, _rest]} ->
        namespace = :erlang.phash2(prefix, @namespaces)
        {:write, shard, "namespace #{namespace}", write, window_ms * (1 + rem(namespace, 3))}

      {[{:put, key, value, expire_at_ms}], [_key]} ->
        {:write_put_batch, shard, [{key, value, expire_at_ms}]}

      {[{:delete, key}], _prefix} ->
        {:write_delete_batch, shard, [key]}

      {writes, _prefix} ->
        {:write_batch, shard, writes}
    end
  end
end
