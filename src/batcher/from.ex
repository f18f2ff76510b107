defmodule Ferricstore.Raft.WARaftBackend.Batcher.From do
  @moduledoc false
  # Whom a reply goes to: a `GenServer.from`, whatever `GenServer.reply/2` can send to (contract 3.3).
  #
  # Invariant: a term that is no such `from` is found out before anything is queued.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Library, Native}
  require Library

  @typedoc "A `from` as `Native.offer/8` takes it."
  @type native :: GenServer.from() | {:other, to :: term, tag :: term}

  # As `Process.register/2` takes them.
  defguardp is_name(name) when is_atom(name) and name not in [nil, false, true, :undefined]

  defguardp is_name_on_node(to)
            when is_tuple(to) and tuple_size(to) == 2 and is_name(elem(to, 0)) and
                   is_name(elem(to, 1))

  defguardp is_destination(to)
            when is_pid(to) or is_reference(to) or is_name(to) or is_name_on_node(to)

  @doc "Whether a term is a `from`: `{to, tag}`, `to` a process, an alias, a name, or a name on a node."
  defguard is_from(from)
           when is_tuple(from) and tuple_size(from) == 2 and is_destination(elem(from, 0))

  @doc """
  The `from` of a write of the calling process. An alias counts as an alias of that process: so the library knows which
  process has just been answered (5.4).
  """
  @spec own(GenServer.from()) :: native
  def own({to, _tag} = from) when is_pid(to), do: from
  def own({to, _tag} = from) when is_reference(to) and node(to) == node(), do: from
  def own({to, tag}), do: {:other, to, tag}

  @doc "The `from` of a write that some other process has sent to the calling one."
  @spec others(GenServer.from()) :: native
  def others({to, _tag} = from) when is_pid(to), do: from
  def others({to, tag}), do: {:other, to, tag}

  @doc """
  Sends messages that only a process can send, as the library has made them, if `pass` says that the calling process is
  to: from then on nobody else does.

  A process may be killed between two of its time slices, and while its garbage is collected, which takes one of its
  own if there is much; never in between. So a time slice begins before `pass`, and from then on nothing is made that
  takes room.
  """
  @spec pass([Native.proxied()], (() -> boolean)) :: :ok
  def pass(proxied, pass) do
    :erlang.yield()
    if Library.call(pass.()), do: deliver(proxied), else: :ok
  end

  defp deliver([{to, message} | rest]) when is_pid(to) or is_reference(to) do
    send(to, message)
    deliver(rest)
  end

  defp deliver([{name, message} | rest]) do
    try do
      send(name, message)
    rescue
      # Nobody has this name.
      ArgumentError -> :ok
    end

    deliver(rest)
  end

  defp deliver([]), do: :ok
end
