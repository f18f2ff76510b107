defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section09CommitterDeathTest do
  # Contract 9.5: the committing process is killed.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  defp put(i), do: {:put, "k#{i}", "v", 0}

  test "9.5 the callers of the batch get the reason and the lane goes on", c do
    start_batcher(c.shard)
    backend(c.shard, [:block, :reply])
    first = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    second = call_async(fn -> Batcher.write(c.shard, "a", put(2), 1) end)
    wait_queued(c.shard, "a", 1)
    Process.exit(commit.pid, :kill)
    assert await(first) == {:error, {:backend_exit, :killed}}
    assert await(second) == {:done, {"k2", "v", 0}}
    assert next_commit(c.shard).list == [{"k2", "v", 0}]
    assert Batcher.flush(c.shard) == :ok
    refute_commit(c.shard)
  end

  test "9.5 hot lanes, call aliases and flush hear of it too", c do
    start_batcher(c.shard)
    backend(c.shard, :block)
    token = TestGate.token()
    alias_ref = :erlang.alias()
    from = {self(), [:alias | alias_ref]}
    assert Batcher.write_put_batch_async(c.shard, [{"k", "v", 0}], from, token) == :ok
    commit = next_commit(c.shard)
    flush = call_async(fn -> Batcher.flush(c.shard) end)
    Process.exit(commit.pid, :oops)
    # It traps exits: only the backend's own end, or a kill, ends it.
    Process.exit(commit.pid, :kill)
    tag = [:alias | alias_ref]
    assert_receive {^tag, {:error, {:backend_exit, :killed}}}, 5_000
    assert await(flush) == :ok
    assert_received {:left, ^token, _}
  end

  test "9.5 an idle committer that is killed is replaced when it is needed", c do
    owner = start_batcher(c.shard)
    committers = committers(owner)
    assert committers != []
    Enum.each(committers, &Process.exit(&1, :kill))
    wait_until(fn -> not Enum.any?(committers, &(&1 in committers(owner))) end)
    :sys.get_state(owner)
    for i <- 1..20, do: assert({:done, _} = Batcher.write(c.shard, "a#{i}", put(i), 1))
  end

  test "9.5 whoever is in the batch is answered, call aliases before plain tags", c do
    start_batcher(c.shard, hot_batch_window_ms: 60_000)
    backend(c.shard, :block)
    tag = [:alias | :erlang.alias()]
    :ok = Batcher.write_put_batch_async(c.shard, [{"k", "v", 0}], {self(), tag})
    :ok = Batcher.write_put_batch_async(c.shard, [{"l", "v", 0}], {self(), :plain})
    flush = call_async(fn -> Batcher.flush(c.shard) end)
    %{pid: committer} = next_commit(c.shard)
    Process.exit(committer, :kill)
    assert await_reply(tag) == {:error, {:backend_exit, :killed}}
    assert await_reply(:plain) == {:error, {:backend_exit, :killed}}
    assert await(flush) == :ok
  end

  test "9.5, 11.1 the lane is busy until everybody in the batch is answered", c do
    owner = start_batcher(c.shard)
    backend(c.shard, :block)
    tag = [:alias | :erlang.alias()]
    :ok = Batcher.write_put_batch_async(c.shard, [{"k", "v", 0}], {self(), tag})
    %{pid: committer} = next_commit(c.shard)
    others = committers(owner) -- [committer]
    Enum.each(others, &:erlang.suspend_process/1)
    flushed = make_ref()
    Batcher.Native.flush(c.shard, flushed)
    Process.exit(committer, :kill)
    wait_until(fn -> committer not in committers(owner) end)
    :sys.get_state(owner)
    refute_received _reply_or_flush
    assert [{:put_batch, reference}] = Map.to_list(Batcher.snapshot(c.shard).in_flight)
    assert is_reference(reference)
    Enum.each(others, &:erlang.resume_process/1)
    assert await_reply(tag) == {:error, {:backend_exit, :killed}}
    assert await_reply(flushed) == :ok
  end

  test "4.2 a caller killed while its long list is queued leaves no lane in flight", c do
    start_batcher(c.shard, hot_batch_max: 0)
    backend(c.shard, {:run, fn _function, list -> {:ok, list} end})
    keys = for n <- 1..20_000, do: {n, "key"}

    for _ <- 1..100 do
      caller = spawn(fn -> Batcher.write_delete_batch(c.shard, keys) end)
      for _ <- 1..:rand.uniform(400), do: :erlang.yield()
      Process.exit(caller, :kill)
      await_death(caller)
      assert Batcher.flush(c.shard, 4_000) == :ok
    end
  end

  test "9.5 a committer that another owner had started is watched by the present one", c do
    owner = start_batcher(c.shard)
    late = spawn(Ferricstore.Raft.WARaftBackend.Batcher.Committer, :init, [c.shard, nil])
    wait_until(fn -> owner in elem(Process.info(late, :links), 1) end)
  end

  test "9.5 killed again and again: nobody hangs, nothing runs twice", c do
    start_batcher(c.shard)
    test = self()

    backend(
      c.shard,
      {:run,
       fn _function, list ->
         send(test, {:ran, self(), list})
         if :rand.uniform(4) == 1, do: Process.exit(self(), :kill)
         {:ok, Enum.map(list, &{:done, &1})}
       end}
    )

    callers =
      for i <- 1..50,
          do:
            call_async(fn ->
              for j <- 1..20,
                  do:
                    {"#{i}-#{j}",
                     Batcher.write(c.shard, "p#{rem(i, 5)}", {:put, "#{i}-#{j}", "v", 0}, 1)}
            end)

    results = callers |> Task.await_many(30_000) |> List.flatten()
    assert Batcher.flush(c.shard) == :ok
    runs = for {key, _, _} <- ran([]), do: key
    assert runs == Enum.uniq(runs)

    for {key, result} <- results do
      case result do
        {:done, {^key, "v", 0}} -> assert key in runs
        {:error, {:backend_exit, :killed}} -> :ok
      end
    end
  end

  for options <- [
        [],
        [max_in_flight: 1],
        [max_in_flight: 2, namespace_batch_max: 3, hot_batch_max: 3]
      ] do
    @options options

    test "9.5, 7.4 killed by others at any moment, with #{inspect(options)}: one reply each, nothing runs twice",
         c do
      %{shard: shard} = c
      owner = start_batcher(shard, @options)
      test = self()

      backend(
        shard,
        {:run,
         fn function, list ->
           send(test, {:ran, self(), list})
           {:ok, TestBackend.replies(function, list)}
         end}
      )

      killer = start_killing(owner)

      callers =
        for n <- 1..30,
            do: call_async(fn -> {for(m <- 1..60, do: any_write(shard, n, m)), later(shard)} end)

      {results, later} = callers |> Task.await_many(60_000) |> Enum.unzip()
      # Nobody has got more than one.
      assert Enum.concat(later) == []
      assert stop_killing(killer) > 0
      assert Batcher.flush(shard) == :ok
      runs = ran([])
      assert runs == Enum.uniq(runs)
      runs = MapSet.new(runs)

      for {item, outcome} <- Enum.concat(results) do
        case outcome do
          {:error, {:backend_exit, :killed}} -> :ok
          {:done, ^item} -> assert item in runs
          {:ok, [{:done, ^item}]} -> assert item in runs
        end
      end

      # Every lane goes on.
      wait_idle(shard)

      for n <- 0..6 do
        {item, outcome} = any_write(shard, n, 0)
        assert outcome in [{:done, item}, {:ok, [{:done, item}]}]
      end

      assert Process.whereis(Batcher.name(shard)) == owner
    end
  end

  # What was written, and what came of it.
  defp any_write(shard, n, m) do
    id = {n, m, make_ref()}

    case rem(n + m, 7) do
      0 ->
        {{id, "v", 0}, Batcher.write_put_batch(shard, [{id, "v", 0}])}

      1 ->
        {id, Batcher.write_delete_batch(shard, [id])}

      2 ->
        {{:set, id}, Batcher.write_batch(shard, [{:set, id}])}

      3 ->
        {id, by_tag({self(), id}, &Batcher.write_delete_batch_async(shard, [id], &1))}

      4 ->
        {id, by_tag({:erlang.alias(), id}, &Batcher.write_delete_batch_async(shard, [id], &1))}

      p ->
        {{:set, id}, Batcher.write(shard, "p#{p}", {:set, id}, 1)}
    end
  end

  # What reaches a caller that has all its replies, until everything is answered.
  defp later(shard) do
    assert Batcher.flush(shard) == :ok
    mailbox()
  end

  defp by_tag({_to, tag} = from, write) do
    :ok = write.(from)
    await_reply(tag)
  end

  defp ran(lists) do
    receive do
      {:ran, _pid, list} -> ran([list | lists])
    after
      0 -> List.flatten(lists)
    end
  end
end
