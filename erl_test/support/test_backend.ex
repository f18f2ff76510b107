defmodule Ferricstore.Raft.WARaftBackend.Batcher.TestBackend do
  @moduledoc false
  # A backend that does as the test of its shard says, and reports each call to it as
  # `{:commit, %{function: f, shard: shard, list: list, pid: committing_process, ref: ref}}`.
  #
  # Behaviours:
  #
  #   * `:reply` (default) - `{:ok, replies}`, one reply `{:done, command_or_item}` for each that counts
  #     by contract 6.2; `replies/2` is what it answers
  #   * `:block` - waits for `release/2` of the test, with the behaviour that comes with it
  #   * `{:return, term}`, `{:raise, exception_or_term}`, `{:exit, reason}`, `{:throw, value}`
  #   * `{:run, fun}` - the result of `fun.(function, list)`
  #
  # Invariant: a blocked call ends with its test.

  @table __MODULE__

  @doc "The table lives as long as a process of its own."
  def create_table do
    parent = self()

    holder =
      spawn(fn ->
        :ets.new(@table, [:named_table, :public, read_concurrency: true])
        send(parent, {self(), :ready})
        Process.sleep(:infinity)
      end)

    receive do
      {^holder, :ready} -> :ok
    end
  end

  @doc "Calls for this shard are reported to `test` and answered with `:reply`."
  def register(shard, test), do: :ets.insert(@table, {shard, 0, test, [:reply]})

  @doc "Behaviours of the calls from now on, one after the other; the last one stays."
  def script(shard, behaviours) do
    true = :ets.update_element(@table, shard, [{2, 0}, {4, behaviours}])
    :ok
  end

  def __commit_batch_direct__(shard, list), do: commit(:__commit_batch_direct__, shard, list)

  def __commit_put_batch_direct__(shard, list),
    do: commit(:__commit_put_batch_direct__, shard, list)

  def __commit_delete_batch_direct__(shard, list),
    do: commit(:__commit_delete_batch_direct__, shard, list)

  @doc "What the default behaviour answers: of one command its result, bare, several replies in a list."
  def replies(function, command)
      when function in [:__commit_single_direct__, :__commit_single_batch_direct__] do
    case command_replies(command) do
      [reply] -> reply
      replies -> {:ok, replies}
    end
  end

  def replies(:__commit_batch_direct__, commands), do: Enum.flat_map(commands, &command_replies/1)
  def replies(_function, items), do: done(items)

  defp command_replies({kind, list}) when kind in [:put_batch, :delete_batch] and is_list(list),
    do: done(list)

  defp command_replies({:batch, list}) when is_list(list),
    do: Enum.flat_map(list, &command_replies/1)

  defp command_replies(command), do: [{:done, command}]

  defp done(items), do: Enum.map(items, &{:done, &1})

  @doc "A call of the backend."
  def commit(function, shard, list) do
    call = :ets.update_counter(@table, shard, 1) - 1
    [{^shard, _calls, test, behaviours}] = :ets.lookup(@table, shard)
    behaviour = Enum.at(behaviours, call) || List.last(behaviours)
    ref = make_ref()
    commit = %{function: function, shard: shard, list: list, pid: self(), ref: ref}
    send(test, {:commit, commit})
    behave(behaviour, commit, test)
  end

  defp behave(:reply, %{list: command} = commit, _test) when is_tuple(command),
    do: replies(commit.function, command)

  defp behave(:reply, commit, _test), do: {:ok, replies(commit.function, commit.list)}
  defp behave({:return, term}, _commit, _test), do: term
  defp behave({:raise, exception}, _commit, _test), do: :erlang.error(exception)
  defp behave({:exit, reason}, _commit, _test), do: exit(reason)
  defp behave({:throw, value}, _commit, _test), do: throw(value)
  defp behave({:run, fun}, commit, _test), do: fun.(commit.function, commit.list)

  defp behave(:block, %{ref: ref} = commit, test) do
    monitor = Process.monitor(test)

    receive do
      {^ref, behaviour} ->
        Process.demonitor(monitor, [:flush])
        behave(behaviour, commit, test)

      {:DOWN, ^monitor, :process, _pid, _reason} ->
        behave(:reply, commit, test)
    end
  end
end
