# The options of `start_link/2`: clause 1.3 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section01OptionsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @max_ms 4_294_967_295

  test "1.3 namespace_batch_max is 10_000 by default", %{shard: shard} do
    owner = start_batcher(shard)
    write = {:write, "p", {:incr, "k"}, @long_ms}
    for n <- 1..9_999, do: send(owner, {:"$gen_call", {self(), n}, write})
    wait_queued(shard, "p", 9_999)
    refute_commit(shard)
    send(owner, {:"$gen_call", {self(), 10_000}, write})
    assert length(next_commit(shard).list) == 10_000
    assert await_reply(1) == {:done, {:incr, "k"}}
    assert await_reply(10_000) == {:done, {:incr, "k"}}
  end

  test "1.3 hot_batch_max is 10_000 by default", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: @long_ms)
    put = {"k", "v", 0}

    first = call_async(fn -> Batcher.write_put_batch(shard, List.duplicate(put, 9_999)) end)
    wait_queued(shard, :put_batch, 1)
    refute_commit(shard)
    second = call_async(fn -> Batcher.write_put_batch(shard, [put]) end)
    assert length(next_commit(shard).list) == 10_000
    assert {:ok, [_ | _]} = await(first)
    assert await(second) == {:ok, [{:done, put}]}
  end

  test "1.3 namespace_batch_max bounds the namespace lanes, and only them", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 2, hot_batch_window_ms: @long_ms)
    task = call_async(fn -> Batcher.write(shard, "p", {:a}, @long_ms) end)
    wait_queued(shard, "p", 1)
    assert Batcher.write(shard, "p", {:b}, @long_ms) == {:done, {:b}}
    assert await(task) == {:done, {:a}}
    assert next_commit(shard).list == [{:a}, {:b}]

    task = call_async(fn -> Batcher.write_delete_batch(shard, ["a", "b", "c"]) end)
    wait_queued(shard, :delete_batch, 1)
    Batcher.flush(shard)
    await(task)
  end

  test "1.3 hot_batch_max bounds all three hot lanes, and only them", %{shard: shard} do
    start_batcher(shard, hot_batch_max: 2, hot_batch_window_ms: @long_ms)
    assert {:ok, _} = Batcher.write_put_batch(shard, [{"a", "1", 0}, {"b", "2", 0}])
    assert {:ok, _} = Batcher.write_delete_batch(shard, ["a", "b"])

    # The generic lane has no window of its own here: two groups behind a commit leave one by one.
    for _ <- 1..3, do: next_commit_or_none(shard)
    backend(shard, [:block, :reply])
    tasks = for n <- 1..3, do: queue_generic(shard, n)
    release(next_commit(shard))
    Enum.each(tasks, &await/1)
    assert next_commit(shard).list == [{2, :a}, {2, :b}]
    assert next_commit(shard).list == [{3, :a}, {3, :b}]

    tasks = for n <- 1..3, do: call_async(fn -> Batcher.write(shard, "p", {n}, @long_ms) end)
    wait_queued(shard, "p", 3)
    Batcher.flush(shard)
    Enum.each(tasks, &await/1)
  end

  test "1.3 a maximum of 0 commits at each write", %{shard: shard} do
    start_batcher(shard,
      namespace_batch_max: 0,
      hot_batch_max: 0,
      hot_batch_window_ms: @long_ms
    )

    assert Batcher.write(shard, "p", {:a}, @long_ms) == {:done, {:a}}
    assert Batcher.write_put_batch(shard, [{"k", "v", 0}]) == {:ok, [{:done, {"k", "v", 0}}]}
    assert Batcher.write_delete_batch(shard, ["k"]) == {:ok, [{:done, "k"}]}
    # An empty group too, and not only behind a commit.
    wait_idle(shard)
    assert Batcher.write_delete_batch(shard, []) == {:ok, []}
  end

  for limit <- [:infinity, nil] do
    test "1.3 a maximum of #{inspect(limit)} is no limit", %{shard: shard} do
      start_batcher(shard,
        namespace_batch_max: unquote(limit),
        hot_batch_max: unquote(limit),
        hot_batch_window_ms: @long_ms
      )

      keys = List.duplicate("k", 10_001)
      task = call_async(fn -> Batcher.write_delete_batch(shard, keys) end)
      wait_queued(shard, :delete_batch, 1)
      refute_commit(shard)
      Batcher.flush(shard)
      assert {:ok, replies} = await(task)
      assert length(replies) == 10_001
    end
  end

  test "1.3 hot_batch_window_ms is the window of the put and delete lanes", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: 54_321)
    tasks = [put_async(shard), delete_async(shard)]
    wait_queued(shard, :put_batch, 1)
    wait_queued(shard, :delete_batch, 1)
    assert %{window_ms: 54_321} = queued_slot(shard, :put_batch)
    assert %{window_ms: 54_321} = queued_slot(shard, :delete_batch)
    Batcher.flush(shard)
    Enum.each(tasks, &await/1)
  end

  for window_ms <- [0, -1] do
    test "1.3 hot_batch_window_ms of #{window_ms} commits in the caller", %{shard: shard} do
      start_batcher(shard, hot_batch_window_ms: unquote(window_ms))
      from = {self(), make_ref()}

      assert {:ok, _} = Batcher.write_put_batch(shard, [{"k", "v", 0}])
      assert {:ok, _} = Batcher.write_delete_batch(shard, ["k"])
      assert {:direct, {:ok, _}} = Batcher.write_put_batch_async(shard, [{"k", "v", 0}], from)
      assert {:direct, {:ok, _}} = Batcher.write_delete_batch_async(shard, ["k"], from)
      for _ <- 1..4, do: assert(next_commit(shard).pid == self())

      # Only the put and delete lanes.
      assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:done, {:a}}]}
      assert next_commit(shard).pid != self()
    end
  end

  test "1.3 hot_batch_window_ms ends with its batcher", %{shard: shard} do
    {:ok, _} = Batcher.start_link(shard, hot_batch_window_ms: 0)
    Batcher.stop(shard)
    start_batcher(shard)
    assert {:ok, _} = Batcher.write_put_batch(shard, [{"k", "v", 0}])
    assert next_commit(shard).pid != self()
  end

  test "1.3 hot_batch_window_ms is of one shard", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: 0)
    other = new_shard()
    start_batcher(other)
    assert {:ok, _} = Batcher.write_put_batch(other, [{"k", "v", 0}])
    assert next_commit(other).pid != self()
  end

  test "1.3 unknown keys are ignored", %{shard: shard} do
    opts = [data_dir: "/data", name: :x, hot_batch_maximum: :wrong] ++ [:flag, {"text", 1}]
    assert start_batcher(shard, opts)
    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
  end

  test "1.3 the first of a repeated key counts", %{shard: shard} do
    start_batcher(shard, namespace_batch_max: 0, namespace_batch_max: :wrong)
    assert Batcher.write(shard, "p", {:a}, @long_ms) == {:done, {:a}}
  end

  @maxima [-1, 1.0, 10_000.0, "10", :many, {1, 2}]
  @positive [0, -1, 1_000_000.0, 1_073_741_824.0, :infinity, nil, "1"]
  @milliseconds [-1, 5_000.0, 30_000.0, :infinity, nil, @max_ms + 1]
  @bad [
    namespace_batch_max: @maxima,
    hot_batch_max: @maxima,
    max_in_flight: @positive,
    hot_batch_window_ms: [:soon, 1.0, "1", :infinity, nil, @max_ms + 1],
    pacing: [:never, nil, "commit"],
    max_queue_items: @positive,
    max_queue_bytes: @positive,
    adoption_timeout: @milliseconds,
    drain_timeout: @milliseconds,
    shutdown_timeout: @milliseconds,
    overflow: [:drop, nil, "queue"]
  ]

  for {key, values} <- @bad do
    test "1.3 a bad value of #{key} is an error of start_link", %{shard: shard} do
      for value <- unquote(Macro.escape(values)) do
        opts = [{unquote(key), value}]
        assert Batcher.start_link(shard, opts) == {:error, {:invalid_option, unquote(key), value}}
      end

      assert Process.whereis(Batcher.name(shard)) == nil
    end
  end

  test "1.3 the widest values are taken", %{shard: shard} do
    assert start_batcher(shard,
             namespace_batch_max: Integer.pow(2, 70),
             hot_batch_max: Integer.pow(2, 70),
             max_in_flight: Integer.pow(2, 70),
             hot_batch_window_ms: @max_ms,
             pacing: :window,
             max_queue_items: Integer.pow(2, 70),
             max_queue_bytes: Integer.pow(2, 70),
             adoption_timeout: @max_ms,
             drain_timeout: @max_ms,
             shutdown_timeout: @max_ms
           )

    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
  end

  defp put_async(shard), do: call_async(fn -> Batcher.write_put_batch(shard, [{"k", "v", 0}]) end)
  defp delete_async(shard), do: call_async(fn -> Batcher.write_delete_batch(shard, ["k"]) end)

  # The first of them is in flight, the others are queued behind it in order.
  defp queue_generic(shard, n) do
    task = call_async(fn -> Batcher.write_batch(shard, [{n, :a}, {n, :b}]) end)

    wait_until(fn ->
      snapshot = Batcher.snapshot(shard)
      Map.has_key?(snapshot.in_flight, :batch) and queued(shard, :batch) == n - 1
    end)

    task
  end

  defp next_commit_or_none(shard) do
    receive do
      {:commit, %{shard: ^shard}} -> :ok
    after
      0 -> :none
    end
  end
end
