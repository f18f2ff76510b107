defmodule Ferricstore.Raft.WARaftBackend.Batcher.Stats do
  @external_resource Path.expand("../../native/batcher_shell/src/metrics.rs", __DIR__)

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @moduledoc """
  What a shard counts and holds, as `stats/1` of `Ferricstore.Raft.WARaftBackend.Batcher` returns it: a map with
  `:shard`, each metric of the table below by its name, and `:oldest_commit_pid`, the process that has the commit of
  `:oldest_commit_age_us`, or `nil`.

  The value of a metric without labels is a number, or a map for a distribution. That of one with a label is a map, from each value of the label to a
  number or a distribution; where there are several labels the keys are tuples, in the order of the labels:

      %{
        shard: 0,
        writes_total: %{namespace: 17, batch: 0, put_batch: 3, delete_batch: 0},
        commits_total: %{{:window, :ok} => 4, {:window, :error} => 0, ...},
        queued_items: 2,
        commit_us: %{count: 7, sum: 9_120, min: 803, max: 2_410, mean: 1302.9, p50: 1_190, p90: 2_410, p99: 2_410,
                     p99_9: 2_410, buckets: [{10, 0}, ..., {1_000, 2}, {2_500, 7}, ..., {:infinity, 7}]},
        ...
      }

  A distribution is what `t:distribution/0` says. It has all values since the last `reset_stats/1`.

  The label `lane` is the kind of lane: `:namespace`, `:batch` (the generic lane), `:put_batch` or `:delete_batch`, and
  never a prefix; `top_lanes/2` names those. Each shard counts for itself, for as long as the VM lives: a counter goes
  on when its batcher is stopped and started again, and is zeroed by `reset_stats/1` only.

  ## Metrics

  | name | kind | unit | labels | what it says |
  | --- | --- | --- | --- | --- |
  #{for {name, kind, unit, labels, help} <- Native.metrics(), into: "" do
    "| `#{name}` | #{kind} | #{unit} | #{Enum.map_join(labels, ", ", &"`#{&1}`")} | #{help} |\n"
  end}
  """

  # Far more than there can be.
  @most 0xFFFF_FFFF

  @typedoc "See the module."
  @type t :: %{required(atom) => term}

  @typedoc """
  How values are distributed: how many there are, their sum, the least, the greatest and the mean, quantiles, which are
  off by 1 % at most, and how many values are not above each bound, in ascending order. What is above 2^30, eighteen
  minutes in microseconds, counts as that in quantiles and buckets. All 0 where there are no values.
  """
  @type distribution :: %{
          count: non_neg_integer,
          sum: non_neg_integer,
          min: non_neg_integer,
          max: non_neg_integer,
          mean: float,
          p50: non_neg_integer,
          p90: non_neg_integer,
          p99: non_neg_integer,
          p99_9: non_neg_integer,
          buckets: [{upper_bound :: non_neg_integer | :infinity, non_neg_integer}]
        }

  @typedoc "Calls, items and bytes that a lane was given, or has queued."
  @type tally :: %{
          writes: non_neg_integer,
          items: non_neg_integer,
          bytes: non_neg_integer
        }

  @typedoc """
  A lane, by its prefix or the name of a hot one: what it was given since it was opened, or since the last
  `reset_stats/1`, what of that is queued, the age of its oldest queued slot in microseconds (`nil`: nothing is queued),
  and for how long its commit has been in flight (`nil`: none is).
  """
  @type lane :: %{
          lane: binary | :batch | :put_batch | :delete_batch,
          given: tally,
          queued: tally,
          oldest_write_age_us: non_neg_integer | nil,
          in_flight_us: non_neg_integer | nil
        }

  @doc false
  @spec take(integer) :: t | nil
  def take(shard) do
    case Native.stats(shard) do
      :not_running -> nil
      stats -> Map.put(stats, :shard, shard)
    end
  end

  @doc false
  @spec all() :: %{non_neg_integer => t}
  def all, do: for(shard <- Native.shards(), stats = take(shard), into: %{}, do: {shard, stats})

  @doc false
  @spec reset(integer) :: :ok
  def reset(shard), do: Native.forget_stats(shard)

  @doc false
  @spec reset_all() :: :ok
  def reset_all, do: Enum.each(Native.shards(), &reset/1)

  @doc false
  @spec top_lanes(integer, non_neg_integer) :: [lane] | nil
  def top_lanes(shard, count) do
    case Native.busiest_lanes(shard, min(count, @most)) do
      :not_running -> nil
      lanes -> Enum.map(lanes, &lane/1)
    end
  end

  defp lane({lane, given, queued, age_us, in_flight_us}) do
    %{
      lane: lane,
      given: tally(given),
      queued: tally(queued),
      oldest_write_age_us: age_us,
      in_flight_us: in_flight_us
    }
  end

  defp tally({writes, items, bytes}), do: %{writes: writes, items: items, bytes: bytes}
end
