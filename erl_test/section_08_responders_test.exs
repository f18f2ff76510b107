# Contract 8: replies that responders send, the processes that answer the callers of one scheduler each.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section08RespondersTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes, only: [drop_commits: 1]

  alias Ferricstore.Raft.WARaftBackend.Batcher.Responder

  @moduletag skip: System.schedulers_online() < 2

  @callers 40
  @writes 200
  @rounds 30

  test "8 a responder for each scheduler, while the owner lives", c do
    owner = start_alone(c.shard)
    write_from_all(c.shard)
    responders = await_responders(owner)
    assert length(responders) == System.schedulers_online()
    :ok = Batcher.stop(c.shard)
    Enum.each(responders, &await_death/1)
  end

  for kind <- [:call, :alias] do
    @kind kind

    test "8 no reply depends on a responder: callers (#{kind}) of suspended ones are answered, before a flush is",
         c do
      owner = start(c, @kind)
      write_from_all(c.shard, @kind)
      Enum.each(await_responders(owner), &:erlang.suspend_process/1)
      write_from_all(c.shard, @kind)
      assert Batcher.flush(c.shard) == :ok
    end

    test "8 nor on its life: responders that are killed are replaced (#{kind})", c do
      owner = start(c, @kind)
      write_from_all(c.shard, @kind)

      for _ <- 1..@rounds do
        responders = await_responders(owner)
        writing = Task.async(fn -> write_from_all(c.shard, @kind) end)
        Enum.each(responders, &Process.exit(&1, :kill))
        Enum.each(responders, &await_death/1)
        Task.await(writing)
        write_from_all(c.shard, @kind)
      end
    end

    test "9.5 nor on the committer that has given it away (#{kind})", c do
      owner = start(c, @kind)
      write_from_all(c.shard, @kind)
      Enum.each(await_responders(owner), &:erlang.suspend_process/1)
      for _ <- 1..@rounds, do: write_and_kill(c.shard, @kind, committers(owner))
      assert Batcher.flush(c.shard) == :ok
    end
  end

  # But for a reply to an alias, which a process has to send.
  test "10.4 nor on any process", c do
    for _ <- 1..@rounds do
      owner = start_alone(c.shard, adoption_timeout: 0)
      write_from_all(c.shard)
      Enum.each(await_responders(owner), &:erlang.suspend_process/1)
      victims = [owner | committers(owner)]
      write_and_kill(c.shard, :call, victims)
      wait_until(fn -> not Enum.any?(victims, &Process.alive?/1) end)
    end
  end

  test "8 replies to one process keep their order, be it called or cast for", c do
    start_batcher(c.shard, hot_batch_window_ms: 60_000)
    write_from_all(c.shard)
    drop_commits(c.shard)
    backend(c.shard, :block)
    shard = c.shard

    callers =
      for n <- 1..@callers,
          do: start_on(n, fn -> Batcher.write_put_batch(shard, [{"#{n}", "v", 0}]) end)

    wait_queued(shard, :put_batch, @callers)

    for {pid, _monitor} <- callers,
        do: :ok = Batcher.write_put_batch_async(shard, [{"k", "v", 0}], {pid, :cast})

    for {pid, _monitor} <- callers, do: :erlang.suspend_process(pid)
    flush = call_async(fn -> Batcher.flush(shard) end)
    release(next_commit(shard))
    assert await(flush) == :ok

    for {pid, _monitor} <- callers do
      assert {:messages, [{called, {:ok, [_]}}, {:cast, {:ok, [_]}}]} =
               Process.info(pid, :messages)

      assert is_reference(called)
    end
  end

  test "8 telemetry comes when all callers of the batch have been sent their replies", c do
    start_batcher(c.shard)
    write_from_all(c.shard)
    # The last of its commits are told of when their callers have gone on already.
    wait_idle(c.shard)
    drop_commits(c.shard)
    attach_telemetry(c.shard)
    backend(c.shard, :block)
    parent = self()

    for round <- 1..@rounds do
      callers =
        for n <- 1..@callers do
          start_on(n, fn ->
            {:done, _} = Batcher.write(c.shard, "round", {:set, n}, 60_000)
            send(parent, {:answered, round})
          end)
        end

      wait_queued(c.shard, "round", @callers)
      flush = call_async(fn -> Batcher.flush(c.shard) end)
      commit = next_commit(c.shard)
      # They can't tell, but their replies are there.
      for {pid, _monitor} <- callers, do: :erlang.suspend_process(pid)
      release(commit)
      assert_receive {:telemetry, [_, _, _, :slot_flush], _, _}, 5_000

      for {pid, _monitor} <- callers,
          do: assert({:message_queue_len, 1} = Process.info(pid, :message_queue_len))

      for {pid, _monitor} <- callers, do: :erlang.resume_process(pid)
      for _ <- callers, do: assert_receive({:answered, ^round}, 5_000)
      assert await(flush) == :ok
    end
  end

  defp start(c, :call), do: start_batcher(c.shard)
  defp start(c, :alias), do: start_batcher(c.shard, hot_batch_window_ms: 5)

  # Writes again and again from every scheduler, and checks all replies.
  defp write_from_all(shard, kind \\ :call) do
    from_all(fn n ->
      for i <- 1..@writes,
          do: assert(write(kind, shard, {:set, {n, i}}, 1) == {:done, {:set, {n, i}}})
    end)
  end

  # All in one batch. Whoever has its reply first kills these, while others wait for theirs.
  defp write_and_kill(shard, kind, victims) do
    from_all(fn n ->
      write(kind, shard, {:set, n}, 100)
      Enum.each(victims, &Process.exit(&1, :kill))
    end)
  end

  defp write(:call, shard, command, window_ms),
    do: Batcher.write(shard, "lane", command, window_ms)

  # As ferricstore does: through an alias.
  defp write(:alias, shard, item, _window_ms) do
    tag = {__MODULE__, make_ref()}
    alias_ref = :erlang.alias()

    case Batcher.write_put_batch_async(shard, [item], {alias_ref, tag}) do
      :ok -> await_once(tag)
      {:direct, {:ok, [reply]}} -> reply
    end
  end

  defp await_once(tag) do
    reply =
      receive do
        {^tag, {:ok, [reply]}} -> reply
        {^tag, error} -> error
      after
        10_000 -> exit(:no_reply)
      end

    refute_received {^tag, _again}
    reply
  end

  defp from_all(call) do
    callers = for n <- 1..@callers, do: start_on(n, fn -> call.(n) end)

    for {pid, monitor} <- callers do
      assert_receive {:DOWN, ^monitor, :process, ^pid, reason}, 20_000
      assert reason == :normal
    end
  end

  # In the order of their numbers on one scheduler after the other.
  defp start_on(n, call) do
    scheduler = rem(n, System.schedulers_online()) + 1
    :erlang.spawn_opt(call, [:monitor, scheduler: scheduler])
  end

  defp await_responders(owner) do
    count = System.schedulers_online()
    wait_until(fn -> length(responders(owner)) == count end)
    responders(owner)
  end

  defp responders(owner) do
    {:links, linked} = Process.info(owner, :links)

    for pid <- linked,
        is_pid(pid),
        {:current_function, {Responder, _, _}} <- [Process.info(pid, :current_function)],
        do: pid
  end
end
