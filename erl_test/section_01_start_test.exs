# Names, start, supervision: section 1 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section01StartTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Native, Options}

  # Long enough that only what the test does can end it.
  @long_ms 60_000
  @max_ms 4_294_967_295

  test "1.1 name is an atom made of the shard" do
    assert Batcher.name(0) == :ferricstore_waraft_backend_batcher_0
    assert Batcher.name(4711) == :ferricstore_waraft_backend_batcher_4711
  end

  test "1.1 name of something else than an integer" do
    for bad <- [1.0, :zero, "0", nil],
        do: assert_raise(FunctionClauseError, fn -> Batcher.name(bad) end)
  end

  test "1.1 the owner is registered while the batcher runs", %{shard: shard} do
    assert Process.whereis(Batcher.name(shard)) == nil
    owner = start_batcher(shard)
    assert Process.whereis(Batcher.name(shard)) == owner
    stop_supervised!({Batcher, shard})
    assert Process.whereis(Batcher.name(shard)) == nil
  end

  test "1.2 start_link links the owner to the caller", %{shard: shard} do
    assert {:ok, owner} = Batcher.start_link(shard)
    {:links, links} = Process.info(self(), :links)
    assert owner in links
    assert Batcher.stop(shard) == :ok
  end

  test "1.2 start_link of something else than an index" do
    for bad <- [-1, 1.0, :zero, "0", nil],
        do: assert_raise(FunctionClauseError, fn -> Batcher.start_link(bad) end)
  end

  test "1.2 start_link with options that are no list", %{shard: shard} do
    for bad <- [%{}, :none, nil],
        do: assert_raise(FunctionClauseError, fn -> Batcher.start_link(shard, bad) end)
  end

  test "1.2 start_link of a shard that has a batcher", %{shard: shard} do
    owner = start_batcher(shard)
    assert Batcher.start_link(shard) == {:error, {:already_started, owner}}
    assert Batcher.start_link(shard, hot_batch_max: 5) == {:error, {:already_started, owner}}
  end

  test "1.2 start_link by many at once: one batcher", %{shard: shard} do
    parent = self()

    starters =
      for _ <- 1..20 do
        spawn_link(fn ->
          send(parent, {:started, Batcher.start_link(shard)})
          Process.sleep(:infinity)
        end)
      end

    results = for _ <- starters, do: assert_receive({:started, _}) |> elem(1)
    assert [{:ok, owner}] = Enum.filter(results, &match?({:ok, _}, &1))
    assert Enum.count(results, &(&1 == {:error, {:already_started, owner}})) == 19
    assert Batcher.stop(shard) == :ok
  end

  test "1.2 a batcher keeps time from its start on, however many are started" do
    {:ok, options} = Options.check([])

    # Where a shard is opened and its first window ends the library asks its owner for a committer.
    shards =
      for _ <- 1..3_000 do
        shard = new_shard()
        {:ok, []} = Native.open(shard, Options.native(options, nil))
        :queued = Native.offer(shard, :put_batch, [], 0, 1, {self(), shard}, nil, nil)
        shard
      end

    for _ <- shards, do: assert_receive({:spawn_committers, 1}, 2_000)
    Enum.each(shards, &Native.close/1)
    for shard <- shards, do: assert(await_reply(shard) == {:error, :shutting_down})
  end

  for {what, library} <- [{"missing", nil}, {"damaged", "not a library"}] do
    test "1.2 start_link without the shared library (#{what}): an error, never undef" do
      lines = without_library(unquote(library))

      assert "start {:error, {:nif_not_loaded, {:load_failed, text}}}" in lines
      # Whoever writes commits directly, as without any batcher.
      assert "write {:replied, 0, [{:incr, 1, 2}]}" in lines
      assert "write_batch {:ok, [{:replied, 0, [:a]}]}" in lines
      assert "async {:direct, {:ok, [{:replied, 0, [\"k\"]}]}}" in lines
      assert "flush :ok" in lines
      assert "stop :ok" in lines
      assert "snapshot nil" in lines
    end
  end

  test "1.4 child_spec of a shard, alone or with options" do
    assert %{start: {Batcher, :start_link, [7, []]}} = Batcher.child_spec(7)

    assert %{start: {Batcher, :start_link, [7, [hot_batch_max: 5]]}} =
             Batcher.child_spec({7, hot_batch_max: 5})

    for bad <- [-1, :seven, {:seven, []}, {7, :opts}, nil],
        do: assert_raise(FunctionClauseError, fn -> Batcher.child_spec(bad) end)
  end

  test "1.4 child_spec has an id for each shard, whatever the options" do
    assert Batcher.child_spec(7).id != Batcher.child_spec(8).id
    assert Batcher.child_spec(7).id == Batcher.child_spec({7, hot_batch_max: 5}).id
  end

  test "1.4 many batchers under one supervisor", %{shard: shard} do
    shards = [shard | for(_ <- 1..3, do: new_shard())]
    children = Enum.map(shards, &{Batcher, {&1, hot_batch_max: 5}})
    supervisor = start_supervised!(supervisor_spec())
    for child <- children, do: assert({:ok, _} = Supervisor.start_child(supervisor, child))

    supervised = for {_, pid, :worker, _} <- Supervisor.which_children(supervisor), do: pid
    registered = for shard <- shards, do: Process.whereis(Batcher.name(shard))
    assert Enum.sort(supervised) == Enum.sort(registered)
  end

  test "1.4 a supervisor is told of a bad value", %{shard: shard} do
    supervisor = start_supervised!(supervisor_spec())

    assert {:error, {{:invalid_option, :pacing, :never}, _child}} =
             Supervisor.start_child(supervisor, {Batcher, {shard, pacing: :never}})
  end

  test "1.5 the child is permanent, a worker, and has time to drain" do
    assert %{restart: :permanent, type: :worker, shutdown: shutdown} = Batcher.child_spec(7)
    assert shutdown == 5_000
    assert Batcher.child_spec({7, shutdown_timeout: 50_000}).shutdown == 50_500
  end

  test "1.5 the shutdown timeout is one that a supervisor can wait" do
    assert Batcher.child_spec({7, shutdown_timeout: @max_ms}).shutdown <= @max_ms
  end

  test "1.5 the supervisor restarts a batcher that was killed", %{shard: shard} do
    owner = start_batcher(shard)
    Process.exit(owner, :kill)
    successor = await_successor(shard, owner)
    assert is_pid(successor)
    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
  end

  test "1.5 on shutdown the owner drains", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: @long_ms)
    write = call_async(fn -> Batcher.write(shard, "p", {:a}, @long_ms) end)
    put = put_async(shard)
    wait_queued(shard, "p", 1)
    wait_queued(shard, :put_batch, 1)
    stop_supervised!({Batcher, shard})
    assert await(write) == {:done, {:a}}
    assert await(put) == {:ok, [{:done, {"k", "v", 0}}]}
  end

  test "1.6 the library defines no module of ferricstore's but its own" do
    {:ok, modules} = :application.get_key(:ferricstore_batcher, :modules)
    assert Batcher in modules

    for module <- modules, from_src?(module) do
      name = inspect(module)
      ours = [inspect(Batcher) <> ".", "Mix.Tasks.Batcher."]
      own? = module == Batcher or String.starts_with?(name, ours)
      assert own?, "#{name} is not ours"
    end
  end

  defp supervisor_spec do
    start = {Supervisor, :start_link, [[], [strategy: :one_for_one]]}
    %{id: make_ref(), type: :supervisor, start: start}
  end

  defp put_async(shard), do: call_async(fn -> Batcher.write_put_batch(shard, [{"k", "v", 0}]) end)

  # Runs this library's modules in a VM of their own, where there is no such shared library. Answers
  # what it printed.
  defp without_library(library) do
    folder = Path.join(System.tmp_dir!(), "batcher_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(folder) end)
    app = Path.join(folder, "ferricstore_batcher")
    File.mkdir_p!(app)
    File.cp_r!(Path.dirname(:code.which(Batcher)), Path.join(app, "ebin"))

    if library do
      File.mkdir_p!(Path.join(app, "priv/native"))
      File.write!(Path.join(app, "priv/native/batcher_nif.so"), library)
    end

    {output, 0} =
      System.cmd(
        System.find_executable("elixir"),
        ["-pa", Path.join(app, "ebin"), "-e", script()],
        stderr_to_stdout: true
      )

    String.split(output, "\n")
  end

  defp script do
    """
    defmodule DirectBackend do
      def __commit_batch_direct__(shard, list), do: {:ok, [{:replied, shard, list}]}
      def __commit_put_batch_direct__(shard, list), do: {:ok, [{:replied, shard, list}]}
      def __commit_delete_batch_direct__(shard, list), do: {:ok, [{:replied, shard, list}]}
    end

    alias Ferricstore.Raft.WARaftBackend.Batcher
    Application.put_env(:ferricstore, :waraft_backend_batcher_backend, DirectBackend)

    {:error, {:nif_not_loaded, {kind, text}}} = Batcher.start_link(0)
    true = is_binary(text)
    IO.puts("start {:error, {:nif_not_loaded, {\#{inspect(kind)}, text}}}")
    say = fn what, result -> IO.puts("\#{what} \#{inspect(result)}") end
    say.("write", Batcher.write(0, "p", {:incr, 1, 2}, 1))
    say.("write_batch", Batcher.write_batch(0, [:a]))
    say.("async", Batcher.write_delete_batch_async(0, ["k"], {self(), make_ref()}))
    say.("flush", Batcher.flush(0))
    say.("stop", Batcher.stop(0))
    say.("snapshot", Batcher.snapshot(0))
    """
  end
end
