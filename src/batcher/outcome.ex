defmodule Ferricstore.Raft.WARaftBackend.Batcher.Outcome do
  @moduledoc false
  # What became of a commit, and what its callers are told (contract 9, 16.2).
  #
  # Invariant: whatever the backend does or says, there is an outcome.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Commit, Count}

  @typedoc "How the callers are answered, each with its slice or all with the same, with what, and what telemetry is told."
  @type t :: {:slices, replies :: list, term} | {:each, reply :: term, term}

  # The replies of so many are counted at a stretch.
  @short 10_000

  @doc "Calls the backend, which is to give so many replies (9.4)."
  @spec of(integer, {Commit.function_name(), list | tuple}, non_neg_integer) :: t
  def of(shard, {function, writes}, expected) do
    verdict(function, run(shard, function, writes), expected)
  end

  defp run(shard, function, writes) do
    Commit.run(shard, function, writes)
  catch
    :exit, reason -> {:error, {:backend_exit, reason}}
    kind, reason -> {:error, {:backend_error, kind, reason}}
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
      else: {:each, result, result}
  end

  # 9.1 to 9.3
  defp verdict(_function, {:ok, list} = result, expected) when is_list(list) do
    case count(list, expected) do
      ^expected ->
        {:slices, list, result}

      :improper ->
        {:each, result, :other}

      actual ->
        mismatch = {:error, {:batch_result_mismatch, expected, actual}}
        {:each, mismatch, mismatch}
    end
  end

  defp verdict(_function, result, _expected), do: {:each, result, result}

  # Mostly the backend has given as many replies as it should.
  defp count(list, expected) when expected <= @short,
    do: if(Count.exactly?(list, expected), do: expected, else: Count.items(list))

  defp count(list, _expected), do: Count.items(list)
end
