# The write-ahead logs of a node, each of which is synced by itself: for each a Ra system of this backend's own, beside
# whatever else the host runs on Ra.
# Invariant: a shard stays in the log in which its data was begun. Its log follows from its index and from how many logs
# there are, which the last of their directories says. A log is written to by one VM: see `Lock`.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Logs do
  @moduledoc false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.{Config, Lock}

  @compile {:no_warn_undefined, [:ra_system]}

  # Each log is some ten processes, and its entries stay in memory until its file is full.
  @most_by_default 8

  @doc "Starts the logs of this node; how many they are. New ones are made where there are none at all."
  @spec start(Config.spec()) :: {:ok, pos_integer()} | {:error, term()}
  def start(spec) do
    case {kept(spec), spec.logs} do
      {0, nil} ->
        start(spec, min(length(spec.indexes), @most_by_default))

      {0, asked} ->
        start(spec, asked)

      {kept, asked} when asked in [nil, kept] ->
        start(spec, kept)

      {kept, asked} ->
        Config.invalid(
          :logs,
          asked,
          "#{spec.data_dir} has #{kept} logs, and what is in them stays there"
        )
    end
  end

  # The last directory is made first: as soon as one is there, it is known how many there will be, whatever happens.
  defp start(spec, count) do
    dirs = for log <- (count - 1)..0//-1, do: {log, directory(spec, log)}

    with :ok <- each(dirs, fn {_log, dir} -> make(dir) end),
         # One for all logs of the node.
         :ok <- Lock.take(directory(spec, 0)),
         :ok <- each(dirs, fn {log, dir} -> start_system(system(spec.name, log), dir, count) end),
         do: {:ok, count}
  end

  defp each(dirs, start), do: Enum.find_value(dirs, :ok, &with(:ok <- start.(&1), do: nil))

  # How many logs there are by now.
  defp kept(spec),
    do: Enum.find(Config.most_logs()..1//-1, 0, &File.dir?(directory(spec, &1 - 1)))

  # No name of a node has a plus behind its host.
  defp directory(spec, 0), do: Path.join(spec.data_dir, Atom.to_string(node()))
  defp directory(spec, log), do: "#{directory(spec, 0)}+#{log}"

  defp make(dir) do
    with {:error, posix} <- File.mkdir_p(dir),
         do:
           {:error, {:data_dir, dir, posix, "#{dir} can't be made: #{:file.format_error(posix)}"}}
  end

  # What durability needs is set outright: the defaults come from Ra's application environment, which is the host's.
  defp start_system(system, dir, count) do
    config =
      Map.merge(:ra_system.default_config(), %{
        name: system,
        names: :ra_system.derive_names(system),
        data_dir: String.to_charlist(dir),
        wal_data_dir: String.to_charlist(dir),
        wal_write_strategy: :default,
        wal_sync_method: :datasync
      })

    # Many logs take as much memory and disk as one.
    config = Map.replace_lazy(config, :wal_max_size_bytes, &div(&1, count))

    case :ra_system.start(config) do
      {:ok, _pid} -> :ok
      {:error, {:already_started, _pid}} -> :ok
      {:error, reason} -> {:error, {:ra_system_not_started, node(), dir, reason}}
    end
  end

  @doc "The Ra system that a shard's server belongs to, where there are so many logs."
  @spec of_shard(Config.spec(), pos_integer(), non_neg_integer()) :: atom()
  def of_shard(spec, count, index), do: system(spec.name, rem(index, count))

  defp system(name, 0), do: String.to_atom(name)
  defp system(name, log), do: String.to_atom("#{name}_log#{log}")

  @doc "The names of the supervisors that run the servers, one for each log."
  @spec supervisors(Config.spec()) :: [atom()]
  def supervisors(spec) do
    for log <- 0..(spec.logs - 1),
        do: :ra_system.derive_names(system(spec.name, log)).server_sup
  end

  @doc "Stops the Ra systems of this node, with their servers, and leaves its directory to others."
  @spec stop(Config.spec()) :: :ok
  def stop(spec) do
    # Of a start that has failed it is not known yet how many there are.
    count = spec.logs || kept(spec)
    for log <- 0..(count - 1)//1, do: stop_system(system(spec.name, log))
    Lock.give_back(directory(spec, 0))
  end

  # `:ra_system.stop/1` came in the course of Ra 2; before, the system is a child like any other.
  @dialyzer {:no_missing_calls, stop_system: 1}
  defp stop_system(system) do
    if Code.ensure_loaded?(:ra_system) and function_exported?(:ra_system, :stop, 1) do
      quietly(fn -> :ra_system.stop(system) end)
    else
      quietly(fn -> Supervisor.terminate_child(:ra_systems_sup, system) end)
      quietly(fn -> Supervisor.delete_child(:ra_systems_sup, system) end)
      :persistent_term.erase({:"$ra_system", system})
    end
  end

  @doc """
  Ra's table of the servers of a system reaches the disk half a second late. Ra 3 drops what it finds in the log of a
  server that is not in the table: without this, a VM killed until then would lose what was acknowledged.
  """
  @spec sync_directory(atom()) :: :ok | {:error, term()}
  def sync_directory(system) do
    table = :ra_system.derive_names(system).directory_rev
    if table in :dets.all(), do: :dets.sync(table), else: :ok
  end

  @doc "What is to be stopped may be gone already, with the whole of Ra, and Ra fails in several ways then."
  @spec quietly((() -> term())) :: :ok
  def quietly(stop) do
    _ = stop.()
    :ok
  catch
    _class, _reason -> :ok
  end
end
