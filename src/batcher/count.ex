defmodule Ferricstore.Raft.WARaftBackend.Batcher.Count do
  @moduledoc false
  # How many replies a command or a list expects (contract 6.2): the one rule for counting, and so for splitting.
  #
  # Invariant: lists of any length and depth are counted, improper ones found out, and no scheduler is held meanwhile.

  @type count :: non_neg_integer | :improper

  @doc "The replies that one command expects."
  @spec command(tuple) :: count
  def command({kind, list} = command)
      when kind in [:put_batch, :delete_batch, :batch] and is_list(list),
      do: proper(fn -> replies(command) end)

  def command(_command), do: 1

  @doc "The replies that a list of commands expects."
  @spec commands(maybe_improper_list) :: count
  def commands(list), do: proper(fn -> sum(list, 0) end)

  @doc "The replies that a list of entries or keys expects: one for each."
  @spec items(maybe_improper_list) :: count
  def items(list), do: proper(fn -> long(list, 0) end)

  @doc """
  Whether a list has exactly so many items. Faster than `items/1`, and less often interrupted: for some thousand, or a
  scheduler is held for too long.
  """
  @spec exactly?(maybe_improper_list, non_neg_integer) :: boolean
  def exactly?([_, _, _, _ | rest], count) when count >= 4, do: exactly?(rest, count - 4)
  def exactly?([_ | rest], count) when count >= 1, do: exactly?(rest, count - 1)
  def exactly?(rest, count), do: rest == [] and count == 0

  defp proper(count) do
    count.()
  catch
    :improper -> :improper
  end

  defp replies({kind, list}) when kind in [:put_batch, :delete_batch] and is_list(list),
    do: long(list, 0)

  defp replies({:batch, list}) when is_list(list), do: sum(list, 0)
  defp replies(_command), do: 1

  defp sum([command | rest], sum), do: sum(rest, sum + replies(command))
  defp sum([], sum), do: sum
  defp sum(_tail, _sum), do: throw(:improper)

  # Not `length/1`: of a long list it walks 64 000 cells before it yields, and from memory that is
  # in no cache those take more than a millisecond.
  defp long([_ | rest], count), do: long(rest, count + 1)
  defp long([], count), do: count
  defp long(_tail, _count), do: throw(:improper)
end
