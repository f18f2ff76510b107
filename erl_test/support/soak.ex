defmodule Ferricstore.Raft.WARaftBackend.Batcher.Soak do
  @moduledoc false
  # In a child VM: the same work in rounds, and after each round what the VM and the process hold.
  #
  # Invariant: a figure is taken when nothing is queued or in flight and all garbage is collected, so that
  # a figure that grows from round to round is a leak.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null
  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, VmLoad}

  @rounds 9
  @samples 5
  @rest_ms 5
  # What they say they gave out is exact: neither the one for temporary memory, nor the one that keeps
  # what was freed for the next of its kind.
  @allocators :erlang.system_info(:alloc_util_allocators) -- [:temp_alloc, :fix_alloc]
  @writers 16
  # So many run out of time at once.
  @giving_up 500
  @tries 40
  @app :ferricstore
  @shard 0
  @refused {:error, :batcher_overloaded}

  @doc "A backend whose commits wait until they are let go."
  def __commit_batch_direct__(_shard, commands) do
    receive do: (:go -> {:ok, Enum.map(commands, fn _ -> :ok end)})
  end

  @doc """
  Does a kind of work `times` times, in rounds, with batchers that commit in this `way`; tells the figures of each round
  as `figures`.
  """
  def run(kind, times, way) do
    VmLoad.commit_as(way)
    {:ok, _} = Application.ensure_all_started(:elixir)
    load([:elixir, :logger, :ferricstore_batcher])
    Application.put_env(@app, :waraft_backend_batcher_backend, Null)
    each = max(div(times, @rounds), 1)
    prepare(kind)

    for _ <- 1..@rounds do
      {us, :ok} = :timer.tc(fn -> work(kind, each) end)
      settle(kind)
      ChildVM.tell("figures", Map.put(figures(), :ms, div(us, 1_000)))
    end

    System.halt(0)
  end

  # What is loaded at its first use is loaded now, such as what a watcher says of a commit that hangs.
  defp load(applications) do
    for application <- applications do
      Application.load(application)
      {:ok, modules} = :application.get_key(application, :modules)
      Enum.each(modules, &Code.ensure_loaded/1)
    end
  end

  defp prepare(:cycles), do: :ok

  defp prepare(:timeouts) do
    start(call_timeout: 0)
  end

  defp prepare(:refusals) do
    # One write holds the only place for as long as the test runs.
    Application.put_env(@app, :waraft_backend_batcher_backend, __MODULE__)
    # It has one of the three functions: no other is called.
    start(max_queue_items: 1, backend_check: :lazy)
    spawn(fn -> GenServer.call(Batcher.name(@shard), {:write_batch, [{:a}], 0}, :infinity) end)
    VmLoad.wait_until(fn -> Batcher.snapshot(@shard).in_flight != %{} end)
  end

  defp prepare(:writes), do: start([])
  # As many committers as there may be from the first round on.
  defp prepare(:namespaces), do: start(max_in_flight: 128)

  defp start(options), do: {:ok, _owner} = Batcher.start_link(@shard, options ++ VmLoad.way())

  defp work(:writes, times), do: in_parallel(@writers, times, fn n -> write(rem(n, 8), n) end)

  # All of them at once, none of which was there before.
  defp work(:namespaces, times) do
    round = System.unique_integer([:positive])
    tags = for n <- 1..times, do: raw({:write, "#{round} #{n}", {:set, n}, 60_000})
    # Behind all of them in the owner's mailbox.
    :ok = GenServer.call(Batcher.name(@shard), :flush, :infinity)
    for tag <- tags, do: receive(do: ({^tag, reply} -> :ok = reply))
    :ok
  end

  defp work(:refusals, times) do
    in_parallel(@writers, times, fn n ->
      @refused = refused(rem(n, 3))
    end)
  end

  defp work(:timeouts, times), do: in_parallel(@giving_up, times, &give_up/1)

  defp work(:cycles, times) do
    for n <- 1..times do
      {:ok, _owner} = Batcher.start_link(rem(n, 8), VmLoad.way())
      {:ok, [:ok]} = Batcher.write_put_batch(rem(n, 8), [{"k", "v", n}])
      :ok = Batcher.stop(rem(n, 8))
    end

    :ok
  end

  defp raw(request) do
    tag = make_ref()
    send(Batcher.name(@shard), {:"$gen_call", {self(), tag}, request})
    tag
  end

  defp write(0, n), do: :ok = Batcher.write(@shard, "a", {:put, "key", "value", n}, 1)
  defp write(1, n), do: :ok = Batcher.write(@shard, "b", {:set, n}, 1)
  defp write(2, n), do: {:ok, [:ok]} = Batcher.write_batch(@shard, [{:set, n}])
  defp write(3, _n), do: {:ok, [:ok, :ok]} = Batcher.write_delete_batch(@shard, ["a", "b"])
  # Outside of the heap.
  defp write(4, _n), do: {:ok, [:ok]} = put(:binary.copy("v", 100))

  defp write(5, n) when rem(n, 500) == 5,
    do: {:ok, _} = Batcher.write_put_batch(@shard, many(3_000))

  defp write(6, n) when rem(n, 100) == 6, do: :ok = Batcher.flush(@shard)
  defp write(7, n) when rem(n, 100) == 7, do: %{slots: _} = Batcher.snapshot(@shard)

  # A call alias is answered by a process, not by the library.
  defp write(_async, n) do
    tag = if rem(n, 2) == 0, do: make_ref(), else: [:alias | :erlang.alias([:reply])]
    :ok = Batcher.write_put_batch_async(@shard, [{"k", "v", n}], {self(), tag})
    receive do: ({^tag, {:ok, [:ok]}} -> :ok)
  end

  defp put(value), do: Batcher.write_put_batch(@shard, [{"key", value, 0}])
  defp many(count), do: for(n <- 1..count, do: {n, "v", 0})

  defp refused(0), do: Batcher.write(@shard, "a", {:put, "k", :binary.copy("v", 100), 0}, 1)
  defp refused(1), do: Batcher.write_batch(@shard, [{:set, 1}])
  defp refused(2), do: put("v")

  # In the window or while the commit runs. A reply may just make it: then once more, in another way; but not for
  # ever, since a write that is alone is always answered (5.6).
  defp give_up(n, tries \\ @tries)
  defp give_up(_n, 0), do: :ok

  defp give_up(n, tries) do
    case try_in_vain(rem(n, 4)) do
      :timeout -> :ok
      {:error, {:timeout, _}} -> :ok
      _reply -> give_up(n + 1, tries - 1)
    end
  end

  defp try_in_vain(way) do
    case way do
      0 -> Batcher.write(@shard, "a", {:put, "k", :binary.copy("v", 100), 0}, 1)
      1 -> put("v")
      2 -> Batcher.write_batch(@shard, [{:set, 1}])
      3 -> Batcher.flush(@shard, 0)
    end
  catch
    :exit, {:timeout, {Batcher, _function, _args}} -> :timeout
  end

  defp in_parallel(processes, times, fun) do
    each = div(times, processes)

    monitors =
      for p <- 1..processes do
        {_pid, monitor} = spawn_monitor(fn -> for n <- 1..each//1, do: fun.(p * each + n) end)
        monitor
      end

    for monitor <- monitors do
      receive do: ({:DOWN, ^monitor, :process, _pid, :normal} -> :ok)
    end

    :ok
  end

  defp settle(:cycles), do: 0 = VmLoad.threads_left()

  defp settle(kind) do
    if kind != :refusals, do: :ok = Batcher.flush(@shard, :infinity)
    VmLoad.wait_until(fn -> map_size(Batcher.snapshot(@shard).in_flight) == in_flight(kind) end)
  end

  defp in_flight(:refusals), do: 1
  defp in_flight(_kind), do: 0

  # What is just being freed is not held: the least of some samples.
  defp figures do
    samples = for _ <- 1..@samples, do: sample()
    Enum.reduce(samples, &Map.merge(&1, &2, fn _figure, a, b -> min(a, b) end))
  end

  defp sample do
    receive do
    after
      @rest_ms -> :ok
    end

    # A flush is answered a little before the committers rest, and they free what they had.
    for _ <- 1..2, pid <- Process.list(), do: :erlang.garbage_collect(pid)

    %{
      rss: kilobytes("status", ~r/^VmRSS:\s+(\d+)/m),
      # All that Rust got, and little of the VM's: one arena, see `ChildVM`.
      malloc: kilobytes("smaps", ~r/\[heap\].*?^Rss:\s+(\d+)/ms),
      # All that the VM gave out, environments of the library among it.
      blocks: Enum.sum(Enum.map(@allocators, &blocks(&1, :count))),
      bytes: Enum.sum(Enum.map(@allocators, &blocks(&1, :size))),
      threads: proc("status", ~r/^Threads:\s+(\d+)/m),
      ets: :erlang.system_info(:ets_count),
      atoms: :erlang.system_info(:atom_count),
      processes: :erlang.system_info(:process_count),
      ports: :erlang.system_info(:port_count)
    }
  end

  defp blocks(allocator, what) do
    for {:instance, _number, parts} <- :erlang.system_info({:allocator, allocator}),
        {part, figures} when part in [:mbcs, :mbcs_pool, :sbcs] <- parts,
        {:blocks, types} <- figures,
        {_type, figures} <- types,
        figure <- figures,
        elem(figure, 0) == what,
        reduce: 0,
        do: (sum -> sum + elem(figure, 1))
  end

  defp kilobytes(file, field), do: proc(file, field) * 1_024

  defp proc(file, field) do
    [_, number] = Regex.run(field, File.read!("/proc/self/#{file}"))
    String.to_integer(number)
  end
end
