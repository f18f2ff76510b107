# What is too large for a scheduler is copied and sent in other ways: nobody may notice.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.LargeItemsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  @long_ms 60_000
  @items 40_000

  setup %{shard: shard} do
    put_env(:waraft_generic_batch_window_ms, @long_ms)
    put_env(:waraft_hot_batch_window_ms, @long_ms)
    start_batcher(shard, hot_batch_max: :infinity)
    :ok
  end

  # Values that stand outside the heap.
  defp puts(name, count),
    do: for(i <- 1..count//1, do: {"#{name} #{i}", String.duplicate("#{i}", 100), i})

  defp spin_us(us), do: spin_until(System.monotonic_time(:microsecond) + us)

  defp spin_until(until),
    do: if(System.monotonic_time(:microsecond) < until, do: spin_until(until))

  defp echo(shard), do: backend(shard, {:run, fn _function, list -> {:ok, list} end})

  test "7.3, 9.1 groups of all sizes: in order, and each gets its slice", %{shard: shard} do
    echo(shard)
    sizes = [1, 100, 1, @items, 0, 3, 100, 100, @items, 2_000, @items]
    groups = for {size, n} <- Enum.with_index(sizes), do: puts(n, size)

    tasks =
      for {group, n} <- Enum.with_index(groups, 1) do
        task = call_async(fn -> Batcher.write_put_batch(shard, group) end)
        wait_queued(shard, :put_batch, n)
        task
      end

    assert for({_from, list} <- queued_slot(shard, :put_batch).groups, do: list) == groups
    :ok = Batcher.flush(shard)
    assert next_commit(shard).list == Enum.concat(groups)
    for {task, group} <- Enum.zip(tasks, groups), do: assert(await(task) == {:ok, group})
  end

  test "4.3, 9.1 more groups with memory of their own than a scheduler sends at a stretch",
       context do
    %{shard: shard} = context
    echo(shard)

    # Twice: what is left of the first slot is used for the second.
    for round <- 1..2 do
      groups = for n <- 1..900, do: puts("#{round} #{n}", 1 + rem(n, 3) * 50)
      tags = for _ <- groups, do: make_ref()

      for {group, tag} <- Enum.zip(groups, tags),
          do: :ok = Batcher.write_put_batch_async(shard, group, {self(), tag})

      :ok = Batcher.flush(shard)
      assert next_commit(shard).list == Enum.concat(groups)
      for {group, tag} <- Enum.zip(groups, tags), do: assert(await_reply(tag) == {:ok, group})
    end
  end

  test "9.5 a committer that is killed while it sends a large reply: one reply, that or the error",
       c do
    %{shard: shard} = c
    test = self()
    # Takes a dirty scheduler milliseconds to copy.
    reply = Enum.to_list(1..300_000)

    backend(
      shard,
      {:run,
       fn _function, [_one] ->
         send(test, {:answers, self()})
         {:ok, [reply]}
       end}
    )

    owner = Process.whereis(Batcher.name(shard))

    outcomes =
      for n <- 1..40 do
        tag = make_ref()
        :ok = Batcher.write_put_batch_async(shard, [:one], {self(), tag})
        Batcher.flush(shard, 0)
        assert_receive {:answers, committer}, 5_000

        # Nobody goes on with the batch before the dead one has done what it was at: it copies, passes, and can't send.
        true = :erlang.suspend_process(owner)
        spin_us(n * 150)
        Process.exit(committer, :kill)
        spin_us(8_000)
        true = :erlang.resume_process(owner)
        outcome = await_reply(tag)
        assert outcome in [{:ok, [reply]}, {:error, {:backend_exit, :killed}}]
        # By then the owner has heard of the death, and the next batch is given to somebody else.
        assert is_map(:sys.get_state(owner))
        assert :ok = Batcher.flush(shard)
        refute_received {^tag, _}
        elem(outcome, 0)
      end

    # Some were killed in time.
    assert :error in outcomes
  end

  test "4.3, 9.1 commands of all kinds and sizes", %{shard: shard} do
    echo(shard)
    range = 1..@items

    commands = [
      {:small},
      {:set, Enum.to_list(range)},
      {:set, List.to_tuple(Enum.to_list(range))},
      {:set, Map.new(range, &{&1, "#{&1}"})},
      {:set, Enum.reduce(range, [], &{&1, &2})},
      {:set, Enum.reduce(range, [], &[&2 | &1])},
      {:set, Bitwise.bsl(1, 1_000_000), Bitwise.bsl(1, 63), -Bitwise.bsl(1, 64)},
      {:set, &Enum.at(Enum.to_list(range), &1), 0.5, self(), make_ref(), <<1::1>>},
      {:set, String.duplicate("x", 1_000_000)},
      {:small}
    ]

    tasks =
      for {command, n} <- Enum.with_index(commands, 1) do
        task = call_async(fn -> Batcher.write(shard, "lane", command, @long_ms) end)
        wait_queued(shard, "lane", n)
        task
      end

    assert queued_slot(shard, "lane").commands == commands
    :ok = Batcher.flush(shard)
    assert next_commit(shard).list == commands
    for {task, command} <- Enum.zip(tasks, commands), do: assert(await(task) == command)
  end

  test "the process that has committed a large batch holds nothing of it", %{shard: shard} do
    echo(shard)

    for list <- [puts("many", 5_000), [{"large", String.duplicate("v", 300_000), 0}]] do
      tag = make_ref()
      :ok = Batcher.write_put_batch_async(shard, list, {self(), tag})
      :ok = Batcher.flush(shard)
      assert await_reply(tag) == {:ok, list}
      committer = next_commit(shard).pid
      assert {:binary, []} = Process.info(committer, :binary)

      {_item, heap} = Process.info(committer, :garbage_collection_info)
      assert heap[:heap_size] + heap[:old_heap_size] + heap[:mbuf_size] < 1_000
    end
  end

  test "9.1 a command that counts other than 1 gets its slice, however long", %{shard: shard} do
    backend(shard, {:run, fn _function, [{:put_batch, list} | _] -> {:ok, list ++ [:small]} end})
    list = puts("a", @items)
    large = call_async(fn -> Batcher.write(shard, "lane", {:put_batch, list}, @long_ms) end)
    wait_queued(shard, "lane", 1)
    small = call_async(fn -> Batcher.write(shard, "lane", {:small}, @long_ms) end)
    wait_queued(shard, "lane", 2)
    :ok = Batcher.flush(shard)
    assert {await(large), await(small)} == {{:ok, list}, :small}
  end

  test "9.3 many callers get the same large term, by alias too", %{shard: shard} do
    result = {:error, puts("a", @items)}
    backend(shard, {:run, fn _function, _list -> result end})

    tasks =
      for n <- 1..6 do
        request = {:write, "lane", {:set, n}, @long_ms}

        task =
          call_async(fn ->
            if rem(n, 3) == 0,
              do: GenServer.call(Batcher.name(shard), request),
              else: Batcher.write(shard, "lane", {:set, n}, @long_ms)
          end)

        wait_queued(shard, "lane", n)
        task
      end

    :ok = Batcher.flush(shard)
    for task <- tasks, do: assert(await(task) == result)
  end

  test "3.7 who has given up gets nothing of a large batch, the others do", %{shard: shard} do
    put_call_timeout(-@long_ms)
    list = puts("a", @items)
    parent = self()

    # Gives up at once, and stays.
    spawn_link(fn ->
      catch_exit(Batcher.write_put_batch(shard, list))
      send(parent, {:gave_up, self()})
      receive do: (:look -> send(parent, {:mailbox, mailbox()}))
    end)

    assert_receive {:gave_up, pid}
    tag = make_ref()
    :ok = Batcher.write_put_batch_async(shard, list, {self(), tag})
    echo(shard)
    :ok = Batcher.flush(shard)
    assert await_reply(tag) == {:ok, list}
    send(pid, :look)
    assert_receive {:mailbox, []}
  end

  test "10.1 without a batcher a large write is committed in the caller" do
    shard = new_shard()
    echo(shard)
    assert Batcher.write_put_batch(shard, puts("a", @items)) == {:ok, puts("a", @items)}
    assert Batcher.write(shard, "lane", {:set, puts("a", @items)}, 1) == {:set, puts("a", @items)}
  end
end
