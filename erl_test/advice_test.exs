# What statistics make of advice (17.7), without a load: each sentence at its edge. advise_test.exs has the loads.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.AdviceTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.Advice
  alias Ferricstore.Raft.WARaftBackend.Batcher.Options.{Schema, Type}

  # Ten calls in each commit, which left because another had ended, and waited for about as long as one takes.
  @quiet %{
    commits_total: %{{:commit, :ok} => 100},
    writes_total: %{namespace: 1_000},
    writes_per_commit: %{count: 100, mean: 10.0, p90: 10},
    queue_wait_us: %{namespace: %{count: 1_000, p50: 1_000, max: 2_000}},
    answer_us: %{namespace: %{count: 1_000, p50: 2_000}},
    commit_us: %{count: 100, p50: 1_000, max: 2_000},
    answering_us: %{count: 100, p50: 100}
  }

  # What makes all sentences true that can be so at once.
  @much %{
    commits_total: %{{:commit, :ok} => 0, {:size, :ok} => 50, {:window, :error} => 50},
    refused_total: %{items: 1, bytes: 2, total_bytes: 3, overflow: 4, budget: 5},
    max_total_queue_bytes: 1_000,
    timeouts_total: 1,
    direct_commits_total: 1_000,
    in_flight_commits: 2,
    max_in_flight: 2,
    lanes: 4,
    writes_per_commit: %{mean: 1.0, p90: 1},
    queue_wait_us: %{namespace: %{p50: 10}},
    hold_us: %{count: 100, p50: 900, max: 901},
    answering_us: %{p50: 500}
  }

  # The same, for those that exclude each other.
  @behind %{commits_total: %{{:commit, :ok} => 90, {:size, :ok} => 0, {:window, :error} => 10}}

  setup c do
    start_batcher(c.shard)
    %{stats: change(Batcher.stats(c.shard), @quiet), options: Batcher.options(c.shard)}
  end

  # The idle shard's statistics and options, with these changes.
  defp advice(c, changes, options \\ []) do
    options = Map.new(options, fn {key, value} -> {key, {value, :option}} end)
    Advice.of(change(c.stats, changes), Map.merge(c.options, options))
  end

  defp change(%{} = value, %{} = changes),
    do: Map.merge(value, changes, fn _key, value, changes -> change(value, changes) end)

  defp change(_value, changed), do: changed

  # The one piece of advice on this topic, or `nil`.
  defp said(c, topic, changes, options \\ []) do
    case Enum.filter(advice(c, changes, options), &(&1.topic == topic)) do
      [] -> nil
      [advice] -> advice
    end
  end

  defp refute_said(c, topic, changes, options \\ []),
    do: assert(said(c, topic, changes, options) == nil)

  # So many commits, by why they had left, and none else.
  defp left(reasons) do
    %{commits_total: Map.new([commit: 0] ++ reasons, fn {why, n} -> {{why, :ok}, n} end)}
  end

  test "17.7 nothing is said where nothing is to be changed", c do
    assert advice(c, %{}) == []
    assert advice(c, %{}, pacing: :auto) == []
  end

  test "17.7 :too_little_data below 100 commits, direct ones included, and then of proportions nothing",
       c do
    few = Map.merge(@much, %{direct_commits_total: 49}) |> Map.merge(left(window: 50))
    said = advice(c, few)

    assert Enum.dedup(for %{topic: topic} <- said, do: topic) == [
             :refused,
             :timeouts,
             :too_little_data
           ]

    numbers = List.last(said).numbers
    assert numbers == %{commits: 50, direct: 49, least: 100}
    enough = %{few | direct_commits_total: 50}
    refute_said(c, :too_little_data, enough)
  end

  test "17.7 what was refused or has timed out is said however few commits there were", c do
    # A backend that hangs from the start on.
    hangs = %{refused_total: %{items: 1}, timeouts_total: 1} |> Map.merge(left(window: 0))
    assert [:refused, :timeouts, :too_little_data] = Enum.map(advice(c, hangs), & &1.topic)
  end

  for {cause, option, bound} <- [
        {:items, ":max_queue_items", 1_000_000},
        {:bytes, ":max_queue_bytes", 1_073_741_824}
      ] do
    test "17.7 :refused by the bound in #{cause}", c do
      held = %{queued_items: 3, in_flight_items: 4, queued_bytes: 3, in_flight_bytes: 4}
      advice = said(c, :refused, Map.put(held, :refused_total, %{unquote(cause) => 1}))
      assert advice.text =~ unquote(option)
      bound = unquote(bound)
      assert %{refused: 1, held: 7, bound: ^bound, commit_us: 1_000} = advice.numbers
      refute_said(c, :refused, held)
    end
  end

  test "17.7 :refused by the bound of all shards together is not measured by what this one holds",
       c do
    changes = %{
      refused_total: %{total_bytes: 1},
      max_total_queue_bytes: 1_000,
      queued_bytes: 3,
      in_flight_bytes: 4
    }

    advice = said(c, :refused, changes)
    assert advice.text =~ ":max_total_queue_bytes"
    assert advice.text =~ "this shard holds 7 of them now"
    assert advice.numbers == %{refused: 1, held_by_this_shard: 7, bound: 1_000}
    # There is no such bound any more.
    refute_said(c, :refused, %{changes | max_total_queue_bytes: 0})
    refute_said(c, :refused, %{changes | refused_total: %{total_bytes: 0}})
  end

  test "17.7 :refused by a full slot", c do
    full = %{refused_total: %{overflow: 1}}
    advice = said(c, :refused, full, overflow: :refuse, hot_batch_max: 7)
    assert advice.text =~ "With `overflow: :queue` they wait"
    assert advice.numbers == %{refused: 1, namespace_batch_max: 10_000, hot_batch_max: 7}
    # Only a call that no slot takes is still refused then.
    queues = said(c, :refused, full, overflow: :queue, hot_batch_max: 7)
    assert queues.text =~ "as it is now"
    assert queues.text =~ ":hot_batch_max 7"
    # What has no limit is no number.
    endless = said(c, :refused, full, overflow: :refuse, hot_batch_max: :infinity)
    assert endless.numbers == %{refused: 1, namespace_batch_max: 10_000}
    refute_said(c, :refused, %{refused_total: %{overflow: 0}}, overflow: :refuse)
  end

  test "17.7 :refused by a budget", c do
    advice = said(c, :refused, %{refused_total: %{budget: 2}}, overflow: :refuse)
    assert advice.text =~ ":apply_context"
    assert advice.text =~ "`overflow: :queue`"
    assert advice.numbers == %{refused: 2}
    queues = said(c, :refused, %{refused_total: %{budget: 2}}, overflow: :queue)
    refute queues.text =~ "overflow"
    refute_said(c, :refused, %{refused_total: %{budget: 0}})
  end

  test "17.7 :refused says nothing of what no setting changes", c do
    assert advice(c, %{refused_total: %{invalid: 1, shutting_down: 1}}) == []
  end

  test "17.7 :timeouts, with all that a call waits for", c do
    changes = %{
      timeouts_total: 1,
      oldest_commit_age_us: 7_000,
      hold_us: %{count: 1, max: 5_000},
      queue_wait_us: %{put_batch: %{count: 1, max: 9_000}}
    }

    advice = said(c, :timeouts, changes, call_timeout: 20)
    assert advice.text =~ "window"

    assert advice.numbers == %{
             timeouts: 1,
             call_timeout_ms: 20,
             slowest_commit_us: 2_000,
             oldest_commit_us: 7_000,
             longest_wait_us: 9_000,
             longest_hold_us: 5_000
           }

    refute_said(c, :timeouts, %{changes | timeouts_total: 0})
  end

  test "17.7 :direct, a tenth of all calls", c do
    calls = &%{writes_total: %{namespace: 900}, direct_commits_total: &1}
    assert %{numbers: %{direct: 100, calls: 900}} = said(c, :direct, calls.(100))
    refute_said(c, :direct, calls.(99))
  end

  test "17.7 :direct is not said of no calls at all", c do
    # Since a reset only commits have ended that had left before it.
    refute_said(c, :direct, %{writes_total: %{namespace: 0}, direct_commits_total: 0})
  end

  test "17.7 :direct says by which window", c do
    direct = %{direct_commits_total: 1_000}
    hot = said(c, :direct, direct, hot_batch_window_ms: 0).text
    assert hot =~ "`hot_batch_window_ms: 0`" and not (hot =~ "generic_batch_window_ms")
    generic = said(c, :direct, direct, generic_batch_window_ms: :direct).text

    assert generic =~ "generic_batch_window_ms: :direct" and
             not (generic =~ "hot_batch_window_ms")

    both = said(c, :direct, direct, hot_batch_window_ms: -1, generic_batch_window_ms: :direct)
    assert both.text =~ "hot_batch_window_ms: -1" and both.text =~ "generic_batch_window_ms"
    assert said(c, :direct, direct).text =~ "no batcher ran"
  end

  test "17.7 :max_in_flight, all are in flight and another lane waits", c do
    busy = %{in_flight_commits: 2, max_in_flight: 2, lanes: 3}
    assert said(c, :max_in_flight, busy).numbers == %{in_flight: 2, max_in_flight: 2, lanes: 3}
    refute_said(c, :max_in_flight, %{busy | in_flight_commits: 1})
    refute_said(c, :max_in_flight, %{busy | lanes: 2})
    refute_said(c, :max_in_flight, busy, commit_scope: :shard)
  end

  test "17.7 :commit_scope, fewer than two calls in a commit and four lanes that hold something",
       c do
    apart = %{lanes: 4, writes_per_commit: %{mean: 1.99}}
    numbers = said(c, :commit_scope, apart).numbers
    assert numbers == %{calls_per_commit: 1.99, lanes: 4}
    refute_said(c, :commit_scope, %{apart | lanes: 3})
    refute_said(c, :commit_scope, %{apart | writes_per_commit: %{mean: 2.0}})
    refute_said(c, :commit_scope, apart, commit_scope: :shard)
    none = left(alone: 100) |> Map.merge(%{lanes: 4, writes_per_commit: %{count: 0, mean: 0.0}})
    refute_said(c, :commit_scope, none)
  end

  test "17.7 :full, a fifth of the batches", c do
    advice = said(c, :full, left(size: 20, window: 80), namespace_batch_max: nil)
    assert advice.numbers == %{full: 20, batches: 100}
    assert advice.text =~ ":namespace_batch_max nil"
    refute_said(c, :full, left(size: 19, window: 80))
    # Those that were alone are no batches.
    assert said(c, :full, left(size: 20, window: 80, alone: 1_000))
    refute_said(c, :full, left(alone: 100))
  end

  test "17.7 :window, half of the batches, and held for longer than a quarter of a commit", c do
    held = &Map.put(left(&1), :hold_us, %{count: 50, p50: &2})
    half = [window: 50, commit: 50]
    numbers = said(c, :window, held.(half, 251)).numbers
    assert numbers == %{windows: 50, batches: 100, held_us: 251, commit_us: 1_000}
    refute_said(c, :window, held.(half, 250))
    refute_said(c, :window, held.([window: 49, commit: 51], 251))
    refute_said(c, :window, held.(half, 251), pacing: :auto)
    refute_said(c, :window, held.([alone: 100], 251))
  end

  test "17.7 :idle_window, nine tenths left because a commit had ended, and one for its window",
       c do
    advice = said(c, :idle_window, left(commit: 99, window: 1))
    assert advice.numbers == %{behind: 99, windows: 1, batches: 100, commit_us: 1_000}
    assert said(c, :idle_window, left(commit: 90, window: 10))
    refute_said(c, :idle_window, left(commit: 89, window: 11))
    refute_said(c, :idle_window, left(commit: 100, window: 0))
    refute_said(c, :idle_window, left(commit: 99, window: 1), pacing: :auto)
  end

  test "17.7 nearly all is not 100 %", c do
    shown = &hd(Regex.run(~r/\d+ % of the \w+, \d+ of \d+/, said(c, &1, &2).text))

    assert shown.(:idle_window, left(commit: 199, window: 1)) == "99 % of the batches, 199 of 200"
    assert shown.(:full, left(size: 999, window: 1)) == "99 % of the batches, 999 of 1000"
    assert shown.(:full, left(size: 200)) == "100 % of the batches, 200 of 200"
    direct = Map.put(left(commit: 100), :direct_commits_total, 1_000_000)
    assert shown.(:direct, direct) == "99 % of the calls, 1000000 of 1001000"
  end

  test "17.7 :alone, nine tenths of the batches hold one call", c do
    advice = said(c, :alone, %{writes_per_commit: %{p90: 1}})
    assert advice.text =~ "synchronous"
    assert advice.numbers == %{batches: 100}
    refute_said(c, :alone, %{writes_per_commit: %{p90: 2}})
    refute_said(c, :alone, %{writes_per_commit: %{p90: 1}}, pacing: :auto)
    refute_said(c, :alone, %{writes_per_commit: %{p90: 0, count: 0}})
  end

  test "17.7 :answering, half as long as a commit", c do
    advice = said(c, :answering, %{answering_us: %{p50: 500}})
    assert advice.numbers == %{answering_us: 500, commit_us: 1_000, calls_per_commit: 10.0}
    refute_said(c, :answering, %{answering_us: %{p50: 499}})
    refute_said(c, :answering, %{answering_us: %{p50: 0}, commit_us: %{p50: 0}})
  end

  test "17.7 :backend, a commit takes four times as long as calls wait", c do
    waits = &%{queue_wait_us: %{namespace: %{p50: &1}}}
    assert said(c, :backend, waits.(250)).numbers == %{commit_us: 1_000, wait_us: 250}
    refute_said(c, :backend, waits.(251))
    none = %{p50: 0, count: 0}
    refute_said(c, :backend, %{commit_us: none, queue_wait_us: %{namespace: none}})
    # The kind of lane that most calls are of is what counts.
    other = &%{queue_wait_us: %{batch: %{count: &1, p50: 1}}, answer_us: %{batch: %{count: &1}}}
    refute_said(c, :backend, other.(999))
    assert said(c, :backend, other.(1_001)).numbers.wait_us == 1
  end

  test "17.7 :backend, calls that are alone have waited for nothing", c do
    none = %{queue_wait_us: %{namespace: %{count: 0, p50: 0, max: 0}}}
    alone = Map.merge(left(alone: 100), none)
    assert said(c, :backend, alone).numbers == %{commit_us: 1_000, wait_us: 0}
    # 501 of 1 000 are alone, or 500 are.
    assert said(c, :backend, %{queue_wait_us: %{namespace: %{count: 499}}})
    refute_said(c, :backend, %{queue_wait_us: %{namespace: %{count: 500}}})
  end

  test "17.7 what matters most is said first, in the order of the documentation", c do
    topics = for %{topic: topic} <- advice(c, @much), do: topic
    behind = for %{topic: topic} <- advice(c, change(@much, @behind)), do: topic
    assert Enum.count(topics, &(&1 == :refused)) == 5

    assert Enum.dedup(topics) == documented() -- [:too_little_data, :idle_window]
    assert Enum.dedup(behind) == documented() -- [:too_little_data, :full, :window]
  end

  test "17.7 each option that is named is one, and each value one of it", c do
    advice =
      for overflow <- [:refuse, :queue],
          changes <- [@much, change(@much, @behind)],
          options = [hot_batch_window_ms: 0, generic_batch_window_ms: :direct, overflow: overflow],
          advice <- advice(c, changes, options),
          do: advice

    assert advice |> Enum.map(& &1.topic) |> Enum.uniq() |> Enum.sort() ==
             Enum.sort(documented() -- [:too_little_data])

    for %{text: text} <- advice do
      pairs = ~r/`([a-z_]+): ([^`]+)`/

      for [_, key, value] <- Regex.scan(pairs, text) do
        assert %{} = spec = Map.new(Schema.fetch(String.to_existing_atom(key)) || flunk(text))
        assert Type.valid?(spec.type, value |> Code.eval_string() |> elem(0)), text
      end

      for [_, key] <- Regex.scan(~r/:([a-z_]+)/, String.replace(text, pairs, "")) do
        assert Schema.environment_key?(String.to_existing_atom(key)), text
      end
    end
  end

  defp documented do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(Advice)
    for [_, topic] <- Regex.scan(~r/^\| `:(\w+)`/m, doc), do: String.to_existing_atom(topic)
  end
end
