defmodule Ferricstore.Raft.WARaftBackend.Batcher.Options do
  @moduledoc false
  # The options of `Batcher.start_link/2`: one table, from which checks and documentation are made.

  @max_ms Ferricstore.Raft.WARaftBackend.Batcher.Settings.max_window_ms()
  @no_limit 0xFFFF_FFFF_FFFF_FFFF

  @table [
    namespace_batch_max: [
      type: :limit,
      default: 10_000,
      doc:
        "most commands in one commit of a namespace lane. More share a sync among more writes and " <>
          "hold the log longer. `0` commits each write alone, `:infinity` or `nil` has no limit"
    ],
    hot_batch_max: [
      type: :limit,
      default: 10_000,
      doc: "the same for the generic, the put and the delete lane, in items"
    ],
    hot_batch_window_ms: [
      type: :window,
      default: nil,
      doc:
        "window of the put and delete lanes of this shard, instead of `:waraft_hot_batch_window_ms` " <>
          "of the application environment. `<= 0` commits directly in the caller"
    ],
    pacing: [
      type: {:one_of, [:commit, :window]},
      default: :commit,
      doc:
        "when the writes that gathered behind a commit leave: `:commit`, as soon as it ends (lowest " <>
          "latency); `:window`, when their own window has passed (fewer commits)"
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
      doc: "the same in bytes, binaries included"
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
        "how long in ms `stop/1` and a supervisor's shutdown wait for queued writes to be " <>
          "committed; what the backend did not get by then is answered `{:error, :shutting_down}`"
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

  @doc "As the library wants them: see `Native.open/2`."
  @spec native(t) :: tuple
  def native(options) do
    {
      {limit(options.namespace_batch_max), limit(options.hot_batch_max)},
      options.hot_batch_window_ms && max(options.hot_batch_window_ms, 0),
      options.pacing == :window,
      {min(options.max_queue_items, @no_limit), min(options.max_queue_bytes, @no_limit)},
      options.adoption_timeout
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
  defp valid?({:one_of, values}, value), do: value in values
  defp valid?(:positive, number), do: is_integer(number) and number > 0
  defp valid?(:milliseconds, ms), do: is_integer(ms) and ms >= 0 and ms <= @max_ms

  defp limit(limit) when limit in [nil, :infinity], do: nil
  defp limit(limit), do: min(limit, @no_limit)
end
