defmodule Ferricstore.Raft.WARaftBackend.Batcher.VmLoad do
  @moduledoc false
  # In a child VM: an application that supervises batchers, and processes that write to them with all
  # public functions, without pause.
  #
  # Invariant: a writer checks each reply against the number that it must hold; what no clause of the
  # contract allows is kept for the test to see, and ends that writer.

  use Application

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null
  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @host :batcher_host
  @shards [0, 1, 2, 5_000]
  @counters {__MODULE__, :counters}
  @way {__MODULE__, :way}
  @event_ms 5_000
  # Longer than what the library copies on a scheduler.
  @long 3_000

  @doc "The shards that are written to."
  def shards, do: @shards

  @doc "Batchers are started with these options from now on."
  def commit_as(way), do: :persistent_term.put(@way, way)

  @doc "These options."
  def way, do: :persistent_term.get(@way, [])

  @doc """
  Loads the application, starts it, and as many writers; answers those when every kind of write was
  done.
  """
  def start(writers) do
    {:ok, _} = Application.ensure_all_started(:elixir)
    Application.put_env(:ferricstore, :waraft_backend_batcher_backend, Null)
    :persistent_term.put(@counters, :counters.new(2, [:write_concurrency]))
    :ets.new(__MODULE__, [:named_table, :public, :bag])

    :ok =
      :application.load(
        {:application, @host,
         vsn: ~c"0",
         modules: [],
         registered: [],
         applications: [:kernel, :stdlib],
         mod: {__MODULE__, []}}
      )

    :ok = start_host()
    pids = for _ <- 1..writers, do: spawn(fn -> write_forever() end)
    wait_until(fn -> writes() > writers * 10 end)
    pids
  end

  def start_host, do: Application.start(@host)
  def stop_host, do: Application.stop(@host)

  @impl Application
  def start(_type, _args) do
    children = for shard <- @shards, do: {Batcher, {shard, way()}}
    options = [strategy: :one_for_one, max_restarts: 1_000_000, name: __MODULE__]
    Supervisor.start_link(children, options)
  end

  @doc "How many writes were answered."
  def writes, do: :counters.get(:persistent_term.get(@counters), 1)

  @doc "How many writes were answered that their committer has died."
  def unsure, do: :counters.get(:persistent_term.get(@counters), 2)

  @doc "Waits until so many more writes were answered."
  def go_on(count) do
    writes = writes()
    wait_until(fn -> writes() > writes + count end)
  end

  @doc "What a writer was answered and no clause allows, a few of them."
  def faults(most \\ 5),
    do: __MODULE__ |> :ets.tab2list() |> Enum.map(&elem(&1, 1)) |> Enum.take(most)

  @doc "Threads of the library in this VM."
  def threads, do: Enum.count(comms(), &String.starts_with?(&1, "batcher_"))

  defp comms do
    for path <- Path.wildcard("/proc/self/task/*/comm"),
        {:ok, comm} <- [File.read(path)],
        do: comm
  end

  @doc "Waits until the library has no thread any more; answers how many are left after 5 s."
  def threads_left, do: threads_left(now_ms() + @event_ms)

  defp threads_left(until) do
    case threads() do
      0 ->
        0

      left ->
        if now_ms() > until, do: left, else: rest(fn -> threads_left(until) end)
    end
  end

  @doc "Whether a shard holds nothing and all its committers rest."
  def idle?(shard) do
    Enum.all?(Native.lanes(shard), fn {_lane, slots, committer} ->
      slots == [] and committer == nil
    end)
  end

  @doc "Waits until a predicate holds; exits after 5 s."
  def wait_until(predicate, until \\ nil) do
    until = until || now_ms() + @event_ms

    cond do
      predicate.() -> :ok
      now_ms() > until -> exit(:waited_in_vain)
      true -> rest(fn -> wait_until(predicate, until) end)
    end
  end

  defp rest(continue) do
    receive do
    after
      2 -> continue.()
    end
  end

  defp now_ms, do: System.monotonic_time(:millisecond)

  defp write_forever do
    if write_once() == :ok, do: write_forever()
  end

  defp write_once do
    shard = Enum.random(@shards)
    {count, reply} = write(:rand.uniform(200), shard)
    check(count, reply)
    :counters.add(:persistent_term.get(@counters), 1, 1)
  catch
    # This table is the last to go when a VM ends; nobody can write then.
    :error, reason -> if :ets.whereis(:ac_tab) != :undefined, do: fault(reason)
  end

  defp write(1, shard), do: {:flush, Batcher.flush(shard)}
  defp write(2, shard), do: {@long, Batcher.write_put_batch(shard, entries(@long))}
  defp write(n, shard) when n < 40, do: {2, Batcher.write_put_batch(shard, entries(2))}
  defp write(n, shard) when n < 60, do: {1, Batcher.write_delete_batch(shard, ["key"])}
  defp write(n, shard) when n < 80, do: {2, Batcher.write_batch(shard, [{:set, 1}, {:set, 2}])}
  defp write(n, shard) when n < 120, do: {3, write_async(shard)}

  defp write(n, shard) when n < 130,
    do: {3, Batcher.write(shard, "lane", {:put_batch, entries(3)}, 1)}

  defp write(n, shard),
    do: {:bare, Batcher.write(shard, "lane #{rem(n, 8)}", {:put, "k", "v", 0}, 1)}

  defp write_async(shard) do
    tag = make_ref()

    case Batcher.write_put_batch_async(shard, entries(3), {self(), tag}) do
      :ok ->
        receive do
          {^tag, reply} -> reply
        after
          60_000 -> :no_reply
        end

      {:direct, reply} ->
        reply
    end
  end

  defp entries(count), do: for(n <- 1..count, do: {"key #{n}", "value", 0})

  defp check(:flush, :ok), do: :ok
  defp check(:bare, :ok), do: :ok
  defp check(_any, {:error, :shutting_down}), do: :ok
  # 9.5: how committers of a library end that was loaded again. Nobody kills any here.
  defp check(_any, {:error, {:backend_exit, reason}}) when reason != :killed,
    do: :counters.add(:persistent_term.get(@counters), 2, 1)

  defp check(count, {:ok, replies}) when length(replies) == count, do: :ok
  defp check(count, reply), do: fault({count, reply})

  defp fault(what), do: :ets.insert(__MODULE__, {:fault, what})
end
