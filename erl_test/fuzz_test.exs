# Terms of all types in all positions of all functions: each call ends with an answer or an exception, the VM
# lives, and memory comes back. `FUZZ_TERMS` calls (default 1500), from the seed `FUZZ_SEED`, which also says how
# batchers commit (see `Ways`).
defmodule Ferricstore.Raft.WARaftBackend.Batcher.FuzzTest do
  use ExUnit.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, Fuzz}

  @moduletag timeout: :infinity

  @hour_ms 3_600_000
  @shards 2
  # Bytes: much less than the binary of 100 MB that parts of are written.
  @kept 20_000_000

  test "any term in any place" do
    terms = String.to_integer(System.get_env("FUZZ_TERMS", "1500"))

    seed =
      String.to_integer(
        System.get_env(
          "FUZZ_SEED",
          "#{System.unique_integer([:positive]) + System.os_time(:second)}"
        )
      )

    vm = ChildVM.run({Fuzz, :run, [seed, terms]}, @hour_ms)
    values = Map.delete(vm.values, "hung")
    IO.puts("\nfuzz: FUZZ_SEED=#{seed} FUZZ_TERMS=#{terms} #{inspect(values)}")
    assert {vm.status, vm.lines} == {0, []}
    assert vm.values["hung"] == [[]]
    assert vm.values["crashed"] == [[]]
    assert [returned] = vm.values["returned"]
    assert [raised] = vm.values["raised"]
    assert returned + raised == terms
    assert length(vm.values["works"]) == @shards
    assert hd(vm.values["kept"]) < @kept
    # Those of the two shards whose committers were made up, and died with a batch.
    assert hd(vm.values["threads"]) <= 2
  end
end
