defmodule Ferricstore.Raft.WARaftBackend.Batcher.Commit do
  @moduledoc false
  # The call of the backend, from a committer, from a caller that is alone, or from one that commits directly
  # (contract 5.6, 7.1, 10.1, 14.1, 16.2).
  #
  # Invariant: one call here is one call of the backend; nothing is tried again.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Backend,
    Count,
    Native,
    Settings,
    Telemetry
  }

  @type function_name ::
          :__commit_batch_direct__
          | :__commit_put_batch_direct__
          | :__commit_delete_batch_direct__
          | :__commit_single_batch_direct__
          | :__commit_single_direct__

  @typedoc """
  How callers are answered, with what, and what telemetry is told. With `:slices` each gets its slice of the replies,
  otherwise all get the same: the backend has said something else (`:error`), has given another number of replies
  (`:mismatch`), or exited, raised or threw (`:exit`).
  """
  @type outcome :: {:slices, replies :: list, term} | {:error | :mismatch | :exit, term, term}

  @hook_timeout_ms 30_000
  # The replies of so many are counted at a stretch.
  @short 10_000

  @doc "Calls the backend. What it raises, throws or exits with goes on to the caller."
  @spec run(integer, module, function_name, list | tuple) :: term
  def run(shard, backend, function, writes) do
    case Settings.call_hook() do
      {:block, pid} -> block(pid, function)
      _none -> :ok
    end

    apply(backend, function, [shard, writes])
  end

  @doc "Calls the backend, which is to give so many replies, and says what became of that, whatever it does (9)."
  @spec outcome(integer, module, {function_name, list | tuple}, non_neg_integer) :: outcome
  def outcome(shard, backend, {function, writes}, expected) do
    case attempt(shard, backend, function, writes) do
      {:returned, result} -> verdict(function, result, expected)
      {:failed, error} -> {:exit, error, error}
    end
  end

  # 9.4
  defp attempt(shard, backend, function, writes) do
    {:returned, run(shard, backend, function, writes)}
  catch
    :exit, reason ->
      {:failed, {:error, {:backend_exit, reason}}}

    kind, reason ->
      if reason == :undef, do: Backend.Check.tell(shard, __STACKTRACE__)
      {:failed, {:error, {:backend_error, kind, reason}}}
  end

  # The backend may have put all replies of a command that counts other than 1 into its one result. Such a command
  # has the batch to itself, so that any other result is a result of this command.
  defp verdict(:__commit_single_batch_direct__, result, expected) when expected != 1 do
    replies =
      case result do
        {:ok, [{:ok, replies}]} when is_list(replies) -> replies
        {:ok, [replies]} when is_list(replies) -> replies
        {:ok, replies} when is_list(replies) -> replies
        _other -> nil
      end

    if is_list(replies) and count(replies, expected) == expected,
      do: {:slices, replies, result},
      else: {:error, result, result}
  end

  # 9.1 to 9.3
  defp verdict(_function, {:ok, list} = result, expected) when is_list(list) do
    case count(list, expected) do
      ^expected ->
        {:slices, list, result}

      :improper ->
        {:error, result, :other}

      actual ->
        mismatch = {:error, {:batch_result_mismatch, expected, actual}}
        {:mismatch, mismatch, mismatch}
    end
  end

  defp verdict(_function, result, _expected), do: {:error, result, result}

  # Mostly the backend has given as many replies as it should.
  defp count(list, expected) when expected <= @short,
    do: if(Count.exactly?(list, expected), do: expected, else: Count.items(list))

  defp count(list, _expected), do: Count.items(list)

  @doc "Commits a list straight from the caller (10.1)."
  @spec run_list(integer, lane, Settings.t(), list) :: term when lane: atom
  def run_list(shard, lane, settings, list) do
    Native.directly(shard)
    backend = Settings.backend(settings)
    told(shard, lane, settings, fn -> run(shard, backend, function(lane), list) end)
  end

  @doc """
  Commits one command straight from the caller: the reply to the command, bare, or what else the backend says (10.1,
  16.2). `lane`: the kind of the one that it would have gone through.
  """
  @spec run_single(integer, :namespace | :batch, Settings.t(), tuple) :: term
  def run_single(shard, lane, settings, command) do
    Native.directly(shard)
    backend = Settings.backend(settings)
    told(shard, lane, settings, fn -> single(shard, backend, command) end)
  end

  # 13.6
  defp told(shard, lane, settings, commit) do
    if Settings.direct_events?(settings) and Telemetry.Emit.loaded?(),
      do: Telemetry.Emit.direct(shard, lane, commit),
      else: commit.()
  end

  defp single(shard, backend, command) do
    if Settings.exports?(backend, :__commit_single_direct__, 2) do
      run(shard, backend, :__commit_single_direct__, command)
    else
      case run(shard, backend, :__commit_batch_direct__, [command]) do
        {:ok, [reply]} -> reply
        result -> result
      end
    end
  end

  @doc """
  The backend, if it has a function of its own for a batch of one command in all (16.2). Looked for when a batcher
  starts.
  """
  @spec single_backend(module) :: module | nil
  def single_backend(backend) do
    if Settings.exports?(backend, :__commit_single_batch_direct__, 2), do: backend
  end

  @doc "The same, if that module is loaded: what the start of a batcher has seen to."
  @spec loaded_single_backend(module) :: module | nil
  def loaded_single_backend(backend) do
    if function_exported?(backend, :__commit_single_batch_direct__, 2), do: backend
  rescue
    # What is configured is no module: that is to be seen when it is called (9.4).
    ArgumentError -> nil
  end

  @doc "The commit function of a hot lane (7.3)."
  @spec function(:batch | :put_batch | :delete_batch) :: function_name
  def function(:batch), do: :__commit_batch_direct__
  def function(:put_batch), do: :__commit_put_batch_direct__
  def function(:delete_batch), do: :__commit_delete_batch_direct__

  defp block(pid, function) do
    ref = make_ref()
    send(pid, {:waraft_backend_batcher_call, function, ref, self()})

    receive do
      {^ref, :continue} -> :ok
    after
      @hook_timeout_ms -> exit({:backend_call_hook_timeout, function})
    end
  end
end
