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
      filler: :binary.copy(".", max(value_size - 16, 0))
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
  def counter(caller), do: "#{caller}:count"

  @spec call(t(), non_neg_integer(), non_neg_integer()) :: Call.t()
  def call(plan, caller, number) do
    round = round(number)
    base = "#{caller}:#{round}:"
    call(rem(number, @calls), plan, shard(plan, caller, round), base, counter(caller))
  end

  defp call(0, plan, shard, base, _counter),
    do: {:write, shard, "cart", put(plan, base, "a"), plan.window_ms}

  defp call(1, plan, shard, base, _counter),
    do: {:write, shard, "profile", put(plan, base, "b", @expire_at_ms), 2 * plan.window_ms}

  defp call(2, plan, shard, _base, counter),
    do: {:write, shard, "counter", {:incr, counter, 1}, 4 * plan.window_ms}

  defp call(3, plan, shard, base, _counter),
    do: {:write_put_batch, shard, entries(plan, base, ["c", "d"])}

  defp call(4, plan, shard, base, counter),
    do: {:write_batch, shard, [put(plan, base, "e"), {:incr, counter, 2}, {:delete, base <> "b"}]}

  defp call(5, plan, shard, base, _counter),
    do: {:write_put_batch_async, shard, entries(plan, base, ["f", "g"])}

  defp call(6, _plan, shard, base, _counter), do: {:write_delete_batch, shard, [base <> "d"]}

  defp call(7, _plan, shard, base, _counter),
    do: {:write_delete_batch_async, shard, [base <> "g"]}

  defp call(8, plan, shard, base, _counter),
    do: {:write, shard, "profile", put(plan, base, "h"), 2 * plan.window_ms}

  defp call(9, plan, shard, base, _counter),
    do: {:write, shard, "cart", {:delete, base <> "a"}, plan.window_ms}

  defp put(plan, base, name, expire_at_ms \\ 0) do
    key = base <> name
    {:put, key, value(plan, key), expire_at_ms}
  end

  defp entries(plan, base, names) do
    for name <- names,
        {:put, key, value, expire_at_ms} = put(plan, base, name),
        do: {key, value, expire_at_ms}
  end

  # Begins with the 16 bytes of its key's hash: a value that ended up under another key is found out.
  defp value(plan, key), do: binary_part(:erlang.md5(key) <> plan.filler, 0, plan.value_size)
end
