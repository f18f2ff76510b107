defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Shards do
  @moduledoc false
  # What the demo runs on: a data directory, the backend's shards, the application environment, the batchers.
  # One invariant: `close/2` leaves nothing behind that `open/2` brought, but for a directory worth looking at.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Cluster, CommandLine, Metrics}

  @type t :: %{
          backend: module(),
          cluster: Cluster.t() | nil,
          metrics: pid() | nil,
          directory: Path.t() | nil,
          temporary?: boolean(),
          environment: keyword(),
          log_level: :logger.level() | :all | :none
        }

  @doc "Starts `count` shards of the backend, without batchers."
  @spec open(CommandLine.t(), pos_integer()) :: {:ok, t()} | {:error, String.t()}
  def open(options, count) do
    with {:ok, directory, temporary?} <- directory(options) do
      # Raft reports each election, which would tear the progress line apart.
      log_level = :logger.get_primary_config().level
      :logger.set_primary_config(:level, :error)

      shards = %{
        backend: if(options.backend == :ra, do: Backend.Ra, else: Backend.Null),
        cluster: nil,
        metrics: nil,
        directory: directory,
        temporary?: temporary?,
        environment: environment(options),
        log_level: log_level
      }

      with {:ok, metrics} <- metrics(options.metrics_port),
           shards = %{shards | metrics: metrics},
           {:ok, cluster} <- cluster(options.nodes) do
        start(%{shards | cluster: cluster}, count)
      else
        {:error, message} ->
          close(shards, false)
          {:error, message}
      end
    end
  end

  defp metrics(nil), do: {:ok, nil}

  defp metrics(port) do
    with {:ok, metrics, url} <- Metrics.start(port) do
      IO.puts("metrics for Prometheus at #{url}")
      {:ok, metrics}
    end
  end

  defp cluster(1), do: {:ok, nil}
  defp cluster(nodes), do: Cluster.start(nodes)

  defp start(shards, count) do
    case start_backend(shards, count) do
      :ok ->
        {:ok, shards}

      {:error, reason} ->
        close(shards, false)
        {:error, "the shards can't be started on #{inspect(shards.backend)}: #{inspect(reason)}"}
    end
  end

  defp start_backend(%{backend: Backend.Ra, cluster: nil, directory: directory}, count),
    do: Backend.Ra.start(shards: count, data_dir: directory)

  # Each node keeps its data in a directory of its own below this one.
  defp start_backend(%{backend: Backend.Ra, cluster: cluster, directory: directory}, count),
    do: Backend.Ra.start(shards: count, data_dir: directory, nodes: Cluster.nodes(cluster))

  defp start_backend(_null, _count), do: :ok

  @doc """
  Batchers for these shards, as a host would have them, under a supervisor. `stop/1` of each makes it drain and be
  restarted, hence as many restarts as shards.
  """
  @spec start_batchers(Range.t(), keyword()) :: {:ok, pid()} | {:error, String.t()}
  def start_batchers(shards, options) do
    {:ok, supervisor} =
      Supervisor.start_link([], strategy: :one_for_one, max_restarts: Range.size(shards) + 3)

    # One by one: a supervisor that fails with its first children takes its caller along.
    Enum.reduce_while(shards, {:ok, supervisor}, fn shard, ok ->
      case Supervisor.start_child(supervisor, Batcher.child_spec({shard, options})) do
        {:ok, _pid} ->
          {:cont, ok}

        {:error, reason} ->
          Supervisor.stop(supervisor)
          {:halt, {:error, "the batcher of shard #{shard} can't be started: #{inspect(reason)}"}}
      end
    end)
  end

  @doc """
  Flushes and stops each batcher, then ends their supervisor: the three ways to drain, one after the other.
  """
  @spec stop_batchers(pid(), Range.t()) :: :ok | {:error, String.t()}
  def stop_batchers(supervisor, shards) do
    results = for shard <- shards, do: {shard, Batcher.flush(shard), Batcher.stop(shard)}
    Supervisor.stop(supervisor)

    case Enum.find(results, fn {_shard, flushed, stopped} -> flushed != :ok or stopped != :ok end) do
      nil ->
        :ok

      {shard, flushed, stopped} ->
        {:error, "shard #{shard}: flush #{inspect(flushed)}, stop #{inspect(stopped)}"}
    end
  end

  @doc "Raft commits of these shards so far; nil if the backend has none or can't tell."
  @spec commits(t(), Range.t()) :: non_neg_integer() | nil
  def commits(%{backend: Backend.Ra}, shards) do
    Enum.reduce_while(shards, 0, fn shard, sum ->
      case Backend.Ra.commits(shard) do
        {:ok, commits} -> {:cont, sum + commits}
        {:error, _reason} -> {:halt, nil}
      end
    end)
  end

  def commits(_shards, _range), do: nil

  @spec readable?(t()) :: boolean()
  def readable?(%{backend: backend}), do: backend == Backend.Ra

  @spec stored(t(), non_neg_integer()) ::
          {:ok, %{binary() => {binary(), integer()}}} | {:error, term()}
  def stored(%{backend: Backend.Ra}, shard), do: Backend.Ra.fetch_all(shard)

  @doc "`keep?` says that the directory is worth looking at; returns it if it is still there."
  @spec close(t(), boolean()) :: Path.t() | nil
  def close(shards, keep?) do
    if shards.backend == Backend.Ra, do: Backend.Ra.stop()
    if shards.cluster, do: Cluster.stop(shards.cluster)
    Metrics.stop(shards.metrics)
    restore(shards)
    unless keep?, do: remove(shards)
    if shards.directory && File.dir?(shards.directory), do: shards.directory
  end

  defp environment(options) do
    backend = if options.backend == :ra, do: Backend.Ra, else: Backend.Null

    settings = [
      waraft_backend_batcher_backend: backend,
      waraft_hot_batch_window_ms: options.window
    ]

    for {key, value} <- settings do
      before = Application.fetch_env(:ferricstore, key)
      Application.put_env(:ferricstore, key, value)
      {key, before}
    end
  end

  defp restore(shards) do
    :logger.set_primary_config(:level, shards.log_level)

    for {key, before} <- shards.environment do
      case before do
        {:ok, value} -> Application.put_env(:ferricstore, key, value)
        :error -> Application.delete_env(:ferricstore, key)
      end
    end

    :ok
  end

  defp remove(%{temporary?: true, directory: directory}), do: File.rm_rf(directory)
  defp remove(_shards), do: :ok

  defp directory(%{backend: :null}), do: {:ok, nil, false}

  defp directory(%{data_dir: nil}) do
    unique = Base.encode16(:rand.bytes(6), case: :lower)
    path = Path.join(System.tmp_dir!(), "batcher-demo-#{unique}")

    case File.mkdir_p(path) do
      :ok ->
        {:ok, path, true}

      {:error, reason} ->
        {:error, "the directory #{path} can't be made: #{:file.format_error(reason)}"}
    end
  end

  defp directory(%{data_dir: path}) do
    with :ok <- File.mkdir_p(path),
         {:ok, []} <- File.ls(path) do
      {:ok, Path.expand(path), false}
    else
      {:ok, [_ | _]} ->
        {:error, "--data-dir #{path} is not empty; name a new or an empty directory"}

      {:error, reason} ->
        {:error, "--data-dir #{path} can't be used: #{:file.format_error(reason)}"}
    end
  end
end
