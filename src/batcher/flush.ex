defmodule Ferricstore.Raft.WARaftBackend.Batcher.Flush do
  @moduledoc false
  # A flush: the calling process waits until every write accepted so far has been answered (contract 11).
  #
  # Invariant: a call that has ended will get no message any more, whether it was answered or gave up.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  # An answer that has been sent is here at once; only a crash could keep it.
  @sent_ms 5_000

  @doc "Starts a flush and waits for its answer: `{:reply, result}`, or `:timeout` after that many ms."
  @spec run(integer, timeout) :: {:reply, term} | :timeout | :not_running
  def run(shard, timeout) do
    tag = make_ref()

    case Native.flush(shard, tag) do
      :not_running ->
        :not_running

      number ->
        receive do
          {^tag, result} -> {:reply, result}
        after
          timeout -> give_up(Native.cancel_flush(shard, number), tag)
        end
    end
  end

  defp give_up(:cancelled, _tag), do: :timeout

  defp give_up(:sent, tag) do
    receive do
      {^tag, result} -> {:reply, result}
    after
      @sent_ms -> :timeout
    end
  end
end
