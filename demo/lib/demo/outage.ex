defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Outage do
  @moduledoc false
  # Kills the node of the leader in the middle of a run, and finds out how long nothing was acknowledged.
  # One invariant: it looks at the count of acknowledged writes from outside; the callers do nothing for it.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Cluster, Meter}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Terminal

  # How often it looks: the gap is that exact.
  @look_ms 1

  @typedoc """
  Which node was killed, of how many of the shards it was the leader, what was acknowledged before and after, and the
  longest time without an acknowledgement, from the kill on, in ms.
  """
  @type t :: %{
          node: node(),
          led: pos_integer(),
          before: non_neg_integer(),
          later: non_neg_integer(),
          gap_ms: non_neg_integer()
        }

  @doc "Runs `write`, kills after so many ms, and returns both results."
  @spec during(Cluster.t(), Meter.t(), non_neg_integer(), (() -> result)) ::
          {result, {:ok, t()} | {:error, String.t()}}
        when result: term()
  def during(cluster, meter, after_ms, write) do
    watcher = Task.async(fn -> watch(cluster, meter, after_ms) end)
    result = write.()
    send(watcher.pid, :written)
    {result, Task.await(watcher, :infinity)}
  end

  defp watch(cluster, meter, after_ms) do
    Process.sleep(after_ms)

    case leaders(meter.shards) do
      [] ->
        {:error, "no node was killed: no shard has a leader"}

      leaders ->
        # Otherwise it would look late when there is most to do.
        Process.flag(:priority, :high)
        {node, led} = Enum.max_by(leaders, fn {_node, led} -> led end)
        before = Meter.acknowledged(meter)
        now = Meter.now()
        :ok = Cluster.kill(cluster, node)
        say_killed(node, led, Range.size(meter.shards))
        gap = longest_gap(meter, before, now, 0)
        later = Meter.acknowledged(meter) - before
        outage = %{node: node, led: led, before: before, later: later}
        {:ok, Map.put(outage, :gap_ms, div(gap, 1_000_000))}
    end
  end

  # At once: nothing else tells why the numbers stop for a while.
  defp say_killed(node, led, count),
    do: Terminal.puts(:stdio, "killed #{node}, the leader of #{led} of #{count} shards")

  defp leaders(shards) do
    nodes = for shard <- shards, {:ok, {_name, node}} <- [Backend.Ra.leader(shard)], do: node
    nodes |> Enum.frequencies() |> Enum.to_list()
  end

  # Ends with the run: by then every caller had its last answer.
  defp longest_gap(meter, count, since, longest) do
    receive do
      :written -> max(longest, Meter.now() - since)
    after
      @look_ms ->
        now = Meter.now()

        case Meter.acknowledged(meter) do
          ^count -> longest_gap(meter, count, since, longest)
          more -> longest_gap(meter, more, now, max(longest, now - since))
        end
    end
  end

  @doc """
  Whether an error of a call may be what the kill did: the leader went away with the batch, and nobody can say whether
  the others have it.
  """
  @spec unknown?(term()) :: boolean()
  def unknown?(:timeout), do: true
  def unknown?({reason, _server}) when reason in [:timeout, :nodedown, :noproc], do: true
  def unknown?({:server_down, _server, _reason}), do: true
  def unknown?(_reason), do: false
end
