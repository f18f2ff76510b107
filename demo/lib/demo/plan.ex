defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Plan do
  @moduledoc false
  # What each caller of the load does, as a pure function of the caller's index and the number of the call.
  # One invariant: a plan never changes, so whoever reads back can derive every key and value from two numbers,
  # and nothing that was written has to be remembered.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.Call

  # A caller works in rounds of ten calls on one shard: each public function once, the namespaces more often. Writes
  # of a round touch keys of that round only, but for one counter per caller and shard.
  @calls 10
  # Any fixed instant far ahead: it must come back as it went in.
  @expire_at_ms 4_102_444_800_000

  @enforce_keys [:shards, :window_ms, :value_size, :filler]
  defstruct @enforce_keys

  import Kernel, except: [round: 1]

  @type t :: %__MODULE__{
          shards: Range.t(),
          window_ms: pos_integer(),
          value_size: non_neg_integer(),
          filler: binary()
        }

  @doc "A namespace has no window below 1 ms."
  @spec new(Range.t(), non_neg_integer(), non_neg_integer()) :: t()
  def new(shards, window_ms, value_size) do
    %__MODULE__{
      shards: shards,
      window_ms: max(window_ms, 1),
      value_size: value_size,
      filler: :binary.copy(".", value_size)
    }
  end

  @doc "The round that a call belongs to."
  @spec round(non_neg_integer()) :: non_neg_integer()
  def round(number), do: div(number, @calls)

  @doc "The numbers of the calls of a round."
  @spec numbers(non_neg_integer()) :: Range.t()
  def numbers(round), do: (round * @calls)..(round * @calls + @calls - 1)

  @spec shard(t(), non_neg_integer(), non_neg_integer()) :: non_neg_integer()
  def shard(plan, caller, round),
    do: plan.shards.first + rem(caller + round, Range.size(plan.shards))

  @spec counter(non_neg_integer()) :: binary()
  def counter(caller), do: <<Integer.to_string(caller)::binary, ":count">>

  @spec call(t(), non_neg_integer(), non_neg_integer()) :: Call.t()
  def call(plan, caller, number) do
    round = round(number)
    call(rem(number, @calls), plan, shard(plan, caller, round), {caller, round})
  end

  defp call(0, plan, shard, at),
    do: {:write, shard, "cart", put(plan, key(at, ?a), 0), plan.window_ms}

  defp call(1, plan, shard, at),
    do: {:write, shard, "profile", put(plan, key(at, ?b), @expire_at_ms), 2 * plan.window_ms}

  defp call(2, plan, shard, {caller, _round}),
    do: {:write, shard, "counter", {:incr, counter(caller), 1}, 4 * plan.window_ms}

  defp call(3, plan, shard, at),
    do: {:write_put_batch, shard, [entry(plan, key(at, ?c)), entry(plan, key(at, ?d))]}

  defp call(4, plan, shard, {caller, _round} = at) do
    put = put(plan, key(at, ?e), 0)
    {:write_batch, shard, [put, {:incr, counter(caller), 2}, {:delete, key(at, ?b)}]}
  end

  defp call(5, plan, shard, at),
    do: {:write_put_batch_async, shard, [entry(plan, key(at, ?f)), entry(plan, key(at, ?g))]}

  defp call(6, _plan, shard, at), do: {:write_delete_batch, shard, [key(at, ?d)]}
  defp call(7, _plan, shard, at), do: {:write_delete_batch_async, shard, [key(at, ?g)]}

  defp call(8, plan, shard, at),
    do: {:write, shard, "profile", put(plan, key(at, ?h), 0), 2 * plan.window_ms}

  defp call(9, plan, shard, at),
    do: {:write, shard, "cart", {:delete, key(at, ?a)}, plan.window_ms}

  defp key({caller, round}, name),
    do: <<Integer.to_string(caller)::binary, ?:, Integer.to_string(round)::binary, ?:, name>>

  defp put(plan, key, expire_at_ms), do: {:put, key, value(plan, key), expire_at_ms}
  defp entry(plan, key), do: {key, value(plan, key), 0}

  # Begins with its key: a value that ended up under another key is found out.
  defp value(%{value_size: size}, key) when size <= byte_size(key), do: binary_part(key, 0, size)

  defp value(%{value_size: size, filler: filler}, key),
    do: key <> binary_part(filler, 0, size - byte_size(key))
end
