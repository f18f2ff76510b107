# The leader's node killed again and again under load: nothing acknowledged is lost, nothing runs twice, and writes
# flow again. `TORTURE_KILLS` (default 3) is how often, `TORTURE_BACKEND` (default "ra") one of the backends in
# Torture.Faults, with which the test has to fail. How batchers commit: see `Ways`.
# Invariant: what the survivors hold is compared with what every caller was told, also those whose node died.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.TortureTest do
  use ExUnit.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Ways
  alias Ferricstore.Raft.WARaftBackend.Batcher.Torture.{Cluster, Faults, Ledger, Load, Workload}

  # What is aimed at, and what a busy machine is granted.
  @goal_ms 5_000
  @limit_ms 15_000

  @needs_ra if Code.ensure_loaded?(:ra),
              do: [ra: true],
              else: [ra: true, skip: "Ra is not on the code path: run `make setup`"]

  @tag @needs_ra
  @tag :torture
  @tag timeout: :infinity
  test "7.4, 9.1 the leader's node and the batcher's are killed under load" do
    kills = kills()
    backend = Faults.backend(System.get_env("TORTURE_BACKEND", "ra"))
    way = Ways.of(:torture)
    log("batchers with #{inspect(way)}")
    cluster = Cluster.new(backend, way)
    on_exit(fn -> Cluster.clean(cluster) end)
    :ok = Cluster.boot_all(cluster)
    for site <- Cluster.sites(cluster), do: :ok = Cluster.start_load(cluster, site)

    leaders = for n <- 1..kills, do: kill_leader(cluster, "kill #{n} of #{kills}")
    hosts = for n <- 1..max(div(kills, 10), 1), do: kill_host(cluster, "kill #{n} of the host")

    # Every caller has been answered, whatever the answer.
    for site <- Cluster.sites(cluster), do: :ok = Cluster.call(cluster, site, Load, :stop, [])
    last = Cluster.audit(cluster, :b, :ended)

    # All nodes at once, and back on the same directory.
    for site <- Cluster.sites(cluster), do: Cluster.kill(cluster, site)
    :ok = Cluster.boot_all(cluster)
    again = Cluster.audit(cluster, :c, :ended)

    summary(leaders, hosts, last)
    check(last, "when the callers had ended")
    check(again, "when all nodes had been killed and were back")
    assert again.writes == last.writes
    # Only callers whose node was killed have left something open.
    assert last.open -- killed(leaders ++ hosts) == []
    assert last.writes > 100 * kills
    assert Enum.max(for {_killed, ms, _silence} <- leaders, do: ms) <= @limit_ms
  end

  describe "the audit" do
    @id {:host, 1, 1}
    @acked List.duplicate(:acked, 9)

    test "finds nothing where everything is as the callers were told" do
      assert audit(@acked, held(0..8)) == %{}

      # In doubt: the operation after the last one that was noted, and those whose outcome is unknown.
      doubt = List.replace_at(@acked, 0, {:unknown, "timeout"})

      for data <- [held(0..8), held(1..8), held(0..9)],
          do: assert(audit(doubt, data, false) == %{})
    end

    test "finds what is lost, doubled, there without having been committed, or wrong" do
      data = held(0..8)
      # A mark, a value that stays, one that is deleted by the next operation, a counter.
      [mark, put, deleted, count] = for seq <- [0, 2, 3, 6], do: key(seq)
      sum = String.to_integer(elem(data[count], 0))

      for {data, violations} <- [
            {Map.delete(data, mark), %{lost: 1}},
            {Map.delete(data, put), %{lost: 1}},
            {Map.put(data, deleted, {Workload.value(deleted), 0}), %{lost: 1}},
            {Map.put(data, count, {"#{sum - 1}", 0}), %{lost: 1}},
            {Map.put(data, mark, {"2", 0}), %{doubled: 1}},
            {Map.put(data, count, {"#{sum + 1}", 0}), %{doubled: 1}},
            {Map.put(data, put, {"another", 0}), %{wrong: 1}},
            {Map.put(data, "nobody's", {"", 0}), %{stray: 1}}
          ],
          do: assert(audit(@acked, data) == violations)

      refused = List.replace_at(@acked, 0, {:not_committed, "no_leader"})
      assert audit(refused, held(1..8)) == %{}
      assert audit(refused, data) == %{phantom: 1}
      unknown = List.replace_at(@acked, 0, {:unknown, "timeout"})
      assert audit(unknown, Map.put(data, mark, {"2", 0})) == %{doubled: 1}
      assert audit(List.replace_at(@acked, 0, {:odd, "an answer"}), data) == %{odd: 1}
    end

    defp audit(outcomes, data, stopped? \\ true),
      do: Ledger.compare([{@id, outcomes, stopped?}], data, :ended).violations

    defp key(seq), do: Workload.operation(@id, seq) |> elem(1) |> hd() |> elem(1)

    # What a shard holds after these operations.
    defp held(seqs) do
      for seq <- seqs, effect <- elem(Workload.operation(@id, seq), 1), reduce: %{} do
        data -> apply_effect(effect, data)
      end
    end

    defp apply_effect({:put, key}, data), do: Map.put(data, key, {Workload.value(key), 0})
    defp apply_effect({:delete, key}, data), do: Map.delete(data, key)

    defp apply_effect({_counter, key}, data) do
      Map.update(data, key, {"1", 0}, fn {sum, 0} -> {"#{String.to_integer(sum) + 1}", 0} end)
    end
  end

  defp kill_leader(cluster, what) do
    pace = Cluster.call(cluster, :host, Load, :pace, [])
    leader = Cluster.leader(cluster)
    at = Cluster.kill(cluster, leader)
    {ms, silence} = recover(cluster, at, pace, what)
    [survivor | _] = Cluster.survivors(cluster)
    report = Cluster.audit(cluster, survivor, :running)

    log(
      "#{what}: leader #{leader}, #{round(pace)} operations/s before, back after #{ms} ms " <>
        "(silent for #{silence} ms), #{report.writes} acknowledged"
    )

    check(report, "after #{what}")
    life = Cluster.life(cluster, leader)
    :ok = Cluster.boot(cluster, leader)
    {{leader, life}, ms, silence}
  end

  # The time that the node takes to boot included.
  defp kill_host(cluster, what) do
    pace = Cluster.call(cluster, :host, Load, :pace, [])
    life = Cluster.life(cluster, :host)
    at = Cluster.kill(cluster, :host)
    :ok = Cluster.boot(cluster, :host)
    {ms, silence} = recover(cluster, at, pace, what)
    log("#{what}: back after #{ms} ms, its boot included")
    check(Cluster.audit(cluster, :a, :running), "after #{what}")
    {{:host, life}, ms, silence}
  end

  defp recover(cluster, at, pace, what) do
    case Cluster.call(cluster, :host, Load, :recovery, [at, pace, 2 * @limit_ms]) do
      {:ok, ms, silence} -> {ms, silence}
      {:error, :timeout} -> flunk("#{what}: throughput not back within #{2 * @limit_ms} ms")
    end
  end

  defp check(report, whence) do
    assert report.violations == %{},
           "#{whence}: #{inspect(report.violations)}, of #{report.writes} acknowledged, " <>
             "such as #{inspect(report.examples, pretty: true, limit: :infinity)}"
  end

  defp killed(kills), do: for({killed, _ms, _silence} <- kills, do: killed)

  defp summary(leaders, hosts, report) do
    times = Enum.sort(for {_killed, ms, _silence} <- leaders, do: ms)
    silences = Enum.sort(for {_killed, _ms, silence} <- leaders, do: silence)
    host_times = Enum.sort(for {_killed, ms, _silence} <- hosts, do: ms)
    within = Enum.count(times, &(&1 <= @goal_ms))

    [
      {"kills of the leader's node", length(leaders)},
      {"kills of the batcher's node", length(hosts)},
      {"operations acknowledged", report.writes},
      for({kind, count} <- Enum.sort(report.errors), do: {kind, count}),
      {"outcome unknown, committed after all", came_about(report)},
      for(kind <- Ledger.kinds(), do: {"#{kind}", Map.get(report.violations, kind, 0)}),
      {"leader killed: back within #{@goal_ms} ms", "#{within} of #{length(leaders)}"},
      {"leader killed: back, median and max in ms", "#{median(times)} #{List.last(times)}"},
      {"leader killed: silence, median and max in ms",
       "#{median(silences)} #{List.last(silences)}"},
      {"batcher killed: back, median and max in ms",
       "#{median(host_times)} #{List.last(host_times)}"}
    ]
    |> List.flatten()
    |> Enum.each(fn {what, value} -> log("#{String.pad_trailing(what, 46)} #{value}") end)
  end

  defp came_about(%{came_about: {committed, :of, unknown}}), do: "#{committed} of #{unknown}"

  defp median(sorted), do: Enum.at(sorted, div(length(sorted) - 1, 2))

  defp log(text), do: IO.puts("torture: " <> text)

  defp kills do
    text = System.get_env("TORTURE_KILLS", "3")

    case Integer.parse(text) do
      {kills, ""} when kills > 0 ->
        kills

      _ ->
        raise ArgumentError,
              "TORTURE_KILLS must be a number of kills, 1 or more, got: #{inspect(text)}"
    end
  end
end
