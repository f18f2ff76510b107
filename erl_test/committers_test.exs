# Processes that commit: how many there are, and what they wait for.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.CommittersTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

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
    test = self()

    # Of two callers one is late by some time, less than a committer waits. Without that wait they would write in turns.
    backend(
      shard,
      {:run,
       fn _function, list ->
         send(test, {:batch, length(list)})
         pause(4_000)
         {:ok, Enum.map(list, &{:done, &1})}
       end}
    )

    callers =
      for late_us <- [0, 50] do
        call_async(fn ->
          for n <- 1..60 do
            Batcher.write(shard, "p", {:set, n}, 20)
            pause(late_us)
          end
        end)
      end

    for caller <- callers, do: Task.await(caller, 30_000)
    together = for({:batch, 2} <- mailbox(), do: :together) |> length()
    assert together > 15
  end

  # Lets others run meanwhile.
  defp pause(us), do: pause_until(System.monotonic_time(:microsecond) + us)

  defp pause_until(until) do
    if System.monotonic_time(:microsecond) < until do
      :erlang.yield()
      pause_until(until)
    end
  end
end
