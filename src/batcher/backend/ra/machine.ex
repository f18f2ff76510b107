# The state machine that Ra replicates: one shard's keys and values.
# Invariant: `apply/3` answers one reply per command as contract 6.2 counts, and never fails, whatever the term:
# a machine that crashes on a committed command crashes again on each replay, and the shard is lost.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Machine do
  @moduledoc false

  # The callbacks of :ra_machine without `@behaviour`, so that this compiles where Ra is not installed.
  # It is deterministic: no clock (nothing expires here, readers compare `expire_at_ms` themselves), no
  # randomness, nothing but the command and the state.

  import Kernel, except: [apply: 3]

  # A snapshot copies the whole map, so its cost grows with the state, and a log without snapshots grows
  # without end. One is asked for when the commands since the last one weigh as much as the state did then:
  # a write pays for at most about one copy of itself, and the log on disk stays below the size of the state.
  # The floor keeps small states from snapshots at each few writes.
  @snapshot_floor 16 * 1024 * 1024

  # What a command weighs besides its key and value: tuples, the map's nodes, the frame of the log entry.
  @overhead 64

  @max 0x7FFF_FFFF_FFFF_FFFF
  @min -0x8000_0000_0000_0000

  @typep value :: {value :: binary(), expire_at_ms :: integer()}

  @type state :: %{
          data: %{binary() => value()},
          commits: non_neg_integer(),
          weight: non_neg_integer(),
          due: pos_integer()
        }

  @spec init(map()) :: state()
  def init(_config), do: %{data: %{}, commits: 0, weight: 0, due: @snapshot_floor}

  @doc false
  @spec apply(map(), term(), state()) :: {state(), [term()]} | {state(), [term()], [tuple()]}
  def apply(meta, command, state) do
    {data, weight, replies} = run([command], [], state.data, state.weight + @overhead, [])
    state = %{state | data: data, weight: weight, commits: state.commits + own(command)}
    replies = :lists.reverse(replies)

    if weight >= state.due do
      state = %{state | weight: 0, due: max(@snapshot_floor, weigh(data))}
      {state, replies, [{:release_cursor, meta.index, state}]}
    else
      {state, replies}
    end
  end

  # Shown by Ra in reports of a server; without it they would hold the whole map.
  @spec overview(state()) :: map()
  def overview(state), do: %{keys: map_size(state.data), commits: state.commits}

  ## Queries, called by Ra with the state as their last argument

  @spec fetch(term(), state()) :: {:ok, value()} | :not_found
  def fetch(key, %{data: data}) do
    case data do
      %{^key => value} -> {:ok, value}
      _ -> :not_found
    end
  end

  @spec fetch_all(state()) :: %{binary() => value()}
  def fetch_all(%{data: data}), do: data

  @spec commits(state()) :: non_neg_integer()
  def commits(%{commits: commits}), do: commits

  ## Commands. `later` holds what follows the lists being worked on, so that deep nesting costs no stack.

  defp run([{:put, key, value, exp} | rest], later, data, weight, replies)
       when is_binary(key) and is_binary(value) and is_integer(exp) do
    data = Map.put(data, compact(key), {compact(value), exp})
    run(rest, later, data, weight + weight(key, value), [:ok | replies])
  end

  defp run([{:delete, key} | rest], later, data, weight, replies) when is_binary(key),
    do: run(rest, later, Map.delete(data, key), weight + weight(key, ""), [:ok | replies])

  # `length/1` in a guard refuses improper lists: those are unknown commands.
  defp run([{:put_batch, entries} | rest], later, data, weight, replies)
       when is_list(entries) and length(entries) >= 0 do
    {data, weight, replies} = put_all(entries, data, weight, replies)
    run(rest, later, data, weight, replies)
  end

  defp run([{:delete_batch, keys} | rest], later, data, weight, replies)
       when is_list(keys) and length(keys) >= 0 do
    {data, weight, replies} = delete_all(keys, data, weight, replies)
    run(rest, later, data, weight, replies)
  end

  defp run([{:batch, commands} | rest], later, data, weight, replies)
       when is_list(commands) and length(commands) >= 0,
       do: run(commands, [rest | later], data, weight, replies)

  defp run([{:incr, key, by} | rest], later, data, weight, replies)
       when is_binary(key) and is_integer(by) do
    case increment(data, key, by) do
      {:ok, sum, entry} ->
        data = Map.put(data, compact(key), entry)
        run(rest, later, data, weight + weight(key, elem(entry, 0)), [{:ok, sum} | replies])

      {:error, _reason} = error ->
        run(rest, later, data, weight + weight(key, ""), [error | replies])
    end
  end

  defp run([unknown | rest], later, data, weight, replies) do
    weight = weight + @overhead + :erlang.external_size(unknown)
    run(rest, later, data, weight, [{:error, {:unknown_command, unknown}} | replies])
  end

  defp run([], [rest | later], data, weight, replies), do: run(rest, later, data, weight, replies)
  defp run([], [], data, weight, replies), do: {data, weight, replies}

  defp put_all([{key, value, exp} | rest], data, weight, replies)
       when is_binary(key) and is_binary(value) and is_integer(exp) do
    data = Map.put(data, compact(key), {compact(value), exp})
    put_all(rest, data, weight + weight(key, value), [:ok | replies])
  end

  defp put_all([bad | rest], data, weight, replies) do
    weight = weight + @overhead + :erlang.external_size(bad)
    put_all(rest, data, weight, [{:error, {:invalid_entry, bad}} | replies])
  end

  defp put_all([], data, weight, replies), do: {data, weight, replies}

  defp delete_all([key | rest], data, weight, replies) when is_binary(key),
    do: delete_all(rest, Map.delete(data, key), weight + weight(key, ""), [:ok | replies])

  defp delete_all([bad | rest], data, weight, replies) do
    weight = weight + @overhead + :erlang.external_size(bad)
    delete_all(rest, data, weight, [{:error, {:invalid_key, bad}} | replies])
  end

  defp delete_all([], data, weight, replies), do: {data, weight, replies}

  ## Counters, kept as decimal text

  defp increment(data, key, by) do
    {text, exp} = Map.get(data, key, {"0", 0})

    with {:ok, number} <- number(text),
         sum when by in @min..@max and sum in @min..@max <- number + by do
      {:ok, sum, {Integer.to_string(sum), exp}}
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

  ## Sizes

  # A key cut out of a caller's receive buffer would keep that whole buffer in memory for as long as it is stored.
  defp compact(binary) do
    if :binary.referenced_byte_size(binary) > 2 * byte_size(binary) + @overhead,
      do: :binary.copy(binary),
      else: binary
  end

  defp weight(key, value), do: @overhead + byte_size(key) + byte_size(value)

  defp weigh(data),
    do: :maps.fold(fn key, {value, _exp}, sum -> sum + weight(key, value) end, 0, data)

  # Ra applies commands of its own through the same function.
  defp own({kind, _}) when kind in [:batch, :put_batch, :delete_batch], do: 1
  defp own(_command), do: 0
end
