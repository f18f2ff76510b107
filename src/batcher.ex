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

  Options, the same that `config :ferricstore_batcher` takes for all shards:

  #{Ferricstore.Raft.WARaftBackend.Batcher.Options.Schema.docs()}

  What a shard is not given is that of the environment of `:ferricstore_batcher` when it starts, then, where `:ferricstore`
  has a key for it, that of its environment at each call, then the default. `configure/2` changes options of a running
  batcher, `options/1` says what holds and why.

  Unknown options are ignored, unless `strict: true`. A bad value is `{:error, {:invalid_option, key, value}}`; of two
  options that don't go together key and value are pairs. `format_error/1` says it in words.

  ## Results

  A write returns what the backend said of it, or `{:error, reason}` of the batcher's own: `Batcher.Error` has all reasons,
  and `committed?/1` says which of them mean that nothing was committed, nor will be.

  With `commit_scope: :shard` what is said of a whole batch is said to the callers of all lanes in it.

  A call waits for `:call_timeout` and its window, then exits `{:timeout, {#{inspect(__MODULE__)}, function,
  args}}`; the write is committed all the same. A call that is alone takes as long as the backend. Without a batcher
  every function commits in the caller.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Advice,
    Call,
    Commit,
    Count,
    Error,
    Flush,
    Name,
    Options,
    Settings,
    Snapshot,
    Start,
    Stats,
    Write
  }

  @max_window_ms Settings.max_window_ms()
  @configure_ms 5_000

  @typedoc "Index of a Raft group."
  @type shard :: non_neg_integer
  @typedoc "An option of a shard."
  @type option :: unquote(Options.Schema.typespec())
  @typedoc """
  Where the value of an option comes from: it was given at the start, is that of an environment, or the default, or was
  changed by `configure/2`.
  """
  @type source :: :option | :ferricstore_batcher | :ferricstore | :default | :configured
  @typedoc "An option that is wrong, see `start_link/2`; of two that don't go together a pair of each."
  @type invalid_option ::
          {:invalid_option, key :: term | {atom, atom}, value :: term | {term, term}}
  @typedoc "A backend that can't be loaded, or that lacks functions which it needs."
  @type backend_not_available ::
          {:backend_not_available, module :: term, missing_functions :: [{atom, arity}, ...]}
  @typedoc "What `write_put_batch/2` takes: key, value, time of expiry in ms (0: never)."
  @type entry :: {key :: binary, value :: binary, expire_at_ms :: integer}
  @typedoc "An error of the batcher's own."
  @type error :: Error.t()
  @typedoc "What the backend says of a whole batch that has failed; whatever else it returns is passed on as well."
  @type backend_error :: {:error, reason :: term}
  @typedoc "Of a whole batch: a reply for each of its items, or an error."
  @type batch_result :: {:ok, replies :: [term]} | error | backend_error

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

  @doc "The name that the batcher of a shard is registered under."
  @spec name(shard) :: atom
  def name(shard) when is_integer(shard), do: Name.of(shard)

  @doc """
  Starts the batcher of a shard. Options: see the module.

  Errors, which `format_error/1` puts into words:

    * `{:error, {:already_started, pid}}` - one runs
    * `{:error, {:invalid_option, key, value}}` - a bad value, or with `strict: true` an unknown option; of two options
      that don't go together `key` and `value` are pairs
    * `{:error, {:backend_not_available, module, missing_functions}}` - the backend can't be loaded, or lacks functions,
      `[{name, arity}]`, unless `backend_check: :lazy`
    * `{:error, {:nif_not_loaded, reason}}` - the shared library could not be loaded
    * `{:error, {:thread_not_started, text}}` - the system gave no thread to the timer that keeps the shard's time
  """
  @spec start_link(shard, [option | {atom, term} | term]) :: GenServer.on_start()
  def start_link(shard, opts \\ []) when is_shard(shard) and is_list(opts),
    do: Start.link(shard, opts)

  @doc """
  Changes options of a running batcher: all of them, or none if one is wrong.

      :ok = Batcher.configure(0, pacing: :auto, max_queue_items: 5_000_000)

  Writes that come afterwards meet the new values. What is queued is neither lost nor reordered: it keeps the window and
  the maximum that it came with, and leaves as if it had been flushed if the commit scope changes. A commit that is in
  flight ends as it began. It is for now and then: the VM has all processes look for what was replaced.

  What was changed holds until the batcher is stopped, also for an owner that takes over from one that was killed; a
  batcher that is started anew has the options that it is started with.

  Errors: `{:invalid_option, key, value}` as in `start_link/2`, for unknown options and those that can't be changed too
  (`:apply_context`, `:backend_check`, `:strict`); `{:backend_not_available, module, missing_functions}`; `:not_running`;
  `:shutting_down`; `:timeout`, if the owner does not answer, such as one that is suspended: it may do it later.
  """
  @spec configure(shard, [option]) ::
          :ok
          | {:error,
             invalid_option | backend_not_available | :not_running | :shutting_down | :timeout}
  def configure(shard, opts) when is_integer(shard) and length(opts) >= 0 do
    GenServer.call(Name.of(shard), {:configure, opts}, @configure_ms)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _no_owner -> {:error, :not_running}
  end

  @doc """
  All options of a shard, as they hold now, and where each comes from; `nil` without a batcher.

      iex> Batcher.options(0).pacing
      {:auto, :option}

  For an option that depends on others it is what comes of that, such as `{1, :default}` for `:max_in_flight` with
  `commit_scope: :shard`. What `:ferricstore`'s environment says is shown as it is, right or wrong.
  """
  @spec options(shard) :: %{(key :: atom) => {value :: term, source}} | nil
  def options(shard) when is_integer(shard),
    do: if(Name.owner(shard), do: Options.Origin.all(shard))

  @doc "An error of `start_link/2` or `configure/2` in words. Anything else is shown as a term."
  @spec format_error(term) :: String.t()
  defdelegate format_error(error), to: Error, as: :format

  @doc "Whether a write that got this error is committed, or may still be: see `Batcher.Error.committed?/1`."
  @spec committed?(error | Error.reason() | term) :: :no | :unknown
  defdelegate committed?(error), to: Error

  @doc "For a supervisor: a shard or `{shard, opts}`."
  @spec child_spec(shard | {shard, [option | {atom, term} | term]}) :: Supervisor.child_spec()
  def child_spec({shard, opts}) when is_shard(shard) and is_list(opts),
    do: Start.child_spec(shard, opts)

  def child_spec(shard) when is_shard(shard), do: child_spec({shard, []})

  @doc """
  Writes one command through the lane of its namespace and returns the reply to it: bare, or
  `{:ok, replies}` for a command that has several, as a batch, a list of puts or of deletes within a command has.

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

    settings = Settings.of(shard)

    case Write.call(shard, prefix, command, Count.command(command), window_ms, settings) do
      {:reply, reply} -> reply
      :not_running -> Commit.run_single(shard, :namespace, settings, command)
      :timeout -> Call.time_out(:write, [shard, prefix, command, window_ms])
      error -> error
    end
  end

  @doc "Writes a list of commands: one reply for each, and for each of those within it."
  @spec write_batch(shard, [tuple]) :: batch_result
  def write_batch(shard, commands) when is_integer(shard) and is_list(commands) do
    Call.sync(shard, :batch, commands, :write_batch)
  end

  @doc "Writes a list of `{key, value, expire_at_ms}`: one reply for each."
  @spec write_put_batch(shard, [entry]) :: batch_result
  def write_put_batch(shard, entries) when is_integer(shard) and is_list(entries) do
    Call.sync(shard, :put_batch, entries, :write_put_batch)
  end

  @doc "Deletes a list of keys: one reply for each."
  @spec write_delete_batch(shard, [binary]) :: batch_result
  def write_delete_batch(shard, keys) when is_integer(shard) and is_list(keys) do
    Call.sync(shard, :delete_batch, keys, :write_delete_batch)
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
    Call.async(shard, :put_batch, entries, from, sync_token)
  end

  @doc "The same for a list of keys to delete."
  @spec write_delete_batch_async(shard, [binary], GenServer.from(), term) ::
          :ok | {:direct, batch_result}
  def write_delete_batch_async(shard, keys, from, sync_token \\ nil)
      when is_integer(shard) and is_list(keys) do
    Call.async(shard, :delete_batch, keys, from, sync_token)
  end

  @doc "The same for a list of commands, through the generic lane: what `write_batch/2` would return goes to `from`."
  @spec write_batch_async(shard, [tuple], GenServer.from(), term) ::
          :ok | {:direct, batch_result}
  def write_batch_async(shard, commands, from, sync_token \\ nil)
      when is_integer(shard) and is_list(commands) do
    Call.async(shard, :batch, commands, from, sync_token)
  end

  @doc """
  The same for one command, through the generic lane: its reply goes to `from`, bare, or `{:ok, replies}` if it
  has several.
  """
  @spec write_single_async(shard, tuple, GenServer.from(), term) :: :ok | {:direct, term}
  def write_single_async(shard, command, from, sync_token \\ nil)
      when is_integer(shard) and is_tuple(command) do
    Call.single_async(shard, command, from, sync_token)
  end

  @doc """
  Commits everything that is queued, windows aside, and returns when every write accepted before
  this call has been answered. `:ok` without a batcher.
  """
  @spec flush(shard, timeout) ::
          :ok
          | {:error, {:timeout, {module, atom, list}} | :shutting_down | :batcher_down | crash}
        when crash: {:batcher_crashed, text :: String.t()}
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
  What would change the shard for the better, by what it has counted since the last reset, what matters most first; an
  empty list if there is nothing to say, `nil` without a batcher. `Ferricstore.Raft.WARaftBackend.Batcher.Advice` says
  what is said when.

      for %{text: text} <- Batcher.advise(0), do: IO.puts(text)
  """
  @spec advise(shard) :: [Advice.t()] | nil
  def advise(shard) when is_integer(shard) do
    with %{} = stats <- stats(shard),
         %{} = options <- options(shard),
         do: Advice.of(stats, options)
  end

  @doc """
  The `count` busiest lanes of the shard, those that were given the most calls, the busiest first; `nil` without a
  batcher. See `t:Ferricstore.Raft.WARaftBackend.Batcher.Stats.lane/0`.

  Of more than 1 024 lanes those that hold nothing are forgotten, with what they were given. On a dirty scheduler; the
  time it takes grows with the number of lanes.
  """
  @spec top_lanes(shard, non_neg_integer) :: [Stats.lane()] | nil
  def top_lanes(shard, count) when is_integer(shard) and is_integer(count) and count >= 0,
    do: Stats.top_lanes(shard, count)
end
