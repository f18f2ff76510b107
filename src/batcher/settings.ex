defmodule Ferricstore.Raft.WARaftBackend.Batcher.Settings do
  @moduledoc false
  # The application environment of `:ferricstore`, read at each call in the caller (contract 2, 14).
  #
  # Invariant: nothing is kept, so that a changed setting is that of the next call.

  @app :ferricstore
  @max_window_ms 4_294_967_295
  # More than there is memory.
  @most_bytes 0x7FFF_FFFF_FFFF_FFFF

  @doc """
  The most bytes that all shards of the VM may hold together, `nil` for as many as they like: `:max_total_queue_bytes` of
  `:ferricstore_batcher`, read when a batcher starts.
  """
  @spec max_total_queue_bytes() ::
          {:ok, pos_integer | nil} | {:error, {:invalid_option, :max_total_queue_bytes, term}}
  def max_total_queue_bytes do
    case Application.get_env(:ferricstore_batcher, :max_total_queue_bytes, :infinity) do
      none when none in [nil, :infinity] -> {:ok, nil}
      bytes when is_integer(bytes) and bytes > 0 -> {:ok, min(bytes, @most_bytes)}
      other -> {:error, {:invalid_option, :max_total_queue_bytes, other}}
    end
  end

  @doc "The longest window in ms: the longest time a process can wait."
  def max_window_ms, do: @max_window_ms

  @doc "Window of the put and delete lanes in ms; `<= 0` commits directly (2.1)."
  @spec hot_window_ms() :: integer
  def hot_window_ms, do: window!(:waraft_hot_batch_window_ms, 1)

  @doc "Window of the generic lane in ms, or `:direct` (2.2, 2.3)."
  @spec generic_window_ms() :: non_neg_integer | :direct
  def generic_window_ms do
    window_ms = window!(:waraft_generic_batch_window_ms, 0)

    cond do
      window_ms > 0 -> window_ms
      Application.get_env(@app, :waraft_generic_batch_during_flush, true) == true -> 0
      true -> :direct
    end
  end

  @doc "The module that commits (2.5)."
  @spec backend() :: module
  def backend do
    Application.get_env(
      @app,
      :waraft_backend_batcher_backend,
      Ferricstore.Raft.WARaftBackend
    )
  end

  @doc "The module whose `leave/1` releases sync tokens (12.1)."
  @spec sync_gate() :: module
  def sync_gate do
    Application.get_env(
      @app,
      :waraft_backend_batcher_sync_gate,
      Ferricstore.Raft.WARaftBackend.SyncGate
    )
  end

  @doc "Whether a module of the host's can be loaded and has this function."
  @spec exports?(module, atom, arity) :: boolean
  def exports?(module, function, arity),
    do: Code.ensure_loaded?(module) and function_exported?(module, function, arity)

  @doc "What is done before a call of the backend: a seam for tests (14.1)."
  def call_hook, do: Application.get_env(@app, :waraft_backend_batcher_call_hook)

  @doc "What is done before an asynchronous write is queued: a seam for tests (14.2)."
  def cast_hook, do: Application.get_env(@app, :waraft_backend_batcher_cast_hook)

  @doc "How long a sync call waits beyond its window, in ms (3.7). A seam for tests."
  @spec call_timeout_ms() :: non_neg_integer
  def call_timeout_ms, do: :persistent_term.get(__MODULE__, 30_000)

  defp window!(key, default) do
    case Application.get_env(@app, key, default) do
      window_ms when is_integer(window_ms) and window_ms <= @max_window_ms ->
        window_ms

      other ->
        raise ArgumentError,
              "#{inspect(key)} of #{inspect(@app)} must be an integer of at most " <>
                "#{@max_window_ms} milliseconds, got: #{inspect(other)}"
    end
  end
end
