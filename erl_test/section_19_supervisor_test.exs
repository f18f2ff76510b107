defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section19SupervisorTest do
  # Contract 19: the batchers of several shards under one supervisor.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  defp put(i), do: {:put, "k#{i}", "v", 0}

  defp shards(count), do: for(_ <- 1..count, do: new_shard())

  defp start(opts), do: start_supervised!({Batcher.Supervisor, opts})

  defp await_restart(shard, owner) do
    case Process.whereis(Batcher.name(shard)) do
      pid when pid in [nil, owner] ->
        :erlang.yield()
        await_restart(shard, owner)

      pid ->
        pid
    end
  end

  test "19.1 all shards run when it has started, each with the common options and its own" do
    [first, second] = shards(2)
    start(shards: [first, {second, pacing: :window}], pacing: :auto, commit_scope: :shard)
    assert %{pacing: {:auto, :option}, commit_scope: {:shard, _}} = Batcher.options(first)
    assert %{pacing: {:window, :option}, commit_scope: {:shard, _}} = Batcher.options(second)
    for shard <- [first, second], do: assert({:done, _} = Batcher.write(shard, "p", put(1), 1))
  end

  test "19.1 errors are told before anything runs, or when what ran has been stopped" do
    [first, second] = shards(2)
    Process.flag(:trap_exit, true)
    start = &Batcher.Supervisor.start_link/1
    assert start.([]) == {:error, {:missing_option, :shards}}

    for shards <- [
          -1,
          :many,
          [-1],
          [{first}],
          [{first, :no_list}],
          [first, first],
          [first | first]
        ],
        do: assert(start.(shards: shards) == {:error, {:invalid_option, :shards, shards}})

    for ra <- [true, :ra, %{data_dir: "raft"}, [:data_dir], [{:data_dir, "raft"} | :more]] do
      assert {:error, {:invalid_option, :ra, ^ra}} = error = start.(shards: [first], ra: ra)

      assert Batcher.format_error(error) ==
               "option :ra must be a keyword list, the options of Batcher.Backend.Ra.start/1, got: " <>
                 inspect(ra)
    end

    assert start.(shards: [first], pacing: :fast) == {:error, {:invalid_option, :pacing, :fast}}

    assert {:error, {:backend_not_available, NoBackend, [_ | _]}} =
             start.(shards: [first, {second, backend: NoBackend}])

    assert Process.whereis(Batcher.name(first)) == nil
  end

  test "19.1 a shard that runs elsewhere is not started twice", c do
    owner = start_alone(c.shard)
    Process.flag(:trap_exit, true)

    assert Batcher.Supervisor.start_link(shards: [c.shard], shutdown_timeout: 10) ==
             {:error, {:already_started, owner}}
  end

  test "19.2 stop/1 of all shards at once, again and again: each is started anew" do
    shards = shards(8)
    supervisor = start(shards: shards)

    for _round <- 1..3 do
      owners = for shard <- shards, do: {shard, Process.whereis(Batcher.name(shard))}
      stops = for shard <- shards, do: Task.async(fn -> Batcher.stop(shard) end)
      assert Enum.uniq(Task.await_many(stops)) == [:ok]
      for {shard, owner} <- owners, do: await_restart(shard, owner)
    end

    assert Process.alive?(supervisor)
    for shard <- shards, do: assert({:done, _} = Batcher.write(shard, "p", put(1), 1))
  end

  test "19.3 at a shutdown all shards drain at once: none waits for another one that hangs" do
    shards = shards(4)
    {:ok, supervisor} = Batcher.Supervisor.start_link(shards: shards, shutdown_timeout: 60_000)
    Process.unlink(supervisor)

    flying =
      for shard <- shards do
        backend(shard, [:block, :reply])
        call_async(fn -> Batcher.write(shard, "a", put(1), 1) end)
      end

    commits = for shard <- shards, do: next_commit(shard)

    queued = queue_behind(shards)

    shutdown = call_async(fn -> Supervisor.stop(supervisor, :shutdown) end)
    # Each of them is asked to end while all of them hang.
    for shard <- shards, do: wait_refusing(shard)
    Enum.each(commits, &release/1)
    for write <- flying ++ queued, do: assert({:done, _} = await(write))
    assert await(shutdown) == :ok
    for shard <- shards, do: assert(Process.whereis(Batcher.name(shard)) == nil)
  end

  test "19.3 what hangs longer than its shutdown timeout is told of, in all shards" do
    shards = shards(4)
    start(shards: shards, shutdown_timeout: 50)

    commits =
      for shard <- shards do
        backend(shard, :block)
        call_async(fn -> Batcher.write(shard, "a", put(1), 1) end)
        next_commit(shard)
      end

    queued = queue_behind(shards)

    stop_supervised!(Batcher.Supervisor)
    for write <- queued, do: assert(await(write) == {:error, :shutting_down})
    Enum.each(commits, &release/1)
  end

  @tag :capture_log
  test "19.4 when its supervisor of shards is killed, shards drain and are started anew" do
    shards = shards(3)
    supervisor = start(shards: shards)
    owners = for shard <- shards, do: {shard, Process.whereis(Batcher.name(shard))}
    [{:shards, pid, :supervisor, _}] = Supervisor.which_children(supervisor)
    Process.exit(pid, :kill)
    for {shard, owner} <- owners, do: await_restart(shard, owner)
    for shard <- shards, do: assert({:done, _} = Batcher.write(shard, "p", put(1), 1))
  end

  defp wait_refusing(shard) do
    case Batcher.write_batch(shard, [put(9)]) do
      {:error, :shutting_down} ->
        :ok

      _accepted ->
        :erlang.yield()
        wait_refusing(shard)
    end
  end

  # A write in each shard that waits for the one in flight.
  defp queue_behind(shards) do
    for shard <- shards do
      write = call_async(fn -> Batcher.write(shard, "a", put(2), 60_000) end)
      wait_queued(shard, "a", 1)
      write
    end
  end
end
