# Whom a commit of several lanes answers, with what, and what becomes of it when its committer is killed: contract 4.4,
# 9.5.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section04TogetherTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @batch :__commit_batch_direct__
  # More words, and more bytes in one piece, than a scheduler copies.
  @long_list 20_000
  @long_binary 1_000_000

  # A commit is in flight, so that what is queued leaves together when it ends.
  defp busy(shard, opts \\ []) do
    start_batcher(shard, [commit_scope: :shard] ++ opts)
    backend(shard, [:block, :reply])
    occupy(shard, "first")
  end

  # The test is owner and committer itself.
  test "4.4 prefixes that are long together are copied on a dirty scheduler", %{shard: shard} do
    committer = own_and_commit(shard, commit_scope: :shard)
    # None by itself.
    prefixes = for n <- 1..20, do: String.duplicate("#{rem(n, 10)}", 60_000 + n)

    for prefix <- prefixes,
        do: :queued = Native.offer(shard, prefix, {:a}, 1, 60_000, make_ref(), nil, nil)

    Native.flush(shard, make_ref())
    assert Native.take(committer) == :large
    assert Native.take_large(committer) == :sent

    taken =
      for _each <- prefixes do
        assert_receive {{^committer, _name, prefix, _function}, _entries, _info}
        prefix
      end

    assert taken == prefixes
    assert Native.answer(committer, :error, :done, false) == :done
    Native.leave(committer)
    Native.close(shard)
  end

  test "3.3, 4.4 aliases, names and pids in several lanes of one commit", %{shard: shard} do
    first = busy(shard)
    name = :"together_#{shard}"
    Process.register(self(), name)

    froms =
      for to <- [self(), :erlang.alias(), name, {name, node()}],
          lane <- [:put_batch, :delete_batch, :batch, :single] do
        from = {to, {lane, make_ref()}}

        assert cast_from(
                 shard,
                 lane,
                 item(if(lane == :single, do: :batch, else: lane)),
                 from,
                 nil
               ) == :ok

        {from, lane}
      end

    given_up = :erlang.alias()
    :ok = cast_from(shard, :put_batch, [{"k0", "v", 0}], {given_up, :nobody}, nil)
    :erlang.unalias(given_up)
    call_alias = [:alias | :erlang.alias()]
    :ok = cast_from(shard, :delete_batch, ["k0"], {self(), call_alias}, nil)
    task = queue(shard, "a", {:set, 1})
    release(first)
    commit = next_commit(shard)
    assert commit.function == @batch
    assert length(commit.list) == length(froms) + 3

    for {{_to, tag}, lane} <- froms do
      expected =
        case lane do
          :put_batch -> {:ok, [{:done, {:put, "k0", "v", 0}}]}
          :delete_batch -> {:ok, [{:done, {:delete, "k0"}}]}
          :batch -> {:ok, [{:done, {:set, 0}}]}
          :single -> {:done, {:set, 0}}
        end

      assert await_reply(tag) == expected
    end

    assert await_reply(call_alias) == {:ok, [{:done, {:delete, "k0"}}]}
    assert await(task) == {:done, {:set, 1}}
    assert await_reply(first.tag) == {:done, {:set, 0}}
    wait_idle(shard)
    assert mailbox() == []
  end

  test "4.4 large lists, terms and binaries in some lanes of several", %{shard: shard} do
    first = busy(shard, hot_batch_max: :infinity)
    entries = for n <- 1..@long_list, do: {"key #{n}", "value", n}
    keys = for n <- 1..@long_list, do: "key #{n}"
    deep = {:set, Enum.to_list(1..@long_list)}
    big = {:set, :binary.copy(<<7>>, @long_binary)}
    counted = {:delete_batch, keys}

    tasks =
      for {lane, item} <- [
            {"a", {:set, 1}},
            {:put_batch, entries},
            {"b", deep},
            {:delete_batch, keys},
            {"c", big},
            {:batch, [counted, {:set, 2}]},
            {"a", counted},
            {"d", {:set, 3}}
          ],
          do: queue(shard, lane, item)

    release(first)
    commit = next_commit(shard)
    assert commit.function == @batch
    [a, puts, b, deletes, c, generic, list_of_a, d] = Enum.map(tasks, &await/1)
    assert [a, b, c, d] == for(command <- [{:set, 1}, deep, big, {:set, 3}], do: {:done, command})
    assert puts == {:ok, for({k, v, at} <- entries, do: {:done, {:put, k, v, at}})}
    assert deletes == {:ok, for(key <- keys, do: {:done, {:delete, key}})}
    assert list_of_a == {:ok, for(key <- keys, do: {:done, key})}
    assert generic == {:ok, for(key <- keys, do: {:done, key}) ++ [{:done, {:set, 2}}]}
    refute_commit(shard)
    assert Batcher.write(shard, "a", {:set, 9}, 1) == {:done, {:set, 9}}
  end

  test "9.3, 4.4 one large reply goes to all of several lanes", %{shard: shard} do
    first = busy(shard)
    reason = {:error, Enum.to_list(1..@long_list)}
    backend(shard, {:return, reason})

    tasks =
      for n <- 1..50, do: call_async(fn -> Batcher.write(shard, "lane #{n}", {:set, n}, 50) end)

    Enum.each(tasks, &wait_waiting/1)
    release(first)
    assert Enum.map(tasks, &await/1) == List.duplicate(reason, 50)
  end

  test "4.4 two thousand lanes, five hundred in a commit: each gets its own reply", c do
    %{shard: shard} = c
    first = busy(shard)
    count = 2_000

    tasks =
      for n <- 1..count,
          do: call_async(fn -> Batcher.write(shard, "lane #{n}", {:set, n}, 50) end)

    wait_until(fn -> map_size(Batcher.snapshot(shard).slots) == count end)
    release(first)
    lists = for _ <- 1..4, do: next_commit(shard).list
    assert Enum.map(lists, &length/1) == [500, 500, 500, 500]
    assert lists |> Enum.concat() |> Enum.sort() == for(n <- 1..count, do: {:set, n})
    for {task, n} <- Enum.with_index(tasks, 1), do: assert(await(task) == {:done, {:set, n}})
    refute_commit(shard)
    wait_idle(shard)
  end

  for options <- [
        [commit_scope: :shard],
        [commit_scope: :shard, max_in_flight: 3, namespace_batch_max: 3, hot_batch_max: 20],
        [commit_scope: :shard, pacing: :auto],
        [commit_scope: :lane, pacing: :auto]
      ] do
    @options options

    test "9.5, 7.4 committers are killed at any moment, with #{inspect(options)}: one reply each, nothing runs twice",
         context do
      %{shard: shard} = context
      owner = start_batcher(shard, @options)
      test = self()

      backend(
        shard,
        {:run,
         fn function, list ->
           send(test, {:ran, list})
           {:ok, TestBackend.replies(function, list)}
         end}
      )

      killer = start_killing(owner)

      callers =
        for n <- 1..30 do
          call_async(fn ->
            outcomes = for m <- 1..60, do: any_write(shard, n, m)
            assert Batcher.flush(shard) == :ok
            # Nobody gets more than one.
            assert mailbox() == []
            outcomes
          end)
        end

      outcomes = callers |> Task.await_many(60_000) |> Enum.concat()
      assert stop_killing(killer) > 0
      assert Batcher.flush(shard) == :ok
      runs = ran([])
      assert runs == Enum.uniq(runs)
      runs = MapSet.new(runs)

      for {id, outcome} <- outcomes do
        unless outcome == {:error, {:backend_exit, :killed}} do
          assert id_of(outcome) == id
          assert id in runs
        end
      end

      wait_idle(shard)
      assert Process.whereis(Batcher.name(shard)) == owner
    end
  end

  # Whose write it was, and what came of it.
  defp any_write(shard, n, m) do
    id = "#{n} #{m} #{inspect(make_ref())}"

    case rem(n + m, 9) do
      0 -> {id, Batcher.write_put_batch(shard, [{id, "v", 0}])}
      1 -> {id, Batcher.write_delete_batch(shard, [id])}
      2 -> {id, Batcher.write_batch(shard, [{:set, id}])}
      3 -> {id, by_tag(shard, :delete_batch, [id], {self(), make_ref()})}
      4 -> {id, by_tag(shard, :put_batch, [{id, "v", 0}], {:erlang.alias(), make_ref()})}
      5 -> {id, by_tag(shard, :delete_batch, [id], {self(), [:alias | :erlang.alias()]})}
      p -> {id, Batcher.write(shard, "p#{p}", {:set, id}, 1)}
    end
  end

  defp by_tag(shard, lane, items, {_to, tag} = from) do
    :ok = cast_from(shard, lane, items, from, nil)
    await_reply(tag)
  end

  defp id_of({:ok, [reply]}), do: id_of(reply)
  defp id_of({:done, written}), do: id_of(written)
  defp id_of({:set, id}), do: id
  defp id_of({:delete, id}), do: id
  defp id_of({:put, id, _value, _at}), do: id
  defp id_of({id, _value, _at}), do: id
  defp id_of(id) when is_binary(id), do: id

  defp ran(ids) do
    receive do
      {:ran, list} -> ran(Enum.map(list, &id_of/1) ++ ids)
    after
      0 -> ids
    end
  end
end
