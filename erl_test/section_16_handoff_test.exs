# Tokens that have an owner, and the hook for deferred casts: clause 16.4 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section16HandoffTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.TransferGate

  @lanes [:put_batch, :delete_batch, :batch, :single]
  @shutting_down {:error, :shutting_down}

  setup do
    put_env(:waraft_backend_batcher_sync_gate, TransferGate)
  end

  test "16.4 without the hook nothing is handed over", %{shard: shard} do
    start_batcher(shard)

    for lane <- @lanes do
      token = TransferGate.token([])
      tag = cast(shard, lane, item(hot(lane)), token)
      assert_received {:left, ^token, pid} when pid == self()
      await_reply(tag)
    end

    refute_received {:transferred, _, _, _}
  end

  test "16.4 handed to the helper before the call returns, to the owner before it queues", c do
    owner = start_batcher(c.shard)
    defer()

    for lane <- @lanes do
      token = TransferGate.token([:ok, :ok])
      tag = cast(c.shard, lane, item(hot(lane)), token)
      assert_received {:transferred, ^token, helper, caller} when caller == self()
      assert_receive {:waraft_backend_batcher_cast_deferred, ref, ^helper}, 5_000
      refute_commit(c.shard, 0)
      send(helper, {ref, :continue})
      assert_receive {:transferred, ^token, ^owner, ^helper}, 5_000
      assert await_reply(tag)
      assert_receive {:left, ^token, ^helper}, 5_000
      refute_received {:left, ^token, _}
      next_commit(c.shard)
    end
  end

  for {name, outcomes} <- [refuses: [:refuse], fails: [:raise]] do
    test "16.4 a gate that #{name} to hand over to the helper: a lost cast", %{shard: shard} do
      start_batcher(shard)
      defer()
      token = TransferGate.token(unquote(outcomes))
      tag = cast(shard, :put_batch, [1], token)
      assert await_reply(tag) == @shutting_down
      assert_receive {:left, ^token, _helper}, 5_000
      refute_received {:waraft_backend_batcher_cast_deferred, _, _}
      refute_commit(shard, 0)
    end

    test "16.4 a gate that #{name} to hand over to the owner: a lost cast", %{shard: shard} do
      start_batcher(shard)
      defer()
      token = TransferGate.token([:ok | unquote(outcomes)])
      tag = cast(shard, :put_batch, [1], token)
      assert_receive {:waraft_backend_batcher_cast_deferred, ref, helper}, 5_000
      send(helper, {ref, :continue})
      assert await_reply(tag) == @shutting_down
      assert_receive {:left, ^token, ^helper}, 5_000
      refute_received {:left, ^token, _}
      refute_commit(shard, 0)
    end
  end

  test "16.4 the owner of then is dead: a lost cast, nothing handed to anybody else", %{
    shard: shard
  } do
    owner = start_batcher(shard)
    defer()
    token = TransferGate.token([:ok, :ok])
    tag = cast(shard, :put_batch, [1], token)
    assert_receive {:waraft_backend_batcher_cast_deferred, ref, helper}, 5_000
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    send(helper, {ref, :continue})
    assert await_reply(tag) == @shutting_down
    assert_receive {:left, ^token, ^helper}, 5_000
    assert_received {:transferred, ^token, ^helper, _}
    refute_received {:transferred, _, _, _}
  end

  test "16.4 no token, nothing to hand over", %{shard: shard} do
    start_batcher(shard)
    defer()
    tag = cast(shard, :put_batch, [1])
    assert_receive {:waraft_backend_batcher_cast_deferred, ref, helper}, 5_000
    send(helper, {ref, :continue})
    assert {:ok, [_]} = await_reply(tag)
    refute_received {:transferred, _, _, _}
  end

  defp defer, do: put_env(:waraft_backend_batcher_cast_hook, {:defer, self()})
  defp hot(:single), do: :batch
  defp hot(lane), do: lane
end
