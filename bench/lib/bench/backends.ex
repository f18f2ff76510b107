defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends do
  @moduledoc false
  # The backends that peers commit to, by name.
  # One invariant: between `open/2` and `close/1` a backend can commit; afterwards no file of it is left.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Backends.{Log, Slow}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Progress

  # Microseconds of a commit.
  @logs [log_200us: 200, log_1ms: 1_000, log_5ms: 5_000]
  @log_names Keyword.keys(@logs)
  @backends [null: Backend.Null, slow: Slow, ra: Backend.Ra] ++
              for(name <- @log_names, do: {name, Log})

  @type name :: :null | :slow | :ra | :log_200us | :log_1ms | :log_5ms
  @opaque open :: {name, Path.t() | nil, :logger.level() | :all | :none}

  @spec names() :: [name]
  def names, do: Keyword.keys(@backends)

  @spec module(name) :: module
  def module(name), do: Keyword.fetch!(@backends, name)

  @doc "Starts a backend with as many shards; Ra keeps its log in a fresh directory below `directory`."
  @spec open(name, pos_integer, Path.t()) :: {:ok, open} | {:error, String.t()}
  def open(:ra, shards, directory) do
    level = :logger.get_primary_config().level
    # Raft reports each election.
    :logger.set_primary_config(:level, :error)

    data =
      Path.join(
        Path.expand(directory),
        "ra-#{System.pid()}-#{System.unique_integer([:positive])}"
      )

    with :ok <- File.mkdir_p(data),
         :ok <- Backend.Ra.start(shards: shards, data_dir: data) do
      {:ok, {:ra, data, level}}
    else
      {:error, reason} ->
        close({:ra, data, level})
        {:error, "Ra can't be started in #{data}: #{Progress.brief(reason)}"}
    end
  end

  def open(name, shards, _directory) when name in @log_names do
    :ok = Log.start(@logs[name], shards)
    {:ok, {name, nil, :notice}}
  end

  def open(name, _shards, _directory), do: {:ok, {name, nil, :notice}}

  @spec close(open) :: :ok
  def close({:ra, data, level}) do
    Backend.Ra.stop()
    File.rm_rf!(data)
    :logger.set_primary_config(:level, level)
    :ok
  end

  def close({name, nil, _level}) when name in @log_names, do: Log.stop()
  def close(_nothing_to_close), do: :ok
end
