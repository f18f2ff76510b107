defmodule Ferricstore.Raft.WARaftBackend.Batcher.Schedules.Backend do
  @moduledoc false
  # A backend as the batcher sees a Raft one: its replies are made by another process.
  #
  # Invariant: it holds no scheduler itself, so that what a committer is reported for is not the backend's.

  @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Backend

  alias Ferricstore.Raft.WARaftBackend.Batcher.Count

  @doc "How it answers: `:ok` to each command, each command to itself, or all commands as one error."
  @spec answer_with(:ok | :echo | :fail) :: :ok
  def answer_with(how), do: :persistent_term.put(__MODULE__, how)

  @impl true
  def __commit_batch_direct__(_shard, commands) do
    case :persistent_term.get(__MODULE__) do
      :ok -> oks(Count.commands(commands))
      :echo -> {:ok, commands}
      :fail -> {:error, commands}
    end
  end

  @impl true
  def __commit_put_batch_direct__(_shard, entries), do: oks(Count.items(entries))

  @impl true
  def __commit_delete_batch_direct__(_shard, keys), do: oks(Count.items(keys))

  defp oks(count) do
    {committer, ref} = {self(), make_ref()}
    spawn(fn -> send(committer, {ref, List.duplicate(:ok, count)}) end)
    receive do: ({^ref, replies} -> {:ok, replies})
  end
end
