# The backend on Ra, on one node: its calls, its errors, its data on disk.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.RaTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.RaCase, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra

  @compile {:no_warn_undefined, [:ra, :ra_system]}

  unless Code.ensure_loaded?(:ra) do
    IO.puts(
      :stderr,
      "The tests of the Ra backend are skipped: Ra is not on the code path. Run `make setup`."
    )
  end

  # What may come back when a server ends during a commit: see "outcome unknown" in the docs of the backend.
  defguardp is_unknown(tag) when tag in [:timeout, :server_down, :nodedown, :noproc]

  test "19.1, 19.3: the application of README starts Ra and the shards, and stops both", %{
    dir: dir
  } do
    [_, code] =
      Regex.run(~r/```elixir\n(defmodule MyApp.Application do.*?)```/s, File.read!("README.md"))

    Code.compile_string(String.replace(code, "/var/lib/my_app/raft", dir))
    on_exit(fn -> for it <- [:delete, :purge], do: apply(:code, it, [MyApp.Application]) end)
    Process.flag(:trap_exit, true)
    {:ok, supervisor} = apply(MyApp.Application, :start, [:normal, []])
    assert Ra.shards() == [0, 1, 2, 3]
    for shard <- 0..3, do: assert(Batcher.write(shard, "p", {:put, "k", "v", 0}, 1) == :ok)
    assert Supervisor.stop(supervisor, :shutdown) == :ok
    assert Ra.shards() == []
    for shard <- 0..3, do: assert(Process.whereis(Batcher.name(shard)) == nil)
    # What was acknowledged is there when it starts again.
    {:ok, supervisor} = apply(MyApp.Application, :start, [:normal, []])
    for shard <- 0..3, do: assert(Ra.fetch(shard, "k") == {:ok, {"v", 0}})
    assert Supervisor.stop(supervisor, :shutdown) == :ok
  end

  test "7.1, 9.1: each of the three functions commits one Raft command", %{dir: dir} do
    assert Ra.shards() == []
    assert :ok = Ra.start(data_dir: dir, shards: [0, 3])
    assert Ra.shards() == [0, 3]

    assert {:ok, [:ok, :ok]} = Ra.__commit_put_batch_direct__(3, [{"a", "1", 0}, {"b", "2", 9}])
    assert {:ok, [:ok]} = Ra.__commit_delete_batch_direct__(3, ["a"])
    batch = [{:incr, "n", 5}, {:batch, [{:put, "c", "3", 0}, :what]}, {:put_batch, []}]

    assert {:ok, [{:ok, 5}, :ok, {:error, {:unknown_command, :what}}]} =
             Ra.__commit_batch_direct__(3, batch)

    assert {:ok, []} = Ra.__commit_batch_direct__(3, [])
    assert {:ok, %{"b" => {"2", 9}, "c" => {"3", 0}, "n" => {"5", 0}}} = Ra.fetch_all(3)
    assert {:ok, {"2", 9}} = Ra.fetch(3, "b")
    assert :not_found = Ra.fetch(3, "a")
    assert {:ok, 4} = Ra.commits(3)
    assert {:ok, 0} = Ra.commits(0)
    assert {:ok, {:ferricstore_batcher_3, node}} = Ra.leader(3)
    assert node == node()
    assert {:ok, [{:ferricstore_batcher_3, ^node}]} = Ra.members(3)
  end

  test "errors name what is wrong", %{dir: dir} do
    assert {:error, :not_started} = Ra.__commit_put_batch_direct__(0, [])
    assert {:error, :not_started} = Ra.fetch(0, "k")
    assert :ok = Ra.stop()

    assert {:error, {:missing_option, :data_dir, text}} = Ra.start(shards: 1)
    assert text =~ "option :data_dir of Ra is missing"

    for {key, value} <- [
          data_dir: 1,
          data_dir: "",
          data_dir: <<255>>,
          data_dir: "a\0b",
          shards: 0,
          shards: [],
          shards: [0, -1],
          shards: [0 | 1],
          nodes: [],
          nodes: ["a@b"],
          nodes: :a@b,
          name: "with space",
          name: "",
          logs: 0,
          logs: 65,
          logs: "2",
          command_timeout: 0,
          command_timeout: :infinity,
          comand_timeout: 1
        ] do
      assert {:error, {:invalid_option, ^key, ^value, text}} =
               Ra.start(Keyword.merge([data_dir: dir], [{key, value}]))

      assert text =~ "option #{inspect(key)} of Ra"
      assert Batcher.format_error({:invalid_option, key, value, text}) == text
      assert text =~ ~r/, got: #{Regex.escape(inspect(value))}$/ or text =~ "unknown"
    end

    assert {:error, {:invalid_option, :opts, :what, text}} = error = Ra.start(:what)
    assert Batcher.format_error(error) == text

    file = Path.join(dir, "file")
    File.write!(file, "")
    assert {:error, {:data_dir, path, :enotdir, text}} = Ra.start(data_dir: file)
    assert String.starts_with?(path, file)
    assert text =~ path

    assert :ok = Ra.start(data_dir: dir)
    assert {:error, {:unknown_shard, 1}} = Ra.__commit_delete_batch_direct__(1, ["k"])
    assert {:error, {:unknown_shard, 1}} = Ra.leader(1)

    assert {:error, {:already_started, %{name: "ferricstore_batcher"}, text}} =
             Ra.start(data_dir: dir, name: "other")

    assert text =~ dir

    for commit <- [
          &Ra.__commit_batch_direct__/2,
          &Ra.__commit_put_batch_direct__/2,
          &Ra.__commit_delete_batch_direct__/2
        ] do
      assert {:error, :invalid_batch_command_list} = commit.(0, [1 | 2])
    end

    assert {:ok, 0} = Ra.commits(0)
  end

  test "start is idempotent, adds shards, and everything acknowledged outlives a restart", %{
    dir: dir
  } do
    opts = [data_dir: dir, name: :durable]
    assert :ok = Ra.start(opts)
    assert {:ok, [:ok]} = Ra.__commit_put_batch_direct__(0, [{"a", "1", 0}])
    assert :ok = Ra.start([shards: 2] ++ opts)
    assert :ok = Ra.start([shards: 2] ++ opts)
    assert Ra.shards() == [0, 1]

    entries = for i <- 1..10_000, do: {"key#{i}", "value#{i}", i}
    assert {:ok, oks} = Ra.__commit_put_batch_direct__(1, entries)
    assert length(oks) == 10_000

    assert :ok = Ra.stop()
    assert Ra.shards() == []
    assert {:error, :not_started} = Ra.__commit_put_batch_direct__(0, [{"a", "2", 0}])

    assert :ok = Ra.start([shards: 2] ++ opts)
    assert {:ok, {"1", 0}} = Ra.fetch(0, "a")
    assert {:ok, all} = Ra.fetch_all(1)
    assert all == Map.new(entries, fn {key, value, exp} -> {key, {value, exp}} end)
    assert {:ok, 1} = Ra.commits(1)
  end

  test "comes back from a snapshot and the log after it", %{dir: dir} do
    assert :ok = Ra.start(data_dir: dir)
    value = String.duplicate("v", 500_000)

    # Weighs 60 MB, of which the map keeps 5; the floor of a snapshot is 16 MiB.
    for i <- 1..120,
        do:
          assert({:ok, [:ok]} = Ra.__commit_put_batch_direct__(0, [{"k#{rem(i, 10)}", value, i}]))

    await_snapshot(dir)
    assert {:ok, [:ok]} = Ra.__commit_put_batch_direct__(0, [{"last", "1", 0}])
    assert :ok = Ra.stop()
    assert :ok = Ra.start(data_dir: dir)
    assert {:ok, 121} = Ra.commits(0)
    assert {:ok, all} = Ra.fetch_all(0)
    assert all["last"] == {"1", 0}
    assert for(i <- 0..9, do: elem(all["k#{i}"], 1)) == [120 | Enum.to_list(111..119)]
  end

  test "a snapshot taken under load holds what its index says, no more and no less", %{dir: dir} do
    assert :ok = Ra.start(data_dir: dir)
    pad = String.duplicate("p", 100_000)

    # Commands of eight writers are applied together: an increment that got into a snapshot of the one before it
    # would be counted twice. 64 MB, a snapshot each 16 MiB.
    writers =
      for writer <- 1..8 do
        Task.async(fn ->
          for i <- 1..80 do
            batch = [{:incr, "n", 1}, {:incr, "n#{writer}", 1}, {:put, "pad#{rem(i, 8)}", pad, i}]
            assert {:ok, [{:ok, _}, {:ok, ^i}, :ok]} = Ra.__commit_batch_direct__(0, batch)
          end
        end)
      end

    Task.await_many(writers, 60_000)
    await_snapshot(dir)
    assert {:ok, before} = Ra.fetch_all(0)
    assert %{"n" => {"640", 0}, "n1" => {"80", 0}, "n8" => {"80", 0}} = before

    {:ok, {name, _node}} = Ra.leader(0)
    watch = Process.monitor(name)
    Process.exit(Process.whereis(name), :kill)
    assert_receive {:DOWN, ^watch, :process, _, :killed}, 5_000
    assert {:ok, ^before} = Ra.fetch_all(0)

    assert :ok = Ra.stop()
    assert :ok = Ra.start(data_dir: dir)
    assert {:ok, ^before} = Ra.fetch_all(0)
    assert {:ok, 640} = Ra.commits(0)
  end

  test "7.4: a leader that is killed under load is followed, and no command runs twice", %{
    dir: dir
  } do
    assert :ok = Ra.start(data_dir: dir, command_timeout: 10_000)
    me = self()

    # A counter per command: one that ran twice would stand at 2.
    writers =
      for writer <- 1..8 do
        Task.async(fn ->
          send(me, :writing)

          for i <- 1..200, key = "#{writer}:#{i}" do
            case Ra.__commit_batch_direct__(0, [{:incr, key, 1}]) do
              {:ok, [{:ok, 1}]} -> {key, :acknowledged}
              {:error, {tag, _server}} when is_unknown(tag) -> {key, :unknown}
              {:error, {tag, _server, _reason}} when is_unknown(tag) -> {key, :unknown}
            end
          end
        end)
      end

    for _ <- 1..8, do: assert_receive(:writing)
    {:ok, {name, _node}} = Ra.leader(0)
    server = Process.whereis(name)
    watch = Process.monitor(server)
    Process.exit(server, :kill)
    assert_receive {:DOWN, ^watch, :process, _, :killed}, 5_000

    outcomes = writers |> Task.await_many(60_000) |> List.flatten()
    assert length(outcomes) == 1_600
    assert {:ok, all} = Ra.fetch_all(0)

    for {key, outcome} <- outcomes do
      case {outcome, all} do
        {_, %{^key => value}} -> assert value == {"1", 0}
        {:unknown, _} -> :ok
        {:acknowledged, _} -> flunk("#{key} was acknowledged and is gone")
      end
    end

    # Each writer had one command under way at the most.
    assert Enum.count(outcomes, &match?({_, :unknown}, &1)) <= 8
    assert Process.whereis(name) != server
  end

  test "no leader within the timeout: nothing is committed, and nothing arrives later", %{
    dir: dir
  } do
    assert :ok = Ra.start(data_dir: dir, command_timeout: 300)
    {:ok, {name, _node} = server} = Ra.leader(0)
    :ok = :ra.stop_server(:ferricstore_batcher, server)
    assert {:error, {:no_leader, 0}} = Ra.__commit_put_batch_direct__(0, [{"a", "1", 0}])
    assert Process.whereis(name) == nil
    assert :ok = Ra.start(data_dir: dir, command_timeout: 300)
    assert {:ok, 0} = Ra.commits(0)
    assert Process.info(self(), :messages) == {:messages, []}
  end

  test "a commit that times out leaves no late reply behind", %{dir: dir} do
    assert :ok = Ra.start(data_dir: dir, command_timeout: 200)
    {:ok, {name, _node} = server} = Ra.leader(0)
    :ok = :sys.suspend(name)

    assert {:error, {:timeout, ^server}} = Ra.__commit_put_batch_direct__(0, [{"a", "1", 0}])
    assert {:error, {:no_leader, 0}} = Ra.__commit_put_batch_direct__(0, [{"b", "1", 0}])

    :ok = :sys.resume(name)

    # The outcome was unknown: the server takes the first command from its mailbox now. The second was never sent.
    assert {:ok, [:ok]} = Ra.__commit_put_batch_direct__(0, [{"c", "1", 0}])
    assert {:ok, all} = Ra.fetch_all(0)
    assert Map.keys(all) == ["a", "c"]
    assert Process.info(self(), :messages) == {:messages, []}
  end

  test "the host's own Ra system is left alone", %{dir: dir} do
    {:ok, _} = Application.ensure_all_started(:ra)
    host = Path.join(dir, "host")
    File.mkdir_p!(host)
    names = :ra_system.derive_names(:host_system)

    config =
      Map.merge(:ra_system.default_config(), %{
        name: :host_system,
        names: names,
        data_dir: String.to_charlist(host),
        wal_data_dir: String.to_charlist(host)
      })

    {:ok, pid} = :ra_system.start(config)
    assert :ok = Ra.start(data_dir: dir)
    assert :ok = Ra.stop()
    assert Process.alive?(pid)
    assert Process.whereis(names.wal) != nil

    :ok = Supervisor.terminate_child(:ra_systems_sup, :host_system)
    :ok = Supervisor.delete_child(:ra_systems_sup, :host_system)
  end

  # Ra writes the snapshot beside the commits, and tells nobody when it is there.
  defp await_snapshot(dir) do
    files = Path.wildcard("#{dir}/*/ferricstore_batcher_0/snapshots/*/snapshot.dat")

    if files == [] do
      {:ok, _} = Ra.commits(0)
      await_snapshot(dir)
    end
  end
end
