# A million items, or ten thousand callers, hold no scheduler longer than 1 ms at a stretch. What a busy machine
# adds does not come at the same place in each round: a place counts with the least of all rounds.
#
# Wall time is only fair where nothing else runs: hence `:slow`, best with `chrt -f 1 mix test --only slow`.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.LongScheduleTest do
  use ExUnit.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, Schedules}

  @moduletag timeout: :infinity
  @moduletag :slow

  @rounds 6
  # Reported in whole ms and rounded: the VM's own `length/1` and garbage collection reach 2.
  @limit_ms 2

  for {scenario, items} <- [
        write_put_batch: 1_000_000,
        write_delete_batch: 1_000_000,
        write_batch: 1_000_000,
        write: 1_000_000,
        write_one: 1_000_000,
        write_put_batch_async: 1_000_000,
        write_delete_batch_async: 1_000_000,
        many_callers: 10_000,
        many_groups: 10_000
      ] do
    test "#{scenario} of #{items}" do
      vm = ChildVM.run({Schedules, :measure, [unquote(scenario), unquote(items), @rounds]})
      assert {vm.status, vm.lines} == {0, []}
      assert length(vm.values["round"]) == @rounds
      assert held(vm.values["round"]) == []
    end
  end

  # `[{{process, where_in, where_out}, ms}]`: held that long in every round.
  defp held(rounds) do
    rounds = Enum.map(rounds, &longest/1)

    for place <- rounds |> Enum.flat_map(&Map.keys/1) |> Enum.uniq(),
        ms = rounds |> Enum.map(&Map.get(&1, place, 0)) |> Enum.min(),
        ms > @limit_ms,
        do: {place, ms}
  end

  defp longest(round) do
    for {process, ms, where_in, where_out} <- round, reduce: %{} do
      places -> Map.update(places, {process, where_in, where_out}, ms, &max(&1, ms))
    end
  end
end
