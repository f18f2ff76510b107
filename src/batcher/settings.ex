defmodule Ferricstore.Raft.WARaftBackend.Batcher.Settings do
  @moduledoc false
  # What a call looks up: the settings of its shard, and the application environment of `:ferricstore`, read at each
  # call in the caller (contract 2, 14, 18).
  #
  # Invariant: of the environment of `:ferricstore` nothing is kept, so that a changed setting is that of the next call.
  # What a shard was given goes before it, is read as one term, and stays when its batcher ends: writes that are
  # committed without one go to the same backend.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Options
  alias Ferricstore.Raft.WARaftBackend.Batcher.Options.{Schema, Type}

  @host :ferricstore
  @own :ferricstore_batcher
  @during_flush :waraft_generic_batch_during_flush
  @max_window_ms Type.max_ms()
  # More than there is memory.
  @most_bytes 0x7FFF_FFFF_FFFF_FFFF
  # Each write looks for its shard's: an integer is found in less than half the time of a tuple. Nobody else has these.
  @keys :erlang.phash2(__MODULE__) * 0x1_0000_0000

  @backend_key Schema.fetch(:backend)[:host]
  @backend Schema.fetch(:backend)[:default]
  @sync_gate_key Schema.fetch(:sync_gate)[:host]
  @sync_gate Schema.fetch(:sync_gate)[:default]
  @call_timeout_ms Schema.fetch(:call_timeout)[:default]
  @slow_commit_us 1_000 * Schema.fetch(:slow_commit_ms)[:default]

  require Record

  # `nil`: the environment of `:ferricstore` says; before that, for one that was never started, that of
  # `:ferricstore_batcher`. `given`: see `Options`. A record: the fields of a map take a while to find.
  Record.defrecord(:settings,
    backend: nil,
    started?: false,
    call_timeout_ms: @call_timeout_ms,
    hot_window_ms: nil,
    generic_window_ms: nil,
    sync_gate: nil,
    slow_commit_us: @slow_commit_us,
    direct_events?: false,
    given: %{}
  )

  @type t ::
          record(:settings,
            backend: module | nil,
            started?: boolean,
            call_timeout_ms: non_neg_integer,
            hot_window_ms: non_neg_integer | nil,
            generic_window_ms: non_neg_integer | :direct | nil,
            sync_gate: module | nil,
            slow_commit_us: non_neg_integer | :infinity,
            direct_events?: boolean,
            given: Options.t()
          )

  @doc "The longest window in ms: the longest time a process can wait."
  def max_window_ms, do: @max_window_ms

  @doc "The settings of a shard, looked up once for each call and each commit."
  @spec of(integer) :: t
  def of(shard), do: :persistent_term.get(key(shard), settings())

  @doc "The key of a shard's settings among the persistent terms."
  @spec key(integer) :: integer
  def key(shard), do: @keys + shard

  @doc """
  From now on these options hold. Where they are others than before, the VM has all processes look for the old ones.
  """
  @spec put(non_neg_integer, Options.t()) :: :ok
  def put(shard, options), do: :persistent_term.put(key(shard), made_of(options))

  @doc "Settings of a shard that has been started with these options."
  @spec made_of(Options.t()) :: t
  def made_of(options) do
    hot_window_ms = Options.given(options, :hot_batch_window_ms)

    settings(
      backend: Options.given(options, :backend),
      sync_gate: Options.given(options, :sync_gate),
      hot_window_ms: hot_window_ms && max(hot_window_ms, 0),
      generic_window_ms: Options.given(options, :generic_batch_window_ms),
      call_timeout_ms: Options.get(options, :call_timeout),
      slow_commit_us: us(Options.get(options, :slow_commit_ms)),
      direct_events?: Options.get(options, :direct_events),
      given: options,
      started?: true
    )
  end

  @doc "How long a sync call waits beyond its window, in ms (3.7)."
  @spec call_timeout_ms(t) :: non_neg_integer
  def call_timeout_ms(settings(call_timeout_ms: call_timeout_ms)), do: call_timeout_ms

  defp us(:infinity), do: :infinity
  defp us(ms), do: 1_000 * ms

  @doc "From when on a commit is slow, in us; `:infinity`: none is (21.1)."
  @spec slow_commit_us(t) :: non_neg_integer | :infinity
  def slow_commit_us(settings(slow_commit_us: slow_commit_us)), do: slow_commit_us

  @doc "Whether direct commits emit an event (13.6)."
  @spec direct_events?(t) :: boolean
  def direct_events?(settings(started?: false)),
    do: Application.get_env(@own, :direct_events, false) == true

  def direct_events?(settings(direct_events?: direct_events?)), do: direct_events?

  @doc "What the shard was given: see `Options`."
  @spec given(t) :: Options.t()
  def given(settings(given: given)), do: given

  @doc "Window of the put and delete lanes in ms; 0 commits directly (2.1)."
  @spec hot_window_ms(t) :: non_neg_integer
  def hot_window_ms(settings(hot_window_ms: nil)),
    do: max(window!(:waraft_hot_batch_window_ms, 1), 0)

  def hot_window_ms(settings(hot_window_ms: window_ms)), do: window_ms

  @doc "Window of the generic lane in ms, or `:direct` (2.2, 2.3)."
  @spec generic_window_ms(t) :: non_neg_integer | :direct
  def generic_window_ms(settings(generic_window_ms: nil)) do
    window_ms = window!(:waraft_generic_batch_window_ms, 0)

    cond do
      window_ms > 0 -> window_ms
      Application.get_env(@host, @during_flush, true) == true -> 0
      true -> :direct
    end
  end

  def generic_window_ms(settings(generic_window_ms: window_ms)), do: window_ms

  @doc "The module that commits (2.5)."
  @spec backend(t) :: module
  def backend(settings(backend: nil, started?: started?)),
    do: configured(:backend, started?, @backend_key, @backend)

  def backend(settings(backend: backend)), do: backend

  @doc "The module whose `leave/1` releases sync tokens (12.1)."
  @spec sync_gate(t) :: module
  def sync_gate(settings(sync_gate: nil, started?: started?)),
    do: configured(:sync_gate, started?, @sync_gate_key, @sync_gate)

  def sync_gate(settings(sync_gate: sync_gate)), do: sync_gate

  # What was set for `:ferricstore_batcher` is among the options of a shard that was started.
  defp configured(_key, true = _started?, host_key, default),
    do: Application.get_env(@host, host_key, default)

  defp configured(key, false = _started?, host_key, default),
    do: Application.get_env(@own, key) || configured(key, true, host_key, default)

  @doc "Whether a module of the host's can be loaded and has this function."
  @spec exports?(module, atom, arity) :: boolean
  def exports?(module, function, arity),
    do: Code.ensure_loaded?(module) and function_exported?(module, function, arity)

  @doc "What is done before a call of the backend: a seam for tests (14.1)."
  def call_hook, do: :application.get_env(@host, :waraft_backend_batcher_call_hook, nil)

  @doc "What is done before an asynchronous write is queued: a seam for tests (14.2)."
  def cast_hook, do: :application.get_env(@host, :waraft_backend_batcher_cast_hook, nil)

  defp window!(key, default) do
    case Application.get_env(@host, key, default) do
      window_ms when is_integer(window_ms) and window_ms <= @max_window_ms ->
        window_ms

      other ->
        raise ArgumentError,
              "#{inspect(key)} of #{inspect(@host)} must be an integer of at most " <>
                "#{@max_window_ms} milliseconds, got: #{inspect(other)}"
    end
  end

  @doc """
  The most bytes that all shards of the VM may hold together, `nil` for as many as they like: `:max_total_queue_bytes` of
  `:ferricstore_batcher`, read when a batcher starts.
  """
  @spec max_total_queue_bytes() ::
          {:ok, pos_integer | nil} | {:error, {:invalid_option, :max_total_queue_bytes, term}}
  def max_total_queue_bytes do
    case Application.get_env(@own, :max_total_queue_bytes, :infinity) do
      none when none in [nil, :infinity] -> {:ok, nil}
      bytes when is_integer(bytes) and bytes > 0 -> {:ok, min(bytes, @most_bytes)}
      other -> {:error, {:invalid_option, :max_total_queue_bytes, other}}
    end
  end
end
