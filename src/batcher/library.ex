defmodule Ferricstore.Raft.WARaftBackend.Batcher.Library do
  @moduledoc false
  # How a process that has joined a shard, a committer or a responder, calls the functions of `Native`.
  #
  # Invariant: if the library was loaded again, and knows nothing of the process any more, the process exits, with a
  # reason that holds no payload.
  #
  # Not in `Native`: once that module is deleted, its functions are old code, and as long as they are on the stack of
  # a process, the library can't be loaded again.

  @doc "Makes a call of the library. Exits if the library was loaded again (see `Native`)."
  @spec call((() -> result)) :: result when result: term
  def call(call) do
    call.()
  rescue
    # What was raised may hold all replies: not for callers to be told (9.5).
    ArgumentError -> exit({:shutdown, :library_reloaded})
  end
end
