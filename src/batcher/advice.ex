# What the statistics of a shard say about its settings.
# Invariant: a sentence says what was counted, and what a setting does; it promises no time that was not measured.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Advice do
  @moduledoc """
  What would change a shard for the better, in words, from what it has counted since it was opened or
  `Batcher.reset_stats/1` was called: see `Batcher.advise/1`.

  | topic | it is said when |
  | --- | --- |
  | `:too_little_data` | there were fewer than 100 commits, direct ones included; then nothing else is |
  | `:refused` | calls were refused by a bound in items or bytes |
  | `:timeouts` | calls have waited longer than `:call_timeout` |
  | `:direct` | a tenth of all calls passed the batcher by |
  | `:max_in_flight` | right now as many commits are in flight as may be, and other lanes wait |
  | `:commit_scope` | commits of single lanes hold fewer than two calls in the mean, while four lanes or more hold something |
  | `:full` | a fifth of the batches left because they were full |
  | `:window` | without learned pacing half of the batches waited for a window, longer than a quarter of a commit |
  | `:idle_window` | without learned pacing nine tenths of the batches left because a commit had ended, and some for a window |
  | `:alone` | without learned pacing nine tenths of the batches hold one call |
  | `:answering` | answering takes half as long as a commit |
  | `:backend` | a commit takes four times as long as calls wait for it |
  """

  @least 100

  @typedoc "One piece of advice, and the numbers that it was made of: counts, shares from 0 to 1, microseconds."
  @type t :: %{topic: atom, text: String.t(), numbers: %{atom => number}}

  @doc """
  Advice for a shard with these statistics (`Batcher.stats/1`) and options (`Batcher.options/1`), what matters most first.
  """
  @spec of(map, map) :: [t]
  def of(stats, options) do
    options = Map.new(options, fn {key, {value, _source}} -> {key, value} end)
    known = known(stats, options)

    if known.commits + known.direct < @least,
      do: [too_little(known)],
      else: Enum.flat_map(rules(), & &1.(known))
  end

  # What several rules use. `batches`: commits that were not alone.
  defp known(stats, options) do
    reasons =
      Enum.reduce(stats.commits_total, %{}, fn {{reason, _result}, count}, reasons ->
        Map.update(reasons, reason, count, &(&1 + count))
      end)

    commits = sum(reasons)

    # The lanes of which most calls are known: to add medians up would say nothing.
    {_lane, wait} = Enum.max_by(stats.queue_wait_us, fn {_lane, wait} -> wait.count end)

    %{
      stats: stats,
      options: options,
      reasons: reasons,
      commits: commits,
      batches: commits - Map.get(reasons, :alone, 0),
      calls: sum(stats.writes_total),
      direct: stats.direct_commits_total,
      wait: wait,
      learned?: options.pacing == :auto
    }
  end

  defp rules do
    [
      &refused/1,
      &timeouts/1,
      &direct/1,
      &in_flight/1,
      &scope/1,
      &full/1,
      &window/1,
      &idle_window/1,
      &alone/1,
      &answering/1,
      &backend/1
    ]
  end

  defp too_little(%{commits: commits, direct: direct}) do
    text = "#{commits + direct} commits since the last reset say too little: #{@least} are needed"

    %{topic: :too_little_data, text: text, numbers: %{commits: commits, direct: direct}}
  end

  defp refused(%{stats: stats}) do
    for {cause, held, bound} <- [
          {:items, stats.queued_items + stats.in_flight_items, stats.max_queue_items},
          {:bytes, stats.queued_bytes + stats.in_flight_bytes, stats.max_queue_bytes},
          {:total_bytes, stats.queued_bytes + stats.in_flight_bytes, stats.max_total_queue_bytes}
        ],
        refused = Map.get(stats.refused_total, cause, 0),
        refused > 0 do
      text =
        "#{refused} calls were refused by the bound in #{bound_name(cause)}, #{bound}, of which #{held} are held now. " <>
          "A larger bound only lets more wait for longer: look at how long commits take"

      %{topic: :refused, text: text, numbers: %{refused: refused, held: held, bound: bound}}
    end
  end

  defp bound_name(:total_bytes), do: "bytes of all shards together"
  defp bound_name(cause), do: "#{cause}"

  defp timeouts(%{stats: %{timeouts_total: 0}}), do: []

  defp timeouts(%{stats: stats, options: options}) do
    slowest = stats.commit_us.max

    text =
      "#{stats.timeouts_total} calls have waited longer than :call_timeout, #{options.call_timeout} ms; the slowest " <>
        "commit that has ended took #{ms(slowest)}"

    numbers = %{timeouts: stats.timeouts_total, slowest_commit_us: slowest}
    [%{topic: :timeouts, text: text, numbers: numbers}]
  end

  defp direct(%{direct: direct, calls: calls}) when direct * 9 < calls, do: []

  defp direct(%{direct: direct, calls: calls}) do
    text =
      "#{percent(direct, direct + calls)} of the calls, #{direct}, passed the batcher by, each with a commit of its own: " <>
        "their window is 0 or :direct, or no batcher ran"

    [%{topic: :direct, text: text, numbers: %{direct: direct, calls: calls}}]
  end

  defp in_flight(%{stats: %{in_flight_commits: now, max_in_flight: most, lanes: lanes}})
       when now < most or lanes <= now,
       do: []

  defp in_flight(%{options: %{commit_scope: :shard}}), do: []

  defp in_flight(%{stats: %{in_flight_commits: now, lanes: lanes} = stats}) do
    text =
      "all #{now} commits that may be in flight (:max_in_flight) are so now, and #{lanes} lanes hold something: " <>
        "`commit_scope: :shard` has one commit take what is due of all of them"

    numbers = %{in_flight: now, max_in_flight: stats.max_in_flight, lanes: lanes}
    [%{topic: :max_in_flight, text: text, numbers: numbers}]
  end

  defp scope(%{options: %{commit_scope: :lane}, stats: %{lanes: lanes} = stats, batches: batches})
       when batches > 0 and lanes >= 4 and stats.writes_per_commit.mean < 2 do
    mean = stats.writes_per_commit.mean

    text =
      "a commit holds #{Float.round(mean, 1)} calls in the mean, while #{lanes} lanes hold something now: " <>
        "`commit_scope: :shard` has one commit take what is due of all of them"

    [%{topic: :commit_scope, text: text, numbers: %{calls_per_commit: mean, lanes: lanes}}]
  end

  defp scope(_known), do: []

  defp full(%{batches: batches} = known) do
    full = Map.get(known.reasons, :size, 0)

    text =
      "#{percent(full, batches)} of the batches, #{full}, left because they were full (:namespace_batch_max " <>
        "#{inspect(known.options.namespace_batch_max)}, :hot_batch_max #{inspect(known.options.hot_batch_max)}): " <>
        "with a larger maximum more calls share a commit"

    if full > 0 and full * 5 >= batches,
      do: [%{topic: :full, text: text, numbers: %{full: full, batches: batches}}],
      else: []
  end

  # How long learned pacing holds at most: a quarter of a commit.
  defp longest_hold(stats), do: div(stats.commit_us.p50, 4)

  defp window(%{learned?: true}), do: []

  defp window(%{stats: stats, batches: batches} = known) do
    {windows, held, longest} =
      {Map.get(known.reasons, :window, 0), stats.hold_us.p50, longest_hold(stats)}

    text =
      "#{percent(windows, batches)} of the batches, #{windows}, waited for their window; in the median a batch was held " <>
        "for #{ms(held)}, and a commit took #{ms(stats.commit_us.p50)}: `pacing: :auto` holds none for longer than a " <>
        "quarter of a commit, #{ms(longest)}"

    if windows > 0 and windows * 2 >= batches and held > longest,
      do: [
        %{
          topic: :window,
          text: text,
          numbers: %{
            windows: windows,
            batches: batches,
            held_us: held,
            commit_us: stats.commit_us.p50
          }
        }
      ],
      else: []
  end

  defp idle_window(%{learned?: true}), do: []

  defp idle_window(%{batches: batches, stats: stats} = known) do
    {behind, windows} = {Map.get(known.reasons, :commit, 0), Map.get(known.reasons, :window, 0)}

    text =
      "#{percent(behind, batches)} of the batches left because a commit had ended; the window only delayed the first " <>
        "calls after a pause, #{windows} times: `pacing: :auto` holds none for longer than a quarter of a commit, " <>
        "#{ms(longest_hold(stats))}"

    if windows > 0 and behind * 10 >= batches * 9,
      do: [
        %{
          topic: :idle_window,
          text: text,
          numbers: %{behind: behind, windows: windows, batches: batches}
        }
      ],
      else: []
  end

  defp alone(%{learned?: false, stats: %{writes_per_commit: %{p90: 1, count: count}}})
       when count > 0 do
    text =
      "nine tenths of the batches, of #{count}, hold one call: with `pacing: :auto` a call that has no company is " <>
        "committed by its own process at once, as without a batcher"

    [%{topic: :alone, text: text, numbers: %{batches: count}}]
  end

  defp alone(_known), do: []

  defp answering(%{stats: %{answering_us: answering, commit_us: commit}}) do
    text =
      "to answer the callers of a commit took #{ms(answering.p50)} in the median, the commit #{ms(commit.p50)}: replies " <>
        "are large, or callers very many for their commits"

    if answering.count > 0 and answering.p50 * 2 >= commit.p50 and answering.p50 > 0,
      do: [
        %{
          topic: :answering,
          text: text,
          numbers: %{answering_us: answering.p50, commit_us: commit.p50}
        }
      ],
      else: []
  end

  # Calls that are alone wait for nothing, and are not among those that wait.
  defp backend(%{wait: wait, stats: %{commit_us: commit}}) do
    text =
      "a commit took #{ms(commit.p50)} in the median, and a call waited #{ms(wait.p50)} for its own to begin: the backend " <>
        "is what takes the time, and no setting of the batcher changes that"

    if wait.count > 0 and commit.p50 > 0 and commit.p50 >= 4 * wait.p50,
      do: [
        %{topic: :backend, text: text, numbers: %{commit_us: commit.p50, wait_us: wait.p50}}
      ],
      else: []
  end

  defp sum(map), do: map |> Map.values() |> Enum.sum()
  defp percent(_part, 0), do: "0 %"
  defp percent(part, all), do: "#{round(100 * part / all)} %"
  defp ms(us), do: "#{Float.round(us / 1_000, 2)} ms"
end
