defmodule Ferricstore.Raft.WARaftBackend.Batcher.Telemetry.Events do
  @moduledoc false
  # The events that batchers emit: one table, from which the documentation and the definitions of metrics are made.
  #
  # Invariant: an event has the measurements and the metadata that it has here, and no others.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Telemetry

  @shard {:shard_index, "the shard"}
  @lane {:lane, "kind of the lane: `:namespace`, `:batch`, `:put_batch` or `:delete_batch`"}
  @reason {:reason,
           "why it left: `:window`, `:size`, `:commit`, `:immediate`, `:alone`, `:flush` or `:stop`"}
  @result {:result, "`:ok`, `{:error, reason}` or `:other`"}
  @window {:window_ms, "the window that its first write came with, in ms"}
  @commit [
    {:commit, "a reference, the same for all lanes of one commit; only if it is of several"},
    {:lanes, "how many these are; only if there are several"}
  ]

  @size {:batch_size, :none, "what the lane counts: commands, or items of a hot lane"}
  @times [
    {:queue_wait_us, :microsecond, "from when the first write came until the commit began"},
    {:queue_age_us, :microsecond, "the same"},
    {:flush_duration_us, :microsecond, "how long the commit took"},
    {:duration_us, :microsecond, "both together"},
    {:total_duration_us, :microsecond, "the same"}
  ]
  @callers {:caller_count, :none, "calls"}
  @bytes {:command_bytes, :byte, "what they take"}
  @held [
    {:queued_items, :none, "items that are queued"},
    {:queued_bytes, :byte, "bytes of these"},
    {:in_flight_items, :none, "items that are being committed"}
  ]

  @table [
    {[:ferricstore, :waraft, :batcher, :start], "A commit begins.",
     [@size, @callers, @bytes, {:queue_wait_us, :microsecond, "as below"}],
     [@shard, @lane, @reason | @commit]},
    {[:ferricstore, :waraft, :batcher, :slot_flush], "A commit of a namespace lane has ended.",
     [@size | @times],
     [@shard, @lane, {:prefix, "the namespace"}, @window, @result, @reason | @commit]},
    {[:ferricstore, :waraft, :batcher, :hot_flush], "A commit of a hot lane has ended.",
     [@size, {:group_count, :none, "calls"} | @times],
     [@shard, @lane, {:kind, "the same as `:lane`"}, @window, @result, @reason | @commit]},
    {[:ferricstore, :batcher, :quorum_submit], "A commit has ended, of whatever lane.",
     [@size, @callers, @bytes | @times],
     [
       @shard,
       @lane,
       {:kind, "`:batch`"},
       {:backend, "`:waraft`"},
       {:status, "`:ok`, `:error` or `:unknown`"},
       @reason | @commit
     ]},
    {[:ferricstore, :waraft, :batcher, :direct],
     "A commit past the batcher has ended; only with the option `direct_events: true`.",
     [{:duration_us, :microsecond, "how long it took"}],
     [@shard, @lane, {:result, "as above, and `:exit` if the backend failed"}]},
    {[:ferricstore, :waraft, :batcher, :refused],
     "Calls were refused since the last look, which is a second or a few ago, or before the batcher ended.",
     [{:count, :none, "how many"}],
     [
       @shard,
       {:cause,
        "`:items`, `:bytes`, `:total_bytes`, `:overflow`, `:budget`, `:shutting_down` or `:invalid`"}
     ]},
    {[:ferricstore, :waraft, :batcher, :stuck],
     "A commit has been in flight for `:stuck_ms`; once for each time that one is.",
     [{:age_us, :microsecond, "for how long so far"}, Enum.at(@held, 0), Enum.at(@held, 2)],
     [
       @shard,
       {:lane, "kind of the lane, `:several` of a commit of several kinds, or `:unknown`"},
       {:pid, "the process that commits; `nil` if it ended meanwhile"}
     ]},
    {[:ferricstore, :waraft, :batcher, :committer_down], "A committer has died.",
     [{:count, :none, "1"}], [@shard, {:reason, "why: of the exit reason its atoms, as text"}]},
    {[:ferricstore, :waraft, :batcher, :adopted],
     "A new owner has taken over a shard whose owner had died.", @held, [@shard]},
    {[:ferricstore, :waraft, :batcher, :drained],
     "A batcher was stopped: what was left then, and was refused.", @held,
     [@shard, {:result, "`:ok`: all was committed; `:too_late`: not all"}]}
  ]

  @doc "See `Telemetry.events/0`."
  @spec all() :: [Telemetry.description()]
  def all do
    for {event, help, measurements, metadata} <- @table,
        do: %{event: event, help: help, measurements: measurements, metadata: metadata}
  end

  @doc "The table as Markdown."
  @spec docs() :: String.t()
  def docs, do: "## Events\n\n" <> Enum.map_join(all(), "\n", &docs/1)

  defp docs(%{event: event, help: help, measurements: measurements, metadata: metadata}) do
    measured =
      Enum.map_join(measurements, "\n", fn {name, unit, help} ->
        "  * `#{inspect(name)}`#{unit(unit)}: #{help}"
      end)

    about =
      Enum.map_join(metadata, "\n", fn {name, help} -> "  * `#{inspect(name)}`: #{help}" end)

    """
    ### `#{inspect(event)}`

    #{help}

    Measurements:

    #{measured}

    Metadata:

    #{about}
    """
  end

  defp unit(:none), do: ""
  defp unit(unit), do: " (#{unit})"
end
