defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Meter do
  @moduledoc false
  # What one phase has done so far, counted by all its callers and read by the progress line meanwhile.
  # One invariant: a write counts as acknowledged only when its call has returned and said so.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.Call
  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Histogram

  @acknowledged 1
  @failed 2
  @unknown 3
  @max_reasons 20
  @other "other reasons"

  @type t :: %{
          name: String.t(),
          via: Call.via(),
          shards: Range.t(),
          counts: :counters.counters_ref(),
          latency: Histogram.t(),
          failures: :ets.table(),
          unknown?: (term() -> boolean())
        }

  @doc """
  The calling process must outlive the meter: it owns the table of failures. `unknown?` tells the errors after which
  the outcome of a write is unknown and that is no failure.
  """
  @spec new(String.t(), Call.via(), Range.t(), (term() -> boolean())) :: t()
  def new(name, via, shards, unknown? \\ fn _reason -> false end) do
    %{
      name: name,
      via: via,
      shards: shards,
      counts: :counters.new(3, [:write_concurrency]),
      latency: Histogram.new(),
      failures: :ets.new(:batcher_demo_failures, [:public]),
      unknown?: unknown?
    }
  end

  @doc "The clock of `call/3`, in nanoseconds. To read it costs some 100 ns on a virtual machine."
  @spec now() :: integer()
  def now, do: :erlang.monotonic_time(:nanosecond)

  @doc """
  Makes the call, measures it, counts what it acknowledged, and returns the replies and that count. What an error
  means is for the caller to say, with `failed/3` if it is a failure.
  """
  @spec call(t(), Call.t(), integer()) :: {:ok, [term()], non_neg_integer()} | {:error, term()}
  def call(meter, call, started \\ now()) do
    result = Call.run(call, meter.via)
    Histogram.add(meter.latency, now() - started)

    with {:ok, replies} <- result do
      acknowledged = Call.acknowledged(call, replies)
      :counters.add(meter.counts, @acknowledged, acknowledged)
      {:ok, replies, acknowledged}
    end
  end

  @spec failed(t(), term(), pos_integer()) :: :ok
  def failed(meter, reason, writes) do
    kind = if meter.unknown?.(reason), do: @unknown, else: @failed
    :counters.add(meter.counts, kind, writes)
    name = reason |> inspect(limit: 10, printable_limit: 60) |> String.slice(0, 120)

    known? =
      :ets.member(meter.failures, {kind, name}) or
        :ets.info(meter.failures, :size) < @max_reasons

    key = {kind, if(known?, do: name, else: @other)}
    :ets.update_counter(meter.failures, key, writes, {key, 0})
    :ok
  end

  @spec acknowledged(t()) :: non_neg_integer()
  def acknowledged(meter), do: :counters.get(meter.counts, @acknowledged)

  @spec failed(t()) :: non_neg_integer()
  def failed(meter), do: :counters.get(meter.counts, @failed)

  @doc "Writes of unknown outcome."
  @spec unknown(t()) :: non_neg_integer()
  def unknown(meter), do: :counters.get(meter.counts, @unknown)

  @doc "Why writes failed, and how many, the most frequent first."
  @spec failures(t()) :: [{String.t(), pos_integer()}]
  def failures(meter), do: reasons(meter, @failed)

  @doc "The same of the writes of unknown outcome."
  @spec unknowns(t()) :: [{String.t(), pos_integer()}]
  def unknowns(meter), do: reasons(meter, @unknown)

  defp reasons(meter, kind) do
    reasons = for {{^kind, name}, count} <- :ets.tab2list(meter.failures), do: {name, count}
    Enum.sort_by(reasons, fn {name, count} -> {-count, name} end)
  end
end
