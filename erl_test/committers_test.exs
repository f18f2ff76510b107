# Processes that commit: how many there are, and what they wait for.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.CommittersTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  # A committer looks every five seconds whether it is needed, twice before it leaves.
  @retire_ms 20_000

  @tag timeout: 60_000
  test "4.2 committers that are not needed any more leave, but for two", %{shard: shard} do
    owner = start_batcher(shard)
    backend(shard, :block)
    lanes = for n <- 1..8, do: "lane #{n}"
    commits = for lane <- lanes, do: occupy(shard, lane)
    pids = for commit <- commits, do: commit.pid
    assert pids |> Enum.uniq() |> length() == 8
    monitors = Map.new(pids, &{Process.monitor(&1), &1})
    Enum.each(commits, &release/1)
    for commit <- commits, do: await_reply(commit.tag)

    left =
      for _ <- 1..6 do
        assert_receive {:DOWN, monitor, :process, _pid, :normal}, @retire_ms
        Map.fetch!(monitors, monitor)
      end

    assert Enum.sort(committers(owner)) == Enum.sort(pids -- left)
    backend(shard, :reply)
    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
  end

  test "5.4 after a long commit those just answered are waited for, a little", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    first = occupy(shard, "p")
    # A commit that takes longer than it has to.
    started = System.monotonic_time(:microsecond)
    wait_until(fn -> System.monotonic_time(:microsecond) > started + 4_000 end)
    looks = looks(first.pid, fn -> release(first) end)

    # Nobody writes again. One look at what is queued, one more before there is time to wait, one after it.
    assert length(looks) >= 3
    assert List.last(looks) - hd(looks) >= 100
  end

  test "5.4 after a short commit nobody is waited for", %{shard: shard} do
    start_batcher(shard)
    assert {:done, _} = Batcher.write(shard, "p", {:a}, 1)
    %{pid: committer} = next_commit(shard)
    # Some of them are long, on a machine that does other things as well.
    counts =
      for n <- 1..50 do
        length(looks(committer, fn -> Batcher.write(shard, "p", {:set, n}, 1) end))
      end

    assert Enum.count(counts, &(&1 == 0)) > 10
  end

  # When a committer looked how many have written again, in microseconds, until it is done with its batch.
  defp looks(committer, fun) do
    for {function, arity} <- [gathered: 1, take: 1],
        do: :erlang.trace_pattern({Native, function, arity}, true, [:global])

    :erlang.trace(committer, true, [:call, :monotonic_timestamp])
    fun.()
    looks = looks_until_next(committer, [])
    :erlang.trace(committer, false, [:call])
    looks
  end

  defp looks_until_next(committer, looks) do
    receive do
      {:trace_ts, ^committer, :call, {Native, :gathered, _}, at} ->
        at = System.convert_time_unit(at, :native, :microsecond)
        looks_until_next(committer, [at | looks])

      {:trace_ts, ^committer, :call, {Native, :take, _}, _at} ->
        Enum.reverse(looks)
    after
      5_000 -> flunk("the committer did not come to the end of its batch")
    end
  end
end
