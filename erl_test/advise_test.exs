# What a shard's statistics say about its settings (17.7): each sentence with a load that makes it true, and with one that
# makes it false.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.AdviseTest do
  # Beside others a caller is at times not back within the 0.1 ms for which its lane lingers (5.4).
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @enough 110

  defp topics(shard), do: for(%{topic: topic} <- Batcher.advise(shard), do: topic)

  defp text(shard, topic),
    do: Enum.find_value(Batcher.advise(shard), &(&1.topic == topic && &1.text))

  # One caller, which writes again when it was answered.
  defp write_on(shard, window_ms \\ 1, count \\ @enough) do
    for n <- 1..count, do: {:done, _} = Batcher.write(shard, "p", {:set, n}, window_ms)
    settle(shard)
  end

  # Callers who write once: nobody was just answered, so each waits for its window.
  defp write_once(shard, window_ms) do
    for n <- 1..@enough,
        do: await(call_async(fn -> Batcher.write(shard, "p", {:set, n}, window_ms) end))

    settle(shard)
  end

  # Commits of two calls each.
  defp write_in_pairs(shard) do
    for n <- 1..@enough do
      for(m <- 1..2, do: call_async(fn -> Batcher.write(shard, "p", {:set, n, m}, long_ms()) end))
      |> Enum.each(&await/1)
    end

    settle(shard)
  end

  # Four lanes hold something, and so many of them are in flight.
  defp occupy_lanes(shard, in_flight) do
    backend(shard, :block)
    tasks = for n <- 1..4, do: call_async(fn -> Batcher.write(shard, "p#{n}", {:a}, 1) end)
    commits = next_commits(shard, in_flight)
    wait_until(fn -> Batcher.stats(shard).lanes == 4 end)
    {tasks, commits}
  end

  defp release_lanes(shard, {tasks, commits}) do
    backend(shard, :reply)
    Enum.each(commits, &release/1)
    Enum.each(tasks, &await/1)
  end

  # A commit is counted when its committer comes for the next one.
  defp settle(shard) do
    wait_idle(shard)
    drop_commits(shard)
  end

  defp slow(shard, ms) do
    run = fn _function, list ->
      Process.sleep(ms)
      {:ok, for(it <- list, do: {:done, it})}
    end

    backend(shard, {:run, run})
  end

  test "17.7 nothing without a batcher, and one sentence before there is enough to say", c do
    assert Batcher.advise(c.shard) == nil
    start_batcher(c.shard)
    Batcher.write(c.shard, "p", {:a}, 1)
    assert [%{topic: :too_little_data, text: text, numbers: numbers}] = Batcher.advise(c.shard)
    assert text =~ "100 are needed" and Map.has_key?(numbers, :commits)
    write_on(c.shard)
    refute :too_little_data in topics(c.shard)
  end

  test "17.7 after a reset there is too little again", c do
    start_batcher(c.shard)
    write_on(c.shard)
    Batcher.reset_stats(c.shard)
    assert topics(c.shard) == [:too_little_data]
  end

  test "17.7 full batches", c do
    start_batcher(c.shard, namespace_batch_max: 1)
    write_once(c.shard, 60_000)
    assert text(c.shard, :full) =~ ":namespace_batch_max 1 and"
    other = new_shard()
    start_batcher(other)
    write_on(other)
    refute :full in topics(other)
  end

  test "17.7 a window that only delays the first call, and calls without company", c do
    start_batcher(c.shard)
    write_on(c.shard)
    assert text(c.shard, :idle_window) =~ "pacing: :auto"
    assert :alone in topics(c.shard)
    refute :window in topics(c.shard)
    learned = new_shard()
    start_batcher(learned, pacing: :auto)
    write_on(learned)
    for topic <- [:idle_window, :alone, :window], do: refute(topic in topics(learned))
  end

  test "17.7 calls that have company are not without it", c do
    start_batcher(c.shard, namespace_batch_max: 2)
    write_in_pairs(c.shard)
    assert Batcher.stats(c.shard).writes_per_commit.mean == 2.0
    refute :alone in topics(c.shard)
  end

  test "17.7 batches that wait for their window for longer than a commit takes", c do
    start_batcher(c.shard)
    write_once(c.shard, 10)
    assert text(c.shard, :window) =~ "waited for their window"
    refute :idle_window in topics(c.shard)
    # The window is what takes the time.
    refute :backend in topics(c.shard)
  end

  test "17.7 a backend that is slow", c do
    start_batcher(c.shard)
    slow(c.shard, 5)
    write_on(c.shard)
    assert text(c.shard, :backend) =~ "no setting of the batcher changes that"
    refute :answering in topics(c.shard)
  end

  test "17.7 a backend that is slow, where all calls are alone", c do
    start_batcher(c.shard, pacing: :auto)
    slow(c.shard, 5)
    write_on(c.shard)
    assert Batcher.stats(c.shard).alone_commits_total > @enough / 2
    assert text(c.shard, :backend) =~ "waited 0.0 ms"
  end

  test "17.7 replies that take long to send", c do
    start_batcher(c.shard)
    reply = Enum.to_list(1..100_000)
    backend(c.shard, {:run, fn _function, list -> {:ok, for(_ <- list, do: reply)} end})

    for n <- 1..@enough, do: ^reply = Batcher.write(c.shard, "p", {:set, n}, 1)
    settle(c.shard)
    assert text(c.shard, :answering) =~ "large replies take long"
  end

  test "17.7 direct commits", c do
    start_batcher(c.shard, hot_batch_window_ms: 0)
    for n <- 1..@enough, do: {:ok, [_]} = Batcher.write_put_batch(c.shard, [{"k#{n}", "v", 0}])
    assert text(c.shard, :direct) =~ "100 % of the calls, #{@enough} of #{@enough}, passed"
    other = new_shard()
    start_batcher(other)
    for n <- 1..@enough, do: {:ok, [_]} = Batcher.write_put_batch(other, [{"k#{n}", "v", 0}])
    settle(other)
    refute :direct in topics(other)
  end

  test "17.7 calls that time out", c do
    start_batcher(c.shard)
    write_on(c.shard)
    refute :timeouts in topics(c.shard)
    put_call_timeout(c.shard, 0)
    backend(c.shard, [:block, :reply])
    assert {:timeout, _} = catch_exit(Batcher.write(c.shard, "p", {:a}, 1))
    assert text(c.shard, :timeouts) =~ "30000 ms, together: 1."
    release(next_commit(c.shard))
  end

  test "17.7 as many commits in flight as may be, and commits of one lane each", c do
    start_batcher(c.shard, max_in_flight: 2)
    write_on(c.shard)
    for topic <- [:max_in_flight, :commit_scope], do: refute(topic in topics(c.shard))
    occupied = occupy_lanes(c.shard, 2)
    assert text(c.shard, :max_in_flight) =~ "as :max_in_flight allows, 2, while 4 lanes"
    assert text(c.shard, :commit_scope) =~ "4 lanes hold something now"
    release_lanes(c.shard, occupied)
  end

  test "17.7 as many lanes, but none waits, and commits hold two calls", c do
    start_batcher(c.shard, max_in_flight: 4, namespace_batch_max: 2)
    write_in_pairs(c.shard)
    occupied = occupy_lanes(c.shard, 4)
    for topic <- [:max_in_flight, :commit_scope], do: refute(topic in topics(c.shard))
    release_lanes(c.shard, occupied)
  end
end
