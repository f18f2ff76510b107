# The state machine that Ra replicates: one shard's keys and values, in a table that the Ra server's process owns.
# Invariant: `apply/3` answers one reply per command as contract 6.2 counts, and never fails, whatever the term:
# a machine that crashes on a committed command crashes again on each replay, and the shard is lost.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Machine do
  @moduledoc false

  # The callbacks of :ra_machine without `@behaviour`, so that this compiles where Ra is not installed.
  # It is deterministic: no clock (nothing expires here, readers compare `expire_at_ms` themselves), no
  # randomness, nothing but the command and the state.

  import Kernel, except: [apply: 3]

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.{Pieces, Snapshot, Table}

  # A snapshot copies the whole table, so its cost grows with the state, and a log without snapshots grows
  # without end. One is asked for when the commands since the last one weigh as much as the state did then:
  # a write pays for at most about one copy of itself, and the log on disk stays below the size of the state.
  # The floor keeps small states from snapshots at each few writes.
  @snapshot_floor 16 * 1024 * 1024

  # What a command weighs besides its external format: the frame of the log entry.
  @overhead 64

  @max 0x7FFF_FFFF_FFFF_FFFF
  @min -0x8000_0000_0000_0000

  @typep value :: {value :: binary(), expire_at_ms :: integer()}

  @typedoc """
  The rows of `table` are `{key, value, expire_at_ms}`. It is no part of the server's heap: as a map there, it
  would be copied by its garbage collections, again and again. It ends with the server, whose successor
  makes a new one of the snapshot and the log. The price is that a state is no value that can be kept: only
  the last one counts, and what a snapshot is to hold is copied out at once (`Snapshot.freeze/1`).
  """
  @type state :: %{
          table: :ets.table(),
          commits: non_neg_integer(),
          weight: non_neg_integer(),
          due: pos_integer()
        }

  @doc """
  A command as it goes to Ra: one binary, where a list of thousands of small terms would be copied by each process that it
  passes through. A command with large binaries, which are shared anyway, stays as it is.
  """
  @spec pack(term()) :: term()
  def pack(command) do
    case Pieces.of(command) do
      [packed] -> packed
      _with_large_binaries -> command
    end
  end

  @spec init(map()) :: state()
  def init(_config),
    do: %{table: Table.new(), commits: 0, weight: 0, due: @snapshot_floor}

  @doc false
  @spec apply(map(), term(), state()) ::
          {state(), [term()]}
          | {state(), [term()], [{:release_cursor, term(), Snapshot.frozen()}]}
  def apply(meta, command, %{table: table} = state) do
    {command, weight} = unpack(command)
    replies = :lists.reverse(run([command], [], table, []))
    weight = state.weight + weight
    state = %{state | weight: weight, commits: state.commits + own(command)}

    if weight >= state.due do
      {frozen, weight} = Snapshot.freeze(%{state | weight: 0})
      due = max(@snapshot_floor, weight)
      frozen = %{frozen | due: due}
      {%{state | weight: 0, due: due}, replies, [{:release_cursor, meta.index, frozen}]}
    else
      {state, replies}
    end
  end

  # A binary that is no packed term came from nobody here; it is an unknown command like any other term.
  defp unpack(packed) when is_binary(packed) do
    {:erlang.binary_to_term(packed), byte_size(packed) + @overhead}
  rescue
    ArgumentError -> {packed, byte_size(packed) + @overhead}
  end

  defp unpack(command), do: {command, :erlang.external_size(command) + @overhead}

  # Shown by Ra in reports of a server.
  @spec overview(state()) :: map()
  def overview(state), do: %{keys: :ets.info(state.table, :size), commits: state.commits}

  # Ra asks for the module that writes and reads snapshots.
  @spec snapshot_module() :: module()
  def snapshot_module, do: Snapshot

  ## Queries, called by Ra in the server with the state as their last argument

  @spec fetch(term(), state()) :: {:ok, value()} | :not_found
  def fetch(key, %{table: table}) do
    case :ets.lookup(table, key) do
      [{_key, value, exp}] -> {:ok, {value, exp}}
      [] -> :not_found
    end
  end

  @spec fetch_all(state()) :: %{binary() => value()}
  def fetch_all(%{table: table}),
    do: :ets.foldl(fn {key, value, exp}, all -> Map.put(all, key, {value, exp}) end, %{}, table)

  @spec commits(state()) :: non_neg_integer()
  def commits(%{commits: commits}), do: commits

  ## Commands. `later` holds what follows the lists being worked on, so that deep nesting costs no stack.

  defp run([{:put, key, value, exp} | rest], later, table, replies)
       when is_binary(key) and is_binary(value) and is_integer(exp) do
    put(table, {key, value, exp})
    run(rest, later, table, [:ok | replies])
  end

  defp run([{:delete, key} | rest], later, table, replies) when is_binary(key) do
    :ets.delete(table, key)
    run(rest, later, table, [:ok | replies])
  end

  # `length/1` in a guard refuses improper lists: those are unknown commands.
  defp run([{:put_batch, entries} | rest], later, table, replies)
       when is_list(entries) and length(entries) >= 0,
       do: run(rest, later, table, put_all(entries, table, replies))

  defp run([{:delete_batch, keys} | rest], later, table, replies)
       when is_list(keys) and length(keys) >= 0,
       do: run(rest, later, table, delete_all(keys, table, replies))

  defp run([{:batch, commands} | rest], later, table, replies)
       when is_list(commands) and length(commands) >= 0,
       do: run(commands, [rest | later], table, replies)

  defp run([{:incr, key, by} | rest], later, table, replies)
       when is_binary(key) and is_integer(by),
       do: run(rest, later, table, [increment(table, key, by) | replies])

  defp run([unknown | rest], later, table, replies),
    do: run(rest, later, table, [{:error, {:unknown_command, unknown}} | replies])

  defp run([], [rest | later], table, replies), do: run(rest, later, table, replies)
  defp run([], [], _table, replies), do: replies

  # One by one: of rows with the same key in one call, ETS does not say which it keeps.
  defp put_all([{key, value, exp} = row | rest], table, replies)
       when is_binary(key) and is_binary(value) and is_integer(exp) do
    put(table, row)
    put_all(rest, table, [:ok | replies])
  end

  defp put_all([bad | rest], table, replies),
    do: put_all(rest, table, [{:error, {:invalid_entry, bad}} | replies])

  defp put_all([], _table, replies), do: replies

  defp delete_all([key | rest], table, replies) when is_binary(key) do
    :ets.delete(table, key)
    delete_all(rest, table, [:ok | replies])
  end

  defp delete_all([bad | rest], table, replies),
    do: delete_all(rest, table, [{:error, {:invalid_key, bad}} | replies])

  defp delete_all([], _table, replies), do: replies

  # A key cut out of a caller's receive buffer would keep that whole buffer in memory for as long as it is stored.
  defp put(table, {key, value, exp} = row) do
    if loose?(key) or loose?(value),
      do: :ets.insert(table, {:binary.copy(key), :binary.copy(value), exp}),
      else: :ets.insert(table, row)
  end

  defp loose?(binary),
    do: :binary.referenced_byte_size(binary) > 2 * byte_size(binary) + @overhead

  ## Counters, kept as decimal text

  defp increment(table, key, by) do
    {text, exp} =
      case :ets.lookup(table, key) do
        [{_key, text, exp}] -> {text, exp}
        [] -> {"0", 0}
      end

    with {:ok, number} <- number(text),
         sum when by in @min..@max and sum in @min..@max <- number + by do
      put(table, {key, Integer.to_string(sum), exp})
      {:ok, sum}
    else
      :error -> {:error, :not_an_integer}
      _sum -> {:error, :increment_overflow}
    end
  end

  # Only the one spelling that a counter writes itself: no sign before a positive number, no leading zeros.
  # The longest such text has 20 bytes; longer ones are not parsed at all, since that takes quadratic time.
  defp number(text) when byte_size(text) <= 20 do
    with {number, ""} when number in @min..@max <- Integer.parse(text),
         true <- Integer.to_string(number) == text do
      {:ok, number}
    else
      _ -> :error
    end
  end

  defp number(_text), do: :error

  # Ra applies commands of its own through the same function.
  defp own({kind, _}) when kind in [:batch, :put_batch, :delete_batch], do: 1
  defp own(_command), do: 0
end
