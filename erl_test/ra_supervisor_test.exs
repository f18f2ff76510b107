# The backend on Ra under a supervisor of batchers: what becomes of both when Ra ends.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.SupervisorTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.RaCase, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra

  @compile {:no_warn_undefined, [:ra]}

  test "19.1: Ra has the shards of the supervisor, and is the backend of all of them", %{dir: dir} do
    shards = [0, {1, backend: NoBackend}]
    start(shards: shards, backend: NoBackend, ra: [data_dir: dir, shards: [7]])
    assert Ra.shards() == [0, 1]
    for shard <- 0..1, do: assert(put(shard, "k") == :ok)
    for shard <- 0..1, do: assert(Ra.fetch(shard, "k") == {:ok, {"v", 0}})
  end

  for {what, name} <- [
        server: :ferricstore_batcher_1,
        server_of_a_shard_that_was_added: :ferricstore_batcher_2,
        system_of_a_log: :ra_ferricstore_batcher_log1_server_sup_sup,
        all_of_ra: :ra_ferricstore_batcher_server_sup_sup
      ] do
    test "19.7: Ra and the shards are started anew when it has ended: #{what}", %{dir: dir} do
      supervisor = start(shards: 2, ra: [data_dir: dir])
      assert :ok = Ra.start(data_dir: dir, shards: 3)
      for shard <- 0..1, do: assert(put(shard, "before") == :ok)
      watch = Process.monitor(instance(supervisor))
      finish(unquote(what))
      assert_receive {:DOWN, ^watch, :process, _pid, {:ra_ended, unquote(name)}}, 10_000

      # It answers when all have been started.
      assert Process.alive?(instance(supervisor))
      assert Ra.shards() == [0, 1]

      for shard <- 0..1 do
        assert put(shard, "after") == :ok
        assert {:ok, %{"before" => {"v", 0}, "after" => {"v", 0}}} = Ra.fetch_all(shard)
      end
    end
  end

  test "19.7: a server that Ra restarts itself is none that has ended, nor is Ra after stop/0", %{
    dir: dir
  } do
    instance = instance(start(shards: 1, ra: [data_dir: dir]))
    server = Process.whereis(:ferricstore_batcher_0)
    watch = Process.monitor(server)
    Process.exit(server, :kill)
    assert_receive {:DOWN, ^watch, :process, ^server, :killed}, 5_000
    # Seen while it was away, once, and there again.
    send(instance, :look)
    assert put(0, "k") == :ok
    look_twice(instance)

    assert :ok = Ra.stop()
    look_twice(instance)
    assert :ok = Ra.start(data_dir: dir)
    assert put(0, "k") == :ok
    look_twice(instance)
  end

  # Either there is nothing to see, or it ends.
  defp look_twice(instance) do
    for _look <- 1..2, do: send(instance, :look)
    assert :sys.get_state(instance) == []
  end

  # A server is stopped as Ra stops one that it has restarted too often.
  defp finish(:server), do: finish(:ferricstore_batcher_log1, :ferricstore_batcher_1)

  defp finish(:server_of_a_shard_that_was_added),
    do: finish(:ferricstore_batcher, :ferricstore_batcher_2)

  defp finish(:system_of_a_log),
    do: :ok = Supervisor.terminate_child(:ra_systems_sup, :ferricstore_batcher_log1)

  defp finish(:all_of_ra), do: :ok = Application.stop(:ra)

  defp finish(system, server), do: :ok = :ra.stop_server(system, {server, node()})

  defp start(opts), do: start_supervised!({Batcher.Supervisor, opts})

  defp instance(supervisor) do
    {_id, pid, _type, _modules} =
      supervisor |> Supervisor.which_children() |> List.keyfind!(Ra, 0)

    pid
  end

  defp put(shard, key), do: Batcher.write(shard, "p", {:put, key, "v", 0}, 1)
end
