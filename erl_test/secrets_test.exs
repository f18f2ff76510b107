# No payload in what others read: what is logged, reports of processes that crash, what `:sys` shows.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.SecretsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  # It stands in keys, values, commands, prefixes, tokens, tags and in what the backend fails with.
  @secret "s3cret"
  @moduletag :capture_log

  defmodule Listener do
    # A handler of Erlang's logger without filters: it gets crash reports of all processes, too.
    def log(event, %{config: test}), do: send(test, {:logged, event})
  end

  setup do
    id = :"secrets_#{:erlang.unique_integer([:positive])}"
    :ok = :logger.add_handler(id, Listener, %{level: :all, config: self()})
    # From Elixir 1.15 on its logger has one that stops crash reports before any handler.
    filters = :logger.get_primary_config().filters
    for {filter, _} <- filters, do: :ok = :logger.remove_primary_filter(filter)

    on_exit(fn ->
      :logger.remove_handler(id)
      for {filter, it} <- filters, do: :logger.add_primary_filter(filter, it)
    end)
  end

  # Of each kind of lane: its name, and what is written to it.
  defp writes do
    [
      {@secret, {:put, @secret, @secret, 0}},
      {@secret <> "2", {:set, @secret, %{@secret => [@secret]}}},
      {:batch, [{:set, @secret}, {:set, @secret}]},
      {:put_batch, [{@secret, @secret, 0}]},
      {:delete_batch, [@secret]}
    ]
  end

  defp next_line(kind) do
    assert_receive {:logged, %{meta: %{kind: ^kind}} = event}, 5_000
    harmless(event)
  end

  # The report of a process that has crashed.
  defp crash(pid) do
    assert_receive {:logged,
                    %{msg: {:report, %{label: {:proc_lib, :crash}}}, meta: %{pid: ^pid}} = event},
                   5_000

    harmless(event)
  end

  # Everything that was logged until now, whoever logged it.
  defp harmless do
    receive do
      {:logged, event} -> harmless([harmless(event)])
    after
      0 -> []
    end
  end

  defp harmless([event]), do: [event | harmless()]

  defp harmless(term) do
    refute shown(term) =~ @secret
    # Texts may come as functions, which are not shown.
    with %{msg: {:report, report}, meta: %{report_cb: text}} when is_function(text, 1) <- term do
      {format, values} = text.(report)
      refute to_string(:io_lib.format(format, values)) =~ @secret
    end

    term
  end

  # Strings stand in lists of characters or binaries; of a binary that is not printable only numbers would be seen.
  defp shown(term),
    do: inspect(term, limit: :infinity, printable_limit: :infinity, structs: false)

  test "the secret would be found: in texts, in reports, in metadata" do
    require Logger
    Logger.error("it is #{@secret}", kind: :text)
    Logger.error("hello", kind: :meta, it: {@secret})
    :logger.error(%{it: [@secret]}, %{kind: :report})
    :proc_lib.spawn(fn -> :erlang.error({:it_is, @secret}) end)

    for kind <- [:text, :meta, :report] do
      assert_receive {:logged, %{meta: %{kind: ^kind}} = event}, 5_000
      assert_raise ExUnit.AssertionError, fn -> harmless(event) end
    end

    assert_receive {:logged, %{msg: {:report, %{label: {:proc_lib, :crash}}}} = event}, 5_000
    assert_raise ExUnit.AssertionError, fn -> harmless(event) end
  end

  for {kind, behaviour} <- [
        commit_failed: {:return, {:error, {:no, @secret}}},
        commit_failed: {:return, @secret},
        commit_failed: {:return, %{reason: @secret}},
        replies_mismatched: {:return, {:ok, List.duplicate(@secret, 9)}},
        backend_failed: {:exit, {:timeout, {GenServer, :call, [:ra, {:put, @secret}, 5_000]}}},
        backend_failed:
          {:exit, {{%RuntimeError{message: @secret}, [{:m, :f, [@secret], []}]}, @secret}},
        backend_failed: {:raise, %RuntimeError{message: @secret}},
        backend_failed: {:raise, {:badmatch, {:error, @secret}}},
        backend_failed: {:throw, [@secret]}
      ] do
    test "a commit that fails: #{kind}, #{inspect(behaviour)}", %{shard: shard} do
      start_batcher(shard)
      backend(shard, unquote(Macro.escape(behaviour)))

      for {lane, item} <- writes() do
        await_reply(raw(shard, lane, item, 1))
        next_line(unquote(kind))
        pass_limit(shard)
      end

      harmless()
    end

    test "the same of a write that is alone: #{kind}, #{inspect(behaviour)}", %{shard: shard} do
      start_batcher(shard, pacing: :auto)
      backend(shard, unquote(Macro.escape(behaviour)))

      for {lane, item} <- writes(), lane != :put_batch and lane != :delete_batch do
        write(shard, lane, item, 1)
        assert next_commit(shard).pid == self()
        next_line(unquote(kind))
        pass_limit(shard)
      end

      harmless()
    end
  end

  test "a backend that raises of itself what it was given", %{shard: shard} do
    start_batcher(shard)
    backend(shard, {:run, fn _function, list -> Map.fetch!(%{}, list) end})

    for {lane, item} <- writes() do
      await_reply(raw(shard, lane, item, 1))
      next_line(:backend_failed)
      pass_limit(shard)
    end

    harmless()
  end

  test "a backend that is not there", %{shard: shard} do
    start_batcher(shard, backend: NoSuchBackend, backend_check: :lazy)
    for {lane, item} <- writes(), do: await_reply(raw(shard, lane, item, 1))
    next_line(:backend_failed)
    # And the line that says where it was called from.
    assert Enum.any?(harmless(), &(shown(&1) =~ "has no __commit_"))
  end

  test "slow commits, a commit that is stuck, and its end", %{shard: shard} do
    owner = start_batcher(shard, slow_commit_ms: 0, stuck_ms: 0)
    backend(shard, [:block, :reply])

    for {lane, item} <- writes() do
      backend(shard, [:block, :reply])
      tag = raw(shard, lane, item, 1)
      commit = next_commit(shard)
      look(watcher(owner))
      next_line(:commit_stuck)
      release(commit)
      await_reply(tag)
      next_line(:commit_slow)
      Batcher.flush(shard)
      look(watcher(owner))
      next_line(:commit_ended)
      pass_limit(shard)
    end

    harmless()
  end

  test "a queue that fills and overflows", %{shard: shard} do
    owner = start_batcher(shard, max_queue_items: 5, namespace_batch_max: 5, hot_batch_max: 5)
    look(watcher(owner))

    for {lane, item} <- writes() do
      backend(shard, [:block, :reply])
      tag = raw(shard, lane, item, 1)
      commit = next_commit(shard)
      others = for _ <- 1..9, do: raw(shard, lane, item, 1)
      assert {:error, :batcher_overloaded} = await_reply(List.last(others))
      look(watcher(owner))
      next_line(:queue_filling)
      next_line(:overload_began)
      release(commit)
      Enum.each([tag | Enum.drop(others, -1)], &await_reply/1)
      for _ <- 1..4, do: look(watcher(owner))
      next_line(:overload_ended)
      pass_limit(shard)
      drop_commits(shard)
    end

    harmless()
  end

  test "committers that are killed", %{shard: shard} do
    owner = start_batcher(shard)

    for {lane, item} <- writes() do
      backend(shard, [:block, :reply])
      tag = raw(shard, lane, item, 1)
      %{pid: committer} = next_commit(shard)
      send(committer, {:stranger, @secret})
      Process.exit(committer, {:reason, @secret})
      Process.exit(committer, :kill)
      assert {:error, {:backend_exit, :killed}} = await_reply(tag)
      await_death(committer)
      # What the owner has to say of it, it has said.
      :sys.get_state(owner)
      pass_limit(shard)
    end

    assert [_ | _] = harmless()
  end

  test "committers that are ended while a batch waits in their mailbox", %{shard: shard} do
    owner = start_batcher(shard)
    tags = for {lane, item} <- writes(), do: raw(shard, lane, item, 1)
    Enum.each(tags, &await_reply/1)
    wait_idle(shard)
    committers = committers(owner)
    Enum.each(committers, &:sys.suspend/1)
    # So large that it comes as messages.
    large = for n <- 1..2_000, do: {"#{@secret}#{n}", @secret, 0}
    task = call_async(fn -> Batcher.write_put_batch(shard, large) end)

    for committer <- committers do
      send(committer, {:stranger, @secret})
      harmless(:sys.get_status(committer))
      monitor = Process.monitor(committer)
      :sys.terminate(committer, :not_orderly)
      assert_receive {:DOWN, ^monitor, :process, ^committer, :not_orderly}, 5_000
      crash(committer)
    end

    await(task)
    :sys.get_state(owner)
    harmless()
  end

  test "an owner that is killed, and the one that takes over", %{shard: shard} do
    owner = start_batcher(shard)
    tasks = for {lane, item} <- namespaces(), do: queue(shard, lane, item)
    harmless(:sys.get_status(owner))
    Process.exit(owner, :kill)
    successor = await_successor(shard, owner)
    next_line(:adopted)
    harmless(:sys.get_status(successor))
    Batcher.flush(shard)
    Enum.each(tasks, &await/1)
    harmless()
  end

  test "an owner that is killed, and nobody who takes over", %{shard: shard} do
    owner = start_alone(shard, adoption_timeout: 50)
    look(watcher(owner))
    tasks = for {lane, item} <- namespaces(), do: queue(shard, lane, item)
    Process.exit(owner, :kill)
    for task <- tasks, do: assert(await(task) == {:error, :batcher_down})
    next_line(:nobody_adopted)
    harmless()
  end

  test "a drain that comes to no end", %{shard: shard} do
    owner = start_alone(shard, drain_timeout: 0)
    backend(shard, :block)
    {lane, item} = hd(writes())
    tag = raw(shard, lane, item, 1)
    commit = next_commit(shard)
    behind = raw(shard, lane, item, long_ms())
    wait_queued(shard, lane, 1)
    harmless(:sys.get_status(owner))
    Batcher.stop(shard)
    assert await_reply(behind) == {:error, :shutting_down}
    next_line(:drain_refused)
    release(commit)
    await_reply(tag)
    harmless()
  end

  test "a failure of the library, with messages that wait for the owner", %{shard: shard} do
    owner = start_alone(shard)
    tasks = for {lane, item} <- namespaces(), do: queue(shard, lane, item)
    :sys.suspend(owner)
    for {lane, item} <- writes(), do: raw(shard, lane, item, 1)
    cast_raw(owner, {:write_put_batch, [{@secret, @secret, 0}], 1, {self(), @secret}, token()})
    Native.panic_thread(shard)
    for task <- tasks, do: assert({:error, {:batcher_crashed, _text}} = await(task))
    monitor = Process.monitor(owner)
    :sys.resume(owner)
    assert_receive {:DOWN, ^monitor, :process, _pid, {:batcher_crashed, _text}}, 5_000
    next_line(:library_failed)
    crash(owner)
    harmless()
  end

  test "an owner that is ended while messages wait for it", %{shard: shard} do
    owner = start_alone(shard)
    :sys.suspend(owner)
    for {lane, item} <- writes(), do: raw(shard, lane, item, long_ms())
    cast_raw(owner, {:write_put_batch, [{@secret, @secret, 0}], 1, {self(), @secret}, token()})
    send(owner, {:stranger, @secret})
    monitor = Process.monitor(owner)
    :sys.terminate(owner, :not_orderly)
    assert_receive {:DOWN, ^monitor, :process, _pid, :not_orderly}, 5_000
    crash(owner)
    harmless()
  end

  test "messages that are wrong", %{shard: shard} do
    owner = start_batcher(shard)
    :sys.log(owner, true)

    for request <- [
          {:write, @secret, @secret, 1},
          {:write, {@secret}, {@secret}, 1},
          {:write_batch, @secret, 1},
          {:write_put_batch, [@secret | @secret], 1},
          {:write_delete_batch, [@secret], @secret}
        ],
        do: assert({:error, _reason} = GenServer.call(owner, request))

    for kind <- [:write_batch, :write_put_batch, :write_delete_batch],
        {from, token} <- [{@secret, token()}, {{@secret, @secret}, {@secret, @secret}}],
        do: cast_raw(owner, {kind, [@secret], 1, from, token})

    for wrong <- [{@secret}, @secret, {:"$gen_call", @secret, @secret}, {:EXIT, self(), @secret}],
        do: send(owner, wrong)

    :sys.get_state(owner)
    harmless(:sys.get_status(owner))
    harmless(:sys.log(owner, :get))
    assert Enum.any?(harmless(), &(shown(&1) =~ "without anybody to answer"))
  end

  for failure <- [:raise, :exit, :throw] do
    test "a token that is not released (#{failure})", %{shard: shard} do
      owner = start_batcher(shard)
      token = {:failing, unquote(failure), self(), @secret}
      tag = {@secret, make_ref()}
      cast_raw(owner, {:write_put_batch, [{@secret, @secret, 0}], 1, {self(), tag}, token})
      await_reply(tag)
      :sys.get_state(owner)
      assert Enum.any?(harmless(), &(shown(&1) =~ "a sync token was not released"))
    end
  end

  # The exit of 3.7 shows what was written: it is the call, as that of `GenServer.call/3` does.
  test "callers that end with what they were told", %{shard: shard} do
    start_batcher(shard, pacing: :auto)

    for behaviour <- [{:raise, %RuntimeError{message: "no"}}, {:return, {:error, :no}}],
        {lane, item} <- writes() do
      backend(shard, behaviour)

      pid = :proc_lib.spawn(fn -> exit({:told, write(shard, lane, item, 1)}) end)
      await_death(pid)
      crash(pid)
      drop_commits(shard)
    end

    harmless()
  end

  defp namespaces, do: Enum.filter(writes(), fn {lane, _item} -> is_binary(lane) end)
  defp token, do: {self(), @secret}
  defp cast_raw(owner, request), do: send(owner, {:"$gen_cast", request})
end
