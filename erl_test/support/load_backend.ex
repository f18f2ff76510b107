defmodule Ferricstore.Raft.WARaftBackend.Batcher.LoadBackend do
  @moduledoc false
  # A backend that keeps account of all that it was ever given. What is written are *marks*,
  # `{lane, caller, number}`; the numbers of a caller grow in each lane.
  #
  # Invariant: for each lane and caller the table has the last number and how many there were; whatever
  # contradicts the contract is in `faults/0`.

  @table __MODULE__

  def create_tables do
    :ets.new(@table, [:named_table, :public, :set, write_concurrency: true])
    :ok
  end

  @doc "From now on a commit of this shard may be of several lanes."
  def commit_together(shard), do: :ets.insert(@table, {{:together, shard}})

  @doc "The reply to a mark."
  def reply(mark), do: {:done, mark}

  @doc "A command or an item of a lane that carries a mark."
  def carry(:batch, mark), do: {:load, mark}
  def carry(:put_batch, mark), do: {key(mark), "v", 0}
  def carry(:delete_batch, mark), do: key(mark)
  # Namespaces with an even name are committed by the put function.
  def carry(prefix, mark) when is_binary(prefix) do
    if even?(prefix),
      do: {:put, :erlang.term_to_binary(mark), "v", 0},
      else: {:load, mark}
  end

  # Some can't stand among commands, and leave by themselves (4.4).
  defp key({_lane, _caller, number} = mark),
    do: if(rem(number, 7) == 0, do: mark, else: :erlang.term_to_binary(mark))

  @doc "What was committed: `[{{shard, lane, caller}, count}]`."
  def counts, do: :ets.select(@table, [{{{:mark, :"$1"}, :_, :"$2"}, [], [{{:"$1", :"$2"}}]}])

  @doc "What must not have happened."
  def faults, do: :ets.select(@table, [{{{:fault, :_}, :"$1"}, [], [:"$1"]}])

  @doc "How many commits the processes of the batcher made."
  def commits, do: :ets.lookup_element(@table, :commits, 2)

  def __commit_batch_direct__(shard, list), do: commit(shard, Enum.flat_map(list, &marks/1))

  def __commit_put_batch_direct__(shard, list),
    do: commit(shard, Enum.map(list, fn {key, "v", 0} -> mark(key) end))

  def __commit_delete_batch_direct__(shard, list), do: commit(shard, Enum.map(list, &mark/1))

  defp commit(_shard, []), do: {:ok, []}

  defp commit(shard, [{lane, caller, _number} | _] = marks) do
    # A direct commit is in no lane, and so is, here, one of a write that was alone.
    direct? = caller == self()
    together? = not direct? and :ets.member(@table, {:together, shard})
    lanes = if together?, do: marks |> Enum.map(&elem(&1, 0)) |> Enum.uniq(), else: [lane]
    if not direct?, do: begin_commit(shard, lanes)
    # Whose mark it is, says the mark; or it has to be the lane of the first one.
    replies =
      for mark <- marks, do: record(shard, if(together?, do: elem(mark, 0), else: lane), mark)

    if not direct?, do: for(lane <- lanes, do: :ets.delete(@table, {:in_flight, shard, lane}))
    {:ok, replies}
  end

  defp begin_commit(shard, lanes) do
    :ets.update_counter(@table, :commits, 1, {:commits, 0})

    for lane <- lanes,
        not :ets.insert_new(@table, {{:in_flight, shard, lane}}),
        do: fault({:two_commits_in_flight, shard, lane})
  end

  defp record(shard, lane, {lane, caller, number} = mark) do
    key = {:mark, {shard, lane, caller}}

    case :ets.lookup(@table, key) do
      [{_, last, count}] ->
        if number <= last, do: fault({:out_of_order, shard, mark, last})
        :ets.insert(@table, {key, number, count + 1})

      [] ->
        :ets.insert(@table, {key, number, 1})
    end

    reply(mark)
  end

  defp record(shard, lane, mark) do
    fault({:mark_of_another_lane, shard, lane, mark})
    reply(mark)
  end

  defp fault(what), do: :ets.insert(@table, {{:fault, make_ref()}, what})

  defp marks({:load, mark}), do: [mark]
  defp marks({:put, key, "v", 0}), do: [mark(key)]
  defp marks({:delete, key}), do: [mark(key)]
  defp marks({:put_batch, entries}), do: Enum.map(entries, fn {key, "v", 0} -> mark(key) end)
  defp marks({:batch, commands}), do: Enum.flat_map(commands, &marks/1)

  defp mark(key) when is_binary(key), do: :erlang.binary_to_term(key)
  defp mark(mark), do: mark

  defp even?(prefix), do: rem(:binary.last(prefix), 2) == 0
end
