# All public functions at once, from thousands of callers: each gets its own reply, and nothing is lost,
# doubled or out of order. Runs for `LOAD_SECONDS` (default 2) a test. How the shards commit that don't say: see `Ways`.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.LoadTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{LoadBackend, Ways}

  @callers 2_000
  @prefixes for n <- 1..20, do: "namespace #{n}"
  # One shard as it comes; the others in ways that are drawn, where they don't say.
  @options [
    [pacing: :commit, commit_scope: :lane],
    [],
    [max_in_flight: 2],
    [namespace_batch_max: 20, hot_batch_max: 15],
    [pacing: :window, hot_batch_window_ms: 3],
    [namespace_batch_max: 0, hot_batch_max: 1, hot_batch_window_ms: 2]
  ]
  @refused {:error, :shutting_down}

  setup %{test: test} do
    seconds = String.to_integer(System.get_env("LOAD_SECONDS", "2"))
    LoadBackend.create_tables()
    put_env(:waraft_backend_batcher_backend, LoadBackend)
    # Owners are killed more often than a supervisor stands by default.
    start = {Supervisor, :start_link, [[], [strategy: :one_for_one, max_restarts: 1_000_000]]}
    supervisor = start_supervised!(%{id: :shards, type: :supervisor, start: start})

    shards =
      for {opts, place} <- Enum.with_index(@options) do
        shard = new_shard()
        opts = {test, place} |> Ways.of() |> Keyword.merge(opts)
        if opts[:commit_scope] == :shard, do: LoadBackend.commit_together(shard)
        {:ok, _owner} = Supervisor.start_child(supervisor, {Batcher, {shard, opts}})
        shard
      end

    %{shards: shards, until: System.monotonic_time(:millisecond) + seconds * 1_000}
  end

  @tag timeout: :infinity
  test "4.2, 4.3, 7.4, 9.1 under load: every caller its reply, in order, once", context do
    %{shards: shards, until: until} = context
    {written, 0} = run_callers(shards, until)
    check(written)
  end

  @tag timeout: :infinity
  test "10.3, 10.4, 11.3 the same while batchers are stopped and owners killed", context do
    %{shards: shards, until: until} = context
    chaos = call_async(fn -> disturb(shards, until, 0) end)
    {written, _refused} = run_callers(shards, until)
    assert Task.await(chaos, :infinity) > 0
    check(written)
  end

  # Answers what was written, counted as the backend does, and how many calls were refused.
  defp run_callers(shards, until) do
    callers = for _ <- 1..@callers, do: Task.async(fn -> call_until(shards, until, %{}, 0) end)
    {written, refused} = callers |> Task.await_many(:infinity) |> Enum.unzip()
    {Enum.concat(written), Enum.sum(refused)}
  end

  defp check(written) do
    assert LoadBackend.faults() == []
    committed = Enum.sort(LoadBackend.counts())
    assert committed == Enum.sort(written)
    marks = committed |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    # They were batched, and they were many.
    assert marks > LoadBackend.commits()
    assert length(written) > @callers
  end

  defp call_until(shards, until, counts, refused) do
    if System.monotonic_time(:millisecond) < until do
      shard = Enum.random(shards)
      lane = Enum.random([:batch, :put_batch, :delete_batch | @prefixes])
      {written, refused_now} = call(shard, lane)
      counts = Map.update(counts, {shard, lane, self()}, written, &(&1 + written))
      call_until(shards, until, counts, refused + refused_now)
    else
      # Nobody gets a second reply, and none that is not its own.
      assert Process.info(self(), :messages) == {:messages, []}
      {for({key, count} <- counts, count > 0, do: {key, count}), refused}
    end
  end

  # One call, or two asynchronous ones. Answers how many marks were committed, how many calls refused.
  defp call(shard, lane) do
    case :rand.uniform(1_000) do
      1 ->
        assert %{slots: _, in_flight: _} = Batcher.snapshot(shard) || %{slots: 0, in_flight: 0}
        {0, 0}

      n when n <= 20 ->
        assert Batcher.flush(shard) == :ok
        {0, 0}

      n when n <= 300 and lane in [:put_batch, :delete_batch] ->
        outcomes = for group <- [group(lane), group(lane)], do: cast(shard, lane, group)
        outcomes |> Enum.map(&finish/1) |> sum()

      _ when is_binary(lane) ->
        marks = [mark | more] = marks(lane, Enum.random([1, 1, 1, 3]))
        command = LoadBackend.carry(lane, mark)
        several = {:batch, for(mark <- marks, do: LoadBackend.carry(lane, mark))}
        window_ms = :rand.uniform(4)

        if more == [],
          do: outcome(Batcher.write(shard, lane, command, window_ms), reply(mark), 1),
          else: outcome(Batcher.write(shard, lane, several, window_ms), replies(marks), 3)

      _ ->
        {items, marks} = group(lane)
        outcome(write(shard, lane, items), replies(marks), length(marks))
    end
  end

  defp write(shard, :batch, commands), do: Batcher.write_batch(shard, commands)
  defp write(shard, :put_batch, entries), do: Batcher.write_put_batch(shard, entries)
  defp write(shard, :delete_batch, keys), do: Batcher.write_delete_batch(shard, keys)

  # The second may be sent before the first is answered.
  defp cast(shard, lane, {items, marks}) do
    token = TestGate.token()
    tag = make_ref()

    sent =
      case lane do
        :put_batch -> Batcher.write_put_batch_async(shard, items, {self(), tag}, token)
        :delete_batch -> Batcher.write_delete_batch_async(shard, items, {self(), tag}, token)
      end

    # Released when it returns, unless it was committed here.
    if sent == :ok, do: assert_received({:left, ^token, _pid})
    {sent, tag, marks}
  end

  defp finish({:ok, tag, marks}) do
    receive do
      {^tag, reply} -> outcome(reply, replies(marks), length(marks))
    after
      60_000 -> flunk("no reply to an asynchronous write")
    end
  end

  defp finish({{:direct, result}, _tag, marks}),
    do: outcome(result, replies(marks), length(marks))

  defp outcome(@refused, _own, _count), do: {0, 1}

  defp outcome(reply, own, count) do
    assert reply == own
    {count, 0}
  end

  defp sum(outcomes) do
    {counts, refused} = Enum.unzip(outcomes)
    {Enum.sum(counts), Enum.sum(refused)}
  end

  defp group(lane) do
    marks = marks(lane, Enum.random([0, 1, 1, 2, 5]))
    {for(mark <- marks, do: LoadBackend.carry(lane, mark)), marks}
  end

  defp marks(lane, count), do: for(_ <- 1..count//1, do: {lane, self(), next_number()})

  defp next_number do
    number = Process.get(:number, 0) + 1
    Process.put(:number, number)
    number
  end

  defp reply(mark), do: LoadBackend.reply(mark)
  defp replies(marks), do: {:ok, Enum.map(marks, &reply/1)}

  # Stops a batcher or kills an owner, again and again; answers how often.
  defp disturb(shards, until, times) do
    if System.monotonic_time(:millisecond) < until do
      shard = Enum.random(shards)
      owner = Process.whereis(Batcher.name(shard))

      if rem(times, 2) == 0,
        do: Batcher.stop(shard),
        else: owner && Process.exit(owner, :kill)

      await_successor(shard, owner)
      # Some work gets done in between.
      receive do
      after
        20 -> disturb(shards, until, times + 1)
      end
    else
      times
    end
  end
end
