# Leaks: the same work in nine rounds, and what is held after each. The first three warm up; from the next
# three to the last three nothing may grow. `SOAK_WRITES`, `SOAK_NAMESPACES`, `SOAK_CYCLES`, `SOAK_TIMEOUTS` and
# `SOAK_REFUSALS` are how much; with `SOAK_PRINT=1` the figures are printed. How batchers commit: see `Ways`.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.SoakTest do
  use ExUnit.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, Soak, Ways}

  @moduletag timeout: :infinity

  @hours_ms 6 * 3_600_000
  # What comes and goes; one block lost in each batch or cycle of the short form is several times more.
  @slack %{
    # In bytes; the first includes what the VM keeps for later.
    rss: 100_000_000,
    malloc: 300_000,
    bytes: 300_000,
    blocks: 50,
    threads: 0,
    ets: 0,
    atoms: 0,
    # Committers that rest for some seconds before they go.
    processes: 2,
    ports: 0
  }

  for {kind, variable, short} <- [
        {:writes, "SOAK_WRITES", 90_000},
        {:namespaces, "SOAK_NAMESPACES", 90_000},
        {:cycles, "SOAK_CYCLES", 600},
        {:timeouts, "SOAK_TIMEOUTS", 45_000},
        {:refusals, "SOAK_REFUSALS", 200_000}
      ] do
    test "nothing grows with #{kind}" do
      times = String.to_integer(System.get_env(unquote(variable), "#{unquote(short)}"))
      way = Ways.of(unquote(kind))
      vm = ChildVM.run({Soak, :run, [unquote(kind), times, way]}, @hours_ms)
      rounds = vm.values["figures"] || []
      if System.get_env("SOAK_PRINT"), do: print({unquote(kind), way}, times, rounds)
      assert {vm.status, vm.lines, length(rounds)} == {0, [], 9}
      assert {way, growth(rounds, slack(unquote(kind), times))} == {way, []}
    end
  end

  # What so many lanes at once had is not all given back to the system, but had again by the next ones, more or less: of
  # a lane that is lost six times as much is.
  defp slack(:namespaces, times), do: %{@slack | malloc: 100 * div(times, 3)}
  defp slack(_kind, _times), do: @slack

  # Figures whose least and whose median in the last three rounds are more than in the three before: what is free for a
  # moment makes one of them less, what is held for a moment the other one more.
  defp growth(rounds, slack) do
    [_warm, before, last] = Enum.chunk_every(rounds, 3)

    for {figure, slack} <- slack,
        grown = min(grown(0, before, last, figure), grown(1, before, last, figure)),
        grown > slack do
      {figure, grown, Enum.map(rounds, & &1[figure])}
    end
  end

  defp grown(place, before, last, figure),
    do: at(place, last, figure) - at(place, before, figure)

  # At this place of the values of three rounds in order.
  defp at(place, rounds, figure),
    do: rounds |> Enum.map(& &1[figure]) |> Enum.sort() |> Enum.at(place)

  defp print({kind, way}, times, rounds) do
    IO.puts("\n#{times} #{kind}, #{inspect(way)}, after each of #{length(rounds)} rounds:")

    for figure <- [:ms | Map.keys(@slack)] do
      values = Enum.map_join(rounds, " ", &String.pad_leading("#{&1[figure]}", 11))
      IO.puts("  #{String.pad_trailing("#{figure}", 9)} #{values}")
    end
  end
end
