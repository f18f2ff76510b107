defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peers.GenServerBatcher do
  @moduledoc false
  # A batcher that keeps the contract the classical way: one GenServer for each shard, a map of slots, a timer for
  # each window, a Task for each commit, replies by `GenServer.reply/2`. It does what clauses 4 to 9 of docs/contract.md
  # say for namespace and put lanes, but for those marked (+), which go beyond what a GenServer did.
  #
  # One invariant: at most one Task runs per lane; a lane without one holds at most one slot, whose timer is set.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer

  use GenServer

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{From, Work}

  @timeout_ms 30_000
  @batch_max 10_000
  # `slot` is open, `full` are those before it, newest first; `task` is the commit in flight.
  @idle %{slot: nil, full: [], task: nil}

  @impl Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer
  def start(work) do
    Map.new(0..(work.shards - 1), fn shard ->
      {:ok, pid} = GenServer.start_link(__MODULE__, {shard, work.backend})
      {shard, pid}
    end)
  end

  @impl Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer
  def stop(servers, _work) do
    for {_shard, pid} <- servers, do: GenServer.stop(pid)
    :ok
  end

  @impl Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer
  def call(servers, %{lane: :put, window_ms: window_ms} = work, caller) do
    server = Map.fetch!(servers, Work.shard(work, caller))
    entries = Work.entries(work, caller)

    if work.from,
      do:
        From.call(work.from, &GenServer.cast(server, {:write_put_batch, entries, window_ms, &1})),
      else: fn -> GenServer.call(server, {:write_put_batch, entries, window_ms}, @timeout_ms) end
  end

  def call(servers, %{window_ms: window_ms} = work, caller) do
    server = Map.fetch!(servers, Work.shard(work, caller))
    prefix = Work.prefix(work, caller)
    command = Work.command(work, caller)
    fn -> GenServer.call(server, {:write, prefix, command, window_ms}, @timeout_ms) end
  end

  @impl GenServer
  def init({shard, backend}) do
    {:ok, tasks} = Task.Supervisor.start_link()
    {:ok, %{shard: shard, backend: backend, tasks: tasks, lanes: %{}, commits: %{}}}
  end

  @impl GenServer
  def handle_call({:write, prefix, command, window_ms}, from, state),
    do: {:noreply, add(state, prefix, command, 1, window_ms, from)}

  def handle_call({:write_put_batch, entries, window_ms}, from, state),
    do: {:noreply, add(state, :put_batch, entries, length(entries), window_ms, from)}

  @impl GenServer
  def handle_cast({:write_put_batch, entries, window_ms, from}, state),
    do: {:noreply, add(state, :put_batch, entries, length(entries), window_ms, from)}

  @impl GenServer
  # The window of a slot has passed. A busy lane's slot leaves when its commit ends.
  def handle_info({:window, name, token}, state) do
    case state.lanes do
      %{^name => %{task: nil, slot: %{token: ^token}} = lane} ->
        {:noreply, commit(state, name, lane)}

      _left_already_or_busy ->
        {:noreply, state}
    end
  end

  def handle_info({task, result}, state) when is_map_key(state.commits, task) do
    Process.demonitor(task, [:flush])
    {:noreply, finish(state, task, result)}
  end

  def handle_info({:DOWN, task, :process, _pid, reason}, state)
      when is_map_key(state.commits, task),
      do: {:noreply, finish(state, task, {:error, {:backend_exit, reason}})}

  defp add(state, name, item, count, window_ms, from) do
    lane = Map.get(state.lanes, name, @idle)

    case lane do
      %{slot: %{count: held}} when held + count > @batch_max ->
        state |> seal(name, lane) |> add(name, item, count, window_ms, from)

      %{slot: nil} ->
        slot = open(name, lane, window_ms)
        join(state, name, lane, slot, item, count, from)

      %{slot: slot} ->
        join(state, name, lane, slot, item, count, from)
    end
  end

  # Full: it leaves now, or in its turn.
  defp seal(state, name, %{task: nil} = lane), do: commit(state, name, lane)

  defp seal(state, name, lane),
    do: put_in(state.lanes[name], %{lane | slot: nil, full: [lane.slot | lane.full]})

  defp open(name, lane, window_ms) do
    token = make_ref()

    # A busy lane needs no timer: the slot leaves when the commit ends, before or after its window.
    timer = if lane.task == nil, do: Process.send_after(self(), {:window, name, token}, window_ms)
    %{items: [], froms: [], count: 0, timer: timer, token: token}
  end

  defp join(state, name, lane, slot, item, count, from) do
    slot = %{
      slot
      | items: [item | slot.items],
        froms: [{from, count} | slot.froms],
        count: slot.count + count
    }

    lane = %{lane | slot: slot}

    if slot.count >= @batch_max and lane.task == nil,
      do: commit(state, name, lane),
      else: put_in(state.lanes[name], lane)
  end

  # Commits the oldest slot of a lane that has no commit in flight.
  defp commit(state, name, lane) do
    {slot, lane} = take(lane)
    if slot.timer, do: Process.cancel_timer(slot.timer)
    %{shard: shard, backend: backend} = state
    items = slot.items

    %{ref: task} =
      Task.Supervisor.async_nolink(state.tasks, fn -> run(backend, shard, name, items) end)

    state = put_in(state.lanes[name], %{lane | task: task})
    put_in(state.commits[task], {name, slot.froms})
  end

  defp take(%{full: []} = lane), do: {lane.slot, %{lane | slot: nil}}

  defp take(lane) do
    {newer, [oldest]} = Enum.split(lane.full, -1)
    {oldest, %{lane | full: newer}}
  end

  # In the Task. Contract 7.2, 7.3.
  defp run(backend, shard, :put_batch, groups),
    do: backend.__commit_put_batch_direct__(shard, groups |> Enum.reverse() |> Enum.concat())

  defp run(backend, shard, _prefix, commands) do
    if Enum.all?(commands, &put?/1) do
      entries = Enum.reduce(commands, [], fn {:put, k, v, exp}, list -> [{k, v, exp} | list] end)
      backend.__commit_put_batch_direct__(shard, entries)
    else
      backend.__commit_batch_direct__(shard, Enum.reverse(commands))
    end
  end

  defp put?({:put, k, v, exp}) when is_binary(k) and is_binary(v) and is_integer(exp), do: true
  defp put?(_command), do: false

  # Replies first, then the next batch of the lane (contract 8).
  defp finish(state, task, result) do
    {{name, froms}, state} = pop_in(state.commits[task])
    answer(name, Enum.reverse(froms), result)
    lane = %{Map.fetch!(state.lanes, name) | task: nil}

    case lane do
      %{slot: nil, full: []} -> %{state | lanes: Map.delete(state.lanes, name)}
      _more -> commit(state, name, lane)
    end
  end

  # Contract 9.1 to 9.3.
  defp answer(name, froms, {:ok, replies} = result) when is_list(replies) do
    expected = Enum.reduce(froms, 0, fn {_from, count}, sum -> sum + count end)

    case length(replies) do
      ^expected -> slice(name, froms, replies)
      actual -> each(froms, {:error, {:batch_result_mismatch, expected, actual}})
    end

    result
  end

  defp answer(_name, froms, result), do: each(froms, result)

  defp slice(:put_batch, froms, replies) do
    Enum.reduce(froms, replies, fn {from, count}, replies ->
      {slice, rest} = Enum.split(replies, count)
      GenServer.reply(from, {:ok, slice})
      rest
    end)
  end

  defp slice(prefix, [{from, 1} | froms], [reply | replies]) do
    GenServer.reply(from, reply)
    slice(prefix, froms, replies)
  end

  defp slice(_prefix, [], []), do: []

  defp each(froms, result),
    do: Enum.each(froms, fn {from, _count} -> GenServer.reply(from, result) end)
end
