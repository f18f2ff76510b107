defmodule Ferricstore.Raft.WARaftBackend.Batcher.Telemetry do
  @moduledoc false
  # The events of one commit (contract 13), through `:telemetry` if the host has it.
  #
  # Invariant: each lane of a commit is told of once, and no handler can do harm to the process that has committed.

  @doc "Whether events are emitted: asked when a batcher starts, not when this is compiled."
  @spec available?() :: boolean
  def available?, do: Code.ensure_loaded?(:telemetry)

  @doc "The same, if that module is loaded: what the start of a batcher has seen to."
  @spec loaded?() :: boolean
  def loaded?, do: function_exported?(:telemetry, :execute, 3)

  @typedoc "`{{replies, weight, groups, bytes}, window_ms, wait_us, reason}`, from the library."
  @type info ::
          {{non_neg_integer, non_neg_integer, non_neg_integer, non_neg_integer}, non_neg_integer,
           non_neg_integer, atom}

  @doc """
  Emits the events of a lane whose commit took `commit_us`. `commit`: what the metadata say of it, if it was that of
  several lanes.
  """
  @spec emit(integer, binary | atom, info, non_neg_integer, term, map) :: :ok
  def emit(
        shard,
        lane,
        {{_replies, weight, groups, bytes}, window_ms, wait_us, reason},
        commit_us,
        result,
        commit \\ %{}
      ) do
    measurements = %{
      batch_size: weight,
      queue_wait_us: wait_us,
      queue_age_us: wait_us,
      flush_duration_us: commit_us,
      duration_us: wait_us + commit_us,
      total_duration_us: wait_us + commit_us
    }

    {result, status} = outcome(result)

    metadata =
      Map.merge(commit, %{
        shard_index: shard,
        window_ms: window_ms,
        result: result,
        reason: reason
      })

    if is_binary(lane) do
      execute(
        [:ferricstore, :waraft, :batcher, :slot_flush],
        measurements,
        Map.put(metadata, :prefix, lane)
      )
    else
      execute(
        [:ferricstore, :waraft, :batcher, :hot_flush],
        Map.put(measurements, :group_count, groups),
        Map.put(metadata, :kind, lane)
      )
    end

    execute(
      [:ferricstore, :batcher, :quorum_submit],
      Map.merge(measurements, %{caller_count: groups, command_bytes: bytes}),
      Map.merge(commit, %{
        backend: :waraft,
        shard_index: shard,
        kind: :batch,
        status: status,
        reason: reason
      })
    )
  end

  defp outcome({:ok, list}) when is_list(list), do: {:ok, :ok}
  defp outcome({:error, reason}), do: {{:error, reason}, :error}
  defp outcome(_other), do: {:other, :unknown}

  # Called by name at run time: the host decides whether there is a `:telemetry`.
  defp execute(event, measurements, metadata) do
    apply(:telemetry, :execute, [event, measurements, metadata])
    :ok
  catch
    _kind, _reason -> :ok
  end
end
