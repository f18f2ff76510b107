defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Load do
  @moduledoc false
  # Many callers, each of which follows the plan until the time is up.
  # One invariant: a caller makes its next call when the last one was answered, as a client does.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Call, Meter, Plan}

  # A client that gets an error waits a little: 256 callers against a dead backend would only make heat.
  @pause_after_failure 10
  # One caller of so many flushes the shard that it works on, after so many calls: direct commits have nothing like it.
  @callers_per_flusher 16
  @calls_per_flush 640

  @typedoc "What is left to read back: how many calls a caller made, and the numbers of those not acknowledged."
  @type trace :: %{
          caller: non_neg_integer(),
          calls: non_neg_integer(),
          failed: [non_neg_integer()]
        }

  @doc "`callers` are their indices: no two loads of a plan may have the same one."
  @spec run(Plan.t(), Meter.t(), Range.t(), pos_integer()) :: [trace()]
  def run(plan, meter, callers, milliseconds) do
    deadline = Meter.now() + milliseconds * 1_000_000

    callers
    |> Enum.map(&Task.async(fn -> caller(plan, meter, deadline, &1, 0, []) end))
    |> Task.await_many(:infinity)
  end

  defp caller(plan, meter, deadline, caller, number, failed) do
    flush(plan, meter, caller, number)
    call = Plan.call(plan, caller, number)
    # Read once, for the deadline and for the latency.
    now = Meter.now()

    if now >= deadline do
      %{caller: caller, calls: number, failed: failed}
    else
      case attempt(meter, call, now) do
        :ok ->
          caller(plan, meter, deadline, caller, number + 1, failed)

        :failed ->
          Process.sleep(@pause_after_failure)
          caller(plan, meter, deadline, caller, number + 1, [number | failed])
      end
    end
  end

  defp attempt(meter, call, now) do
    count = Call.count(call)

    case Meter.call(meter, call, now) do
      {:ok, _replies, ^count} ->
        :ok

      {:ok, replies, _fewer} ->
        for {:error, reason} <- Call.errors(call, replies), do: Meter.failed(meter, reason, 1)
        :failed

      {:error, reason} ->
        Meter.failed(meter, reason, count)
        :failed
    end
  end

  defp flush(plan, %{via: :batched} = meter, caller, number)
       when number > 0 and rem(number, @calls_per_flush) == 0 and
              rem(caller, @callers_per_flusher) == 0 do
    case Batcher.flush(Plan.shard(plan, caller, Plan.round(number))) do
      :ok -> :ok
      {:error, reason} -> Meter.failed(meter, {:flush, reason}, 1)
    end
  end

  defp flush(_plan, _meter, _caller, _number), do: :ok
end
