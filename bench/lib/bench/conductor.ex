defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Conductor do
  @moduledoc false
  # The process that runs one sample: starts the peer and the callers, says when to count, reads the clocks.
  # One invariant: when `run/1` returns, nothing that the sample started is left.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Peer, Work}

  @doc """
  Runs a function in a process of high priority, so that it wakes in time however many callers are ready to run.
  """
  @spec run((() -> result)) :: result when result: term
  def run(function) do
    {_pid, monitor} =
      :erlang.spawn_opt(
        fn -> exit({:done, function.()}) end,
        [:monitor, {:priority, :high}]
      )

    receive do
      {:DOWN, ^monitor, :process, _pid, {:done, result}} -> result
      {:DOWN, ^monitor, :process, _pid, reason} -> exit({:sample_failed, reason})
    end
  end

  @doc "The same with a peer, which is started before and stopped after."
  @spec run(Peer.name(), Work.t(), (Peer.handle() -> result)) :: result when result: term
  def run(name, work, function) do
    peer = Peer.module(name)

    run(fn ->
      # An owner that ends takes along who is linked to it.
      Process.flag(:trap_exit, true)
      handle = peer.start(work)
      result = function.(handle)
      peer.stop(handle, work)
      result
    end)
  end

  @doc "Starts the callers, to be followed by `gather/1`."
  @spec callers(pos_integer, (non_neg_integer -> (() -> term))) :: [pid]
  def callers(count, prepare) do
    conductor = self()

    for caller <- 0..(count - 1) do
      body = prepare.(caller)
      spawn_link(fn -> send(conductor, {:result, body.()}) end)
    end
  end

  @doc "The result of each caller, in the order in which they end."
  @spec gather([pid]) :: [term]
  def gather(callers), do: gather(length(callers), [])

  defp gather(0, results), do: results

  # Whatever comes is taken as it comes: to search a long mailbox for each of many callers takes its time.
  defp gather(count, results) do
    receive do
      {:result, result} -> gather(count - 1, [result | results])
      {:EXIT, _pid, :normal} -> gather(count, results)
      {:EXIT, _pid, reason} -> exit({:caller_failed, reason})
    end
  end

  @doc "Fails if anything that was started here has crashed."
  @spec check() :: :ok
  def check do
    receive do
      {:EXIT, _pid, reason} when reason != :normal -> exit({:crashed, reason})
    after
      0 -> :ok
    end
  end
end
