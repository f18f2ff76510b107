# Replies that only a process can send, and what becomes of them if that dies: contract 3.3.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section03ProxiedTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Committer, From, Native, Options}

  @writes 9

  setup c do
    {:ok, given} = Options.check([])
    {:ok, []} = Native.open(c.shard, Options.native(given, nil))
    on_exit(fn -> Native.close(c.shard) end)
    %{alias: :erlang.alias()}
  end

  test "3.3 a committer dies just before it sends those of its batch: the next one does", c do
    write(c)
    Native.flush(c.shard, make_ref())

    await_death(
      spawn(fn ->
        ref = Native.join(c.shard)
        :sent = Native.take(ref)
        assert_receive {{^ref, :commit, :put_batch, _function}, _entries, _info}
        :handed_over = Native.answer(ref, :slices, List.duplicate(:ok, @writes), false)
        assert {:own, [_ | _]} = Native.finish(ref)
      end)
    )

    Committer.start(c.shard, nil)
    assert replies() == for(n <- 1..@writes, do: {n, {:ok, [:ok]}})
    wait_idle(c.shard)
  end

  test "3.3 a committer dies with those of a shard that is closed: the next one sends the rest",
       c do
    write(c)
    test = self()

    first =
      spawn(fn ->
        ref = Native.join(c.shard)
        send(test, :joined)
        assert_receive :work, 5_000
        :deliver = Native.take(ref)
        for _ <- 1..3, do: own(ref)
        assert {:own, [_]} = Native.finish(ref)
      end)

    assert_receive :joined
    Native.close(c.shard)
    await_death(first)
    Committer.start(c.shard, nil)
    assert replies() == for(n <- 1..@writes, do: {n, {:error, :shutting_down}})
  end

  test "3.3 what two have been given to send, one of them sends", c do
    write(c)
    Native.flush(c.shard, make_ref())
    ref = Native.join(c.shard)
    :sent = Native.take(ref)
    assert_receive {{^ref, :commit, :put_batch, _function}, _entries, _info}
    :handed_over = Native.answer(ref, :slices, List.duplicate(:ok, @writes), false)
    {:own, proxied} = Native.finish(ref)
    {:own, ^proxied} = Native.finish(ref)
    assert Native.pass_finish(ref)
    refute Native.pass_finish(ref)
    assert Native.finish(ref) == :done
    assert From.pass(proxied, fn -> true end) == :ok
    assert length(replies()) == @writes
    assert From.pass(proxied, fn -> false end) == :ok
    assert Native.take(ref) == :rest
    refute_received {{:tag, _}, _}
  end

  defp own(ref) do
    {:own, proxied} = Native.finish(ref)
    From.pass(proxied, fn -> Native.pass_finish(ref) end)
  end

  defp write(c) do
    for n <- 1..@writes do
      from = {c.alias, {:tag, n}}
      :queued = Native.offer(c.shard, :put_batch, [{"k", "v", 0}], 1, 60_000, from, nil, nil)
    end
  end

  # All that come, in order.
  defp replies do
    for _ <- 1..@writes do
      assert_receive {{:tag, n}, reply}, 5_000
      {n, reply}
    end
  end
end
