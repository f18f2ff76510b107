defmodule Ferricstore.Raft.WARaftBackend.Batcher.Schedules.Lanes do
  @moduledoc false
  # In a child VM: does something to a shard of a great many lanes, or of many callers that give up, and tells how long a
  # process held a scheduler meanwhile. One of them writes all the time: it is held by whoever holds the lock.
  #
  # Invariant: what is done to the shard is looked at, not what makes its lanes.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.{Native, Schedules}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Schedules.Backend

  @shard 0
  # Outlasts the round.
  @window_ms 60_000
  @event_ms 60_000
  @patience_ms 300

  @doc "As `Schedules.measure/3`."
  def measure(scenario, items, rounds),
    do: Schedules.measure_rounds(&round(scenario, &1), items, rounds)

  defp round(scenario, items) do
    Backend.answer_with(:ok)
    others = Process.list()
    owner = start_batcher(options(scenario))
    counter = start_counter(self())
    actor = start_actor(scenario, items, counter, owner)
    receive do: ({^actor, :ready} -> :ok)
    writer = spawn_link(&write_on/0)
    monitor = Schedules.start_monitor()
    send(actor, :go)
    await({actor, :done})
    await({counter, items})
    reports = Schedules.stop_monitor(monitor)
    for pid <- [writer, counter], do: Process.unlink(pid) && Process.exit(pid, :kill)
    :ok = Batcher.stop(@shard)
    named = %{actor => :actor, writer => :writer, owner => :owner}
    others = [self(), monitor, counter | others]

    for {pid, info} <- reports, pid not in others do
      {Map.get(named, pid, :batcher), info[:timeout], info[:in], info[:out]}
    end
  end

  defp options(:abandon), do: [adoption_timeout: 0]
  # All of them are one commit.
  defp options(:together), do: [commit_scope: :shard, hot_batch_max: :infinity]
  defp options(_scenario), do: [adoption_timeout: @event_ms]

  # Its end is not the end of this process.
  defp start_batcher(options) do
    limits = [
      namespace_batch_max: :infinity,
      max_queue_items: 100_000_000,
      max_queue_bytes: 100_000_000_000
    ]

    {:ok, owner} = Batcher.start_link(@shard, options ++ limits)
    Process.unlink(owner)
    owner
  end

  # Gets the replies, and tells how many there were.
  defp start_counter(parent), do: spawn_link(fn -> count(parent, 0) end)

  defp count(parent, counted) do
    receive do
      {number, _reply} when is_integer(number) -> count(parent, counted + 1)
    after
      # Nothing more comes: if it was all, this is it.
      50 ->
        send(parent, {self(), counted})
        count(parent, counted)
    end
  end

  defp start_actor(scenario, items, counter, owner) do
    parent = self()

    spawn_link(fn ->
      prepare(scenario, items, counter)
      send(parent, {self(), :ready})
      receive do: (:go -> act(scenario, items, counter, owner))
      send(parent, {self(), :done})
      receive do: (:leave -> :ok)
    end)
  end

  # It is queued when its deadline begins; lanes are opened by their first writes.
  defp prepare(scenario, _items, _counter) when scenario in [:expiry, :open], do: :ok
  defp prepare(_scenario, items, counter), do: write_to_each(items, counter)

  defp write_to_each(items, counter) do
    for n <- 1..items do
      :queued =
        Native.offer(@shard, "namespace #{n}", {:set, n}, 1, @window_ms, {counter, n}, nil, nil)

      # What is looked at is one write, not how many there are in a time slice.
      if rem(n, 64) == 0, do: :erlang.yield()
    end
  end

  defp act(:open, items, counter, owner) do
    write_to_each(items, counter)
    act(:flush, items, counter, owner)
  end

  defp act(flush, _items, _counter, _owner) when flush in [:flush, :together],
    do: :ok = Batcher.flush(@shard, @event_ms)

  defp act(:stop, _items, _counter, _owner), do: :ok = Batcher.stop(@shard)
  defp act(:abandon, _items, _counter, owner), do: Process.exit(owner, :kill)

  defp act(:adopt, _items, _counter, owner) do
    monitor = Process.monitor(owner)
    Process.exit(owner, :kill)
    receive do: ({:DOWN, ^monitor, :process, ^owner, _reason} -> :ok)
    start_batcher([])
    :ok = Batcher.flush(@shard, @event_ms)
  end

  defp act(:expiry, items, counter, _owner) do
    for n <- 1..items do
      # Each at a time of its own, in no order.
      wait_ms = @patience_ms + rem(n * 7_919, @patience_ms)
      :queued = Native.offer(@shard, "lane", {:set, n}, 1, @window_ms, make_ref(), wait_ms, nil)
    end

    for n <- 1..items do
      receive do: ({_late} -> send(counter, {n, :late}))
    end
  end

  # A write each ms, as long as somebody takes it.
  defp write_on do
    _any = Native.offer(@shard, "writer", {:set, 0}, 1, @window_ms, {self(), :reply}, nil, nil)

    receive do
      {:reply, _reply} -> write_on()
    after
      1 -> write_on()
    end
  end

  defp await(message) do
    receive do
      ^message -> :ok
    after
      @event_ms -> exit({:never_came, message})
    end
  end
end
