defmodule Ferricstore.Raft.WARaftBackend.Batcher.Schedules do
  @moduledoc false
  # In a child VM: writes a great many items, and tells how long a process held a scheduler meanwhile, as
  # the VM itself reports it (from 1 ms on).
  #
  # Invariant: callers make their terms beforehand, on a heap that needs no garbage collection, so that
  # what is measured is what the batcher does.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null
  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, Native, VmLoad}

  @limit_ms 1
  @shard 0
  @long_ms 60_000
  @event_ms 60_000
  # All that is queued goes in one batch.
  @no_limits [
    namespace_batch_max: :infinity,
    hot_batch_max: :infinity,
    max_queue_items: 100_000_000,
    max_queue_bytes: 100_000_000_000
  ]
  # Room for the items of one call, in words each.
  @words_per_item 16

  @doc """
  Tells the long schedules of each round, `[{process, ms, where_in, where_out}]`, as `round`.
  """
  def measure(scenario, items, rounds) do
    {:ok, _} = Application.ensure_all_started(:elixir)
    Application.put_env(:ferricstore, :waraft_backend_batcher_backend, Null)

    if scenario == :many_groups,
      do: Application.put_env(:ferricstore, :waraft_generic_batch_window_ms, @long_ms)

    {:ok, _owner} = Batcher.start_link(@shard, @no_limits)
    # What is loaded at its first use is loaded now.
    _warm = round(scenario, min(items, 3_000))
    for _ <- 1..rounds, do: ChildVM.tell("round", round(scenario, items))
    System.halt(0)
  end

  defp round(scenario, items) do
    callers = start_callers(scenario, items)
    monitor = start_monitor()
    for {pid, _monitor} <- callers, do: send(pid, :go)
    # All callers are in one batch.
    VmLoad.wait_until(fn -> length(callers) == 1 or queued() == length(callers) end)
    if length(callers) > 1, do: :ok = Batcher.flush(@shard)
    for caller <- callers, do: await_end(caller)
    # The last commit's process is done when it rests.
    VmLoad.wait_until(&idle?/0)
    send(monitor, {:stop, self()})
    reports = receive do: ({^monitor, reports} -> reports)
    pids = Enum.map(callers, &elem(&1, 0))

    for {pid, info} <- reports,
        who = who(pid, pids),
        do: {who, info[:timeout], info[:in], info[:out]}
  end

  defp start_monitor do
    parent = self()

    monitor =
      spawn_link(fn ->
        :erlang.system_monitor(self(), [{:long_schedule, @limit_ms}])
        send(parent, {self(), :ready})
        listen([])
      end)

    receive do: ({^monitor, :ready} -> monitor)
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

  defp idle? do
    Enum.all?(Native.lanes(@shard), fn {_lane, slots, committer} ->
      slots == [] and committer == nil
    end)
  end

  defp queued do
    lengths =
      for {_lane, slots, _committer} <- Native.lanes(@shard),
          slot <- slots,
          do: length(elem(slot, 0))

    Enum.sum(lengths)
  end

  defp start_callers(:many_callers, items) do
    for n <- 1..items do
      start_caller(100, fn -> {:put, "key #{n}", "v", 0} end, fn command ->
        :ok = Batcher.write(@shard, "lane", command, @long_ms)
      end)
    end
  end

  defp start_callers(:many_groups, items) do
    for n <- 1..items do
      start_caller(100, fn -> [{:set, n}] end, fn commands ->
        {:ok, [:ok]} = Batcher.write_batch(@shard, commands)
      end)
    end
  end

  defp start_callers(scenario, items) do
    make = fn -> for n <- 1..items, do: item(scenario, n) end

    [
      start_caller(items * @words_per_item, make, fn list ->
        check(write(scenario, list), items)
      end)
    ]
  end

  defp check(:ok, _items), do: :ok
  defp check({:ok, replies}, items) when length(replies) == items, do: :ok

  defp item(scenario, n) when scenario in [:write_delete_batch, :write_delete_batch_async],
    do: "key #{n}"

  defp item(:write_batch, n), do: {:set, n}
  defp item(_puts, n), do: {"key #{n}", "value", 0}

  defp write(:write_put_batch, list), do: Batcher.write_put_batch(@shard, list)
  defp write(:write_delete_batch, list), do: Batcher.write_delete_batch(@shard, list)
  defp write(:write_batch, list), do: Batcher.write_batch(@shard, list)
  defp write(:write, list), do: Batcher.write(@shard, "lane", {:put_batch, list}, 1)
  # A command that counts 1, with a long list in it.
  defp write(:write_one, list), do: Batcher.write(@shard, "lane", {:set, list}, 1)

  defp write(:write_put_batch_async, list),
    do: reply(&Batcher.write_put_batch_async(@shard, list, {self(), &1}))

  defp write(:write_delete_batch_async, list),
    do: reply(&Batcher.write_delete_batch_async(@shard, list, {self(), &1}))

  defp reply(write) do
    tag = make_ref()
    :ok = write.(tag)
    receive do: ({^tag, reply} -> reply)
  end

  defp start_caller(words, make, write) do
    parent = self()

    caller = fn ->
      made = make.()
      send(parent, {self(), :ready})
      receive do: (:go -> write.(made))
      exit(:answered)
    end

    {pid, monitor} = :erlang.spawn_opt(caller, [:monitor, min_heap_size: words])
    receive do: ({^pid, :ready} -> {pid, monitor})
  end

  defp await_end({pid, monitor}) do
    receive do
      {:DOWN, ^monitor, :process, ^pid, :answered} -> :ok
      {:DOWN, ^monitor, :process, ^pid, reason} -> exit({:caller_failed, reason})
    after
      @event_ms -> exit(:no_answer)
    end
  end
end
