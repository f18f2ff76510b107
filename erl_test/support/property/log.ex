defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Log do
  @moduledoc false
  # What happened in one program of the property test: calls, commits, kills, released tokens.
  #
  # Invariant: every event has a number from one clock, so that "before" means before; an event that
  # allows something (a kill) is written before it, one that forbids something (a return) after it. No
  # number comes twice, so that what a program leaves behind is not taken for an event of the next.

  @table __MODULE__

  @doc "The table lives as long as the calling process."
  def create_table do
    :ets.new(@table, [:named_table, :public, :ordered_set])
    :ets.insert(@table, {:run, nil, {}, :atomics.new(2, [])})
  end

  @doc "Forgets everything and begins with a program: its number and what its backend does."
  def begin(run, behaviours) do
    clock = clock()
    :atomics.put(clock, 2, 0)
    :ets.match_delete(@table, {{:_, :_}, :_})
    :ets.match_delete(@table, {{:_, :_}, :_, :_})
    :ets.insert(@table, {:run, run, List.to_tuple(behaviours), clock})
    :ok
  end

  @doc "The number of the next event."
  def tick, do: :atomics.add_get(clock(), 1, 1)

  @doc "What the backend is to do in its next commit."
  def next_behaviour do
    [{:run, _run, behaviours, clock}] = :ets.lookup(@table, :run)
    index = :atomics.add_get(clock, 2, 1) - 1
    if index < tuple_size(behaviours), do: elem(behaviours, index), else: :ok
  end

  @doc "A call as its client knows it; written again when it is over."
  def call(call), do: :ets.insert(@table, {{:call, call.id}, call})

  @doc "The backend is called; answers the commit's number."
  def commit(shard, function, marks) do
    number = tick()
    commit = %{number: number, shard: shard, function: function, marks: marks, pid: self()}
    :ets.insert(@table, {{:commit, number}, commit})
    number
  end

  @doc "The backend is about to end: `{:value | :exit | :error | :throw, term}`."
  def finish(number, outcome), do: :ets.insert(@table, {{:finish, number}, tick(), outcome})

  @doc "Somebody is about to be killed, perhaps once more: it has ended the first time."
  def kill(pid), do: :ets.insert_new(@table, {{:killed, pid}, tick()})

  @doc "A sync token is released."
  def left(token), do: :ets.insert(@table, {{:left, tick()}, token})

  @doc "The committing processes that are in the backend."
  def busy do
    for {{:commit, number}, commit} <- :ets.match_object(@table, {{:commit, :_}, :_}),
        not :ets.member(@table, {:finish, number}),
        not :ets.member(@table, {:killed, commit.pid}),
        do: commit
  end

  @doc "Everything: `%{calls, commits, killed, left}`, in the order of the clock."
  def history do
    killed =
      for [pid, at] <- :ets.match(@table, {{:killed, :"$1"}, :"$2"}), into: %{}, do: {pid, at}

    %{
      calls:
        @table |> :ets.match({{:call, :_}, :"$1"}) |> List.flatten() |> Enum.sort_by(& &1.begun),
      commits:
        for([commit] <- :ets.match(@table, {{:commit, :_}, :"$1"}), do: ended(commit, killed)),
      killed: killed,
      left: for([token] <- :ets.match(@table, {{:left, :_}, :"$1"}), do: token)
    }
  end

  # When and how a commit ended: `ended` is nil while it lasts.
  defp ended(commit, killed) do
    case {:ets.lookup(@table, {:finish, commit.number}), killed[commit.pid]} do
      {[{_, at, outcome}], _} -> Map.merge(commit, %{ended: at, outcome: outcome})
      {[], nil} -> Map.merge(commit, %{ended: nil, outcome: nil})
      {[], at} -> Map.merge(commit, %{ended: at, outcome: :killed})
    end
  end

  defp clock, do: :ets.lookup_element(@table, :run, 4)
end
