# Telemetry: section 13 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section13TelemetryTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @hot [:batch, :put_batch, :delete_batch]
  @measurements ~w(batch_size duration_us flush_duration_us queue_age_us queue_wait_us)a ++
                  [:total_duration_us]

  setup %{shard: shard} do
    attach_telemetry(shard)
  end

  test "13.1 namespace lanes: slot_flush, then quorum_submit", %{shard: shard} do
    start_batcher(shard)
    Batcher.write(shard, "p", {:a}, 7)
    next_commit(shard)

    assert {:telemetry, [:ferricstore, :waraft, :batcher, :slot_flush], measurements, metadata} =
             next_message()

    assert Enum.sort(Map.keys(measurements)) == @measurements

    assert metadata ==
             %{
               shard_index: shard,
               lane: :namespace,
               prefix: "p",
               window_ms: 7,
               result: :ok,
               reason: :window
             }

    assert {:telemetry, [:ferricstore, :batcher, :quorum_submit], _, _} = next_message()
  end

  for kind <- @hot do
    test "13.2 lane #{kind}: hot_flush, then quorum_submit", %{shard: shard} do
      kind = unquote(kind)
      start_batcher(shard)
      await_reply(raw(shard, kind, item(kind), 7))
      next_commit(shard)

      assert {:telemetry, [:ferricstore, :waraft, :batcher, :hot_flush], measurements, metadata} =
               next_message()

      assert Enum.sort(Map.keys(measurements)) == Enum.sort([:group_count | @measurements])

      assert metadata ==
               %{
                 shard_index: shard,
                 lane: kind,
                 kind: kind,
                 window_ms: 7,
                 result: :ok,
                 reason: :window
               }

      assert {:telemetry, [:ferricstore, :batcher, :quorum_submit], _, _} = next_message()
    end
  end

  test "13.3 quorum_submit: the same measurements, and who and how much", %{shard: shard} do
    start_batcher(shard)

    for lane <- lanes() do
      event = event(lane)
      await_reply(raw(shard, lane, item(lane), 1))
      {flush, _} = next_event(event)
      {submit, metadata} = next_event(:quorum_submit)
      assert Map.take(submit, @measurements) == Map.take(flush, @measurements)
      assert submit.caller_count == 1
      assert is_integer(submit.command_bytes) and submit.command_bytes > 0

      assert metadata ==
               %{
                 backend: :waraft,
                 shard_index: shard,
                 lane: if(is_binary(lane), do: :namespace, else: lane),
                 kind: :batch,
                 status: :ok,
                 reason: :window
               }
    end
  end

  test "13.3 caller_count: commands of a namespace, groups of a hot lane", %{shard: shard} do
    start_batcher(shard)

    for lane <- lanes() do
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      items = if is_binary(lane), do: [{:batch, [1, 2]}, {:batch, []}, {:a}], else: groups(lane)
      tags = for item <- items, do: raw(shard, lane, item, 1)
      wait_queued(shard, lane, 3)
      release(first)
      Enum.each(tags, &await_reply/1)
      next_commit(shard)
      assert {%{caller_count: 1}, _} = next_event(:quorum_submit)
      assert {%{caller_count: 3}, _} = next_event(:quorum_submit)
    end

    for _ <- @hot do
      assert {%{group_count: 1}, _} = next_event(:hot_flush)
      assert {%{group_count: 3}, _} = next_event(:hot_flush)
    end
  end

  test "13.3 command_bytes grows with what is written, large binaries as well", %{shard: shard} do
    start_batcher(shard)

    for lane <- [:put_batch, "p"] do
      [small, large] =
        for size <- [10, 100_010] do
          value = String.duplicate("v", size)
          item = if lane == "p", do: {:put, "k", value, 0}, else: [{"k", value, 0}]
          await_reply(raw(shard, lane, item, 1))
          {%{command_bytes: bytes}, _} = next_event(:quorum_submit)
          bytes
        end

      assert large - small == 100_000
    end
  end

  test "13.4 batch_size is counted by 6.1", %{shard: shard} do
    start_batcher(shard)

    for {lane, item, size} <- [
          {"p", {:put_batch, [1, 2, 3]}, 1},
          {"p", {:batch, []}, 1},
          {:batch, [{:put_batch, [1, 2, 3]}, {:batch, [{:a}, {:b}]}, {:c}], 6},
          {:batch, [], 0},
          {:put_batch, [{"a", "1", 0}, {"b", "2", 0}], 2},
          {:delete_batch, ["a", "b", "c"], 3}
        ] do
      await_reply(raw(shard, lane, item, 1))
      assert {%{batch_size: ^size}, _} = next_event(:quorum_submit)
    end
  end

  test "13.4 the times: integers, and what they measure", %{shard: shard} do
    start_batcher(shard)
    window_ms = 20

    # In the backend and in the queue at least this long, if the clock tells the truth.
    backend(shard, {
      :run,
      fn function, list ->
        spin_us(3_000)
        {:ok, TestBackend.replies(function, list)}
      end
    })

    for lane <- lanes() do
      called = System.monotonic_time(:microsecond)
      tag = raw(shard, lane, item(lane), window_ms)
      await_reply(tag)
      event = event(lane)
      {times, _} = next_event(event)
      passed = System.monotonic_time(:microsecond) - called

      for {key, value} <- times, do: assert(is_integer(value) and value >= 0, "#{key}: #{value}")
      assert times.queue_wait_us == times.queue_age_us
      assert times.duration_us == times.total_duration_us
      assert times.queue_wait_us in (window_ms * 1_000)..passed
      assert times.flush_duration_us in 3_000..passed
      assert times.duration_us in (times.queue_wait_us + times.flush_duration_us)..passed
    end
  end

  test "13.4 the wait begins when the slot is opened, also behind a commit", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    task = queue(shard, "p", {:a})
    queued = System.monotonic_time(:microsecond)
    refute_commit(shard)
    waited = System.monotonic_time(:microsecond) - queued
    release(first)
    await(task)
    next_event(:slot_flush)
    assert {%{queue_wait_us: wait_us}, _} = next_event(:slot_flush)
    assert wait_us >= waited
  end

  @mismatch {:error, {:batch_result_mismatch, 1, 2}}

  for {behaviour, result, status} <- [
        {:reply, :ok, :ok},
        {{:return, {:error, :no}}, {:error, :no}, :error},
        {{:return, {:ok, [1, 2]}}, @mismatch, :error},
        {{:exit, :no}, {:error, {:backend_exit, :no}}, :error},
        {{:raise, :badarg}, {:error, {:backend_error, :error, :badarg}}, :error},
        {{:throw, :no}, {:error, {:backend_error, :throw, :no}}, :error},
        {{:return, :ok}, :other, :unknown},
        {{:return, nil}, :other, :unknown},
        {{:return, {:ok, [1 | 2]}}, :other, :unknown},
        {{:return, {:ok, :no_list}}, :other, :unknown},
        {{:return, {:error, 1, 2}}, :other, :unknown}
      ] do
    test "13.5 result and status: #{inspect(behaviour)}", %{shard: shard} do
      start_batcher(shard)
      backend(shard, unquote(Macro.escape(behaviour)))

      for lane <- lanes() do
        event = event(lane)
        await_reply(raw(shard, lane, item(lane), 1))
        {_, metadata} = next_event(event)
        assert metadata.result == unquote(Macro.escape(result))
        assert {_, %{status: unquote(status)}} = next_event(:quorum_submit)
      end
    end
  end

  test "13.5 an error inside of the list is no error of the batch", %{shard: shard} do
    start_batcher(shard)
    backend(shard, {:return, {:ok, [{:error, :no}]}})
    assert Batcher.write(shard, "p", {:a}, 1) == {:error, :no}
    assert {_, %{result: :ok}} = next_event(:slot_flush)
    assert {_, %{status: :ok}} = next_event(:quorum_submit)
  end

  for lane <- ["p", :batch, :put_batch, :delete_batch] do
    test "13.5 lane #{inspect(lane)}: why the batch left", %{shard: shard} do
      lane = unquote(lane)
      event = event(lane)
      start_batcher(shard, namespace_batch_max: 2, hot_batch_max: 2)
      await_reply(raw(shard, lane, item(lane), 1))
      assert reasons(event, 1) == [:window]

      # A lane rests only when the telemetry of its last commit is through.
      wait_idle(shard)
      full = for _ <- 1..2, do: raw(shard, lane, item(lane), long_ms())
      Enum.each(full, &await_reply/1)
      assert reasons(event, 1) == [:size]

      wait_idle(shard)
      tag = raw(shard, lane, item(lane), long_ms())
      wait_queued(shard, lane, 1)
      assert Batcher.flush(shard) == :ok
      await_reply(tag)
      assert reasons(event, 1) == [:flush]
    end

    test "13.5 lane #{inspect(lane)}: a batch left behind another", %{shard: shard} do
      lane = unquote(lane)
      event = event(lane)
      start_batcher(shard)
      backend(shard, [:block, :reply])
      first = occupy(shard, lane)
      behind = raw(shard, lane, item(lane), long_ms())
      wait_queued(shard, lane, 1)
      release(first)
      await_reply(behind)
      assert reasons(event, 2) == [:immediate, :commit]
    end

    test "13.5 lane #{inspect(lane)}: a batch left because of a stop", %{shard: shard} do
      lane = unquote(lane)
      event = event(lane)
      {:ok, _owner} = Batcher.start_link(shard, [])
      tag = raw(shard, lane, item(lane), long_ms())
      wait_queued(shard, lane, 1)
      assert Batcher.stop(shard) == :ok
      await_reply(tag)
      assert reasons(event, 1) == [:stop]
    end
  end

  test "13 once per commit", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 3)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    tags = for n <- 1..7, do: raw(shard, "p", {n}, long_ms())
    wait_queued(shard, "p", 7)
    release(first)
    Enum.each(tags, &await_reply/1)
    Batcher.flush(shard)
    sizes = for _ <- 1..4, do: next_event(:slot_flush) |> elem(0) |> Map.fetch!(:batch_size)
    assert sizes == [1, 3, 3, 1]
    for _ <- 1..4, do: next_event(:quorum_submit)
    refute_received {:telemetry, _event, _measurements, _metadata}
  end

  test "13.6 direct commits emit nothing", %{shard: shard} do
    for lane <- lanes(), do: write(shard, lane, item(lane))
    start_batcher(shard, hot_batch_window_ms: 0)
    for lane <- [:put_batch, :delete_batch], do: write(shard, lane, item(lane))
    put_env(:waraft_generic_batch_during_flush, false)
    write(shard, :batch, item(:batch))
    for _ <- 1..7, do: assert(next_commit(shard).pid == self())
    refute_receive {:telemetry, _event, _measurements, _metadata}, 30
  end

  defp reasons(event, count), do: for(_ <- 1..count, do: elem(next_event(event), 1).reason)

  defp groups(lane), do: [item(lane), [], Enum.flat_map(1..3, &item(lane, &1))]
end
