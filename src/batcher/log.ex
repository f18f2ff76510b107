defmodule Ferricstore.Raft.WARaftBackend.Batcher.Log do
  @moduledoc false
  # What a shard says in the log while it runs (contract 21): text, level, and how often; and how far it has told of what
  # goes on for a while.
  #
  # Invariant: each kind of line is written at most once in 10 s for each shard, the next one says how many were left
  # out. Nothing that anybody wrote is in a line: of a reason only its atoms, of a lane its kind. What is kept here of a
  # shard outlives its owners, their watchers, and its lives.

  require Logger

  @limit_ms 10_000
  @levels [
    commit_failed: :error,
    backend_failed: :error,
    replies_mismatched: :error,
    commit_slow: :warning,
    commit_stuck: :error,
    commit_ended: :info,
    committer_down: :error,
    adopted: :warning,
    nobody_adopted: :error,
    drain_refused: :error,
    overload_began: :error,
    overload_ended: :info,
    queue_filling: :warning,
    library_failed: :error,
    owner_failed: :error,
    cast_dropped: :warning,
    token_not_released: :error
  ]
  @kinds Keyword.keys(@levels)
  # What goes on for a while, and how far it has been told of: see `t:told/0`.
  @ongoing [:stuck, :overload, :filling]
  @stages [:none, :untold, :told, :over]
  @of_stages length(@stages)
  # In the array of a shard: how many owners it has had, then of each kind when it may be told again, and how many were
  # left out, then how far what goes on has been told of.
  @owners 1
  @places @kinds |> Enum.with_index() |> Map.new(fn {kind, i} -> {kind, 2 + 2 * i} end)
  @cells @ongoing |> Enum.with_index(2 + 2 * length(@kinds)) |> Map.new()
  @size 1 + 2 * length(@kinds) + length(@ongoing)
  # Of a reason so much is shown.
  @deep 4
  @wide 4

  @type kind :: unquote(Enum.reduce(Enum.reverse(@kinds), &{:|, [], [&1, &2]}))
  @typedoc "Kind of a lane, or `:several` of a commit of several kinds."
  @type lane :: :namespace | :batch | :put_batch | :delete_batch | :several
  @typedoc "What goes on for a while: a commit hangs, writes are refused by bounds, a queue fills."
  @type ongoing :: :stuck | :overload | :filling
  @typedoc """
  `:none`: it does not go on, and its end was told of if its beginning was. `:untold`: it does, and no line has said so
  yet. `:told`: a line has. `:over`: it has ended, and no line has said that yet. With how old the commit was in us when
  it was seen last, or how many writes were refused since it began; of a queue 0.
  """
  @type told :: {:none | :untold | :told | :over, non_neg_integer}

  @doc "All kinds of lines."
  @spec kinds() :: [kind]
  def kinds, do: @kinds

  @doc "Another owner of the shard starts: the number that it has."
  @spec open(integer) :: pos_integer
  def open(shard) do
    if counts(shard) == nil,
      do: :persistent_term.put({__MODULE__, shard}, :atomics.new(@size, []))

    :atomics.add_get(counts(shard), @owners, 1)
  end

  @doc "The number of the latest owner of a shard."
  @spec owners(integer) :: non_neg_integer
  def owners(shard), do: if(counts = counts(shard), do: :atomics.get(counts, @owners), else: 0)

  @doc "How far something that goes on has been told of."
  @spec told(integer, ongoing) :: told
  def told(shard, ongoing) do
    value = if counts = counts(shard), do: :atomics.get(counts, @cells[ongoing]), else: 0
    {Enum.at(@stages, rem(value, @of_stages)), div(value, @of_stages)}
  end

  @doc "Changes that; `false` if somebody else has changed it before, and is to tell of it."
  @spec change(integer, ongoing, told, told) :: boolean
  def change(shard, ongoing, before, now) do
    counts = counts(shard)
    now = cell(now)

    counts != nil and
      :atomics.compare_exchange(counts, @cells[ongoing], cell(before), now) == :ok
  end

  defp cell({stage, number}),
    do: @of_stages * number + Enum.find_index(@stages, &(&1 == stage))

  @doc "The kind of a lane: what may be shown of it."
  @spec lane(binary | atom) :: lane
  def lane(prefix) when is_binary(prefix), do: :namespace
  def lane(hot), do: hot

  @doc "The same of the lanes of one commit."
  @spec lanes([binary | atom]) :: lane
  def lanes(names) do
    case names |> Enum.map(&lane/1) |> Enum.uniq() do
      [lane] -> lane
      _several -> :several
    end
  end

  @doc "Whether a commit that went so is to be told of: it failed, or was slow (21.1)."
  @spec commit?(atom, non_neg_integer, non_neg_integer | :infinity) :: boolean
  def commit?(:slices, commit_us, slow_us), do: commit_us >= slow_us
  def commit?(_failed, _commit_us, _slow_us), do: true

  @doc "Tells what became of a commit of these lanes."
  @spec commit(integer, atom, term, non_neg_integer, size) :: :ok
        when size:
               {lanes :: [binary | atom], writes :: integer, items :: integer, bytes :: integer}
  def commit(shard, how, result, commit_us, {lanes, writes, items, bytes}) do
    tell(
      shard,
      committed(how),
      [
        lane: lanes(lanes),
        lanes: length(lanes),
        writes: writes,
        items: items,
        bytes: bytes,
        commit_us: commit_us
      ] ++ if(how == :slices, do: [], else: [result: shape(result)])
    )
  end

  defp committed(:slices), do: :commit_slow
  defp committed(:error), do: :commit_failed
  defp committed(:mismatch), do: :replies_mismatched
  defp committed(:exit), do: :backend_failed

  @doc "Writes a line of a kind, or counts it as left out. `facts`: what the text is made of, and the metadata."
  @spec tell(integer, kind, keyword) :: :ok
  def tell(shard, kind, facts) do
    case due(counts(shard), @places[kind]) do
      :left_out ->
        :ok

      left_out ->
        metadata = [shard: shard, kind: kind, left_out: left_out] ++ facts

        Logger.log(
          @levels[kind],
          fn ->
            "batcher #{shard}: #{text(kind, Map.new(facts))}#{hint(kind)}#{others(left_out)}"
          end,
          metadata
        )
    end
  end

  @doc "Whether a line of a kind would be written now."
  @spec due?(integer, kind) :: boolean
  def due?(shard, kind) do
    counts = counts(shard)
    counts == nil or now_ms() >= :atomics.get(counts, @places[kind])
  end

  @doc "Counts a line of a kind as left out."
  @spec leave_out(integer, kind) :: :ok
  def leave_out(shard, kind) do
    if counts = counts(shard), do: :atomics.add(counts, @places[kind] + 1, 1)
    :ok
  end

  # A shard that never had an owner has no array, and nobody who tells much.
  defp due(nil, _place), do: 0

  defp due(counts, place) do
    now_ms = now_ms()
    next_ms = :atomics.get(counts, place)

    if now_ms >= next_ms and
         :atomics.compare_exchange(counts, place, next_ms, now_ms + @limit_ms) == :ok do
      :atomics.exchange(counts, place + 1, 0)
    else
      :atomics.add(counts, place + 1, 1)
      :left_out
    end
  end

  defp counts(shard), do: :persistent_term.get({__MODULE__, shard}, nil)

  # Since the VM started: never negative.
  defp now_ms do
    since = :erlang.monotonic_time() - :erlang.system_info(:start_time)
    System.convert_time_unit(since, :native, :millisecond)
  end

  defp others(0), do: ""
  defp others(count), do: " (#{count} more of this kind left out before)"

  # --- Texts

  defp text(:commit_failed, facts),
    do: "a commit of #{size(facts)} failed: the backend answered #{facts.result}"

  defp text(:backend_failed, facts),
    do: "the backend failed in a commit of #{size(facts)}: #{facts.result}"

  defp text(:replies_mismatched, facts) do
    "the backend gave another number of replies than a commit of #{size(facts)} has: #{facts.result}; " <>
      "what was committed nobody knows"
  end

  defp text(:commit_slow, facts),
    do: "a commit of #{size(facts)} took #{ms(facts.commit_us)}"

  defp text(:commit_stuck, facts) do
    "a commit has been in flight for #{ms(facts.age_us)}, lane #{facts.lane}, in #{inspect(facts.pid)}, which is in " <>
      "#{facts.at}; #{count(facts.in_flight_items, "item")} in flight, #{facts.queued_items} queued"
  end

  defp text(:commit_ended, facts),
    do: "no commit is stuck any more: the one that was ended after #{ms(facts.age_us)} or more"

  defp text(:committer_down, facts) do
    "a committer died: #{facts.reason}#{at_hand(facts)}. Callers of what it was committing get an error; that may be " <>
      "committed all the same"
  end

  defp text(:adopted, facts) do
    "a new owner has taken over #{facts.queued_items} queued items, #{facts.queued_bytes} bytes, and " <>
      "#{facts.in_flight_items} in flight: the one before it had died"
  end

  # Whatever is queued has items (6.5).
  defp text(:nobody_adopted, %{queued_items: 0}),
    do: "its owner died and no other came in time: nothing was queued when it was last looked at"

  defp text(:nobody_adopted, facts) do
    "its owner died and no other came in time: what was queued when it was last looked at, " <>
      "#{count(facts.queued_items, "item")}, #{facts.queued_bytes} bytes, was not committed, and its callers got " <>
      ":batcher_down"
  end

  defp text(:drain_refused, facts) do
    "was stopped before all was committed: #{facts.queued_items} queued items, #{facts.queued_bytes} bytes, were " <>
      "refused with :shutting_down; #{facts.in_flight_items} are in flight still"
  end

  defp text(:overload_began, facts) do
    causes = Enum.map_join(facts.refused, ", ", fn {cause, n} -> "#{n} by #{inspect(cause)}" end)
    "is overloaded and refuses writes: #{causes}; #{held(facts)}"
  end

  defp text(:overload_ended, facts),
    do: "is overloaded no more: it has refused #{count(facts.refused, "write")}"

  defp text(:queue_filling, facts), do: "its queue is filling: #{held(facts)}"

  defp text(:library_failed, facts), do: "the library failed: #{facts.text}"
  defp text(:owner_failed, facts), do: "its owner failed in #{inspect(facts.where)}"

  defp text(:cast_dropped, facts),
    do: "dropped a cast of #{facts.request} without anybody to answer"

  defp text(:token_not_released, facts), do: "a sync token was not released: #{facts.reason}"

  # What to look at.
  defp hint(kind) when kind in [:commit_failed, :backend_failed, :replies_mismatched],
    do: ". Look at the backend"

  defp hint(kind) when kind in [:commit_slow, :commit_stuck],
    do: ". Look at the disk and at the backend"

  defp hint(kind) when kind in [:overload_began, :queue_filling],
    do: ". More is written than the backend commits: Batcher.advise/1 and top_lanes/2 say more"

  defp hint(kind) when kind in [:adopted, :nobody_adopted],
    do: ". Look for why its owner died"

  defp hint(:drain_refused), do: ". Give its stop more time, or look at the backend"
  defp hint(:library_failed), do: ". Report it, with the stack on stderr"
  defp hint(:cast_dropped), do: ". Look for who sends it"
  defp hint(:token_not_released), do: ". Look at the module of :sync_gate"
  defp hint(_kind), do: ""

  defp size(facts) do
    lanes = if facts.lanes > 1, do: "#{facts.lanes} lanes", else: "lane #{facts.lane}"

    "#{count(facts.writes, "write")} (#{lanes}, #{count(facts.items, "item")}, #{facts.bytes} bytes)"
  end

  defp count(1, what), do: "1 #{what}"
  defp count(count, what), do: "#{count} #{what}s"

  defp held(facts) do
    items = facts.queued_items + facts.in_flight_items
    bytes = facts.queued_bytes + facts.in_flight_bytes

    "#{items} of #{facts.max_queue_items} items and #{bytes} of #{facts.max_queue_bytes} bytes are queued or in flight" <>
      total(facts)
  end

  defp total(%{max_total_queue_bytes: 0}), do: ""

  defp total(facts),
    do: ", #{facts.total_queue_bytes} of #{facts.max_total_queue_bytes} bytes of all shards"

  defp at_hand(%{in_flight_items: in_flight, queued_items: queued}),
    do: "; #{count(in_flight, "item")} in flight, #{queued} queued"

  defp at_hand(_of_a_closed_shard), do: ""

  defp ms(us), do: "#{div(us, 1_000)} ms"

  @doc "A term without payload: its atoms, and numbers of replies that were expected and given."
  @spec shape(term) :: String.t()
  def shape({:error, {:batch_result_mismatch, expected, given}})
      when is_integer(expected) and is_integer(given),
      do: "#{given} instead of #{expected}"

  def shape(term), do: shape(term, @deep)

  defp shape(atom, _depth) when is_atom(atom), do: inspect(atom)
  defp shape(%module{}, _depth), do: "%#{inspect(module)}{}"
  defp shape(_term, 0), do: "_"

  defp shape(tuple, depth) when is_tuple(tuple) do
    parts = tuple |> Tuple.to_list() |> Enum.take(@wide) |> Enum.map(&shape(&1, depth - 1))
    "{#{Enum.join(if(tuple_size(tuple) > @wide, do: parts ++ ["..."], else: parts), ", ")}}"
  end

  defp shape(_payload, _depth), do: "_"
end
