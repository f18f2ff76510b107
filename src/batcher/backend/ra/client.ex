# Calls to a shard's leader: commands, queries, and who the leader is.
# Invariant: a command leaves here at most once. It is sent again only after an attempt of which it is certain
# that no server received it; a query changes nothing and is asked again as often as time allows.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Client do
  @moduledoc false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Config

  @compile {:no_warn_undefined, [:ra]}

  # How long one member is asked for its leader before the next one is, and the pause after all were asked.
  @ask_ms 500
  @pause_ms 20

  @doc """
  Commits one Raft command and returns the machine's reply.

  `{:error, {:no_leader, index}}` and the errors of `Config.shard/1`: certainly not committed. The other
  errors: Ra may have accepted it, and may still commit it.
  """
  @spec command(non_neg_integer(), term()) :: {:ok, term()} | {:error, term()}
  def command(index, command) do
    with {:ok, shard, timeout} <- Config.shard(index),
         do: command(shard, command, now() + timeout)
  end

  defp command(shard, command, deadline) do
    with {:ok, server} <- locate(shard, deadline) do
      case hand_over(server, command, left(deadline)) do
        {:ok, reply, ^server} ->
          {:ok, reply}

        {:ok, reply, leader} ->
          remember(shard, leader)
          {:ok, reply}

        {:error, :noproc} ->
          forget(shard)

          if gone?(server, deadline),
            do: again(shard, command, deadline),
            else: {:error, {:noproc, server}}

        {:error, :nodedown} ->
          forget(shard)
          {:error, {:nodedown, server}}

        {:timeout, at} ->
          forget(shard)
          {:error, {:timeout, at}}

        {:error, _reason} = error ->
          forget(shard)
          error
      end
    end
  end

  # Ra's call leaves no late reply behind: gen_statem calls through a process alias, or before OTP 26 and to
  # another node through a process of its own. A member that is not the leader passes the caller on to the
  # leader without having accepted anything; Ra's time starts anew then.
  defp hand_over(server, command, timeout) do
    # Ra 3 returns the reason of a server that ended during the call, Ra 2 exits with it.
    with {:error, reason} when reason not in [:noproc, :nodedown] <-
           :ra.process_command(server, command, timeout),
         do: {:error, {:server_down, server, reason}}
  catch
    # The server ended during the call. The reason holds the whole command; only its first part is news.
    :exit, {reason, _call} -> {:error, {:server_down, server, reason}}
    :exit, reason -> {:error, {:server_down, server, reason}}
  end

  defp again(shard, command, deadline) do
    pause(deadline)
    command(shard, command, deadline)
  end

  @doc """
  Runs `{module, function, args}` on the leader's machine state, which comes as the last argument, once a
  majority has confirmed that it is the leader still.
  """
  @spec query(non_neg_integer(), {module(), atom(), [term()]}) :: {:ok, term()} | {:error, term()}
  def query(index, mfa) do
    with {:ok, shard, timeout} <- Config.shard(index),
         do: query(shard, mfa, now() + timeout, nil)
  end

  defp query(shard, mfa, deadline, last) do
    with {:ok, server} <- locate(shard, deadline) do
      case safely(fn -> :ra.consistent_query(server, mfa, left(deadline)) end) do
        {:ok, result, leader} ->
          remember(shard, leader)
          {:ok, result}

        {:timeout, at} ->
          forget(shard)
          {:error, {:timeout, at}}

        {:error, reason} ->
          forget(shard)
          pause(deadline)
          query(shard, mfa, deadline, reason)
      end
    else
      {:error, _no_leader} when last != nil -> {:error, last}
      error -> error
    end
  end

  @doc "The leader and the members of a shard, from the leader itself."
  @spec members(non_neg_integer()) ::
          {:ok, [Config.server()], leader :: Config.server()} | {:error, term()}
  def members(index) do
    with {:ok, shard, timeout} <- Config.shard(index), do: members(shard, now() + timeout)
  end

  @doc "Waits up to `timeout` ms until the shard has a leader, and remembers it."
  @spec await_leader(Config.shard(), non_neg_integer()) :: :ok | {:error, term()}
  def await_leader(shard, timeout) do
    with {:ok, _members, _leader} <- members(shard, now() + timeout), do: :ok
  end

  # A member answers only as leader, or passes on the question; one that knows of no leader keeps the question
  # until it does, so each round is short.
  defp members(shard, deadline) do
    if left(deadline) == 0 do
      {:error, {:no_leader, shard.index}}
    else
      servers = Tuple.to_list(shard.servers)
      ask = min(left(deadline), @ask_ms)

      case safely(fn -> :ra.members(servers, ask) end) do
        {:ok, members, leader} ->
          remember(shard, leader)
          {:ok, members, leader}

        _not_now ->
          pause(deadline)
          members(shard, deadline)
      end
    end
  end

  ## Who leads

  # A leader that is seen to be away is not called at all: to wait for its return, or for another leader, is
  # better than an error whose outcome is unknown.
  defp locate(shard, deadline) do
    server = remembered(shard)
    if server != nil and present?(server), do: {:ok, server}, else: find(shard, deadline)
  end

  defp present?({name, node}) when node == node(), do: Process.whereis(name) != nil
  defp present?({_name, node}), do: node in Node.list(:connected)

  defp find(shard, deadline) do
    with {:ok, _members, leader} <- members(shard, deadline), do: {:ok, leader}
  end

  defp remembered(%{servers: servers, leader: leader}) do
    case :atomics.get(leader, 1) do
      0 -> nil
      place -> elem(servers, place - 1)
    end
  end

  defp remember(%{servers: servers, leader: leader}, server) do
    place = 1 + (Enum.find_index(Tuple.to_list(servers), &(&1 == server)) || -1)
    if :atomics.get(leader, 1) != place, do: :atomics.put(leader, 1, place)
    :ok
  end

  defp forget(%{leader: leader}), do: :atomics.put(leader, 1, 0)

  # "No such process" came from `server`, or from a leader that it named. With `server` still away it was the
  # former and nobody got the command. With a process there now, it may have registered just between the
  # caller's look and the arrival of the message: that can't be told, so the command must not go out again.
  defp gone?({name, node}, _deadline) when node == node(), do: Process.whereis(name) == nil

  defp gone?({name, node}, deadline) do
    :erpc.call(node, Process, :whereis, [name], left(deadline)) == nil
  catch
    :error, {:erpc, _reason} -> false
  end

  ## Time

  defp now, do: System.monotonic_time(:millisecond)
  defp left(deadline), do: max(deadline - now(), 0)
  defp pause(deadline), do: Process.sleep(min(left(deadline), @pause_ms))

  defp safely(call) do
    call.()
  catch
    :exit, {reason, _call} -> {:error, reason}
    :exit, reason -> {:error, reason}
  end
end
