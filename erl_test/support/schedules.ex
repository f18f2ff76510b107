defmodule Ferricstore.Raft.WARaftBackend.Batcher.Schedules do
  @moduledoc false
  # In a child VM: writes a great many items, and tells how long a process held a scheduler meanwhile, as
  # the VM itself reports it.
  #
  # Invariant: callers make their terms beforehand, on a heap that needs no garbage collection, and the
  # backend holds no scheduler, so that what is measured is what the batcher does.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, Count, VmLoad}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Schedules.Backend

  # Reported is what is longer, in whole ms of a coarse clock: nothing below 1 ms, all from 3 ms on.
  @limit_ms 1
  @shard 0
  # Outlasts the round: a batch leaves when all its writes are there.
  @window_ms 60_000
  @event_ms 60_000
  # Room for one item, in words.
  @words_per_item 24
  @few 64
  # The longest list of puts that is still copied on a scheduler.
  @short 1_150

  @doc """
  Tells the long schedules of each round, `[{process, ms, where_in, where_out}]`, as `round`.
  """
  def measure(scenario, items, rounds), do: measure_rounds(&round(scenario, &1), items, rounds)

  @doc "The same of a function that makes a round of so many items, and answers them."
  def measure_rounds(round, items, rounds) do
    {:ok, _} = Application.ensure_all_started(:elixir)
    Application.put_env(:ferricstore, :waraft_backend_batcher_backend, Backend)
    Application.put_env(:ferricstore, :waraft_generic_batch_window_ms, @window_ms)
    Application.put_env(:ferricstore, :waraft_hot_batch_window_ms, @window_ms)
    # What is loaded at its first use is loaded now.
    _warm = round.(min(items, 3_000))
    for _ <- 1..rounds, do: ChildVM.tell("round", round.(items))
    System.halt(0)
  end

  defp round(scenario, items) do
    Backend.answer_with(answers(scenario))
    {callers, each, cost} = size(scenario, items)
    start_batcher(cost)
    callers = for n <- 1..callers, do: start_caller(named(scenario, items), n, each)
    monitor = start_monitor()
    for {pid, _monitor} <- callers, do: send(pid, :go)
    for caller <- callers, do: await_answer(caller)
    # The last commit's process is done when it rests.
    VmLoad.wait_until(fn -> VmLoad.idle?(@shard) end)
    reports = stop_monitor(monitor)
    pids = Enum.map(callers, &elem(&1, 0))

    reports =
      for {pid, info} <- reports,
          who = who(pid, pids),
          do: {who, info[:timeout], info[:in], info[:out]}

    for pid <- pids, do: send(pid, :leave)
    :ok = Batcher.stop(@shard)
    reports
  end

  # Callers, items of each, and what the batch of all of them counts.
  defp size(lists, items)
       when lists in [
              :put_batch,
              :large_values,
              :delete_batch,
              :batch,
              :put_batch_async,
              :delete_batch_async
            ],
       do: {1, items, items}

  defp size(:groups, items), do: {items, 1, items}
  defp size(:large_groups, items), do: {4, div(items, 4), items}
  defp size(:callers, items), do: {items, 1, items}
  defp size(:short_lists, items), do: {div(items, @short), @short, div(items, @short)}
  defp size(:long_prefix, _bytes), do: {1, 1, 1}
  defp size(:large_error, items), do: {@few, div(items, @few), @few}
  defp size(_one_command, items), do: {1, items, 1}

  # A prefix is made here: where it is, it takes no room on a heap.
  defp named(:long_prefix, bytes), do: {:long_prefix, :binary.copy("p", bytes)}
  defp named(scenario, _items), do: scenario

  defp answers(:large_error), do: :fail
  defp answers(scenario) when scenario in [:list, :tuple, :map, :deep, :short_lists], do: :echo
  defp answers(_scenario), do: :ok

  defp make(deletes, _n, count) when deletes in [:delete_batch, :delete_batch_async],
    do: for(i <- 1..count, do: "key #{i}")

  defp make(generic, n, count) when generic in [:batch, :groups, :large_groups],
    do: for(i <- 1..count, do: {:set, n, i})

  defp make(:callers, n, 1), do: {:put, "key #{n}", "v", 0}
  defp make(:command, _n, count), do: {:put_batch, puts(count)}
  defp make(:large_error, n, count), do: {:set, n, puts(count)}
  # Commands that count 1.
  defp make(list, _n, count) when list in [:list, :short_lists], do: {:set, puts(count)}
  defp make(:tuple, _n, count), do: {:set, List.to_tuple(puts(count))}
  defp make(:map, _n, count), do: {:set, Map.new(1..count, &{&1, "value"})}
  defp make(:deep, _n, count), do: {:set, Enum.reduce(1..count, [], &{&1, &2})}
  # Values that are outside the heap.
  defp make(:large_values, _n, count),
    do: for(i <- 1..count, do: {"key #{i}", String.duplicate("v", 65), 0})

  defp make({:long_prefix, prefix}, _n, 1), do: {prefix, {:put, "key", "v", 0}}
  defp make(:long_tag, _n, count), do: List.to_tuple(Enum.to_list(1..count))
  defp make(_puts, _n, count), do: puts(count)

  defp puts(count), do: for(i <- 1..count, do: {"key #{i}", "value", 0})

  # The reply; an improper list counts as a wrong one.
  defp write(puts, list) when puts in [:put_batch, :large_values],
    do: {:ok, _} = Batcher.write_put_batch(@shard, list)

  defp write(:delete_batch, list), do: {:ok, _} = Batcher.write_delete_batch(@shard, list)

  defp write(generic, list) when generic in [:batch, :groups, :large_groups],
    do: {:ok, _} = Batcher.write_batch(@shard, list)

  defp write(:put_batch_async, list),
    do: {:ok, _} = reply(&Batcher.write_put_batch_async(@shard, list, {self(), &1}))

  defp write(:delete_batch_async, list),
    do: {:ok, _} = reply(&Batcher.write_delete_batch_async(@shard, list, {self(), &1}))

  # What is compared with a long tag, is so at a stretch.
  defp write(:long_tag, tag) do
    :ok = Batcher.write_put_batch_async(@shard, [{"key", "v", 0}], {self(), tag})
    receive do: ({tag, {:ok, [:ok]}} when is_tuple(tag) -> {:tag, tuple_size(tag)})
  end

  defp write({:long_prefix, _}, {prefix, command}),
    do: Batcher.write(@shard, prefix, command, @window_ms)

  defp write(:large_error, command), do: {:error, _} = write_command(command)
  defp write(_one_command, command), do: write_command(command)

  defp write_command(command), do: Batcher.write(@shard, "lane", command, @window_ms)

  defp reply(write) do
    tag = make_ref()
    :ok = write.(tag)
    receive do: ({^tag, reply} -> reply)
  end

  defp check(scenario, {:ok, replies}, count) when scenario != :callers,
    do: ^count = Count.items(replies)

  defp check(:long_tag, reply, count), do: {:tag, ^count} = reply
  defp check(_scenario, _reply, _count), do: :ok

  defp start_batcher(cost) do
    limits = [
      namespace_batch_max: cost,
      hot_batch_max: cost,
      max_queue_items: 100_000_000,
      max_queue_bytes: 100_000_000_000
    ]

    {:ok, _owner} = Batcher.start_link(@shard, limits)
  end

  @doc "Begins to note what the VM reports."
  def start_monitor do
    parent = self()

    monitor =
      spawn_link(fn ->
        :erlang.system_monitor(self(), [{:long_schedule, @limit_ms}])
        send(parent, {self(), :ready})
        listen([])
      end)

    receive do: ({^monitor, :ready} -> monitor)
  end

  @doc "What was reported: `[{pid, info}]`."
  def stop_monitor(monitor) do
    send(monitor, {:stop, self()})
    receive do: ({^monitor, reports} -> reports)
  end

  defp listen(reports) do
    receive do
      {:monitor, pid, :long_schedule, info} -> listen([{pid, info} | reports])
      {:stop, parent} -> send(parent, {self(), reports})
    end
  end

  # What the test itself does is nobody's business.
  defp who(pid, callers) do
    {:links, links} = Process.info(Process.whereis(Batcher.name(@shard)), :links)

    cond do
      pid == self() -> nil
      pid in callers -> :caller
      pid == Process.whereis(Batcher.name(@shard)) -> :owner
      pid in links -> :committer
      true -> nil
    end
  end

  defp start_caller(scenario, n, count) do
    parent = self()

    caller = fn ->
      made = make(scenario, n, count)
      send(parent, {self(), :ready})
      receive do: (:go -> check(scenario, write(scenario, made), count))
      send(parent, {self(), :answered})
      # What the VM does at its end is not looked at.
      receive do: (:leave -> :ok)
    end

    {pid, monitor} =
      :erlang.spawn_opt(caller, [:monitor, min_heap_size: 100 + count * @words_per_item])

    receive do: ({^pid, :ready} -> {pid, monitor})
  end

  defp await_answer({pid, monitor}) do
    receive do
      {^pid, :answered} -> Process.demonitor(monitor, [:flush])
      {:DOWN, ^monitor, :process, ^pid, reason} -> exit({:caller_failed, reason})
    after
      @event_ms -> exit(:no_answer)
    end
  end
end
