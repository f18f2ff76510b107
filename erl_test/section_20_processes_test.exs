defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section20ProcessesTest do
  # Contract 20: what the processes of a shard say of themselves, and what `:sys` can do with them.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Committer, Owner, Responder, Watch}

  @secret "a secret that nobody shall see"

  defp put(i), do: {:put, "k#{i}", @secret, 0}

  defp dictionary(pid), do: elem(Process.info(pid, :dictionary), 1)

  # Responders, started by the first commit that answers several callers.
  defp responders(shard, owner) do
    send(owner, :spawn_responders)
    wait_until(fn -> length(find_responders(shard)) == System.schedulers_online() end)
    find_responders(shard)
  end

  defp find_responders(shard) do
    for pid <- Process.list(),
        {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
        dictionary[:"$initial_call"] == {Responder, :init, 2},
        match?({:ok, %{shard: ^shard}}, state(pid)),
        do: pid
  end

  defp state(pid) do
    {:ok, :sys.get_state(pid)}
  catch
    :exit, _gone -> :error
  end

  test "20.1 each process has an initial call, ancestors, and a label where there are labels",
       c do
    owner = start_batcher(c.shard)
    [committer | _] = committers(owner)
    [responder | _] = responders(c.shard, owner)

    for {pid, module, role} <- [
          {owner, Owner, :owner},
          {committer, Committer, :committer},
          {responder, Responder, :responder},
          {watcher(owner), Watch, :watcher}
        ] do
      dictionary = dictionary(pid)
      assert {^module, :init, _arity} = dictionary[:"$initial_call"]
      assert [_ | _] = dictionary[:"$ancestors"]

      if function_exported?(:proc_lib, :get_label, 1),
        do: assert(apply(:proc_lib, :get_label, [pid]) == {Batcher, role, c.shard})
    end
  end

  test "20.2 committers, responders and watchers tell :sys what they are, and no payload", c do
    owner = start_batcher(c.shard)
    backend(c.shard, [:block, :reply])
    flying = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    queued = call_async(fn -> Batcher.write(c.shard, "a", put(2), 1) end)
    wait_queued(c.shard, "a", 1)
    # It is asked while it commits, and answers when it has.
    status = call_async(fn -> :sys.get_status(commit.pid) end)
    release(commit)
    for task <- [flying, queued], do: assert({:done, _} = await(task))
    refute inspect(await(status), limit: :infinity) =~ @secret

    for pid <- watchers(owner) ++ committers(owner) ++ responders(c.shard, owner) do
      assert %{shard: shard} = :sys.get_state(pid)
      assert shard == c.shard
      test = self()
      replaced = :sys.replace_state(pid, fn _state -> send(test, :called) && :nonsense end)
      assert replaced.shard == c.shard
      refute_received :called
      assert :sys.get_state(pid).shard == c.shard
      refute inspect(:sys.get_status(pid), limit: :infinity) =~ @secret
      :ok = :sys.suspend(pid)
      assert :sys.change_code(pid, Committer, :undefined, []) == :ok
      :ok = :sys.resume(pid)
    end

    assert {:done, _} = Batcher.write(c.shard, "a", put(3), 1)
  end

  # In its mailbox stands in front of what it takes next: that it is to take something, and what `:sys` asks for.
  for {clause, asks?} <- [{"4.3", false}, {"20.3", true}] do
    test "#{clause} a committer commits what it has taken first, woken#{if asks?, do: " and suspended"} before it could",
         c do
      start_batcher(c.shard)
      backend(c.shard, [:block, :block, :reply])
      flying = call_async(fn -> Batcher.write(c.shard, "a", {:x, 0}, 1) end)
      commit = next_commit(c.shard)
      # Too many for one answer: they come as messages, and so do the others.
      first = for i <- 1..20, do: queue(c.shard, "a", {:x, i})
      wait_queued(c.shard, "a", 20)
      release(commit)
      await(flying)
      commit = next_commit(c.shard)
      second = for i <- 21..40, do: queue(c.shard, "a", {:x, i})
      wait_queued(c.shard, "a", 20)

      if unquote(asks?) do
        asking = call_async(fn -> :sys.suspend(commit.pid) && :sys.resume(commit.pid) end)

        wait_until(fn ->
          {:message_queue_len, 1} == Process.info(commit.pid, :message_queue_len)
        end)

        send(commit.pid, :work)
        release(commit)
        assert await(asking) == :ok
      else
        send(commit.pid, :work)
        release(commit)
      end

      for {task, i} <- Enum.with_index(first ++ second, 1),
          do: assert(await(task) == {:done, {:x, i}})
    end
  end

  test "20.3 what is due while committers are suspended is committed by others", c do
    owner = start_batcher(c.shard)
    suspended = committers(owner)
    for pid <- suspended, do: :ok = :sys.suspend(pid)
    for i <- 1..3, do: assert({:done, _} = Batcher.write(c.shard, "p#{i}", put(i), 1))
    for pid <- suspended, do: :ok = :sys.resume(pid)
    for i <- 1..3, do: assert({:done, _} = Batcher.write(c.shard, "p#{i}", put(i), 1))
    assert Enum.all?(suspended, &Process.alive?/1)
  end

  test "20.3 a committer that is suspended while it commits does not keep its lane", c do
    start_batcher(c.shard)
    backend(c.shard, [:block, :reply])
    flying = call_async(fn -> Batcher.write(c.shard, "a", put(1), 1) end)
    commit = next_commit(c.shard)
    behind = call_async(fn -> Batcher.write(c.shard, "a", put(2), 1) end)
    wait_queued(c.shard, "a", 1)
    suspended = call_async(fn -> :sys.suspend(commit.pid) end)
    wait_until(fn -> Process.info(commit.pid, :message_queue_len) != {:message_queue_len, 0} end)
    release(commit)
    for task <- [flying, behind], do: assert({:done, _} = await(task))
    assert await(suspended) == :ok
    assert Batcher.flush(c.shard) == :ok
    :ok = :sys.resume(commit.pid)
  end

  test "20.3 replies go out while responders are suspended", c do
    owner = start_batcher(c.shard)
    for pid <- responders(c.shard, owner), do: :ok = :sys.suspend(pid)
    backend(c.shard, [:block, :reply])
    first = call_async(fn -> Batcher.write(c.shard, "a", put(0), 1) end)
    commit = next_commit(c.shard)
    tasks = for i <- 1..50, do: call_async(fn -> Batcher.write(c.shard, "a", put(i), 1) end)
    wait_queued(c.shard, "a", 50)
    release(commit)
    for task <- [first | tasks], do: assert({:done, _} = await(task))
  end

  test "20.3 one that is suspended ends with its owner, be that the second one", c do
    Process.flag(:trap_exit, true)
    {:ok, first} = Batcher.start_link(c.shard, [])
    [committer | _] = committers(first)
    Process.exit(first, :kill)
    await_death(first)
    {:ok, owner} = Batcher.start_link(c.shard, [])
    assert committer in committers(owner)
    suspended = [committer | responders(c.shard, owner)]
    Enum.each(suspended, &:sys.suspend/1)
    Batcher.stop(c.shard)
    Enum.each(suspended, &await_death/1)
  end

  test "20.3 a committer that is suspended ends with its owner", c do
    owner = start_alone(c.shard)
    [committer | _] = committers(owner)
    monitor = Process.monitor(committer)
    :ok = :sys.suspend(committer)
    assert Batcher.stop(c.shard) == :ok
    assert_receive {:DOWN, ^monitor, :process, _pid, _reason}, 5_000
  end
end
