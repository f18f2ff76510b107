# Results: clauses 9.1 to 9.4 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section09ResultsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @hot [:batch, :put_batch, :delete_batch]

  for lane <- @hot do
    test "9.1 lane #{lane}: each group gets its slice", %{shard: shard} do
      lane = unquote(lane)
      start_batcher(shard)
      {first, tags} = batch(shard, lane, for(size <- [2, 0, 1, 3, 0], do: items(lane, size)))
      release(first, {:return, {:ok, [:own]}})
      assert await_reply(first.tag) == {:ok, [:own]}
      release(next_commit(shard), {:return, {:ok, [1, 2, 3, 4, 5, 6]}})

      assert Enum.map(tags, &await_reply/1) ==
               [{:ok, [1, 2]}, {:ok, []}, {:ok, [3]}, {:ok, [4, 5, 6]}, {:ok, []}]
    end
  end

  test "9.1 a slice has what its commands count, not how many they are", %{shard: shard} do
    start_batcher(shard)

    groups = [
      [{:put_batch, [1, 2]}],
      [{:a}, {:batch, [{:b}, {:delete_batch, [1, 2, 3]}]}],
      [{:batch, []}],
      [{:put_batch, :none}]
    ]

    {first, tags} = batch(shard, :batch, groups)
    release(first)
    release(next_commit(shard), {:return, {:ok, Enum.to_list(1..8)}})

    assert Enum.map(tags, &await_reply/1) ==
             [{:ok, [1, 2]}, {:ok, [3, 4, 5, 6, 7]}, {:ok, []}, {:ok, [8]}]
  end

  test "9.1 each caller of a namespace gets its bare element", %{shard: shard} do
    start_batcher(shard)
    replies = [:ok, nil, {:error, :wrong_type}, [1, 2], {:ok, [1]}, "text", %{a: 1}, 7]
    {first, tags} = batch(shard, "p", for(n <- 1..8, do: {n}))
    release(first)
    release(next_commit(shard), {:return, {:ok, replies}})
    assert Enum.map(tags, &await_reply/1) == replies
  end

  test "9.1 a command of a namespace that counts other than 1 gets its slice", %{shard: shard} do
    start_batcher(shard)

    commands = [
      {:a},
      {:put_batch, [1, 2]},
      {:batch, []},
      {:put_batch, [1]},
      {:batch, [{:b}, {:delete_batch, [1, 2]}]},
      {:delete_batch, []},
      {:c}
    ]

    {first, tags} = batch(shard, "p", commands)
    release(first)
    release(next_commit(shard), {:return, {:ok, Enum.to_list(1..8)}})

    assert Enum.map(tags, &await_reply/1) ==
             [1, {:ok, [2, 3]}, {:ok, []}, 4, {:ok, [5, 6, 7]}, {:ok, []}, 8]
  end

  test "9.1 errors inside the list stay in place", %{shard: shard} do
    start_batcher(shard)
    replies = [:ok, {:error, :wrong_type}, {:error, {:batch_result_mismatch, 1, 2}}, :ok]
    backend(shard, {:return, {:ok, replies}})
    for lane <- @hot, do: assert(write(shard, lane, items(lane, 4)) == {:ok, replies})
    assert Batcher.write(shard, "p", {:batch, [1, 2, 3, 4]}, 1) == {:ok, replies}
  end

  test "9.1 many callers, with slices of all lengths", %{shard: shard} do
    start_batcher(shard, hot_batch_max: :infinity)
    sizes = for n <- 1..1_500, do: if(rem(n, 300) == 0, do: 2_500, else: rem(n * n, 5))
    groups = for {size, n} <- Enum.with_index(sizes), do: for(m <- 1..size//1, do: {n, m})

    for lane <- @hot do
      {first, tags} = batch(shard, lane, groups)
      release(first)
      release(next_commit(shard))

      for {tag, group} <- Enum.zip(tags, groups),
          do: assert(await_reply(tag) == {:ok, for(item <- group, do: {:done, item})})
    end
  end

  test "9.1 many callers of a namespace, bare and sliced", %{shard: shard} do
    start_batcher(shard)
    sizes = for n <- 1..1_500, do: if(rem(n, 300) == 0, do: 2_500, else: rem(n, 4))
    commands = for {size, n} <- Enum.with_index(sizes), do: {:batch, List.duplicate({n}, size)}
    {first, tags} = batch(shard, "p", commands)
    release(first)
    release(next_commit(shard))

    for {tag, size, n} <- Enum.zip([tags, sizes, 0..1_499]) do
      reply = if size == 1, do: {:done, {n}}, else: {:ok, List.duplicate({:done, {n}}, size)}
      assert await_reply(tag) == reply
    end
  end

  for lane <- ["p" | @hot], wrong <- [[], [1], [1, 2], [1, 2, 3, 4]] do
    test "9.2 lane #{inspect(lane)}: #{length(wrong)} replies for 3", %{shard: shard} do
      start_batcher(shard)
      lane = unquote(lane)
      {first, tags} = batch(shard, lane, for(n <- 1..3, do: item(lane, n)))
      release(first)
      release(next_commit(shard), {:return, {:ok, unquote(wrong)}})
      mismatch = {:error, {:batch_result_mismatch, 3, unquote(length(wrong))}}
      assert Enum.map(tags, &await_reply/1) == [mismatch, mismatch, mismatch]
      goes_on(shard, lane)
    end
  end

  test "9.2 the expected number is that of the whole batch, counted by 6.2", %{shard: shard} do
    start_batcher(shard)
    {first, tags} = batch(shard, "p", [{:put_batch, [1, 2, 3]}, {:a}, {:batch, []}])
    release(first)
    release(next_commit(shard), {:return, {:ok, [1, 2, 3]}})
    mismatch = {:error, {:batch_result_mismatch, 4, 3}}
    assert Enum.map(tags, &await_reply/1) == List.duplicate(mismatch, 3)
  end

  test "9.2 replies for an empty group", %{shard: shard} do
    start_batcher(shard)
    backend(shard, {:return, {:ok, [1]}})
    mismatch = {:error, {:batch_result_mismatch, 0, 1}}
    for lane <- @hot, do: assert(write(shard, lane, []) == mismatch)
  end

  for term <- [
        :ok,
        nil,
        [],
        [1, 2, 3],
        {:error, :no_leader},
        {:error, {:not_leader, :node}},
        {:error},
        {:error, :a, :b},
        {:timeout, {:srv, :node}},
        {:ok, :no_list},
        {:ok, nil},
        {:ok, [1 | 2]},
        {:ok, [1, 2 | 3]},
        {:ok, [1, 2, 3], :more},
        {:direct, {:ok, [1, 2, 3]}},
        "text"
      ] do
    test "9.3 the backend returns #{inspect(term)}: every caller gets it", %{shard: shard} do
      start_batcher(shard)
      term = unquote(Macro.escape(term))

      for lane <- lanes() do
        {first, tags} = batch(shard, lane, for(n <- 1..3, do: item(lane, n)))
        release(first)
        release(next_commit(shard), {:return, term})
        assert Enum.map(tags, &await_reply/1) == [term, term, term]
        goes_on(shard, lane)
      end
    end
  end

  test "9.3 an improper list in the place of thousands of replies", %{shard: shard} do
    start_batcher(shard)
    improper = {:ok, Enum.to_list(1..2_999) ++ [3_000 | :end]}
    {first, tags} = batch(shard, "p", for(n <- 1..3_000, do: {n}))
    release(first)
    release(next_commit(shard), {:return, improper})
    for tag <- tags, do: assert(await_reply(tag) == improper)
  end

  @failures [
    {{:exit, :some_reason}, {:backend_exit, :some_reason}},
    {{:exit, :normal}, {:backend_exit, :normal}},
    {{:exit, :kill}, {:backend_exit, :kill}},
    {{:exit, :shutdown}, {:backend_exit, :shutdown}},
    {{:exit, {:noproc, {:gen, :call, []}}}, {:backend_exit, {:noproc, {:gen, :call, []}}}},
    {{:raise, :badarg}, {:backend_error, :error, :badarg}},
    {{:raise, {:badmatch, 1}}, {:backend_error, :error, {:badmatch, 1}}},
    {{:raise, %ArgumentError{message: "no"}},
     {:backend_error, :error, %ArgumentError{message: "no"}}},
    {{:throw, :value}, {:backend_error, :throw, :value}},
    {{:throw, {:ok, [1, 2, 3]}}, {:backend_error, :throw, {:ok, [1, 2, 3]}}}
  ]

  for {behaviour, reason} <- @failures do
    test "9.4 the backend fails: #{inspect(behaviour)}", %{shard: shard} do
      start_batcher(shard)
      error = {:error, unquote(Macro.escape(reason))}

      for lane <- lanes() do
        {first, tags} = batch(shard, lane, for(n <- 1..3, do: item(lane, n)))
        release(first)
        failing = next_commit(shard)
        release(failing, unquote(Macro.escape(behaviour)))
        assert Enum.map(tags, &await_reply/1) == [error, error, error]
        goes_on(shard, lane)
        assert Process.alive?(failing.pid)
      end
    end
  end

  test "9.4 what a failing backend leaves behind hurts nobody", %{shard: shard} do
    start_batcher(shard)

    litter = fn _, _ ->
      send(self(), {make_ref(), {:ok, [:late_reply]}})
      send(self(), {:"$gen_call", {self(), make_ref()}, :flush})
      spawn_link(fn -> exit(:boom) end)
      exit(:timeout)
    end

    for lane <- lanes(), _ <- 1..10 do
      backend(shard, [{:run, litter}, :reply])
      assert write(shard, lane, item(lane), 1) == {:error, {:backend_exit, :timeout}}
      assert write(shard, lane, item(lane), 1) |> own_reply?(lane)
    end
  end

  # A batch of these items behind one that is in flight: `{that commit, tags}`. It has to be released
  # first, and the next one blocks, too.
  defp batch(shard, lane, items) do
    backend(shard, :block)
    first = occupy(shard, lane)
    tags = for item <- items, do: raw(shard, lane, item, long_ms())
    wait_queued(shard, lane, length(items))
    {first, tags}
  end

  defp goes_on(shard, lane) do
    backend(shard, :reply)
    assert write(shard, lane, item(lane, 9), 1) |> own_reply?(lane, 9)
    assert next_commit(shard).list == listed(lane, item(lane, 9))
  end

  defp own_reply?(reply, lane, n \\ 0)
  defp own_reply?(reply, "p", n), do: reply == {:done, item("p", n)}
  defp own_reply?({:ok, [{:done, item}]}, lane, n), do: item(lane, n) == [item]

  defp items(lane, size), do: Enum.flat_map(1..size//1, &item(lane, &1))
end
