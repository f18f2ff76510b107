defmodule Ferricstore.Raft.WARaftBackend.Batcher.TestGate do
  @moduledoc false
  # A sync gate whose tokens know who listens: `leave/1` reports `{:left, token, releasing_process}`.
  # Invariant: each call of `leave/1` is one message, so that a token released twice shows.

  @doc "A token that reports to the calling process."
  def token, do: {self(), make_ref()}

  @doc "Releases a token. One of `{:failing, :raise | :exit | :throw, pid, ref}` fails in that way."
  def leave({:failing, how, pid, _ref} = token) do
    send(pid, {:left, token, self()})

    case how do
      :raise -> raise "the gate is broken"
      :exit -> exit(:the_gate_is_broken)
      :throw -> throw(:the_gate_is_broken)
    end
  end

  def leave({pid, _ref} = token) do
    send(pid, {:left, token, self()})
    :ok
  end
end
