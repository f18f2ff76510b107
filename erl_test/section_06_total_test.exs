# The bound on what all shards hold together, and when it holds: clause 6.5 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section06TotalTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  test "6.5 a start that fails leaves the bound as it was", %{shard: shard} do
    put_total(10_000)
    owner = start_batcher(shard)
    bound = fn -> Native.numbers(shard).max_total_queue_bytes end
    assert bound.() == 10_000
    put_total(7)

    assert {:error, {:backend_not_available, No.Such.Backend, _missing}} =
             Batcher.start_link(new_shard(), backend: No.Such.Backend)

    assert bound.() == 10_000
    assert Batcher.start_link(shard) == {:error, {:already_started, owner}}
    assert bound.() == 10_000
    assert {:error, {:invalid_option, _, _}} = Batcher.start_link(new_shard(), max_in_flight: 0)
    assert bound.() == 10_000
    start_alone(new_shard())
    assert bound.() == 7
  end
end
