# More lanes than may be in flight at once, by a great deal: clauses 4.2 and 11.1 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section04ManyLanesTest do
  # It counts the processes of the VM.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @namespaces 10_000
  @in_flight 256
  # Committers that rest, and what the VM starts on its own.
  @few 20
  # Lanes that are kept for their next write, the hot ones included.
  @kept 1_100
  # A commit takes some ms, as with a disk: so that others become due meanwhile.
  @commit_ms 3

  setup %{shard: shard} do
    most = :atomics.new(1, [])

    backend(
      shard,
      {:run,
       fn function, list ->
         note_most(most, :erlang.system_info(:process_count))

         receive do
         after
           @commit_ms -> {:ok, TestBackend.replies(function, list)}
         end
       end}
    )

    %{most: most, before: :erlang.system_info(:process_count)}
  end

  test "4.2, 11.1 ten thousand namespaces: a flush answers all, with few processes", context do
    %{shard: shard, most: most, before: before} = context
    owner = start_batcher(shard)

    # Twice: what the first round leaves behind meets the second.
    for round <- 1..2 do
      tags =
        for n <- 1..@namespaces, do: raw(shard, "namespace #{n}", {:set, round, n}, long_ms())

      wait_queued(shard, "namespace #{@namespaces}", 1)
      assert map_size(Batcher.snapshot(shard).slots) == @namespaces
      assert Batcher.flush(shard) == :ok

      # All of them have been answered by now, each with its own.
      replies = for {tag, {:done, {:set, ^round, n}}} <- mailbox(), into: %{}, do: {tag, n}
      assert replies == tags |> Enum.with_index(1) |> Map.new()
      forget()

      assert :atomics.get(most, 1) < before + @in_flight + @few
      assert length(committers(owner)) <= @in_flight + 2
      assert Process.whereis(Batcher.name(shard)) == owner
      assert Batcher.snapshot(shard) == empty()
      assert length(Batcher.Native.lanes(shard)) <= @kept
    end

    {:memory, bytes} = Process.info(owner, :memory)
    assert bytes < 1_000_000
  end

  test "4.2, 5.2 ten thousand windows that end together", context do
    %{shard: shard, most: most, before: before} = context
    owner = start_batcher(shard)
    tags = for n <- 1..@namespaces, do: raw(shard, "namespace #{n}", {:set, n}, 1)
    for {tag, n} <- Enum.with_index(tags, 1), do: assert(await_reply(tag) == {:done, {:set, n}})
    wait_idle(shard)
    assert :atomics.get(most, 1) < before + @in_flight + @few
    assert Process.whereis(Batcher.name(shard)) == owner
    assert length(Batcher.Native.lanes(shard)) <= @kept
  end

  test "4.2, 10.4 ten thousand namespaces, and the owner is killed", context do
    %{shard: shard, most: most, before: before} = context
    owner = start_batcher(shard)
    tags = for n <- 1..@namespaces, do: raw(shard, "namespace #{n}", {:set, n}, long_ms())
    wait_queued(shard, "namespace #{@namespaces}", 1)
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    assert map_size(Batcher.snapshot(shard).slots) == @namespaces
    assert Batcher.flush(shard) == :ok
    replies = for {tag, {:done, {:set, n}}} <- mailbox(), into: %{}, do: {tag, n}
    assert replies == tags |> Enum.with_index(1) |> Map.new()
    assert :atomics.get(most, 1) < before + @in_flight + @few
  end

  test "4.2, 11.3 ten thousand namespaces, and the batcher is stopped", context do
    %{shard: shard, most: most, before: before} = context
    start_alone(shard)
    tags = for n <- 1..@namespaces, do: raw(shard, "namespace #{n}", {:set, n}, long_ms())
    wait_queued(shard, "namespace #{@namespaces}", 1)
    assert Batcher.stop(shard) == :ok
    replies = for {tag, {:done, {:set, n}}} <- mailbox(), into: %{}, do: {tag, n}
    assert replies == tags |> Enum.with_index(1) |> Map.new()
    assert :atomics.get(most, 1) < before + @in_flight + @few
    assert Batcher.snapshot(shard) == nil
  end

  defp empty, do: %{slots: %{}, batch_slot: nil, put_slot: nil, delete_slot: nil, in_flight: %{}}

  defp note_most(most, count) do
    before = :atomics.get(most, 1)

    if count > before and :atomics.compare_exchange(most, 1, before, count) != :ok,
      do: note_most(most, count)
  end

  defp forget do
    receive do
      _any -> forget()
    after
      0 -> :ok
    end
  end
end
