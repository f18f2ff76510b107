# What flush and stop wait for after a restart: clause 11.1 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section11LifeTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  # A commit in lane "p" that hangs, though the shard has been stopped and started again.
  setup %{shard: shard} do
    start_alone(shard, drain_timeout: 0)
    backend(shard, [:block, :reply])
    hanging = occupy(shard, "p")
    assert Batcher.stop(shard) == :ok
    start_alone(shard)
    %{hanging: hanging}
  end

  test "11.1 flush does not wait for a commit of a life before", %{shard: shard, hanging: hanging} do
    assert Batcher.flush(shard, 5_000) == :ok
    assert Batcher.write(shard, "q", {:b}, 1) == {:done, {:b}}
    assert Batcher.flush(shard, 5_000) == :ok
    release(hanging)
    assert await_reply(hanging.tag) == {:done, {:set, 0}}
  end

  test "11.1, 4.2 nor does it take the room of this life's commits", context do
    %{shard: shard, hanging: hanging} = context
    assert Batcher.stop(shard) == :ok
    start_alone(shard, max_in_flight: 1)
    assert Batcher.write(shard, "q", {:b}, 1) == {:done, {:b}}
    assert Batcher.flush(shard, 5_000) == :ok
    release(hanging)
    assert await_reply(hanging.tag) == {:done, {:set, 0}}
  end

  test "11.1 nor does stop", %{shard: shard, hanging: hanging} do
    stop = call_async(fn -> Batcher.stop(shard) end)
    assert await(stop) == :ok
    release(hanging)
    assert await_reply(hanging.tag) == {:done, {:set, 0}}
  end

  test "11.1 they wait for what was accepted in this life, in that lane as well", context do
    %{shard: shard, hanging: hanging} = context
    later = queue(shard, "p", {:later})
    assert {:error, {:timeout, _}} = Batcher.flush(shard, 20)
    stop = call_async(fn -> Batcher.stop(shard) end)
    refute_done(stop)
    release(hanging)
    assert await(later) == {:done, {:later}}
    assert await(stop) == :ok
  end
end
