defmodule Ferricstore.Raft.WARaftBackend.Batcher.Options do
  @moduledoc false
  # The options of `Batcher.start_link/2`: one table, from which checks and documentation are made.
  #
  # Invariant: what `check/1` lets through, the library takes: no other place looks at a value again.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Budgets

  @max_ms Ferricstore.Raft.WARaftBackend.Batcher.Settings.max_window_ms()
  @no_limit 0xFFFF_FFFF_FFFF_FFFF
  @max_in_flight %{lane: 128, shard: 1}

  @table [
    namespace_batch_max: [
      type: :limit,
      default: 10_000,
      doc:
        "most commands in one commit of a namespace lane. More share a sync among more writes and " <>
          "hold the log longer. `0` commits each write by itself, `:infinity` or `nil` has no limit"
    ],
    hot_batch_max: [
      type: :limit,
      default: 10_000,
      doc:
        "the same for the generic, the put and the delete lane, in items, and with `commit_scope: :shard` for a " <>
          "whole commit, in what its lanes count (6.1)"
    ],
    max_in_flight: [
      type: :positive,
      default: nil,
      doc:
        "most commits of the shard in flight at once, each by a process of its own. More hide the time that one " <>
          "takes, fewer let more writes gather. Without this option: 128 with `commit_scope: :lane`, where what " <>
          "else is due leaves in the order in which it became so; 1 with `:shard`"
    ],
    hot_batch_window_ms: [
      type: :window,
      default: nil,
      doc:
        "window in ms of the put and delete lanes of this shard, instead of `:waraft_hot_batch_window_ms` " <>
          "of the application environment. `<= 0` commits directly in the caller"
    ],
    pacing: [
      type: {:one_of, [:commit, :window, :auto]},
      default: :commit,
      doc:
        "when writes that have gathered leave: `:commit`, as soon as the commit before them ends, or their window " <>
          "does; `:window`, when their own window has passed (fewer commits, later replies); `:auto`, as soon as it " <>
          "is not worth while to wait for more, which is learned: the window is the longest that they are held, and " <>
          "a call that is alone is committed by its own process, in which the backend then runs"
    ],
    commit_scope: [
      type: {:one_of, [:lane, :shard]},
      default: :lane,
      doc:
        "what one commit takes: `:lane`, what is due of one lane; `:shard`, what is due of all lanes of the shard, " <>
          "at most `:hot_batch_max`. Where a commit costs the same for one lane and for all, as in a Raft group, " <>
          "that is less work; a result of a whole batch, such as an error, is that of all lanes in it"
    ],
    overflow: [
      type: {:one_of, [:queue, :refuse]},
      default: nil,
      doc:
        "what becomes of a write that does not fit the full slot of a lane whose commit is in " <>
          "flight: `:queue`, it opens the next slot; `:refuse`, it gets an error at once. Without " <>
          "this option: `:refuse` where groups are measured (`:apply_context`), `:queue` otherwise"
    ],
    apply_context: [
      type: :any,
      default: :host,
      doc:
        "what the host's `Ferricstore.Raft.ApplyWork` measures groups with, so that no commit is " <>
          "more work to the state machine than its budgets allow; `:host` is what the host's " <>
          "`Ferricstore.Raft.ApplyContext.default/0` says. With `nil`, or a host without these " <>
          "modules, groups are not measured"
    ],
    max_queue_items: [
      type: :positive,
      default: 1_000_000,
      doc:
        "most items that the shard holds, queued and in flight; above it a write is refused at once " <>
          "with `{:error, :batcher_overloaded}`"
    ],
    max_queue_bytes: [
      type: :positive,
      default: 1_073_741_824,
      doc: "the same in bytes: commands with their binaries, prefixes, tags of callers"
    ],
    adoption_timeout: [
      type: :milliseconds,
      default: 5_000,
      doc:
        "how long in ms queued writes wait for a new owner when theirs was killed; then they get " <>
          "`{:error, :batcher_down}` and were not committed"
    ],
    drain_timeout: [
      type: :milliseconds,
      default: 30_000,
      doc:
        "how long in ms `stop/1` waits for queued writes to be committed; what the backend did " <>
          "not get by then is answered `{:error, :shutting_down}`"
    ],
    shutdown_timeout: [
      type: :milliseconds,
      default: 4_500,
      doc:
        "the same for the shutdown by a supervisor, which should wait for half a second longer " <>
          "before it kills: `child_spec/1` says so"
    ]
  ]

  @type t :: %{atom => term}

  @doc "Known options with their defaults, unknown ones left out."
  @spec check(keyword) :: {:ok, t} | {:error, {:invalid_option, atom, term}}
  def check(opts) do
    Enum.reduce_while(@table, {:ok, %{}}, fn {key, spec}, {:ok, options} ->
      case Keyword.fetch(opts, key) do
        :error ->
          {:cont, {:ok, Map.put(options, key, spec[:default])}}

        {:ok, value} ->
          if valid?(spec[:type], value),
            do: {:cont, {:ok, Map.put(options, key, value)}},
            else: {:halt, {:error, {:invalid_option, key, value}}}
      end
    end)
  end

  @doc "Checked options as the library wants them, with the budgets of `Budgets.open/2`: see `Native.open/2`."
  @spec native(t, Budgets.usage() | nil) :: tuple
  def native(options, budgets) do
    overflow = options.overflow || if(budgets, do: :refuse, else: :queue)

    {
      {limit(options.namespace_batch_max), limit(options.hot_batch_max),
       min(options.max_in_flight || @max_in_flight[options.commit_scope], @no_limit)},
      options.hot_batch_window_ms && max(options.hot_batch_window_ms, 0),
      {options.pacing, options.commit_scope, overflow},
      {min(options.max_queue_items, @no_limit), min(options.max_queue_bytes, @no_limit)},
      options.adoption_timeout,
      budgets
    }
  end

  @doc "The table as Markdown, for the documentation of the public module."
  def docs do
    Enum.map_join(@table, "\n", fn {key, spec} ->
      "  * `#{inspect(key)}` (default `#{inspect(spec[:default])}`) - #{spec[:doc]}."
    end)
  end

  defp valid?(:limit, limit), do: limit in [nil, :infinity] or (is_integer(limit) and limit >= 0)
  defp valid?(:window, window_ms), do: is_integer(window_ms) and window_ms <= @max_ms
  defp valid?(:any, _value), do: true
  defp valid?({:one_of, values}, value), do: value in values
  defp valid?(:positive, number), do: is_integer(number) and number > 0
  defp valid?(:milliseconds, ms), do: is_integer(ms) and ms >= 0 and ms <= @max_ms

  defp limit(limit) when limit in [nil, :infinity], do: nil
  defp limit(limit), do: min(limit, @no_limit)
end
