# The external format of what goes to Ra's log and into its snapshots, in one binary or in pieces.
# Invariant: the pieces, one after the other, are the external format of the term.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Pieces do
  @moduledoc false

  # A piece of so many bytes, on average, is copied sooner than referred to: a reference takes room on the heap of each
  # process that it comes to, and each garbage collection there looks at it.
  @small 256

  @doc """
  One binary, which the processes that it passes through share; several if binaries of the term are large: these
  are pieces by themselves, and not copied.
  """
  @spec of(term()) :: [binary(), ...]
  def of(term) do
    pieces = :erlang.term_to_iovec(term)

    if :erlang.iolist_size(pieces) <= @small * length(pieces),
      do: [:erlang.iolist_to_binary(pieces)],
      else: pieces
  end
end
