defmodule Ferricstore.Raft.WARaftBackend.Batcher.Torture.Faults do
  @moduledoc false
  # Backends on Ra that are wrong, to see that the torture test finds it: name one in TORTURE_BACKEND.
  #
  # Invariant: each has one fault, and is right as long as nobody is killed.

  @doc "The backend of a name."
  @spec backend(String.t()) :: module
  def backend("ra"), do: Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra
  def backend("retrying"), do: __MODULE__.Retrying
  def backend("hasty"), do: __MODULE__.Hasty

  def backend(name) do
    raise ArgumentError,
          "TORTURE_BACKEND must be ra, retrying or hasty, got: #{inspect(name)}"
  end

  defmodule Retrying do
    @moduledoc false
    # Sends a batch again whose outcome is unknown, so that writes run twice.

    alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra

    def __commit_batch_direct__(shard, list), do: again(:__commit_batch_direct__, shard, list)

    def __commit_put_batch_direct__(shard, list),
      do: again(:__commit_put_batch_direct__, shard, list)

    def __commit_delete_batch_direct__(shard, list),
      do: again(:__commit_delete_batch_direct__, shard, list)

    defp again(function, shard, list) do
      with {:error, _unknown} <- apply(Ra, function, [shard, list]),
           do: again(function, shard, list)
    end
  end

  defmodule Hasty do
    @moduledoc false
    # Acknowledges a batch when Ra has it, not when a majority does, so that writes are lost.

    alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra

    def __commit_batch_direct__(shard, list) do
      hand_over(:__commit_batch_direct__, shard, list)
      {:ok, Enum.flat_map(list, &replies/1)}
    end

    def __commit_put_batch_direct__(shard, list) do
      hand_over(:__commit_put_batch_direct__, shard, list)
      {:ok, Enum.map(list, fn _entry -> :ok end)}
    end

    def __commit_delete_batch_direct__(shard, list) do
      hand_over(:__commit_delete_batch_direct__, shard, list)
      {:ok, Enum.map(list, fn _key -> :ok end)}
    end

    defp hand_over(function, shard, list), do: spawn(Ra, function, [shard, list])

    defp replies({:batch, commands}), do: Enum.flat_map(commands, &replies/1)
    defp replies({:incr, "mark" <> _, 1}), do: [{:ok, 1}]
    # Any sum that is greater than the last.
    defp replies({:incr, _key, 1}), do: [{:ok, System.unique_integer([:positive, :monotonic])}]
    defp replies(_put_or_delete), do: [:ok]
  end
end
