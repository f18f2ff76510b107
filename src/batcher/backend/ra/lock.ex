# The lock on the directory of a node, which keeps other VMs from the logs in it: two that write there lose each other's
# acknowledged writes.
# Invariant: where a Ra system of this backend runs in a directory, this VM has the lock on it. A VM that is killed has it no
# more.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Lock do
  @moduledoc false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Native, Start}

  # No server has its data under this name, and Ra looks at no such file.
  @file_name "lock"

  @doc "Locks the directory. It may be locked by this VM already: whoever starts more shards has no lock of its own."
  @spec take(Path.t()) :: :ok | {:error, term()}
  def take(dir) do
    with :ok <- Start.loaded(),
         {:error, reason} <- Native.lock_file(Path.join(dir, @file_name)),
         do: {:error, {:data_dir, dir, reason, text(dir, reason)}}
  end

  defp text(dir, :in_use), do: "#{dir} is in use by another VM"
  defp text(dir, posix), do: "#{dir} can't be locked: #{:file.format_error(posix)}"

  @doc "Gives back the lock on the directory, if this VM has it."
  @spec give_back(Path.t()) :: :ok
  def give_back(dir), do: Native.unlock_file(Path.join(dir, @file_name))
end
