defmodule Ferricstore.Raft.WARaftBackend.Batcher.Owner.Trace do
  @moduledoc false
  # What `:sys.trace/2` and the like show of what an owner receives.
  #
  # Invariant: of a message only what kind it is.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Name

  @doc "What is kept for `:sys` after a message of the owner of a shard."
  @spec received(list, integer, term) :: list
  def received([], _shard, _message), do: []

  def received(debug, shard, message) do
    event = {:in, describe(message)}
    :sys.handle_debug(debug, &write_event/3, Name.of(shard), event)
  end

  defp write_event(device, {:in, what}, name),
    do: IO.puts(device, "*DBG* #{inspect(name)} got #{what}")

  defp describe({:"$gen_call", {to, _tag}, request}) when is_pid(to),
    do: "call #{kind(request)} of #{inspect(to)}"

  defp describe({:"$gen_call", _from, request}), do: "call #{kind(request)}"
  defp describe({:"$gen_cast", request}), do: "cast #{kind(request)}"
  defp describe(message), do: kind(message)

  defp kind(message) when is_tuple(message) and tuple_size(message) > 0,
    do: kind(elem(message, 0))

  defp kind(name) when is_atom(name), do: inspect(name)
  defp kind(_other), do: "a message"
end
