defmodule Ferricstore.Raft.WARaftBackend.Batcher.Library do
  @moduledoc false
  # How a process that has joined a shard, a committer or a responder, calls the functions of `Native`.
  #
  # Invariant: if the library was loaded again, and knows nothing of the process any more, the process exits, with a
  # reason that holds no payload.
  #
  # Not in `Native`: once that module is deleted, its functions are old code, and as long as they are on the stack of
  # a process, the library can't be loaded again.

  @doc """
  Makes a call of the library, `Library.call(Native.take(ref))`. Exits if the library was loaded again (see `Native`).

  A macro: a fun for each call would take a tenth of the time of a small commit.
  """
  defmacro call(call) do
    quote do
      try do
        unquote(call)
      rescue
        # What was raised may hold all replies: not for callers to be told (9.5).
        ArgumentError -> exit({:shutdown, :library_reloaded})
      end
    end
  end
end
