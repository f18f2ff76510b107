# The live state: section 15 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section15SnapshotTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes, only: [raw: 4]

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @empty %{slots: %{}, batch_slot: nil, put_slot: nil, delete_slot: nil, in_flight: %{}}
  @slot_keys [:commands, :count, :created_mono, :froms, :timer_ref, :timer_token, :window_ms]
  @hot_keys [:count, :created_mono, :groups, :timer_ref, :timer_token, :window_ms]

  test "15 slot() and hot_slot() are documented types" do
    {:ok, types} = Code.Typespec.fetch_types(Batcher)
    public = for {:type, {name, _, []}} <- types, do: name
    assert :slot in public and :hot_slot in public
    {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(Batcher)

    for type <- [:slot, :hot_slot],
        do: assert({_, _, _, %{"en" => _}, _} = List.keyfind(docs, {:type, type, 0}, 0))
  end

  test "15 nil without a batcher", %{shard: shard} do
    assert Batcher.snapshot(shard) == nil
    start_alone(shard)
    assert Batcher.snapshot(shard) != nil
    Batcher.stop(shard)
    assert Batcher.snapshot(shard) == nil
  end

  test "15 of a batcher that has nothing to do", %{shard: shard} do
    start_batcher(shard)
    assert Batcher.snapshot(shard) == @empty
    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
    assert {:ok, _} = Batcher.write_batch(shard, [{:a}])
    Batcher.flush(shard)
    wait_idle(shard)
    assert Batcher.snapshot(shard) == @empty
  end

  test "15 slots: one for each prefix, in arrival order", %{shard: shard} do
    start_batcher(shard)
    before = System.monotonic_time(:microsecond)

    tasks =
      for n <- 1..3 do
        task = call_async(fn -> Batcher.write(shard, "p", {:a, n}, 54_320 + n) end)
        wait_queued(shard, "p", n)
        task
      end

    queued = System.monotonic_time(:microsecond)
    other = call_async(fn -> Batcher.write(shard, <<0, 255>>, {:put, "k", "v", 0}, @long_ms) end)
    wait_queued(shard, <<0, 255>>, 1)
    snapshot = Batcher.snapshot(shard)

    assert Map.drop(snapshot, [:slots]) == Map.drop(@empty, [:slots])
    assert %{"p" => slot, <<0, 255>> => other_slot} = snapshot.slots
    assert map_size(snapshot.slots) == 2

    assert Enum.sort(Map.keys(slot)) == @slot_keys
    assert slot.commands == [{:a, 1}, {:a, 2}, {:a, 3}]
    assert Enum.map(slot.froms, &elem(&1, 0)) == Enum.map(tasks, & &1.pid)
    for from <- slot.froms, do: assert({_pid, _tag} = from)
    assert slot.count == 3
    assert slot.window_ms == 54_321
    opened_between(fn -> Batcher.snapshot(shard).slots["p"] end, before, queued)
    assert slot.timer_ref == nil or is_reference(slot.timer_ref)
    assert slot.timer_token == nil or is_reference(slot.timer_token)

    assert %{commands: [{:put, "k", "v", 0}], count: 1, window_ms: @long_ms} = other_slot
    assert [{pid, _tag}] = other_slot.froms
    assert pid == other.pid
    opened_between(fn -> Batcher.snapshot(shard).slots[<<0, 255>>] end, queued, :infinity)

    Batcher.flush(shard)
    Enum.each([other | tasks], &await/1)
  end

  for {lane, slot, write} <- [
        {:put_batch, :put_slot, :write_put_batch},
        {:delete_batch, :delete_slot, :write_delete_batch}
      ] do
    @lane lane
    @slot slot
    @write write

    test "15 #{slot}: groups in arrival order", %{shard: shard} do
      start_batcher(shard, hot_batch_window_ms: 54_321)
      before = System.monotonic_time(:microsecond)

      tasks =
        for {items, n} <- Enum.with_index([[:a, :b], [], [:c]], 1) do
          task = call_async(fn -> apply(Batcher, @write, [shard, items]) end)
          wait_queued(shard, @lane, n)
          task
        end

      queued = System.monotonic_time(:microsecond)
      snapshot = Batcher.snapshot(shard)
      assert Map.drop(snapshot, [@slot]) == Map.drop(@empty, [@slot])
      slot = Map.fetch!(snapshot, @slot)

      assert Enum.sort(Map.keys(slot)) == @hot_keys
      assert [{{_, _}, [:a, :b]}, {{_, _}, []}, {{_, _}, [:c]}] = slot.groups
      assert for({{pid, _tag}, _} <- slot.groups, do: pid) == Enum.map(tasks, & &1.pid)
      assert slot.count == 3
      assert slot.window_ms == 54_321
      opened_between(fn -> Map.fetch!(Batcher.snapshot(shard), @slot) end, before, queued)
      assert slot.timer_ref == nil or is_reference(slot.timer_ref)
      assert slot.timer_token == nil or is_reference(slot.timer_token)

      Batcher.flush(shard)
      Enum.each(tasks, &await/1)
    end
  end

  test "15 batch_slot: counted as 6.2 says", %{shard: shard} do
    owner = start_batcher(shard)
    list = [{:a}, {:batch, [{:b}, {:put_batch, [1, 2, 3]}]}]
    tag = make_ref()
    send(owner, {:"$gen_call", {self(), tag}, {:write_batch, list, @long_ms}})
    wait_queued(shard, :batch, 1)
    snapshot = Batcher.snapshot(shard)
    assert Map.drop(snapshot, [:batch_slot]) == Map.drop(@empty, [:batch_slot])
    assert %{groups: [{from, ^list}], count: 5, window_ms: @long_ms} = snapshot.batch_slot
    assert from == {self(), tag}
    assert Enum.sort(Map.keys(snapshot.batch_slot)) == @hot_keys
    Batcher.flush(shard)
    assert {:ok, _} = await_reply(tag)
  end

  test "15 in_flight: a reference for each lane that commits", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)

    tasks = [
      call_async(fn -> Batcher.write(shard, "p", {:a}, 1) end),
      call_async(fn -> Batcher.write(shard, "q", {:a}, 1) end),
      call_async(fn -> Batcher.write_batch(shard, [{:a}]) end),
      call_async(fn -> Batcher.write_put_batch(shard, [{"k", "v", 0}]) end),
      call_async(fn -> Batcher.write_delete_batch(shard, ["k"]) end)
    ]

    commits = for _ <- tasks, do: next_commit(shard)
    snapshot = Batcher.snapshot(shard)
    assert %{snapshot | in_flight: %{}} == @empty
    lanes = [{:prefix, "p"}, {:prefix, "q"}, :batch, :put_batch, :delete_batch]
    assert Enum.sort(Map.keys(snapshot.in_flight)) == Enum.sort(lanes)
    references = Map.values(snapshot.in_flight)
    assert Enum.all?(references, &is_reference/1)
    assert references == Enum.uniq(references)

    Enum.each(commits, &release/1)
    Enum.each(tasks, &await/1)
    wait_idle(shard)
    assert Batcher.snapshot(shard) == @empty
  end

  test "15 what waits behind a commit is in its slot, whole and in order", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 2, hot_batch_max: 2)
    backend(shard, [:block, :block, :reply])
    first = [call_async(fn -> Batcher.write(shard, "p", {0}, 1) end)]
    commit = next_commit(shard)
    first = [call_async(fn -> Batcher.write_batch(shard, [{0}]) end) | first]
    hot_commit = next_commit(shard)

    # More than one batch can hold.
    tasks =
      for n <- 1..5 do
        task = call_async(fn -> Batcher.write(shard, "p", {n}, 54_320 + n) end)
        wait_queued(shard, "p", n)
        hot = call_async(fn -> Batcher.write_batch(shard, [{n}]) end)
        wait_queued(shard, :batch, n)
        [task, hot]
      end

    snapshot = Batcher.snapshot(shard)
    assert %{{:prefix, "p"} => _, :batch => _} = snapshot.in_flight
    slot = snapshot.slots["p"]
    assert slot.commands == for(n <- 1..5, do: {n})
    assert length(slot.froms) == 5
    assert %{count: 5, window_ms: 54_321} = slot
    assert for({_from, [{n}]} <- snapshot.batch_slot.groups, do: n) == [1, 2, 3, 4, 5]
    assert snapshot.batch_slot.count == 5

    Enum.each([commit, hot_commit], &release/1)
    Enum.each(List.flatten([first | tasks]), &await/1)
  end

  test "15 a snapshot shows every from as it came", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: @long_ms)

    froms =
      for tag <- [make_ref(), [:alias | :erlang.alias()], :atom, {"t", 1}], do: {self(), tag}

    for from <- froms, do: Batcher.write_put_batch_async(shard, [:a], from)
    assert for({from, [:a]} <- Batcher.snapshot(shard).put_slot.groups, do: from) == froms
    Batcher.flush(shard)
    for {_, tag} <- froms, do: await_reply(tag)
  end

  test "15 a snapshot disturbs nothing", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: @long_ms)
    task = call_async(fn -> Batcher.write_put_batch(shard, [{"k", "v", 0}]) end)
    wait_queued(shard, :put_batch, 1)
    look = fn -> :timer.tc(fn -> Batcher.snapshot(shard).put_slot end) end
    {first_us, slot} = look.()

    for _ <- 1..100 do
      {us, again} = look.()
      assert Map.delete(again, :created_mono) == Map.delete(slot, :created_mono)

      # Two clocks are read for it, one after the other within a look, which may take long on a busy machine.
      assert abs(again.created_mono - slot.created_mono) < first_us + us + 10_000
    end

    refute_commit(shard, 0)
    Batcher.flush(shard)
    assert await(task) == {:ok, [{:done, {"k", "v", 0}}]}
    assert mailbox() |> length() == 1
  end

  test "15 a snapshot of a shard whose owner was killed shows what waits", %{shard: shard} do
    owner = start_alone(shard, adoption_timeout: @long_ms)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, @long_ms) end)
    wait_queued(shard, "p", 1)
    Process.exit(owner, :kill)
    await_death(owner)
    assert %{commands: [{:a}]} = queued_slot(shard, "p")
    start_batcher(shard)
    assert %{commands: [{:a}]} = queued_slot(shard, "p")
    Batcher.flush(shard)
    assert await(task) == {:done, {:a}}
  end

  # Two clocks are read for the time, so a look may be off by as much as its process was kept waiting.
  defp opened_between(look, from, to) do
    wait_until(fn ->
      created = look.().created_mono
      is_integer(created) and created >= from and created <= to
    end)
  end

  # More than is copied under one lock, and lists that are kept in several pieces.
  test "15 a slot of many groups and of long lists is seen whole, in order", %{shard: shard} do
    start_batcher(shard, hot_batch_max: :infinity)
    commands = for n <- 1..1_000, do: {:set, n}
    for command <- commands, do: raw(shard, "p", command, @long_ms)

    lists =
      for n <- 1..40, do: for(i <- 1..if(rem(n, 8) == 0, do: 30_000, else: n), do: {:set, n, i})

    for list <- lists, do: raw(shard, :batch, list, @long_ms)
    wait_queued(shard, :batch, 40)
    %{slots: %{"p" => slot}, batch_slot: batch} = Batcher.snapshot(shard)
    assert slot.commands == commands
    assert length(slot.froms) == 1_000
    assert for({_from, list} <- batch.groups, do: list) == lists
    assert Batcher.flush(shard) == :ok
  end
end
