defmodule Ferricstore.Raft.WARaftBackend.Batcher.VmFaults do
  @moduledoc false
  # What a child VM does to itself and to its batchers while it writes to them.
  #
  # Invariant: each scenario ends its VM, or tells what it saw and halts with status 0.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, Native, VmLoad}

  @writers 64
  @restart_every_ms 50
  # A committer that rests comes out of its loop after 5 s.
  @src Path.expand("../../src", __DIR__)
  @purge_ms 10_000
  @writes 1_000

  @doc "Plays a scenario with batchers that commit in this way."
  def play(way, scenario, args) do
    VmLoad.commit_as(way)
    apply(__MODULE__, scenario, args)
  end

  @doc "The end of the whole VM under load: `:init_stop`, `:halt` or `:abort`."
  def end_vm(how) do
    VmLoad.start(@writers)
    ChildVM.tell("faults", VmLoad.faults())
    ChildVM.down()

    case how do
      :init_stop -> :init.stop()
      :halt -> System.halt(0)
      :abort -> :erlang.halt(:abort)
    end
  end

  @doc "Batchers are killed, stopped, or restarted by their supervisor, every 50 ms."
  def restart(times) do
    VmLoad.start(@writers)

    for n <- 1..times do
      for shard <- VmLoad.shards(), do: restart_one(shard, rem(n, 3))

      receive do
      after
        @restart_every_ms -> :ok
      end
    end

    VmLoad.stop_host()
    report()
  end

  defp restart_one(shard, 0) do
    case Process.whereis(Batcher.name(shard)) do
      nil -> :ok
      owner -> Process.exit(owner, :kill)
    end
  end

  defp restart_one(shard, 1), do: Batcher.stop(shard)

  defp restart_one(shard, 2) do
    :ok = Supervisor.terminate_child(VmLoad, {Batcher, shard})
    {:ok, _owner} = Supervisor.restart_child(VmLoad, {Batcher, shard})
  end

  @doc "The application that holds the batchers is stopped and started again."
  def stop_application(times) do
    VmLoad.start(@writers)

    for n <- 1..times do
      {us, :ok} = :timer.tc(&VmLoad.stop_host/0)
      ChildVM.tell("stop_ms", div(us, 1_000))
      # The writers go on, directly.
      ChildVM.tell("threads", VmLoad.threads_left())
      if n < times, do: :ok = VmLoad.start_host()
    end

    report()
  end

  @doc "Modules are loaded anew, while nothing may change."
  def reload(modules, times) do
    VmLoad.start(@writers)
    for _ <- 1..times, module <- modules, do: reload_one(module)
    VmLoad.go_on(@writes)
    VmLoad.stop_host()
    report()
  end

  # Nobody is killed for it: who runs old code comes out of it soon.
  defp reload_one(module) do
    until = System.monotonic_time(:millisecond) + @purge_ms
    purged = soft_purge(module, until)
    if not purged, do: ChildVM.tell("stuck", module)
    if purged, do: {:module, ^module} = :code.load_file(module)
  end

  defp soft_purge(module, until) do
    cond do
      :code.soft_purge(module) ->
        true

      System.monotonic_time(:millisecond) > until ->
        false

      true ->
        receive do
        after
          1 -> soft_purge(module, until)
        end
    end
  end

  @doc "The code server is told to do these things with the module of the library, writes `:go_on`."
  def disturb_library(steps, times) do
    VmLoad.start(@writers)
    for _ <- 1..times, step <- steps, do: disturb(step)
    VmLoad.stop_host()
    report()
  end

  defp disturb(:go_on), do: VmLoad.go_on(@writes)
  defp disturb(step), do: ChildVM.tell("#{step}", apply(:code, step, [Native]))

  @doc "The module of the library is deleted and can't be found, as in embedded mode; then it can."
  def lose_library do
    writers = for pid <- VmLoad.start(@writers), do: Process.monitor(pid)
    paths = :code.get_path()
    {:ok, first_paths} = :erl_prim_loader.get_path()
    # Loaded before the paths are gone.
    for module <- [ChildVM | modules()], do: {:module, _} = :code.ensure_loaded(module)
    ebin = :filename.dirname(:code.which(Native))
    find(paths -- [ebin], first_paths -- [ebin])
    ChildVM.tell("deleted", :code.delete(Native))
    # Each is told, or raises; none waits for ever.
    for writer <- writers, do: receive(do: ({:DOWN, ^writer, :process, _pid, _reason} -> :ok))
    ChildVM.tell("told", VmLoad.faults(@writers))
    find(paths, first_paths)

    for shard <- VmLoad.shards() do
      VmLoad.wait_until(fn -> Process.whereis(Batcher.name(shard)) != nil end)
      ChildVM.tell("replies", Batcher.write_delete_batch(shard, ["key"]))
    end

    VmLoad.stop_host()
    ChildVM.tell("threads", VmLoad.threads_left())
    System.halt(0)
  end

  @doc "The module of the library is deleted and loaded again while all committers rest."
  def reload_at_rest do
    {:ok, _} = Application.ensure_all_started(:elixir)
    Application.put_env(:ferricstore, :waraft_backend_batcher_backend, Batcher.Backend.Null)
    {:ok, _owner} = Batcher.start_link(0)
    ChildVM.tell("reply", Batcher.write_delete_batch(0, ["key"]))
    # Its committer has said that it is done.
    VmLoad.wait_until(fn -> VmLoad.idle?(0) end)
    ChildVM.tell("deleted", :code.delete(Native))
    ChildVM.tell("loaded", :code.ensure_loaded(Native))
    for _ <- 1..4, do: ChildVM.tell("reply", Batcher.write_delete_batch(0, ["key"]))
    :ok = Batcher.stop(0)
    System.halt(0)
  end

  @doc "The module of the library is lost, or loaded again, while a process commits a write that is alone."
  def lose_library_alone(steps) do
    {:ok, _} = Application.ensure_all_started(:elixir)
    Application.put_env(:ferricstore, :waraft_backend_batcher_backend, Batcher.Backend.Null)
    Application.put_env(:ferricstore, :waraft_backend_batcher_call_hook, {:block, self()})
    {:ok, _owner} = Batcher.start_link(0, pacing: :auto)
    {_pid, monitor} = spawn_monitor(fn -> exit({:reply, Batcher.write(0, "p", {:a}, 1_000)}) end)
    {ref, pid} = receive do: ({:waraft_backend_batcher_call, _, ref, pid} -> {ref, pid})
    Application.delete_env(:ferricstore, :waraft_backend_batcher_call_hook)
    paths = :code.get_path()
    {:ok, first_paths} = :erl_prim_loader.get_path()
    ebin = :filename.dirname(:code.which(Native))
    for module <- [ChildVM | modules()], do: {:module, _} = :code.ensure_loaded(module)
    find(paths -- [ebin], first_paths -- [ebin])
    ChildVM.tell("deleted", :code.delete(Native))
    if :load in steps, do: find(paths, first_paths)
    if :load in steps, do: ChildVM.tell("loaded", :code.ensure_loaded(Native))
    send(pid, {ref, :continue})
    receive do: ({:DOWN, ^monitor, :process, _pid, reason} -> ChildVM.tell("ended", reason))
    find(paths, first_paths)
    System.halt(0)
  end

  defp find(paths, first_paths) do
    true = :code.set_path(paths)
    :ok = :erl_prim_loader.set_path(first_paths)
  end

  @doc "Modules of the product, without those of its tests."
  def modules do
    ebin = Path.dirname(to_string(:code.which(Batcher)))

    for path <-
          Path.wildcard(Path.join(ebin, "Elixir.Ferricstore.Raft.WARaftBackend.Batcher*.beam")),
        module = path |> Path.basename(".beam") |> String.to_atom(),
        source = to_string(module.module_info(:compile)[:source]),
        String.starts_with?(source, @src),
        do: module
  end

  defp report do
    ChildVM.tell("threads", VmLoad.threads_left())
    ChildVM.tell("writes", VmLoad.writes())
    ChildVM.tell("unsure", VmLoad.unsure())
    ChildVM.tell("faults", VmLoad.faults())
    ChildVM.down()
    System.halt(0)
  end
end
