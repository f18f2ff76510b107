defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Backend do
  @moduledoc false
  # The backend of the property test: behaves as the program says, and logs what it was given.
  #
  # What is written are *marks*, `{run, client, call, index}`, one for each reply that contract 6.2
  # expects, so that the log tells whose writes a commit had, all of them, and in which order.
  #
  # Invariant: a commit is in the log before anything comes of it.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Property.Log

  # Outside the heap, so that copies and sub-binaries matter.
  @fat :binary.copy("v", 100)

  @doc "A command of a shape (see `Program`) with marks made by `mark.(index)` from an index on."
  def command(:plain, mark, index), do: {{:set, mark.(index)}, index + 1}
  def command(:put, mark, index), do: {{:put, binary(mark.(index)), value(index), 0}, index + 1}
  def command(:delete, mark, index), do: {{:delete, binary(mark.(index))}, index + 1}
  def command(:odd, mark, index), do: {{:put_batch, mark.(index)}, index + 1}
  def command({:puts, n}, mark, index), do: {{:put_batch, entries(n, mark, index)}, index + n}
  def command({:deletes, n}, mark, index), do: {{:delete_batch, keys(n, mark, index)}, index + n}
  def command(:improper, mark, index), do: {{:batch, [{:set, mark.(index)} | :tail]}, index + 1}

  def command({:nested, shapes}, mark, index) do
    {commands, index} = commands(shapes, mark, index)
    {{:batch, commands}, index}
  end

  @doc "Commands of several shapes."
  def commands(shapes, mark, index), do: Enum.map_reduce(shapes, index, &command(&1, mark, &2))

  @doc "Entries of the put lane; see `apart?/1`."
  def entries(n, mark, index \\ 0),
    do: for(i <- index..(index + n - 1)//1, do: {key(n, mark.(i)), value(i), 0})

  @doc "Keys of the delete lane; see `apart?/1`."
  def keys(n, mark, index \\ 0), do: for(i <- index..(index + n - 1)//1, do: key(n, mark.(i)))

  @doc "Whether a list of so many has keys that are no binaries: it can't stand among commands (4.4)."
  def apart?(n), do: rem(n, 3) == 2

  defp key(n, mark), do: if(apart?(n), do: mark, else: binary(mark))

  def __commit_batch_direct__(shard, list),
    do: commit(shard, :batch, Enum.flat_map(list, &marks/1))

  def __commit_put_batch_direct__(shard, list),
    do: commit(shard, :put_batch, Enum.map(list, fn {key, _value, 0} -> mark(key) end))

  def __commit_delete_batch_direct__(shard, list),
    do: commit(shard, :delete_batch, Enum.map(list, &mark/1))

  defp marks({:set, mark}), do: [mark]
  defp marks({:put, key, _value, 0}), do: [mark(key)]
  defp marks({:delete, key}), do: [mark(key)]

  defp marks({:put_batch, list}) when is_list(list),
    do: Enum.map(list, fn {key, _v, 0} -> mark(key) end)

  defp marks({:put_batch, mark}), do: [mark]
  defp marks({:delete_batch, list}), do: Enum.map(list, &mark/1)
  defp marks({:batch, list}), do: Enum.flat_map(list, &marks/1)

  defp commit(shard, function, marks) do
    number = Log.commit(shard, function, marks)
    behave(Log.next_behaviour(), number, Enum.map(marks, &{:done, &1}))
  end

  defp behave(:ok, number, replies), do: return(number, {:ok, replies})
  defp behave(:error, number, _replies), do: return(number, {:error, :no_quorum})
  defp behave(:other, number, _replies), do: return(number, :whatever)
  defp behave(:improper, number, _replies), do: return(number, {:ok, [:a | :b]})
  defp behave(:long, number, replies), do: return(number, {:ok, replies ++ [:surplus]})
  defp behave(:short, number, []), do: return(number, {:ok, [:surplus]})
  defp behave(:short, number, [_ | replies]), do: return(number, {:ok, replies})

  defp behave(:mixed, number, replies) do
    refuse = fn {:done, mark} -> {:error, {:refused, mark}} end
    return(number, {:ok, Enum.map_every(replies, 2, refuse)})
  end

  defp behave(:exit, number, _replies) do
    Log.finish(number, {:exit, :boom})
    exit(:boom)
  end

  defp behave(:raise, number, _replies) do
    exception = %RuntimeError{message: "boom"}
    Log.finish(number, {:error, exception})
    raise exception
  end

  defp behave(:throw, number, _replies) do
    Log.finish(number, {:throw, :ball})
    throw(:ball)
  end

  defp behave(:die, _number, _replies) do
    Log.kill(self())
    Process.exit(self(), :kill)
  end

  # Takes its time, as a disk does: nothing is waited for here.
  defp behave({:slow, ms}, number, replies) do
    receive do
    after
      ms -> return(number, {:ok, replies})
    end
  end

  defp return(number, value) do
    Log.finish(number, {:value, value})
    value
  end

  defp mark(key) when is_binary(key), do: :erlang.binary_to_term(key)
  defp mark(mark), do: mark

  defp binary(mark), do: :erlang.term_to_binary(mark)
  defp value(index), do: if(rem(index, 5) == 4, do: @fat, else: "v")
end
