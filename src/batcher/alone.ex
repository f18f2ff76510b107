defmodule Ferricstore.Raft.WARaftBackend.Batcher.Alone do
  @moduledoc false
  # A write that is alone: committed by its own process, as a direct commit would be (contract 5.6). Nothing of it
  # stays in the library, and its reply is what `commit/7` returns.
  #
  # Invariant: its lane is in flight from the offer until the permit is given back, or until this process is no more:
  # the library watches it while anybody waits for the lane.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Commit,
    Log,
    Native,
    Proposal,
    Settings,
    Telemetry
  }

  # Between two attempts to reach a library that was lost.
  @retry_ms 100

  @doc """
  Commits what the library has left to the calling process, as `alone` says, and returns the reply to it. `item`: a
  command for a namespace lane, a list for a hot one; `count`: how many replies it expects; `settings`: those that the
  call has looked up.
  """
  @spec commit(
          integer,
          Native.lane(),
          term,
          non_neg_integer,
          non_neg_integer,
          Settings.t(),
          Native.alone()
        ) :: term
  def commit(shard, lane, item, count, window_ms, settings, alone) do
    {:alone, permit, bytes, function} = alone
    backend = Settings.backend(settings)
    cost = if is_binary(lane), do: 1, else: count
    info = {{count, cost, 1, bytes}, window_ms, 0, :alone}
    telemetry? = Telemetry.Emit.loaded?()
    if telemetry?, do: Telemetry.Emit.start(shard, lane, info, %{})
    started = :erlang.monotonic_time(:microsecond)
    proposal = proposal(lane, function, item, backend)
    {how, reply, outcome} = Commit.outcome(shard, backend, proposal, count)
    give_back(shard, permit, how)

    commit_us = :erlang.monotonic_time(:microsecond) - started
    if telemetry?, do: Telemetry.Emit.commit(shard, lane, info, commit_us, outcome, %{})

    if Log.commit?(how, commit_us, Settings.slow_commit_us(settings)),
      do: Log.commit(shard, how, outcome, commit_us, {[lane], 1, cost, bytes})

    answer(how, lane, count, reply)
  end

  # What was committed is answered, even if the library has been lost meanwhile: the lane goes on when it is back.
  defp give_back(shard, permit, how) do
    Native.give_back(shard, permit, how)
  rescue
    UndefinedFunctionError -> spawn(fn -> give_back_later(shard, permit, how) end)
  end

  defp give_back_later(shard, permit, how) do
    Process.sleep(@retry_ms)
    give_back(shard, permit, how)
  end

  # 7.2
  defp proposal(lane, function, command, _backend) when is_binary(lane),
    do: {function, [Proposal.entry(function, command)]}

  defp proposal(lane, function, list, backend),
    do: Proposal.single({function, list}, lane, Commit.loaded_single_backend(backend), backend)

  # 9.1
  defp answer(:slices, lane, 1, [reply]) when is_binary(lane), do: reply
  defp answer(:slices, _lane, _count, replies), do: {:ok, replies}
  defp answer(_each, _lane, _count, reply), do: reply
end
