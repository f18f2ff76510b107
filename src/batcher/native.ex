defmodule Ferricstore.Raft.WARaftBackend.Batcher.Native do
  @moduledoc false
  # The functions of the shared library. A module of its own, so that all others can be reloaded
  # while batchers run: this one can't, the library stays with the version that loaded it.
  #
  # Invariant: every function has a body here that is right while no library is loaded, when no
  # batcher can run. Nothing ends in `undef`.

  @on_load :load
  @state {__MODULE__, :loaded}
  # With ways to make it fail, for this project's own tests.
  @library if Mix.env() == :test, do: "batcher_nif_seams", else: "batcher_nif"

  @typedoc "A lane: the prefix of a namespace, or the name of a hot one."
  @type lane :: binary | :batch | :put_batch | :delete_batch
  @typedoc "Replies that the calling process has to send with `GenServer.reply/2`."
  @type couriered :: [{GenServer.from(), term}]
  @typedoc """
  How far the callers were answered: go on with the rest; `:large` asks for `answer_large/3` first.
  """
  @type answered :: :done | {:more | :large, rest :: term}
  @typedoc "A slot, seen from outside: items, froms, weight, window in ms, age in us."
  @type slot :: {[term], [GenServer.from()], non_neg_integer, non_neg_integer, non_neg_integer}

  @doc "`:ok`, or why the library could not be loaded."
  @spec loaded() :: :ok | {:error, term}
  def loaded, do: :persistent_term.get(@state, {:error, :not_loaded})

  @doc false
  def load do
    path = Path.join([priv_dir(), "native", @library])

    case {:erlang.load_nif(String.to_charlist(path), 0), loaded()} do
      {:ok, _before} ->
        :persistent_term.put(@state, :ok)

      # A reload is refused, so that the functions that work go on.
      {{:error, reason}, :ok} ->
        {:error, reason}

      # The module stays, with the bodies below: callers commit directly, start_link tells why.
      {{:error, {kind, text}}, {:error, _}} ->
        :persistent_term.put(@state, {:error, {kind, to_string(text)}})
    end
  end

  defp priv_dir do
    case :code.priv_dir(:ferricstore_batcher) do
      {:error, :bad_name} -> Path.expand("../../priv", to_string(:code.which(__MODULE__)))
      path -> to_string(path)
    end
  end

  @doc """
  The calling process becomes the owner of a shard, with options from `Options.native/1`.
  Answers the committers that it finds there.
  """
  @spec open(non_neg_integer, tuple) :: {:ok, [pid]} | {:error, String.t()}
  def open(_shard, _options), do: without_library({:error, "no library"})

  @doc "The shard runs no more: what is queued is refused, what is in flight may end."
  @spec close(integer) :: :ok
  def close(_shard), do: without_library(:ok)

  @doc "The window of the put and delete lanes in ms, given what the environment says."
  @spec hot_window(integer, integer) :: integer
  def hot_window(_shard, window_ms), do: without_library(window_ms)

  @doc """
  Queues one call's writes: a command in a namespace lane, a list in a hot one. `count` is the
  number of replies expected (contract 6.2). Answers `:queued`, or why nothing was; `:large`
  asks for `offer_large/7`.

  `from` gets the reply. A bare reference stands for the calling process, which gets
  `{reference, reply}`, or `{reference}` once it has waited for `wait_ms`, and never both.
  """
  @spec offer(integer, lane, term, non_neg_integer, non_neg_integer, from, wait_ms) :: offered
        when from: GenServer.from() | reference,
             wait_ms: non_neg_integer | nil,
             offered: :queued | :large | :not_running | :shutting_down | :batcher_overloaded
  def offer(_shard, _lane, _item, _count, _window_ms, _from, _wait_ms),
    do: without_library(:not_running)

  @doc "The same on a dirty scheduler, for what takes long to copy."
  @spec offer_large(integer, lane, term, non_neg_integer, non_neg_integer, from, wait_ms) ::
          offered
        when from: GenServer.from() | reference,
             wait_ms: non_neg_integer | nil,
             offered: :queued | :not_running | :shutting_down | :batcher_overloaded
  def offer_large(_shard, _lane, _item, _count, _window_ms, _from, _wait_ms),
    do: without_library(:not_running)

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

  @doc "Answers callers of the committer's batch from a list of replies."
  @spec answer_slices(reference, list) :: {answered, couriered}
  def answer_slices(_committer, _replies), do: :erlang.nif_error(:not_loaded)

  @doc "Answers callers of the committer's batch, all with the same term."
  @spec answer_each(reference, term) :: {answered, couriered}
  def answer_each(_committer, _reply), do: :erlang.nif_error(:not_loaded)

  @doc "Answers the next caller, from a list or with a term, on a dirty scheduler."
  @spec answer_large(reference, :slices | :each, term) :: {answered, couriered}
  def answer_large(_committer, _how, _replies), do: :erlang.nif_error(:not_loaded)

  @doc "The committer's batch is done. A next one comes as a message."
  @spec next(reference) :: :ok
  def next(_committer), do: :erlang.nif_error(:not_loaded)

  @doc "A committer that rests wants to exit: only if more than `keep` rest."
  @spec retire(reference, non_neg_integer) :: boolean
  def retire(_committer, _keep), do: :erlang.nif_error(:not_loaded)

  @doc "A committer has died: another one tells all callers of its batch `reply`."
  @spec committer_down(integer, pid, term) :: :ok
  def committer_down(_shard, _pid, _reply), do: without_library(:ok)

  @doc "Makes the shard's thread fail. Only in a library that was built for tests."
  @spec panic_thread(integer) :: :ok
  def panic_thread(_shard), do: :erlang.nif_error(:not_built_for_tests)

  @doc "Every lane: its name, its slots, the committer of the batch in flight."
  @spec lanes(integer) :: [{lane, [slot], reference | nil}] | :not_running
  def lanes(_shard), do: without_library(:not_running)

  # What there is to say while no library is loaded. Looked up, so that no type checker takes the
  # body of a function for all that it can answer.
  defp without_library(answer), do: :persistent_term.get({__MODULE__, :without_library}, answer)
end
