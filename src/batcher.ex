defmodule Ferricstore.Raft.WARaftBackend.Batcher do
  @moduledoc """
  Coalesces writes: those that arrive for one namespace of one shard within a window, or for all lanes of a shard
  together, become one commit, and each caller gets its own reply.

  A *shard* is one Raft group, with an index. Writes to it go through *lanes*, serial commit
  channels: one for each namespace prefix (`write/4`) and three hot ones, for lists of commands
  (`write_batch/2`), of puts (`write_put_batch/2`) and of deletes (`write_delete_batch/2`). What is
  queued in a lane, its *slot*, is committed when the window of its first write has passed, when it
  is full, or when the commit before it ends. One lane has at most one commit in flight, a shard at
  most `:max_in_flight`; but for that lanes do not wait for each other. Within a lane the order of
  arrival is kept, across lanes there is none.

  With `commit_scope: :shard` one commit takes what is due of all lanes of the shard. With `pacing: :auto` the window
  is the longest that a slot is held, and a call that is *alone*, with nothing queued or in flight and nobody expected,
  is committed by the calling process itself, as without a batcher.

  `docs/contract.md` has every promise, clause by clause.

  ## Starting

      children = [
        {Ferricstore.Raft.WARaftBackend.Batcher, 0},
        {Ferricstore.Raft.WARaftBackend.Batcher, {1, namespace_batch_max: 500}}
      ]

  The environment key `:max_total_queue_bytes` of `:ferricstore_batcher`, read when a batcher starts, bounds what all
  shards of the VM hold together, in bytes; by default nothing does.

  Options; unknown keys are ignored:

  #{Ferricstore.Raft.WARaftBackend.Batcher.Options.docs()}

  ## Results

  A write returns what the backend said of it, or one of these:

    * `{:error, {:batch_result_mismatch, expected, actual}}` - the backend gave another number of
      replies; whether the write happened is unknown
    * `{:error, {:backend_exit, reason}}` - the backend exited, or the process that called it was
      killed; unknown as well
    * `{:error, {:backend_error, :error | :throw, reason}}` - it raised or threw; unknown as well
    * `{:error, :invalid_batch_command_list}` - an improper list; nothing was queued
    * `{:error, :batcher_overloaded}` - the shard holds as much as it may, or all shards together do, or the
      lane does with `overflow: :refuse`; nothing was queued
    * `{:error, :batch_command_apply_budget_exceeded}` and the like - with `:apply_context`, more work
      than one commit may be, or what the host's measuring says; nothing was queued
    * `{:error, :shutting_down}` - the batcher is being stopped; not committed
    * `{:error, :batcher_down}` - its owner was killed and nobody took over; not committed

  With `commit_scope: :shard` what is said of a whole batch is said to the callers of all lanes in it.

  A call waits for 30 s and its window, then exits `{:timeout, {#{inspect(__MODULE__)}, function,
  args}}`; the write is committed all the same. A call that is alone takes as long as the backend. Without a batcher
  every function commits in the caller.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Commit,
    Count,
    Flush,
    From,
    Name,
    Native,
    Options,
    Owner,
    Settings,
    Snapshot,
    Stats,
    Write
  }

  import From, only: [is_from: 1]

  @max_window_ms Settings.max_window_ms()
  @max_shard 0xFFFF_FFFF_FFFF_FFFF

  @typedoc "Index of a Raft group."
  @type shard :: non_neg_integer
  @typedoc "What `write_put_batch/2` takes: key, value, time of expiry in ms (0: never)."
  @type entry :: {key :: binary, value :: binary, expire_at_ms :: integer}
  @typedoc "Of a whole batch: see \"Results\" above, or whatever else the backend returned."
  @type batch_result :: {:ok, [term]} | {:error, term} | term

  @typedoc """
  What is queued in a namespace lane. The timer fields are `nil`: the library keeps time. With `:apply_context` it
  also has `command_work`, `compound_work` and `visit_work`.
  """
  @type slot :: %{
          commands: [tuple],
          froms: [GenServer.from()],
          count: non_neg_integer,
          timer_ref: reference | nil,
          timer_token: reference | nil,
          window_ms: non_neg_integer,
          created_mono: integer
        }

  @typedoc """
  What is queued in a hot lane. `created_mono` is a monotonic time in microseconds. With `:apply_context` it also has
  `command_work`, `compound_work` and `visit_work`.
  """
  @type hot_slot :: %{
          groups: [{GenServer.from(), [term]}],
          count: non_neg_integer,
          timer_ref: reference | nil,
          timer_token: reference | nil,
          window_ms: non_neg_integer,
          created_mono: integer
        }

  @typedoc """
  What a shard holds now. Lanes of one commit in flight have the same reference; a write that is alone has one of its
  own, another one at each look.
  """
  @type snapshot :: %{
          slots: %{binary => slot},
          batch_slot: hot_slot | nil,
          put_slot: hot_slot | nil,
          delete_slot: hot_slot | nil,
          in_flight: %{({:prefix, binary} | :batch | :put_batch | :delete_batch) => reference}
        }

  defguardp is_shard(shard) when is_integer(shard) and shard >= 0

  defguardp is_timeout(timeout)
            when timeout == :infinity or
                   (is_integer(timeout) and timeout >= 0 and timeout <= @max_window_ms)

  @doc "The name that the batcher of a shard is registered under (1.1)."
  @spec name(shard) :: atom
  def name(shard) when is_integer(shard), do: Name.of(shard)

  @doc """
  Starts the batcher of a shard. Options: see the module.

  `{:error, {:already_started, pid}}` if one runs, `{:error, {:invalid_option, key, value}}` for a
  bad value, `{:error, {:nif_not_loaded, reason}}` if the shared library could not be loaded (1.2).
  """
  @spec start_link(shard, keyword) :: GenServer.on_start()
  def start_link(shard, opts \\ []) when is_shard(shard) and is_list(opts) do
    with :ok <- loaded(),
         :ok <- addressable(shard),
         {:ok, options} <- Options.check(opts),
         :ok <- bound_total(),
         do: Owner.start_link(shard, options)
  end

  @doc "For a supervisor: a shard or `{shard, opts}` (1.4, 1.5)."
  @spec child_spec(shard | {shard, keyword}) :: Supervisor.child_spec()
  def child_spec({shard, opts}) when is_shard(shard) and is_list(opts) do
    # A bad value is start_link's to report.
    shutdown_ms =
      case Options.check(opts) do
        {:ok, options} -> options.shutdown_timeout
        {:error, _} -> 0
      end

    %{
      id: {__MODULE__, shard},
      start: {__MODULE__, :start_link, [shard, opts]},
      type: :worker,
      restart: :permanent,
      # Time to drain, and some to answer what could not be drained.
      shutdown: min(shutdown_ms + 500, @max_window_ms)
    }
  end

  def child_spec(shard) when is_shard(shard), do: child_spec({shard, []})

  @doc """
  Writes one command through the lane of its namespace and returns the reply to it: bare, or
  `{:ok, replies}` for a command that counts other than 1 (6.2).

  `window_ms` is how long it may wait for company, in ms, if it is the first; with `pacing: :auto` the longest that it
  does.
  """
  @spec write(shard, prefix :: binary, command :: tuple, window_ms :: pos_integer) :: term
  def write(shard, prefix, command, window_ms)
      when is_integer(shard) and is_binary(prefix) and is_tuple(command) and
             is_integer(window_ms) and window_ms > 0 do
    if window_ms > @max_window_ms do
      raise ArgumentError,
            "the window must be at most #{@max_window_ms} milliseconds, got: #{window_ms}"
    end

    case Write.call(shard, prefix, command, Count.command(command), window_ms) do
      {:reply, reply} -> reply
      :not_running -> directly(shard, command)
      :timeout -> time_out(:write, [shard, prefix, command, window_ms])
      error -> error
    end
  end

  @doc "Writes a list of commands: one reply for each, as 6.2 counts them."
  @spec write_batch(shard, [tuple]) :: batch_result
  def write_batch(shard, commands) when is_integer(shard) and is_list(commands) do
    count = Count.commands(commands)
    sync(shard, :batch, commands, count, Settings.generic_window_ms(), :write_batch)
  end

  @doc "Writes a list of `{key, value, expire_at_ms}`: one reply for each."
  @spec write_put_batch(shard, [entry]) :: batch_result
  def write_put_batch(shard, entries) when is_integer(shard) and is_list(entries) do
    count = Count.items(entries)
    sync(shard, :put_batch, entries, count, hot_window_ms(shard), :write_put_batch)
  end

  @doc "Deletes a list of keys: one reply for each."
  @spec write_delete_batch(shard, [binary]) :: batch_result
  def write_delete_batch(shard, keys) when is_integer(shard) and is_list(keys) do
    count = Count.items(keys)
    sync(shard, :delete_batch, keys, count, hot_window_ms(shard), :write_delete_batch)
  end

  @doc """
  Queues a list of entries; what `write_put_batch/2` would return goes to `from`, as with
  `GenServer.reply/2`: `{to, tag}`, where `to` is a process, an alias, a name or `{name, node}`; `ArgumentError` for
  anything else, with nothing done.

  `:ok`: exactly one reply reaches `from`, and `sync_token`, unless `nil`, was released by
  `SyncGate.leave/1` once the write was queued. `{:direct, result}`: it was committed in the
  caller, who has to reply and to release the token.
  """
  @spec write_put_batch_async(shard, [entry], GenServer.from(), term) ::
          :ok | {:direct, batch_result}
  def write_put_batch_async(shard, entries, from, sync_token \\ nil)
      when is_integer(shard) and is_list(entries) do
    from!(from)
    async(shard, :put_batch, entries, hot_window(shard), from, sync_token)
  end

  @doc "The same for a list of keys to delete."
  @spec write_delete_batch_async(shard, [binary], GenServer.from(), term) ::
          :ok | {:direct, batch_result}
  def write_delete_batch_async(shard, keys, from, sync_token \\ nil)
      when is_integer(shard) and is_list(keys) do
    from!(from)
    async(shard, :delete_batch, keys, hot_window(shard), from, sync_token)
  end

  @doc "The same for a list of commands, through the generic lane: what `write_batch/2` would return goes to `from`."
  @spec write_batch_async(shard, [tuple], GenServer.from(), term) ::
          :ok | {:direct, batch_result}
  def write_batch_async(shard, commands, from, sync_token \\ nil)
      when is_integer(shard) and is_list(commands) do
    from!(from)
    async(shard, :batch, commands, Settings.generic_window_ms(), from, sync_token)
  end

  @doc """
  The same for one command, through the generic lane: its reply goes to `from`, bare, or `{:ok, replies}` if it counts
  other than 1 (6.2).
  """
  @spec write_single_async(shard, tuple, GenServer.from(), term) :: :ok | {:direct, term}
  def write_single_async(shard, command, from, sync_token \\ nil)
      when is_integer(shard) and is_tuple(command) do
    from!(from)
    window_ms = Settings.generic_window_ms()

    case Write.Async.write(shard, :single, [command], window_ms, from, sync_token) do
      :ok -> :ok
      :not_running -> {:direct, directly(shard, command)}
    end
  end

  @doc """
  Commits everything that is queued, windows aside, and returns when every write accepted before
  this call has been answered. `:ok` without a batcher.
  """
  @spec flush(shard, timeout) :: :ok | {:error, {:timeout, mfa_call} | term}
        when mfa_call: {module, atom, list}
  def flush(shard, timeout \\ 30_000) when is_integer(shard) and is_timeout(timeout) do
    case Flush.run(shard, timeout) do
      {:reply, result} -> result
      :not_running -> :ok
      :timeout -> {:error, {:timeout, {__MODULE__, :flush, [shard, timeout]}}}
    end
  end

  @doc """
  Refuses new writes, commits what is queued and ends the batcher. Returns once its name is free;
  under a supervisor it is then started anew.
  """
  @spec stop(shard) :: :ok
  def stop(shard) when is_integer(shard) do
    case Name.owner(shard) do
      nil ->
        :ok

      owner ->
        monitor = Process.monitor(owner)
        GenServer.cast(owner, :stop)

        receive do
          {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
        end
    end
  end

  @doc "What the shard holds now; `nil` without a batcher. Copies it all: for a look, not for a loop."
  @spec snapshot(shard) :: snapshot | nil
  def snapshot(shard) when is_integer(shard), do: Snapshot.take(shard)

  @doc """
  What the shard has counted and holds now, a map; `nil` without a batcher. `Ferricstore.Raft.WARaftBackend.Batcher.Stats`
  says what is in it. Counters go on when a batcher is stopped and started again.
  """
  @spec stats(shard) :: Stats.t() | nil
  def stats(shard) when is_integer(shard), do: Stats.take(shard)

  @doc "The same of all shards whose batchers run."
  @spec stats() :: %{shard => Stats.t()}
  def stats, do: Stats.all()

  @doc "Zeroes the counters and distributions of a shard, and what `top_lanes/2` counts; gauges stay what they are."
  @spec reset_stats(shard) :: :ok
  def reset_stats(shard) when is_integer(shard), do: Stats.reset(shard)

  @doc "The same of all shards whose batchers run."
  @spec reset_stats() :: :ok
  def reset_stats, do: Stats.reset_all()

  @doc """
  The `count` busiest lanes of the shard, those that were given the most calls, the busiest first; `nil` without a
  batcher. See `t:Ferricstore.Raft.WARaftBackend.Batcher.Stats.lane/0`.

  Of more than 1 024 lanes those that hold nothing are forgotten, with what they were given. On a dirty scheduler; the
  time it takes grows with the number of lanes.
  """
  @spec top_lanes(shard, non_neg_integer) :: [Stats.lane()] | nil
  def top_lanes(shard, count) when is_integer(shard) and is_integer(count) and count >= 0,
    do: Stats.top_lanes(shard, count)

  defp loaded do
    case Native.loaded() do
      :ok -> :ok
      {:error, reason} -> {:error, {:nif_not_loaded, reason}}
    end
  end

  defp addressable(shard) when shard <= @max_shard, do: :ok
  defp addressable(shard), do: {:error, {:invalid_option, :shard, shard}}

  defp bound_total do
    with {:ok, bytes} <- Settings.max_total_queue_bytes(), do: Native.bound_total(bytes)
  end

  defp hot_window(shard) do
    window_ms = hot_window_ms(shard)
    if window_ms > 0, do: window_ms, else: :direct
  end

  defp hot_window_ms(shard), do: Native.hot_window(shard, max(Settings.hot_window_ms(), 0))

  defp sync(shard, _lane, _list, :improper, _window_ms, _function), do: Write.refuse_list(shard)

  defp sync(shard, lane, list, _count, window_ms, _function)
       when window_ms == :direct or (lane != :batch and window_ms <= 0),
       do: directly(shard, lane, list)

  defp sync(shard, lane, list, count, window_ms, function) do
    case Write.call(shard, lane, list, count, window_ms) do
      {:reply, reply} -> reply
      :not_running -> directly(shard, lane, list)
      :timeout -> time_out(function, [shard, list])
      error -> error
    end
  end

  defp async(shard, lane, list, window_ms, from, sync_token) do
    case Write.Async.write(shard, lane, list, window_ms, from, sync_token) do
      :ok -> :ok
      :not_running -> {:direct, directly(shard, lane, list)}
    end
  end

  defp from!(from) when is_from(from), do: from

  defp from!(from) do
    raise ArgumentError,
          "from must be a GenServer.from(): {to, tag}, where to is a pid, an alias, a name or " <>
            "{name, node}, got: #{inspect(from)}"
  end

  defp directly(shard, lane, list) do
    Native.directly(shard)
    Commit.run(shard, Commit.function(lane), list)
  end

  defp directly(shard, command) do
    Native.directly(shard)
    Commit.run_single(shard, command)
  end

  defp time_out(function, args), do: exit({:timeout, {__MODULE__, function, args}})
end
