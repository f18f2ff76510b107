# Whom a reply can go to: clause 3.3 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section03FromTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @lanes [:put_batch, :delete_batch, :batch, :single]
  @tags [
    plain: quote(do: make_ref()),
    list: quote(do: [:list, make_ref()]),
    tuple: quote(do: {__MODULE__, make_ref()})
  ]

  # Each sends a write with this `from`, for one reply.
  defp send_write(shard, {:async, lane}, from),
    do: assert(cast_from(shard, lane, [item(hot(lane)) |> hd()], from, nil) == :ok)

  defp send_write(shard, {:call, lane}, from) do
    request = {:"write_#{lane}", item(lane), 1}
    send(Batcher.name(shard), {:"$gen_call", from, request})
  end

  defp send_write(shard, {:cast, :single}, from),
    do: GenServer.cast(Batcher.name(shard), {:write_batch, item(:batch), 1, {:single, from}, nil})

  defp send_write(shard, {:cast, lane}, from),
    do: GenServer.cast(Batcher.name(shard), {:"write_#{lane}", item(lane), 1, from, nil})

  defp hot(:single), do: :batch
  defp hot(lane), do: lane

  defp expected(lane) do
    [reply] = for item <- item(hot(lane)), do: {:done, item}
    if lane == :single, do: reply, else: {:ok, [reply]}
  end

  defp ways do
    for(lane <- @lanes, do: {:async, lane}) ++
      for(lane <- [:put_batch, :delete_batch, :batch], do: {:call, lane}) ++
      for(lane <- @lanes, do: {:cast, lane})
  end

  for {kind, tag} <- @tags do
    test "3.3 an alias, #{kind} tags", %{shard: shard} do
      start_batcher(shard)

      for {_way, lane} = write <- ways() do
        tag = unquote(tag)
        alias_ref = :erlang.alias()
        send_write(shard, write, {alias_ref, tag})
        assert await_reply(tag) == expected(lane)
        assert :erlang.unalias(alias_ref)
      end

      assert Batcher.flush(shard) == :ok
      for _ <- ways(), do: next_commit(shard)
      assert mailbox() == []
    end

    test "3.3 an alias that is no longer active, #{kind} tags", %{shard: shard} do
      start_batcher(shard)
      backend(shard, :block)

      for write <- ways() do
        alias_ref = :erlang.alias()
        send_write(shard, write, {alias_ref, unquote(tag)})
        commit = next_commit(shard)
        :erlang.unalias(alias_ref)
        release(commit)
        assert Batcher.flush(shard) == :ok
      end

      assert mailbox() == []
    end

    test "3.3 a registered name, #{kind} tags", %{shard: shard} do
      start_batcher(shard)
      name = :"listener_#{shard}"
      Process.register(self(), name)

      for {_way, lane} = write <- ways(), to <- [name, {name, node()}] do
        tag = unquote(tag)
        send_write(shard, write, {to, tag})
        assert await_reply(tag) == expected(lane)
      end
    end

    test "3.3 a name that nobody has, #{kind} tags", %{shard: shard} do
      owner = start_batcher(shard)

      for write <- ways(), to <- [:nobody_at_all, {:nobody_at_all, node()}, {:a, :b@nowhere}] do
        send_write(shard, write, {to, unquote(tag)})
        %{pid: committer} = next_commit(shard)
        assert Batcher.flush(shard) == :ok
        assert Process.alive?(committer)
      end

      assert Process.whereis(Batcher.name(shard)) == owner
      assert mailbox() == []
    end
  end

  test "3.3 an alias in a batch with all other kinds: in queue order, one reply each", c do
    start_batcher(c.shard, hot_batch_window_ms: 60_000)
    name = :"listener_#{c.shard}"
    Process.register(self(), name)

    kinds = [
      fn tag -> {self(), tag} end,
      fn tag -> {:erlang.alias(), tag} end,
      fn tag -> {name, tag} end,
      fn tag -> {:erlang.alias(), tag} end,
      fn tag -> {self(), [tag]} end
    ]

    order =
      for n <- 1..400 do
        tag = {n, make_ref()}
        from = Enum.at(kinds, rem(n, 5)).(tag)
        assert Batcher.write_put_batch_async(c.shard, [n], from) == :ok
        elem(from, 1)
      end

    assert Batcher.flush(c.shard) == :ok
    assert next_commit(c.shard).list == Enum.to_list(1..400)

    for {tag, n} <- Enum.with_index(order, 1),
        do: assert(next_message() == {tag, {:ok, [{:done, n}]}})

    assert mailbox() == []
  end

  test "3.3 sync callers between aliases are answered, or told that they waited too long", c do
    start_batcher(c.shard, hot_batch_window_ms: 60_000)
    alias_ref = :erlang.alias()
    first = queue_alias(c.shard, alias_ref, 1)
    sync = queue(c.shard, :put_batch, [2])
    last = queue_alias(c.shard, alias_ref, 3)
    assert Batcher.flush(c.shard) == :ok
    assert await(sync) == {:ok, [{:done, 2}]}
    assert {await_reply(first), await_reply(last)} == {{:ok, [{:done, 1}]}, {:ok, [{:done, 3}]}}
  end

  test "3.3 aliases, and a committer that is killed: nobody hangs, nobody gets two replies", c do
    start_batcher(c.shard)
    aliases = for _ <- 1..300, do: :erlang.alias()

    for round <- 1..20 do
      backend(c.shard, [:block])
      tags = for {ref, n} <- Enum.with_index(aliases), do: queue_alias(c.shard, ref, n)
      %{pid: pid} = commit = next_commit(c.shard)
      release(commit)
      for _ <- 1..(round * 20), do: :erlang.yield()
      Process.exit(pid, :kill)
      backend(c.shard, :reply)
      for tag <- tags, do: await_reply(tag)
      assert Batcher.flush(c.shard) == :ok
      drop_commits(c.shard)
      assert mailbox() == []
    end
  end

  test "3.3 a long reply to an alias", %{shard: shard} do
    start_batcher(shard)
    list = Enum.to_list(1..30_000)
    tag = {__MODULE__, make_ref()}
    assert Batcher.write_put_batch_async(shard, list, {:erlang.alias(), tag}) == :ok
    assert await_reply(tag) == {:ok, Enum.map(list, &{:done, &1})}
  end

  test "3.3 an alias is told when nobody commits its write", %{shard: shard} do
    start_alone(shard, hot_batch_window_ms: 60_000, drain_timeout: 0)
    backend(shard, :block)
    first = queue_alias(shard, :erlang.alias(), 1)
    flush = call_async(fn -> Batcher.flush(shard) end)
    commit = next_commit(shard)
    queued = queue_alias(shard, :erlang.alias(), 2)
    assert Batcher.stop(shard) == :ok
    assert await_reply(queued) == {:error, :shutting_down}
    release(commit)
    assert await_reply(first) == {:ok, [{:done, 1}]}
    await(flush)
  end

  test "15 snapshot shows aliases as they came", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: 60_000)
    ref = :erlang.alias()
    tag = {__MODULE__, make_ref()}
    froms = [{ref, tag}, {self(), tag}, {:some_name, tag}, {self(), [:alias | ref]}]
    for from <- froms, do: Batcher.write_put_batch_async(shard, [1], from)
    assert for({from, _} <- queued_slot(shard, :put_batch).groups, do: from) == froms
  end

  defp queue_alias(shard, alias_ref, item) do
    tag = {__MODULE__, make_ref()}
    assert Batcher.write_put_batch_async(shard, [item], {alias_ref, tag}) == :ok
    tag
  end
end
