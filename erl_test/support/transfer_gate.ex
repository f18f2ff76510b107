defmodule Ferricstore.Raft.WARaftBackend.Batcher.TransferGate do
  @moduledoc false
  # A sync gate whose tokens have an owner (contract 16.4). A token `{pid, ref, outcomes}` reports to `pid`; `outcomes`
  # says what its first, second, ... transfer comes to: `:ok`, `:refuse`, `:raise`.
  #
  # Invariant: each call is one message to the test, so that a token released twice shows.

  def token(outcomes), do: {self(), make_ref(), outcomes}

  def transfer({test, ref, outcomes} = token, to) do
    count = :counters.get(counter(ref), 1)
    :counters.add(counter(ref), 1, 1)
    send(test, {:transferred, token, to, self()})

    case Enum.at(outcomes, count) do
      :ok -> :ok
      :refuse -> {:error, :unknown_sync_admission}
      :raise -> raise "the gate is broken"
    end
  end

  def leave({test, _ref, _outcomes} = token) do
    send(test, {:left, token, self()})
    :ok
  end

  defp counter(ref) do
    case :persistent_term.get({__MODULE__, ref}, nil) do
      nil ->
        counter = :counters.new(1, [])
        :persistent_term.put({__MODULE__, ref}, counter)
        counter

      counter ->
        counter
    end
  end
end
