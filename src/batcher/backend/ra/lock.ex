# The lock on the directory of a node, which keeps other VMs from the logs in it: two that write there lose each other's
# acknowledged writes.
# Invariant: where a Ra system of this backend runs in a directory, this VM has the lock on it. A VM that is killed has it no
# more.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Lock do
  @moduledoc false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  # No server has its data under this name, and Ra looks at no such file.
  @file_name "lock"

  @doc "Locks the directory. It may be locked by this VM already: whoever starts more shards has no lock of its own."
  @spec take(Path.t()) :: :ok | {:error, term()}
  def take(dir) do
    if held(dir), do: :ok, else: lock(dir)
  end

  defp lock(dir) do
    with :ok <- loaded() do
      case Native.lock_file(Path.join(dir, @file_name)) do
        # Kept where no process owns it: Ra goes on when the process that has started it ends.
        {:ok, lock} ->
          :persistent_term.put({__MODULE__, dir}, lock)

        :in_use ->
          {:error, {:data_dir, dir, :in_use, "#{dir} is in use by another VM"}}

        {:error, posix} ->
          {:error,
           {:data_dir, dir, posix, "#{dir} can't be locked: #{:file.format_error(posix)}"}}
      end
    end
  end

  defp loaded do
    with {:error, reason} <- Native.loaded(), do: {:error, {:nif_not_loaded, reason}}
  end

  @doc "Gives back the lock on the directory, if this VM has it."
  @spec give_back(Path.t()) :: :ok
  def give_back(dir) do
    lock = held(dir)
    _ = :persistent_term.erase({__MODULE__, dir})
    if lock, do: unlock(lock), else: :ok
  end

  # A library that was loaded again meanwhile does not know the lock: then it is given back when it is collected.
  defp unlock(lock) do
    Native.unlock_file(lock)
  rescue
    ArgumentError -> :ok
  end

  defp held(dir), do: :persistent_term.get({__MODULE__, dir}, nil)
end
