defmodule Ferricstore.Raft.WARaftBackend.Batcher.Options.Schema do
  @moduledoc false
  # The options of a shard: one table, from which checks, types, messages, the documentation of the public module, the
  # table in README.md and the comments of the engine's `Config` are made (`mix batcher.options` writes the last two).
  #
  # Of each option:
  #
  #   * `type` - see `Type`
  #   * `default` - its value where nobody gives one; `nil` may stand for what `default_doc` says
  #   * `default_doc` - how the default is shown, if not as it is
  #   * `host` - the key of `:ferricstore`'s environment that gives it, where the shard is given none (contract 2)
  #   * `fixed` - why it can't be changed while a batcher runs, if it can't
  #   * `doc` - one or more sentences, without the last full stop
  #
  # Invariant: no other place says what an option is.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Options.Type

  @table [
    backend: [
      type: :module,
      default: Ferricstore.Raft.WARaftBackend,
      host: :waraft_backend_batcher_backend,
      doc:
        "the module that commits: `Batcher.Backend` says what it needs. It stays that of the shard while no batcher " <>
          "runs, when callers commit by themselves"
    ],
    backend_check: [
      type: {:one_of, [:start, :lazy]},
      default: :start,
      fixed: "it says what happens when a batcher starts",
      doc:
        "when a backend without the functions that it needs is found: `:start`, the start fails with " <>
          "`{:backend_not_available, module, missing_functions}`; `:lazy`, for a host that loads it later, its first " <>
          "failure is logged"
    ],
    namespace_batch_max: [
      type: :limit,
      default: 10_000,
      doc:
        "most commands in one commit of a namespace lane. More share a sync among more writes and hold the log longer. " <>
          "`0` commits each write by itself, `:infinity` or `nil` has no limit"
    ],
    hot_batch_max: [
      type: :limit,
      default: 10_000,
      doc:
        "the same for the generic, the put and the delete lane, in items, and with `commit_scope: :shard` for a whole " <>
          "commit, in what its lanes count"
    ],
    max_in_flight: [
      type: :positive,
      default: nil,
      default_doc: "256, with `commit_scope: :shard` 1",
      doc:
        "most commits of the shard in flight at once, each by a process of its own. More hide the time that one takes, " <>
          "fewer let more writes gather. What else is due leaves in the order in which it became so"
    ],
    hot_batch_window_ms: [
      type: :window,
      default: 1,
      host: :waraft_hot_batch_window_ms,
      doc:
        "window in ms of the put and delete lanes. `<= 0` commits in the caller. Longer means fewer, larger commits " <>
          "when there is little load; under load the commit itself is the window"
    ],
    generic_batch_window_ms: [
      type: :generic_window,
      default: 0,
      host: :waraft_generic_batch_window_ms,
      doc:
        "window in ms of the generic lane. With `0` a write leaves at once where nothing is in flight, and gathers " <>
          "behind a commit; `:direct` commits in the caller"
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
      default_doc: "`:refuse` where groups are measured (`:apply_context`), else `:queue`",
      doc:
        "what becomes of a write that does not fit the full slot of a lane whose commit is in flight: `:queue`, it " <>
          "opens the next slot; `:refuse`, it gets an error at once"
    ],
    apply_context: [
      type: :any,
      default: :host,
      fixed: "what is queued has been measured with it",
      doc:
        "what the host's `Ferricstore.Raft.ApplyWork` measures groups with, so that no commit is more work to the " <>
          "state machine than its budgets allow; `:host` is what the host's `Ferricstore.Raft.ApplyContext.default/0` " <>
          "says. With `nil`, or a host without these modules, groups are not measured"
    ],
    max_queue_items: [
      type: :positive,
      default: 1_000_000,
      doc:
        "most items that the shard holds, queued and in flight; above it a write is refused at once with " <>
          "`{:error, :batcher_overloaded}`"
    ],
    max_queue_bytes: [
      type: :positive,
      default: 1_073_741_824,
      doc: "the same in bytes: commands with their binaries, prefixes, tags of callers"
    ],
    call_timeout: [
      type: :milliseconds,
      default: 30_000,
      doc:
        "how long in ms a call waits beyond its window before it gives up; its write is committed all the same. A call " <>
          "that is alone takes as long as the backend"
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
        "how long in ms `stop/1` waits for queued writes to be committed; what the backend did not get by then is " <>
          "answered `{:error, :shutting_down}`"
    ],
    shutdown_timeout: [
      type: :milliseconds,
      default: 4_500,
      doc:
        "the same for the shutdown by a supervisor, which should wait for half a second longer before it kills: " <>
          "`child_spec/1` says so, with what holds at the start. A longer one that `configure/2` sets later is cut short " <>
          "by that"
    ],
    sync_gate: [
      type: :module,
      default: Ferricstore.Raft.WARaftBackend.SyncGate,
      host: :waraft_backend_batcher_sync_gate,
      doc: "the module whose `leave/1` releases the sync tokens of asynchronous writes"
    ],
    slow_commit_ms: [
      type: :timer,
      default: 1_000,
      doc: "a commit that takes so many ms or more is logged; `:infinity`, none is"
    ],
    stuck_ms: [
      type: :timer,
      default: 10_000,
      doc:
        "a commit that has been in flight for so many ms is logged, and that it is over; looked for once a second. " <>
          "`:infinity`, none is"
    ],
    direct_events: [
      type: :boolean,
      default: false,
      doc: "whether commits past the batcher emit the telemetry event `:direct`"
    ],
    strict: [
      type: :boolean,
      default: false,
      fixed: "it says what happens when a batcher starts",
      doc:
        "whether an unknown option is an error. Without it unknown ones are ignored, as a host may pass options of " <>
          "others, and one that looks like a known one is logged once"
    ]
  ]

  # Keys of `:ferricstore_batcher`'s environment that are of the application, not of a shard.
  @of_application [:max_total_queue_bytes]

  @keys Keyword.keys(@table)

  @typedoc "Where a value comes from."
  @type source :: :option | :ferricstore_batcher | :ferricstore | :default | :configured

  @doc "All options, in the order in which they are shown."
  @spec table() :: [{atom, keyword}]
  def table, do: @table

  @doc "Their keys."
  @spec keys() :: [atom]
  def keys, do: @keys

  @doc "What is known of an option; `nil` if there is none of that name."
  @spec fetch(term) :: keyword | nil
  def fetch(key) when is_atom(key), do: @table[key]
  def fetch(_no_key), do: nil

  @doc "The keys that the environment of `:ferricstore_batcher` has: of options, and of the application."
  @spec names() :: [atom]
  def names, do: @keys ++ @of_application

  @doc "Whether it has such a key."
  @spec environment_key?(term) :: boolean
  def environment_key?(key), do: key in names()

  @doc "The default as it is shown."
  @spec default(keyword) :: String.t()
  def default(spec), do: spec[:default_doc] || "`#{shown(spec[:default])}`"

  # 10_000 is read more easily than 10000.
  defp shown(number) when is_integer(number),
    do: Regex.replace(~r/\B(?=(\d{3})+$)/, Integer.to_string(number), "_")

  defp shown(other), do: inspect(other)

  @doc "The table as a list in Markdown, for the documentation of the public module."
  @spec docs() :: String.t()
  def docs do
    Enum.map_join(@table, "\n", fn {key, spec} ->
      "  * `#{inspect(key)}` (default #{default(spec)}) - #{spec[:doc]}."
    end)
  end

  @doc "The same as a table in Markdown, for README.md."
  @spec readme() :: String.t()
  def readme do
    rows =
      Enum.map_join(@table, "\n", fn {key, spec} ->
        "| `#{inspect(key)}` | #{default(spec)} | #{spec[:doc]} |"
      end)

    fixed = for {key, spec} <- @table, spec[:fixed], do: "`#{inspect(key)}`"

    """
    | option | default | what it is |
    | --- | --- | --- |
    #{rows}

    All but #{Enum.join(fixed, ", ")} can be changed while a batcher runs, by `configure/2`.
    """
  end

  @doc "A typespec of one option, `{key, value}`, quoted."
  @spec typespec() :: Macro.t()
  def typespec, do: Type.union(for {key, spec} <- @table, do: {key, Type.spec(spec[:type])})
end
