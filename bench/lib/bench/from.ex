defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.From do
  @moduledoc false
  # What a caller gives as `from` to an asynchronous write, and how it waits for the reply:
  #
  #   * `:pid`: itself, with a reference as tag
  #   * `:call_alias`: itself, with an alias of its own in the tag, as in `GenServer.call`
  #   * `:process_alias`: an alias of its own, with a tag of its own
  #
  # What each call would cost its caller, whoever replies, is left out: an alias is made once for each caller, and no
  # timer ends the wait.
  # One invariant: a caller has one call under way, so that what it receives is the reply to that one.

  @kinds [:pid, :call_alias, :process_alias]

  @type kind :: :pid | :call_alias | :process_alias

  @spec kinds() :: [kind]
  def kinds, do: @kinds

  @doc "A call for the callers of a measurement, out of an asynchronous write."
  @spec call(kind, (GenServer.from() -> :ok)) :: (() -> term)
  def call(kind, write) do
    fn ->
      {_to, tag} = from = new(kind)
      :ok = write.(from)

      receive do
        {^tag, reply} -> reply
      end
    end
  end

  @doc "Where `GenServer.reply/2` sends."
  @spec destination(GenServer.from()) :: pid | reference
  def destination({_to, [:alias | call_alias]}), do: call_alias
  def destination({to, _tag}), do: to

  defp new(:pid), do: {self(), make_ref()}
  defp new(:call_alias), do: {self(), [:alias | own_alias()]}
  defp new(:process_alias), do: {own_alias(), {__MODULE__, make_ref()}}

  # A process has to make its alias itself.
  defp own_alias do
    with nil <- Process.get(__MODULE__) do
      own = :erlang.alias()
      Process.put(__MODULE__, own)
      own
    end
  end
end
