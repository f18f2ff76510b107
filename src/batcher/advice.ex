# What the statistics of a shard say about its settings.
# Invariant: a sentence says what was counted, and what a setting does; it promises no time that was not measured.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Advice do
  @moduledoc """
  What would change a shard for the better, in words, from its statistics: see `Batcher.advise/1`. What is said to hold
  or to go on "now" is of this moment, all else was counted since the shard's first batcher was started or, if that was
  later, since `Batcher.reset_stats/1`.

  | topic | it is said when |
  | --- | --- |
  | `:refused` | calls were refused by a bound in items or bytes, by a full slot, or by a budget; once for each |
  | `:timeouts` | calls have waited for longer than their window and `:call_timeout` |
  | `:too_little_data` | there were fewer than 100 commits, direct ones included; then nothing of what follows is |
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

  @typedoc "One piece of advice, and the numbers that it was made of: times have their unit in their names."
  @type t :: %{topic: atom, text: String.t(), numbers: %{atom => number}}

  @doc """
  Advice for a shard with these statistics (`Batcher.stats/1`) and options (`Batcher.options/1`), what matters most first.
  """
  @spec of(map, map) :: [t]
  def of(stats, options) do
    options = Map.new(options, fn {key, {value, _source}} -> {key, value} end)
    known = known(stats, options)

    rules =
      if known.commits + known.direct < @least,
        do: refusals() ++ [&too_little/1],
        else: refusals() ++ proportions()

    Enum.flat_map(rules, &List.wrap(&1.(known)))
  end

  # What several rules use. `batches`: commits that were not alone.
  defp known(stats, options) do
    reasons =
      Enum.reduce(stats.commits_total, %{}, fn {{reason, _result}, count}, reasons ->
        Map.update(reasons, reason, count, &(&1 + count))
      end)

    commits = sum(reasons)

    %{
      stats: stats,
      options: options,
      reasons: reasons,
      commits: commits,
      batches: commits - Map.get(reasons, :alone, 0),
      calls: sum(stats.writes_total),
      direct: stats.direct_commits_total,
      commit_us: stats.commit_us.p50,
      # How long learned pacing holds at most: a quarter of a commit.
      longest_hold_us: div(stats.commit_us.p50, 4),
      learned?: options.pacing == :auto
    }
  end

  # Each rule answers one piece of advice, several, or `nil`. These need no more than one call that it befell, and a
  # shard whose backend hangs has few commits.
  defp refusals, do: [&bounds/1, &full_slot/1, &budget/1, &timeouts/1]

  # These say which part of many commits was so.
  defp proportions do
    [
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
    text = "#{commits + direct} commits say too little about the settings: #{@least} are needed"
    say(:too_little_data, text, %{commits: commits, direct: direct, least: @least})
  end

  defp bounds(%{stats: stats} = known) do
    bytes = stats.queued_bytes + stats.in_flight_bytes
    items = stats.queued_items + stats.in_flight_items

    [
      bound(known, :items, :max_queue_items, items),
      bound(known, :bytes, :max_queue_bytes, bytes),
      total_bound(known, bytes)
    ]
    |> Enum.reject(&is_nil/1)
  end

  defp bound(%{stats: stats, commit_us: commit_us} = known, cause, option, held) do
    {refused, bound} = {refused(known, cause), Map.fetch!(stats, option)}

    if refused > 0 do
      text =
        "calls refused by #{inspect(option)}: #{refused}. The shard may hold #{bound} #{cause}, queued and in flight, and " <>
          "holds #{held} now; a commit takes #{ms(commit_us)} in the median. Fewer calls or faster commits leave room, a " <>
          "larger bound has more calls wait, and for longer"

      say(:refused, text, %{refused: refused, held: held, bound: bound, commit_us: commit_us})
    end
  end

  # What all shards hold together is not known here.
  defp total_bound(%{stats: %{max_total_queue_bytes: bound}} = known, held) do
    refused = refused(known, :total_bytes)

    if refused > 0 and bound > 0 do
      text =
        "calls refused by :max_total_queue_bytes: #{refused}. All shards together may hold #{bound} bytes, and this " <>
          "shard holds #{held} of them now: `Batcher.stats()` says which one holds the most. Fewer calls or faster " <>
          "commits there leave room here, a larger bound has more calls wait, and for longer"

      say(:refused, text, %{refused: refused, held_by_this_shard: held, bound: bound})
    end
  end

  defp full_slot(%{options: options} = known) do
    refused = refused(known, :overflow)

    if refused > 0 do
      change =
        if options.overflow == :refuse,
          do:
            "With `overflow: :queue` they wait for the commit after that, with a larger maximum for the same one; less " <>
              "in a call finds room more often",
          else:
            "With `overflow: :queue`, as it is now, only a call is refused that is above the maximum by itself: a larger " <>
              "maximum takes it, or less in a call"

      text =
        "calls refused because what waits for the next commit of their lane was full: #{refused}, with " <>
          "#{maxima(options)}. #{change}"

      maxima = Map.take(options, [:namespace_batch_max, :hot_batch_max])
      numbers = Map.filter(maxima, fn {_option, maximum} -> is_integer(maximum) end)
      say(:refused, text, Map.put(numbers, :refused, refused))
    end
  end

  defp budget(%{options: options} = known) do
    refused = refused(known, :budget)

    if refused > 0 do
      queued =
        if options.overflow == :refuse,
          do:
            "; with `overflow: :queue` those are queued that were too much only beside what waited already"

      text =
        "calls refused because they were more work than the budgets of :apply_context allow in one commit, or because " <>
          "the host's measuring refused them: #{refused}. To write less in a call helps, and so does a start of the " <>
          "batcher with larger budgets#{queued}"

      say(:refused, text, %{refused: refused})
    end
  end

  defp timeouts(%{stats: %{timeouts_total: 0}}), do: nil

  # A call waits for others and, within that, for a window, and then for its commit.
  defp timeouts(%{stats: stats, options: %{call_timeout: timeout_ms}}) do
    numbers = %{
      timeouts: stats.timeouts_total,
      call_timeout_ms: timeout_ms,
      slowest_commit_us: stats.commit_us.max,
      oldest_commit_us: stats.oldest_commit_age_us,
      longest_wait_us: stats.queue_wait_us |> Map.values() |> Enum.map(& &1.max) |> Enum.max(),
      longest_hold_us: stats.hold_us.max
    }

    text =
      "calls that have waited for longer than their window and :call_timeout, #{timeout_ms} ms, together: " <>
        "#{numbers.timeouts}. The slowest commit that has ended took #{ms(numbers.slowest_commit_us)}, the oldest one " <>
        "in flight has taken #{ms(numbers.oldest_commit_us)} so far; a call has waited #{ms(numbers.longest_wait_us)} " <>
        "at most for its commit to begin, of that #{ms(numbers.longest_hold_us)} at most for a window. The longest of " <>
        "these is what to shorten: a larger :call_timeout only has callers wait for longer"

    say(:timeouts, text, numbers)
  end

  defp direct(%{direct: direct, calls: calls, options: options}) do
    if direct > 0 and direct * 9 >= calls do
      text =
        "#{percent(direct, direct + calls)} of the calls, #{direct} of #{direct + calls}, passed the batcher by, each with a " <>
          "commit of its own: #{passed_by(options)}"

      say(:direct, text, %{direct: direct, calls: calls})
    end
  end

  defp passed_by(%{hot_batch_window_ms: hot_ms, generic_batch_window_ms: generic_ms}) do
    hot =
      if hot_ms <= 0,
        do:
          "puts and deletes do with `hot_batch_window_ms: #{hot_ms}`, and with 1 they share commits"

    generic =
      if generic_ms == :direct,
        do:
          "generic batches do with `generic_batch_window_ms: :direct`, and with 0 they share commits"

    case Enum.filter([hot, generic], & &1) do
      [] ->
        "with the windows of now none does, so that no batcher ran then, or the windows were others"

      why ->
        Enum.join(why, "; ")
    end
  end

  defp in_flight(%{options: %{commit_scope: :shard}}), do: nil

  defp in_flight(%{stats: %{in_flight_commits: now, max_in_flight: most, lanes: lanes}}) do
    if now >= most and lanes > now do
      text =
        "as many commits are in flight now as :max_in_flight allows, #{most}, while #{lanes} lanes hold something: with " <>
          "`commit_scope: :shard` one commit takes what is due of all of them, with a larger maximum more commits go on " <>
          "at once"

      say(:max_in_flight, text, %{in_flight: now, max_in_flight: most, lanes: lanes})
    end
  end

  defp scope(%{options: %{commit_scope: :shard}}), do: nil

  defp scope(%{stats: %{lanes: lanes, writes_per_commit: %{count: count, mean: mean}}}) do
    if count > 0 and mean < 2 and lanes >= 4 do
      text =
        "a commit, of one lane, holds #{decimal(mean)} calls in the mean, while #{lanes} lanes hold something now: with " <>
          "`commit_scope: :shard` one commit takes what is due of all of them, so that fewer are made"

      say(:commit_scope, text, %{calls_per_commit: mean, lanes: lanes})
    end
  end

  defp full(%{batches: batches, options: options} = known) do
    full = left(known, :size)

    if full > 0 and full * 5 >= batches do
      text =
        "#{percent(full, batches)} of the batches, #{full} of #{batches}, left because they were full, with " <>
          "#{maxima(options)} or by the budgets of :apply_context: with larger ones more calls share a commit, which holds " <>
          "the log for longer"

      say(:full, text, %{full: full, batches: batches})
    end
  end

  defp window(%{learned?: true}), do: nil

  defp window(%{stats: stats, batches: batches, commit_us: commit_us} = known) do
    {windows, held_us} = {left(known, :window), stats.hold_us.p50}

    if windows > 0 and windows * 2 >= batches and held_us > known.longest_hold_us do
      text =
        "#{percent(windows, batches)} of the batches, #{windows} of #{batches}, waited for their window; in the median a " <>
          "batch was held for #{ms(held_us)}, and a commit took #{ms(commit_us)}: with `pacing: :auto` none is held for " <>
          "longer than a quarter of a commit, #{ms(known.longest_hold_us)}"

      numbers = %{windows: windows, batches: batches, held_us: held_us, commit_us: commit_us}
      say(:window, text, numbers)
    end
  end

  defp idle_window(%{learned?: true}), do: nil

  defp idle_window(%{batches: batches, commit_us: commit_us} = known) do
    {behind, windows} = {left(known, :commit), left(known, :window)}

    if windows > 0 and behind * 10 >= batches * 9 do
      text =
        "#{percent(behind, batches)} of the batches, #{behind} of #{batches}, left because a commit had ended, and " <>
          "#{windows} waited for a window, having found no commit in flight: with `pacing: :auto` none is held for " <>
          "longer than a quarter of a commit, #{ms(known.longest_hold_us)}"

      numbers = %{behind: behind, windows: windows, batches: batches, commit_us: commit_us}
      say(:idle_window, text, numbers)
    end
  end

  defp alone(%{learned?: false, stats: %{writes_per_commit: %{p90: 1, count: count}}}) do
    text =
      "at least nine tenths of the batches, of which there were #{count}, hold one call: with `pacing: :auto` a " <>
        "synchronous call that has no company is committed by its own process at once, as without a batcher, and waits " <>
        "for no window"

    say(:alone, text, %{batches: count})
  end

  defp alone(_known), do: nil

  defp answering(%{stats: %{answering_us: %{p50: answering_us}} = stats, commit_us: commit_us}) do
    if answering_us > 0 and answering_us * 2 >= commit_us do
      mean = stats.writes_per_commit.mean

      text =
        "to answer the callers of a commit, with #{decimal(mean)} calls in the mean, took #{ms(answering_us)} in the median, " <>
          "the commit #{ms(commit_us)}: large replies take long, and those to an alias, a name or another node, which a " <>
          "process has to send. Smaller replies take less, no setting of the batcher changes that"

      numbers = %{answering_us: answering_us, commit_us: commit_us, calls_per_commit: mean}
      say(:answering, text, numbers)
    end
  end

  defp backend(%{stats: stats, commit_us: commit_us}) do
    wait_us = wait_us(stats)

    if commit_us > 0 and commit_us >= 4 * wait_us do
      text =
        "a commit took #{ms(commit_us)} in the median, and a call waited #{ms(wait_us)} for its own to begin: the backend " <>
          "is what takes the time, and where to look, as no setting of the batcher changes that"

      say(:backend, text, %{commit_us: commit_us, wait_us: wait_us})
    end
  end

  # How long a call waits for its commit in the median, of the kind of lane that most are of: to add medians up would
  # say nothing. Calls that were alone have waited for nothing, and are not among those whose wait was counted.
  defp wait_us(stats) do
    {lane, %{count: calls}} = Enum.max_by(stats.answer_us, fn {_lane, answer} -> answer.count end)
    waited = stats.queue_wait_us[lane]
    if calls > 2 * waited.count, do: 0, else: waited.p50
  end

  defp say(topic, text, numbers), do: %{topic: topic, text: text, numbers: numbers}

  defp refused(%{stats: stats}, cause), do: Map.get(stats.refused_total, cause, 0)
  defp left(%{reasons: reasons}, reason), do: Map.get(reasons, reason, 0)

  defp maxima(options) do
    ":namespace_batch_max #{inspect(options.namespace_batch_max)} and :hot_batch_max #{inspect(options.hot_batch_max)}"
  end

  defp sum(map), do: map |> Map.values() |> Enum.sum()

  # Rounded, but nearly all is not all, and little is not nothing.
  defp percent(part, all) when part in [0, all], do: "#{div(100 * part, all)} %"
  defp percent(part, all), do: "#{round(100 * part / all) |> max(1) |> min(99)} %"

  defp ms(us), do: "#{decimal(us / 1_000)} ms"
  defp decimal(number), do: Float.round(number, 2)
end
