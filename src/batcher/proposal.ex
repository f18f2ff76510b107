defmodule Ferricstore.Raft.WARaftBackend.Batcher.Proposal do
  @moduledoc false
  # What a commit hands to the backend: the writes of one lane, or of several (contract 4.4, 7, 16.2).
  #
  # Invariant: each write is in it once, in the order of its lane, and no list within a list is made that no caller made.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Commit

  @typedoc "What one lane brings: the function that fits it alone, and its lists, which belong together."
  @type part :: {Commit.function_name(), [list]}

  # Lists of so many items are put together at a stretch: a third of a millisecond.
  @short 10_000

  @doc """
  The function of the backend and what it gets. `count`: at least as many as the items of all lists.
  """
  @spec of([part, ...], non_neg_integer) :: {Commit.function_name(), list}
  def of([{function, lists}], count), do: {function, concat(lists, count)}

  def of([{function, _lists} | others] = parts, count) do
    if Enum.all?(others, fn {other, _lists} -> other == function end) do
      {function, concat(Enum.flat_map(parts, &elem(&1, 1)), count)}
    else
      {:__commit_batch_direct__, concat(Enum.flat_map(parts, &commands/1), count)}
    end
  end

  @doc """
  The same if it is one command in all, for a backend that has a function for that, and is still the one that is
  configured.
  """
  @spec single({Commit.function_name(), list}, lane :: atom | binary, module | nil, module) ::
          {Commit.function_name(), list | tuple}
  def single({_function, [command]}, :batch, backend, backend) when backend != nil,
    do: {:__commit_single_batch_direct__, command}

  def single(proposal, _lane, _single_backend, _backend), do: proposal

  @doc "A command of a namespace lane, as the function that fits it takes it."
  @spec entry(Commit.function_name(), tuple) :: term
  def entry(:__commit_put_batch_direct__, {:put, key, value, at}), do: {key, value, at}
  def entry(:__commit_delete_batch_direct__, {:delete, key}), do: key
  def entry(:__commit_batch_direct__, command), do: command

  # Beside others, entries and keys are the commands that they stand for.
  defp commands({:__commit_batch_direct__, lists}), do: lists

  defp commands({:__commit_put_batch_direct__, lists}),
    do: for(list <- lists, do: for({key, value, at} <- list, do: {:put, key, value, at}))

  defp commands({:__commit_delete_batch_direct__, lists}),
    do: for(list <- lists, do: for(key <- list, do: {:delete, key}))

  # What `++` copies, or `:lists.reverse/2` turns, before it yields takes 10 ms.
  defp concat([list], _count), do: list
  defp concat(lists, count) when count <= @short, do: :lists.append(lists)
  defp concat(lists, _count), do: prepend(:lists.reverse(lists), [])

  defp prepend([list | lists], tail), do: prepend(lists, reverse(reverse(list, []), tail))
  defp prepend([], list), do: list

  defp reverse([item | rest], reversed), do: reverse(rest, [item | reversed])
  defp reverse([], reversed), do: reversed
end
