defmodule Ferricstore.Raft.WARaftBackend.Batcher.Native do
  @moduledoc false
  # The functions of the shared library. A module of its own, so that all others can be reloaded
  # while batchers run: `Native` can't, the library stays with the version that loaded it.
  #
  # Invariant: every function has a body here that is right while no library is loaded, when no
  # batcher can run. Nothing ends in `undef`, unless the code server is told to delete this module.
  #
  # What the code server does to this module while batchers run:
  #
  #   * `:code.load_file/1` and the like fail with `:on_load_failure`, and what is loaded goes on.
  #   * `:code.purge/1` does nothing: it removes old code, and there is none.
  #   * `:code.delete/1` makes what is loaded old code. The next call loads the module again and
  #     waits for that, as with any module (in embedded mode it is `undef`, until somebody calls
  #     `:code.load_file/1`). No library can be loaded while old code holds it, so `load/0` purges
  #     that first.
  #   * `:code.purge/1` after that kills the processes inside a long call, on a dirty scheduler: what such a
  #     process has queued is committed nevertheless. The library stays mapped (`-z nodelete`), with
  #     its shards, queues and timers.
  #
  # A library that is loaded again has new types of resources and refuses the former resources: each
  # committer ends at the next call that it makes, its batch is answered as in 9.5, another one takes
  # its place. A file that was replaced meanwhile is another library, one without shards: batchers
  # must be restarted then.

  @on_load :load
  @state {__MODULE__, :loaded}
  @purge_ms 5_000
  # With ways to make it fail, for this project's own tests.
  @library if Mix.env() == :test, do: "batcher_nif_seams", else: "batcher_nif"

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Budgets, Commit, From}

  @typedoc """
  A lane: the prefix of a namespace, or the name of a hot one. `:single` is `:batch` for a list of one command whose
  reply is to be bare.
  """
  @type lane :: binary | :batch | :single | :put_batch | :delete_batch
  @typedoc "What the calling process commits itself: so many bytes, by this function of the backend (7.2, 7.3)."
  @type alone ::
          {:alone, permit :: non_neg_integer, bytes :: non_neg_integer, Commit.function_name()}
  @typedoc "What only the calling process can send, with `From.pass/2`."
  @type proxied :: {to :: term, message :: term}
  @typedoc """
  How far the callers were answered: go on with the rest; `:large` asks for `finish/1` and `answer_large/3` first, `:own`
  for `pass/1` and for what is to be sent; `:handed_over` for `finish/1` at the end.
  """
  @type answered ::
          :done | :handed_over | {:more | :large, rest :: term} | {:own, proxied, rest :: term}
  @typedoc "How callers are answered: see `t:Commit.outcome/0`."
  @type how :: :slices | :error | :mismatch | :exit
  @typedoc "What one lane brings to a commit; `info`: see `Telemetry.Emit`."
  @type small_batch :: {lane, function :: atom, entries :: list, info :: tuple}
  @typedoc "A slot, seen from outside: items, froms, cost, window in ms, age in us, usage."
  @type slot ::
          {[term], [GenServer.from()], non_neg_integer, non_neg_integer, non_neg_integer,
           Budgets.usage()}

  @doc "`:ok`, or why the library could not be loaded."
  @spec loaded() :: :ok | {:error, term}
  def loaded, do: :persistent_term.get(@state, {:error, :not_loaded})

  @doc false
  def load do
    path = String.to_charlist(Path.join([priv_dir(), "native", @library]))
    # No other version of this module can be called.
    alone? = not :erlang.module_loaded(__MODULE__)

    case load_library(path, alone?) do
      :ok ->
        :persistent_term.put(@state, :ok)

      {:error, {kind, text} = reason} ->
        # A reload is refused, so that the functions that work go on.
        if loaded() == :ok and not alone?,
          do: {:error, reason},
          # The module stays, with the bodies below: callers commit directly, start_link tells why.
          # Were it refused, all processes that wait for the code server to load it would wait for ever.
          else: :persistent_term.put(@state, {:error, {kind, to_string(text)}})
    end
  end

  defp load_library(path, alone?) do
    with {:error, _reason} = refused <- :erlang.load_nif(path, 0) do
      if alone? and :erlang.check_old_code(__MODULE__) do
        purge(@purge_ms)
        :erlang.load_nif(path, 0)
      else
        refused
      end
    end
  end

  # A process inside a long call comes out of it soon, and is killed only if not.
  defp purge(0), do: :code.purge(__MODULE__)

  defp purge(tries) do
    :code.soft_purge(__MODULE__) or
      receive do
      after
        1 -> purge(tries - 1)
      end
  end

  defp priv_dir do
    case :code.priv_dir(:ferricstore_batcher) do
      {:error, :bad_name} -> Path.expand("../../priv", to_string(:code.which(__MODULE__)))
      path -> to_string(path)
    end
  end

  @doc """
  The calling process becomes the owner of a shard, with options from `Options.native/2`.
  Answers the committers that it finds there.
  """
  @spec open(non_neg_integer, tuple) :: {:ok, [pid]} | {:error, String.t()}
  def open(_shard, _options), do: without_library({:error, "no library"})

  @doc "All shards together may hold so many bytes from now on; `nil`: as many as they like."
  @spec bound_total(non_neg_integer | nil) :: :ok
  def bound_total(_bytes), do: without_library(:ok)

  @doc "The shard runs no more: what is queued is refused, what is in flight may end."
  @spec close(integer) :: :ok
  def close(_shard), do: without_library(:ok)

  @doc "Changes options of a shard that runs, as `open/2` takes them. Whether its groups are measured stays."
  @spec configure(integer, tuple) :: :ok
  def configure(_shard, _options), do: without_library(:ok)

  @doc "Whether the shard is open: it has an owner, or what is queued waits for one."
  @spec open?(integer) :: boolean
  def open?(_shard), do: without_library(false)

  @doc """
  Queues one call's writes: a command in a namespace lane, a list in a hot one. `count` is the
  number of replies expected (contract 6.2). Answers `:queued`, or why nothing was; `:large` asks
  for `offer_large/8`, `:measure` for `usage`: it is no shard for groups that were not measured.
  `t:alone/0`: nothing was queued, the calling process is to commit it, and to call `give_back/3` then (5.6).

  `from` gets the reply. A bare reference stands for the calling process, which gets
  `{reference, reply}`, or `{reference}` once it has waited for `wait_ms`, and never both.
  """
  @spec offer(integer, lane, term, non_neg_integer, non_neg_integer, from, wait_ms, usage) ::
          offered
        when from: From.native() | reference,
             wait_ms: non_neg_integer | nil,
             usage: Budgets.usage() | nil,
             offered:
               :queued
               | alone
               | :large
               | :measure
               | :not_running
               | refusal,
             refusal: atom
  def offer(_shard, _lane, _item, _count, _window_ms, _from, _wait_ms, _usage),
    do: without_library(:not_running)

  @doc "The same on a dirty scheduler, for what takes long to copy."
  @spec offer_large(integer, lane, term, non_neg_integer, non_neg_integer, from, wait_ms, usage) ::
          offered
        when from: From.native() | reference,
             wait_ms: non_neg_integer | nil,
             usage: Budgets.usage() | nil,
             offered:
               :queued
               | alone
               | :not_running
               | refusal,
             refusal: atom
  def offer_large(_shard, _lane, _item, _count, _window_ms, _from, _wait_ms, _usage),
    do: without_library(:not_running)

  @doc """
  The calling process has committed what was left to it, and that came of it. If it dies without this call, the lane
  goes on as soon as anybody waits for it.
  """
  @spec give_back(integer, permit :: non_neg_integer, how) :: :ok
  def give_back(_shard, _permit, _how), do: without_library(:ok)

  @doc "Starts a flush: `{tag, :ok}` comes when it is done. Answers a number to cancel it with."
  @spec flush(integer, reference) :: non_neg_integer | :not_running
  def flush(_shard, _tag), do: without_library(:not_running)

  @doc "The flush is given up: `:cancelled`, no answer will come; `:sent`, one has been or is being sent."
  @spec cancel_flush(integer, non_neg_integer) :: :cancelled | :sent
  def cancel_flush(_shard, _flush), do: without_library(:cancelled)

  @doc "As `flush/2`, and refuses new writes from now on."
  @spec stop(integer, reference) :: non_neg_integer | :not_running
  def stop(_shard, _tag), do: without_library(:not_running)

  @doc "The calling process becomes a committer of a shard. Its messages: see `Committer`."
  @spec join(integer) :: reference
  def join(_shard), do: :erlang.nif_error(:not_loaded)

  @doc """
  The committer has answered the callers of what it had, if it had anything, and takes what is next: small batches that
  are committed together, mostly one, each with what comes as a message otherwise; `:sent`, it has been sent messages;
  `:large`, `take_large/1` sends them; `:deliver`, it is to send replies: `finish/1` says which; `:rest`, nothing until
  `:work` comes; `:leave`, it is to end.
  """
  @spec take(reference) ::
          {:commit, [small_batch, ...]}
          | :sent
          | :large
          | :deliver
          | :rest
          | :leave
  def take(_committer), do: :erlang.nif_error(:not_loaded)

  @doc "The same for what the committer has taken, if that is large, on a dirty scheduler."
  @spec take_large(reference) :: {:commit, [small_batch, ...]} | :sent
  def take_large(_committer), do: :erlang.nif_error(:not_loaded)

  @doc """
  Answers callers of what the committer has taken: with slices of a list of replies, or each with the same term. What
  became of the commit, `how` says too. `rests?`: if all have been answered here, the commit has ended with this call, and
  the committer rests unless there is something to take: `:rest`, otherwise `:done`.
  """
  @spec answer(reference, how, term, rests? :: boolean) :: answered | :rest
  def answer(_committer, _how, _replies, _rests?), do: :erlang.nif_error(:not_loaded)

  @doc "Answers the next caller, on a dirty scheduler."
  @spec answer_large(reference, how, term) :: answered
  def answer_large(_committer, _how, _replies), do: :erlang.nif_error(:not_loaded)

  @doc """
  The calling process is about to send the message that it was asked to, within this time slice; or, `false`, it is not
  to: the caller has been told of a failure.
  """
  @spec pass(reference) :: boolean
  def pass(_committer), do: :erlang.nif_error(:not_loaded)

  @doc """
  Sends replies of the committer's batch that were handed over and have not been sent yet. `:more`: some may be left, call
  again. `:own`: some of the next ones only the calling process can send; when `pass_finish/1` says so, it does.
  """
  @spec finish(reference) :: :done | :more | {:own, [proxied, ...]}
  def finish(_committer), do: :erlang.nif_error(:not_loaded)

  @doc "As `pass/1`, of what `finish/1` has said; `false`: another process has sent it."
  @spec pass_finish(reference) :: boolean
  def pass_finish(_committer), do: :erlang.nif_error(:not_loaded)

  @doc """
  The calling process becomes the responder of a shard on its scheduler. Its message: `{reference, :handover}`. `nil`
  if there is one already.
  """
  @spec join_responder(integer) :: reference | nil
  def join_responder(_shard), do: :erlang.nif_error(:not_loaded)

  @doc """
  Sends replies that the responder was given, one handover at a time. The rest is as with `finish/1`, and
  `pass_respond/1`.
  """
  @spec respond(reference) :: :done | :more | {:own, [proxied, ...]}
  def respond(_responder), do: :erlang.nif_error(:not_loaded)

  @doc "As `pass_finish/1`, of what `respond/1` has said."
  @spec pass_respond(reference) :: boolean
  def pass_respond(_responder), do: :erlang.nif_error(:not_loaded)

  @doc """
  How many calls leave together when the committer's commit is done; `nil` if no more can join them, or nobody need wait
  for them: with `pacing: :auto` the library does.
  """
  @spec gathered(reference) :: non_neg_integer | nil
  def gathered(_committer), do: :erlang.nif_error(:not_loaded)

  @doc "A committer that rests wants to exit: only if more than `keep` rest."
  @spec retire(reference, non_neg_integer) :: boolean
  def retire(_committer, _keep), do: :erlang.nif_error(:not_loaded)

  @doc """
  The committer has answered the callers of what it had, if it had anything, and is a committer no longer: what is due is
  another's.
  """
  @spec leave(reference) :: :ok
  def leave(_committer), do: :erlang.nif_error(:not_loaded)

  @doc "A committer has died: another one tells all callers of its batch `reply`."
  @spec committer_down(integer, pid, term) :: :ok
  def committer_down(_shard, _pid, _reply), do: without_library(:ok)

  @doc "Makes the timer of the shard fail while it serves that. Only in a library that was built for tests."
  @spec panic_thread(integer) :: :ok
  def panic_thread(_shard), do: :erlang.nif_error(:not_built_for_tests)

  @doc """
  How long calls have held the locks of shards since the last call, `count` of them for `ns` each, ascending. Each
  time includes one look at the clock, `clock_ns`. Only in a library that was built for benchmarks.
  """
  @spec lock_times() :: {[{ns, count}], clock_ns :: non_neg_integer}
        when ns: non_neg_integer, count: pos_integer
  def lock_times, do: :erlang.nif_error(:not_built_for_benchmarks)

  @doc "Every lane: its name, its slots, the committer of what is in flight, a new reference if that is alone."
  @spec lanes(integer) :: [{lane, [slot], reference | nil}] | :not_running
  def lanes(_shard), do: without_library(:not_running)

  @doc """
  What `stats/1` has, as the library declares it: name, kind, unit, labels beside the shard, and what it says. Empty
  while no library is loaded.
  """
  @spec metrics() :: [
          {name :: atom, :counter | :gauge | :distribution, unit :: atom, labels :: [atom],
           help :: String.t()}
        ]
  def metrics, do: without_library([])

  @doc """
  The counters and gauges of `metrics/0` but for `:oldest_write_age_us`, and `:oldest_commit_pid`, the process that has
  the commit of `:oldest_commit_age_us`, or `nil`. It takes some microseconds, however many lanes there are.
  """
  @spec numbers(integer) :: map | :not_running
  def numbers(_shard), do: without_library(:not_running)

  @doc "All of `metrics/0` of a shard, and `:oldest_commit_pid`: see `Stats`. On a dirty scheduler."
  @spec stats(integer) :: map | :not_running
  def stats(_shard), do: without_library(:not_running)

  @doc "Zeroes counters and distributions of a shard, and what its lanes were given."
  @spec forget_stats(integer) :: :ok
  def forget_stats(_shard), do: without_library(:ok)

  @doc "The shards whose batchers run."
  @spec shards() :: [non_neg_integer]
  def shards, do: without_library([])

  @typedoc "Calls, items, bytes."
  @type tally :: {non_neg_integer, non_neg_integer, non_neg_integer}

  @doc """
  The lanes that were given the most calls, the busiest first: what they were given, what of it is queued, the age in us
  of the oldest queued slot and that of what is in flight.
  """
  @spec busiest_lanes(integer, non_neg_integer) ::
          [{lane, given :: tally, queued :: tally, age_us, age_us}] | :not_running
        when age_us: non_neg_integer | nil
  def busiest_lanes(_shard, _count), do: without_library(:not_running)

  @doc "A write was refused before it was offered: counted."
  @spec refused(integer, :invalid | :budget | :shutting_down) :: :ok
  def refused(_shard, _cause), do: without_library(:ok)

  @doc """
  Calls by cause that were refused since this was called last, whether the shard is open or not: each is told of once,
  whoever asks.
  """
  @spec take_refused(integer) :: [{cause :: atom, pos_integer}]
  def take_refused(_shard), do: without_library([])

  @doc "The calling process commits directly: counted, where a batcher ran before."
  @spec directly(integer) :: :ok
  def directly(_shard), do: without_library(:ok)

  @doc """
  Locks a file, which is made where there is none, until `unlock_file/1` or the end of the VM. `:in_use`: another VM has
  locked it.
  """
  @spec lock_file(binary) :: :ok | {:error, :in_use | :file.posix()}
  def lock_file(_path), do: without_library({:error, :enotsup})

  @doc "Gives back the lock of a file, which stays."
  @spec unlock_file(binary) :: :ok
  def unlock_file(_path), do: without_library(:ok)

  # What there is to say while no library is loaded. Looked up, so that no type checker takes the
  # body of a function for all that it can answer.
  defp without_library(answer), do: :persistent_term.get({__MODULE__, :without_library}, answer)
end
