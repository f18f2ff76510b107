defmodule Ferricstore.Raft.WARaftBackend.Batcher.Library do
  @moduledoc false
  # How a process that has joined a shard, a committer or a responder, calls the functions of `Native`.
  #
  # Invariant: if the library was loaded again, and knows nothing of the process any more, the process exits, with a
  # reason that holds no payload.
  #
  # No function of `Native`: on the stack of a process it would be old code once that module is deleted, and who
  # loads the module again would wait for that process.

  @doc "Makes a call of the library. Exits if its module was loaded again (see `Native`)."
  @spec call((() -> result)) :: result when result: term
  def call(call) do
    call.()
  rescue
    # What was raised may hold all replies: not for callers to be told (9.5).
    ArgumentError -> exit({:shutdown, :library_reloaded})
  end
end
