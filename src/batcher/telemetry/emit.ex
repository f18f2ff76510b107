defmodule Ferricstore.Raft.WARaftBackend.Batcher.Telemetry.Emit do
  @moduledoc false
  # Emits the events of `Events`, if there is a `:telemetry` (contract 13).
  #
  # Invariant: each lane of a commit is told of once, and no handler can do harm to the process that has committed.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Log

  @doc "Has `:telemetry` loaded, if it can be; whether it can is said at each event, not when this is compiled."
  @spec prepare() :: :ok
  def prepare do
    _there? = Code.ensure_loaded?(:telemetry)
    :ok
  end

  @doc "Whether events are emitted: asked at each commit, so that a library which is loaded later is found."
  @spec loaded?() :: boolean
  def loaded?, do: function_exported?(:telemetry, :execute, 3)

  @typedoc "`{{replies, cost, groups, bytes}, window_ms, wait_us, reason}`, from the library."
  @type info ::
          {{non_neg_integer, non_neg_integer, non_neg_integer, non_neg_integer}, non_neg_integer,
           non_neg_integer, atom}

  @doc "What the metadata say of a commit, if it is that of several lanes."
  @spec of_commit(list) :: map
  def of_commit([_, _ | _] = batches), do: %{commit: make_ref(), lanes: length(batches)}
  def of_commit(_one), do: %{}

  @doc "A lane's commit begins. `commit`: see `of_commit/1`."
  @spec start(integer, binary | atom, info, map) :: :ok
  def start(shard, lane, {{_replies, cost, groups, bytes}, _window, wait_us, reason}, commit) do
    measurements = %{
      batch_size: cost,
      caller_count: groups,
      command_bytes: bytes,
      queue_wait_us: wait_us
    }

    metadata = %{shard_index: shard, lane: Log.lane(lane), reason: reason}
    tell(:start, measurements, Map.merge(commit, metadata))
  end

  @doc "The events of a lane whose commit took `commit_us`."
  @spec commit(integer, binary | atom, info, non_neg_integer, term, map) :: :ok
  def commit(shard, lane, info, commit_us, result, commit) do
    {{_replies, cost, groups, bytes}, window_ms, wait_us, reason} = info

    measurements = %{
      batch_size: cost,
      queue_wait_us: wait_us,
      queue_age_us: wait_us,
      flush_duration_us: commit_us,
      duration_us: wait_us + commit_us,
      total_duration_us: wait_us + commit_us
    }

    {result, status} = outcome(result)

    common = Map.merge(commit, %{shard_index: shard, lane: Log.lane(lane), reason: reason})
    metadata = Map.merge(common, %{window_ms: window_ms, result: result})

    if is_binary(lane),
      do: tell(:slot_flush, measurements, Map.put(metadata, :prefix, lane)),
      else:
        tell(
          :hot_flush,
          Map.put(measurements, :group_count, groups),
          Map.put(metadata, :kind, lane)
        )

    execute(
      [:ferricstore, :batcher, :quorum_submit],
      Map.merge(measurements, %{caller_count: groups, command_bytes: bytes}),
      Map.merge(common, %{backend: :waraft, kind: :batch, status: status})
    )
  end

  @doc "Runs a direct commit and tells of it; what it raises goes on to the caller."
  @spec direct(integer, atom, (() -> term)) :: term
  def direct(shard, lane, commit) do
    started = System.monotonic_time(:microsecond)

    try do
      commit.()
    catch
      kind, reason ->
        directly(shard, lane, started, :exit)
        :erlang.raise(kind, reason, __STACKTRACE__)
    else
      result ->
        directly(shard, lane, started, elem(outcome(result), 0))
        result
    end
  end

  defp directly(shard, lane, started, result) do
    duration_us = System.monotonic_time(:microsecond) - started
    about = %{shard_index: shard, lane: lane, result: result}
    tell(:direct, %{duration_us: duration_us}, about)
  end

  @doc "One of the events of a shard that are of no commit."
  @spec tell(atom, map, map) :: :ok
  def tell(what, measurements, metadata),
    do: execute([:ferricstore, :waraft, :batcher, what], measurements, metadata)

  defp outcome({:ok, list}) when is_list(list), do: {:ok, :ok}
  defp outcome({:error, reason}), do: {{:error, reason}, :error}
  defp outcome(_other), do: {:other, :unknown}

  # Called by name at run time: the host decides whether there is a `:telemetry`.
  defp execute(event, measurements, metadata) do
    if loaded?(), do: apply(:telemetry, :execute, [event, measurements, metadata])
    :ok
  catch
    _kind, _reason -> :ok
  end
end
