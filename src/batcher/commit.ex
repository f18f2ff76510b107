defmodule Ferricstore.Raft.WARaftBackend.Batcher.Commit do
  @moduledoc false
  # The call of the backend, from a committer, from a caller that is alone, or from one that commits directly
  # (contract 5.6, 7.1, 10.1, 14.1, 16.2).
  #
  # Invariant: one call here is one call of the backend; nothing is tried again.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Settings

  @type function_name ::
          :__commit_batch_direct__
          | :__commit_put_batch_direct__
          | :__commit_delete_batch_direct__
          | :__commit_single_batch_direct__
          | :__commit_single_direct__

  @hook_timeout_ms 30_000

  @doc "Calls the backend. What it raises, throws or exits with goes on to the caller."
  @spec run(integer, function_name, list | tuple) :: term
  def run(shard, function, writes) do
    case Settings.call_hook() do
      {:block, pid} -> block(pid, function)
      _none -> :ok
    end

    apply(Settings.backend(), function, [shard, writes])
  end

  @doc """
  Commits one command straight from the caller: the reply to the command, bare, or what else the backend says (10.1,
  16.2).
  """
  @spec run_single(integer, tuple) :: term
  def run_single(shard, command) do
    if Settings.exports?(Settings.backend(), :__commit_single_direct__, 2) do
      run(shard, :__commit_single_direct__, command)
    else
      case run(shard, :__commit_batch_direct__, [command]) do
        {:ok, [reply]} -> reply
        result -> result
      end
    end
  end

  @doc """
  The backend, if it has a function of its own for a batch of one command in all (16.2). Looked for when a batcher
  starts.
  """
  @spec single_backend() :: module | nil
  def single_backend do
    backend = Settings.backend()
    if Settings.exports?(backend, :__commit_single_batch_direct__, 2), do: backend
  end

  @doc "The same, if that module is loaded: what the start of a batcher has seen to."
  @spec loaded_single_backend() :: module | nil
  def loaded_single_backend do
    backend = Settings.backend()
    if function_exported?(backend, :__commit_single_batch_direct__, 2), do: backend
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
