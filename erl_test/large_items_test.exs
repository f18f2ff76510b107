# What is too large for a scheduler is copied and sent in other ways: nobody may notice.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.LargeItemsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  @long_ms 60_000
  @items 40_000
  @parts 1_000_000

  setup %{shard: shard} do
    put_env(:waraft_generic_batch_window_ms, @long_ms)
    put_env(:waraft_hot_batch_window_ms, @long_ms)
    start_batcher(shard, hot_batch_max: :infinity)
    :ok
  end

  # Values that stand outside the heap.
  defp puts(name, count),
    do: for(i <- 1..count//1, do: {"#{name} #{i}", String.duplicate("#{i}", 100), i})

  # What is too long to be shown where it differs.
  defp same?(left, right), do: left == right

  defp forget_all do
    receive do
      _any -> forget_all()
    after
      0 -> :ok
    end
  end

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

  test "3.3, 8 a tag of a million parts comes back as it is, in the order of the batch",
       context do
    %{shard: shard} = context
    echo(shard)
    test = self()
    name = :"large tags #{shard}"
    Process.register(test, name)
    large = fn n -> {n, List.to_tuple(Enum.to_list(1..@parts))} end
    called = fn n -> [:alias | n] end

    # Twice: what is left of the first batch is used for the second.
    for round <- 1..2 do
      froms = [
        {test, :first},
        {test, large.(1)},
        {test, :between},
        {:erlang.alias(), large.(2)},
        {:erlang.alias(), :by_alias},
        {test, called.(:erlang.alias())},
        {test, [called.(:erlang.alias()) | large.(3)]},
        {name, large.(4)},
        {{name, node()}, :by_name},
        {test, large.(5)},
        {test, :last}
      ]

      # Some callers of their own among them.
      tasks =
        for {from, n} <- Enum.with_index(froms) do
          :ok = Batcher.write_put_batch_async(shard, [{round, n}], from)
          task = call_async(fn -> Batcher.write_put_batch(shard, [{:task, n}]) end)
          wait_queued(shard, :put_batch, 2 * n + 2)
          task
        end

      if round == 1 do
        shown = for {from, [{1, _}]} <- queued_slot(shard, :put_batch).groups, do: from
        assert same?(shown, froms)
      end

      assert Batcher.flush(shard) == :ok
      replies = for {tag, {:ok, [{^round, n}]}} <- mailbox(), do: {tag, n}
      assert same?(replies, for({{_to, tag}, n} <- Enum.with_index(froms), do: {tag, n}))
      for {task, n} <- Enum.with_index(tasks), do: assert(await(task) == {:ok, [{:task, n}]})
      forget_all()
    end
  end

  test "3.3, 9.3 a tag of a million parts, and all callers get the same term", %{shard: shard} do
    backend(shard, {:return, :no_quorum})
    tag = {make_ref(), List.to_tuple(Enum.to_list(1..@parts))}
    froms = [{self(), :small}, {self(), tag}, {:erlang.alias(), tag}, {self(), :last}]
    for from <- froms, do: :ok = Batcher.write_delete_batch_async(shard, ["k"], from)
    assert Batcher.flush(shard) == :ok
    replies = for {tag, :no_quorum} <- mailbox(), do: tag
    assert same?(replies, [:small, tag, tag, :last])
  end

  test "9.5, 10.4 a tag of a million parts, and the write comes to nothing" do
    tag = {make_ref(), List.to_tuple(Enum.to_list(1..@parts))}
    froms = [{self(), tag}, {self(), :small}, {:erlang.alias(), tag}]

    for {ending, reply} <- [
          committer: {:error, {:backend_exit, :killed}},
          owner: {:error, :batcher_down}
        ] do
      shard = new_shard()
      owner = start_alone(shard, adoption_timeout: 0)
      backend(shard, :block)
      for from <- froms, do: :ok = Batcher.write_delete_batch_async(shard, ["k"], from)

      case ending do
        :committer ->
          Batcher.Native.flush(shard, make_ref())
          Process.exit(next_commit(shard).pid, :kill)

        :owner ->
          Process.exit(owner, :kill)
      end

      wait_until(fn -> length(for {_tag, ^reply} <- mailbox(), do: :told) == 3 end)
      tags = for {tag, ^reply} <- mailbox(), do: tag
      assert Enum.count(tags, &same?(&1, tag)) == 2
      assert :small in tags
      forget_all()
    end
  end

  test "4.1, 4.3 prefixes of 16 MB", %{shard: shard} do
    echo(shard)
    attach_telemetry(shard)
    prefix = :binary.copy("p", 16_000_000)
    # The same but for its last byte, and its length.
    others = [binary_part(prefix, 0, 15_999_999) <> "q", prefix <> "p"]

    for round <- 1..2 do
      tasks =
        for n <- 1..3, prefix <- [prefix | others] do
          command = {:set, round, n, byte_size(prefix), :binary.last(prefix)}
          task = call_async(fn -> Batcher.write(shard, prefix, command, @long_ms) end)
          wait_queued(shard, prefix, n)
          {task, command}
        end

      assert same?(
               Enum.sort([prefix | others]),
               Enum.sort(Map.keys(Batcher.snapshot(shard).slots))
             )

      assert Batcher.flush(shard) == :ok
      for {task, command} <- tasks, do: assert(await(task) == command)

      lanes = for _ <- 1..3, do: next_commit(shard).list

      for list <- lanes do
        assert [{:set, ^round, 1, size, last}, {:set, _, 2, size, last}, {:set, _, 3, size, last}] =
                 list
      end

      assert lanes |> Enum.uniq() |> length() == 3

      told =
        for _ <- 1..3 do
          assert_receive {:telemetry, [_, _, _, :slot_flush], %{batch_size: 3}, %{prefix: told}}
          told
        end

      assert same?(Enum.sort(told), Enum.sort([prefix | others]))
    end

    wait_idle(shard)
  end

  test "3.7 who has given up gets nothing of a large batch, the others do", %{shard: shard} do
    put_call_timeout(shard, -@long_ms)
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
