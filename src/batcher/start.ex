defmodule Ferricstore.Raft.WARaftBackend.Batcher.Start do
  @moduledoc false
  # What is looked at before a batcher starts, and how a supervisor starts and ends it (contract 1).
  #
  # Invariant: an error leaves nothing behind, but for the settings of a shard whose timer has no thread: the first write
  # has to meet them, so that they are put before the shard is opened.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.{Native, Options, Owner, Settings}

  @max_shard 0xFFFF_FFFF_FFFF_FFFF
  # Beyond the time that it has to drain an owner needs some to answer what it could not drain.
  @answering_ms 500

  @doc "Starts the batcher of a shard: see `Batcher.start_link/2`. The bound on all shards is that of the last start."
  @spec link(non_neg_integer, list) :: GenServer.on_start()
  def link(shard, opts) do
    with :ok <- loaded(),
         :ok <- addressable(shard),
         {:ok, options} <- Options.check(opts),
         {:ok, total_bytes} <- Settings.max_total_queue_bytes(),
         :ok = Options.warn_of_slips(opts),
         {:ok, owner} <- Owner.start_link(shard, options) do
      # It concerns the shards that run already, too.
      Native.bound_total(total_bytes)
      {:ok, owner}
    end
  end

  @doc "Whether the library is there."
  @spec loaded() :: :ok | {:error, {:nif_not_loaded, term}}
  def loaded do
    with {:error, reason} <- Native.loaded(), do: {:error, {:nif_not_loaded, reason}}
  end

  defp addressable(shard) when shard <= @max_shard, do: :ok
  defp addressable(shard), do: {:error, {:invalid_option, :shard, shard}}

  @doc "The same for a supervisor, which waits at a shutdown until the owner has drained."
  @spec child_spec(non_neg_integer, list) :: Supervisor.child_spec()
  def child_spec(shard, opts) do
    %{
      id: {Batcher, shard},
      start: {Batcher, :start_link, [shard, opts]},
      type: :worker,
      restart: :permanent,
      shutdown: shutdown_ms(opts)
    }
  end

  @doc "How long an owner with these options may take to end."
  @spec shutdown_ms(list) :: non_neg_integer
  def shutdown_ms(opts) do
    case Options.check(opts) do
      {:ok, options} ->
        min(Options.get(options, :shutdown_timeout) + @answering_ms, Settings.max_window_ms())

      # A bad value is for the start to report.
      {:error, _invalid} ->
        @answering_ms
    end
  end
end
