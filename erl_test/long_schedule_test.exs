# A million items, be they one term, or ten thousand callers hold no scheduler longer than 1 ms at a stretch,
# neither on the way in nor out; nor do long names and tags, nor what is done to a hundred thousand lanes at once. What a
# busy machine adds does not come at the same place in each round: a place counts with the least of all rounds.
#
# Wall time is only fair where nothing else runs: hence `:slow`, best with `chrt -f 1 mix test --only slow`.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.LongScheduleTest do
  use ExUnit.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, Schedules}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Schedules.Lanes

  @moduletag timeout: :infinity
  @moduletag :slow

  @rounds 6
  @timeout_ms 120_000
  # A core for each: a scheduler that waits for one behind a dirty scheduler is no fault of the batcher's. Nor is it when
  # the VM gives memory back: by default in pieces of up to 5 MB, and the kernel takes 3 to 4 ms for one.
  @flags ["+S", "1:1", "+SDcpu", "1:1", "+Mulmbcs", "256"]
  # The VM rounds down: what it reports as 2 was longer than 1.
  @limit_ms 1

  for {scenario, items} <- [
        # One call with a list, ...
        put_batch: 1_000_000,
        large_values: 1_000_000,
        delete_batch: 1_000_000,
        batch: 1_000_000,
        put_batch_async: 1_000_000,
        delete_batch_async: 1_000_000,
        # ... with a command that counts that many, ...
        command: 1_000_000,
        # ... and with one that counts 1 and is its own reply.
        list: 1_000_000,
        tuple: 1_000_000,
        map: 1_000_000,
        deep: 1_000_000,
        # Many calls in one batch: small ones, those that are just not copied elsewhere, large ones.
        callers: 10_000,
        groups: 10_000,
        short_lists: 300_000,
        large_groups: 1_000_000,
        # One large reply for many.
        large_error: 100_000,
        # What comes with a call: a name in bytes, a tag.
        long_prefix: 64_000_000,
        long_tag: 2_000_000
      ] do
    test "#{scenario} of #{items}",
      do: assert(held_in(Schedules, unquote(scenario), unquote(items)) == [])
  end

  # What is done to the shard as a whole, with so many lanes or so many callers that give up.
  for {scenario, items} <- [
        open: 100_000,
        flush: 100_000,
        together: 500,
        stop: 100_000,
        adopt: 100_000,
        abandon: 100_000,
        expiry: 10_000
      ] do
    test "#{scenario} with #{items}",
      do: assert(held_in(Lanes, unquote(scenario), unquote(items)) == [])
  end

  defp held_in(module, scenario, items) do
    vm = ChildVM.run({module, :measure, [scenario, items, @rounds]}, @timeout_ms, @flags)
    assert {vm.status, vm.lines} == {0, []}
    assert length(vm.values["round"]) == @rounds
    held(vm.values["round"])
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
