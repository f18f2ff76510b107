# How long a call waits and what comes after: clause 3.7 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section03TimeoutsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes, only: [next_message: 0]

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Native, Settings}

  # Long enough that only what the test does can end it.
  @long_ms 60_000

  test "3.7 a call waits 30_000 ms", %{shard: shard} do
    assert Settings.call_timeout_ms(Settings.of(shard)) == 30_000
    start_batcher(shard)
    assert Settings.call_timeout_ms(Settings.of(shard)) == 30_000
    assert Batcher.options(shard).call_timeout == {30_000, :default}
  end

  test "3.7 a call that gives up exits with module, function and arguments", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    put_call_timeout(shard, 5)

    for {function, args} <- [
          write: [shard, "p", {:a}, 1],
          write_batch: [shard, [{:a}]],
          write_put_batch: [shard, [{"k", "v", 0}]],
          write_delete_batch: [shard, ["k"]]
        ] do
      assert catch_exit(apply(Batcher, function, args)) == {:timeout, {Batcher, function, args}}
      release(next_commit(shard))
    end
  end

  test "3.7 the window comes on top", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: @long_ms)
    # Without its window, each of them would give up at once.
    put_call_timeout(shard, 0)
    backend(shard, [:block, :reply])
    write = call_async(fn -> Batcher.write(shard, "p", {:a}, @long_ms) end)
    put = call_async(fn -> Batcher.write_put_batch(shard, [{"k", "v", 0}]) end)
    delete = call_async(fn -> Batcher.write_delete_batch(shard, ["k"]) end)
    for lane <- ["p", :put_batch, :delete_batch], do: wait_queued(shard, lane, 1)
    # Whoever was to give up before this one has been told by now.
    assert {:timeout, _} = catch_exit(Batcher.write(shard, "q", {:b}, 1))
    for task <- [write, put, delete], do: wait_waiting(task)
    release(next_commit(shard))
    assert Batcher.flush(shard) == :ok
    assert await(write) == {:done, {:a}}
    assert await(put) == {:ok, [{:done, {"k", "v", 0}}]}
    assert await(delete) == {:ok, [{:done, "k"}]}
  end

  test "3.7 with its window the wait ends", %{shard: shard} do
    start_batcher(shard)
    put_call_timeout(shard, 0)
    backend(shard, :block)
    task = call_async(fn -> catch_exit(Batcher.write(shard, "p", {:a}, 20)) end)
    commit = next_commit(shard)
    assert {:timeout, {Batcher, :write, _}} = await(task)
    release(commit)
  end

  test "3.7 a wait that is longer than a process can wait", %{shard: shard} do
    start_batcher(shard)
    put_call_timeout(shard, 4_294_967_295)
    assert Batcher.write(shard, "p", {:a}, 1) == {:done, {:a}}
    assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:done, {:a}}]}
  end

  test "3.7 a write that was given up while it was queued is committed", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    put_call_timeout(shard, 0)
    first = give_up(shard, {:first})
    commit = next_commit(shard)
    second = give_up(shard, {:second})
    assert {:timeout, _} = await(first)
    assert {:timeout, _} = await(second)

    # It still waits in the lane.
    assert queued(shard, "p") == 1
    release(commit)
    assert next_commit(shard).list == [{:second}]
  end

  test "3.7 nobody else of the batch is harmed by one who gave up", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    put_call_timeout(shard, 0)
    blocking = give_up(shard, {:blocking})
    commit = next_commit(shard)
    assert {:timeout, _} = await(blocking)
    tags = for n <- 1..3, do: write(shard, {n})
    wait_queued(shard, "p", 3)
    impatient = give_up(shard, {:impatient})
    assert {:timeout, _} = await(impatient)
    last = write(shard, {4})
    wait_queued(shard, "p", 5)
    release(commit)

    assert next_commit(shard).list == [{1}, {2}, {3}, {:impatient}, {4}]
    for {tag, n} <- Enum.zip(tags, 1..3), do: assert(await_reply(tag) == {:done, {n}})
    assert await_reply(last) == {:done, {4}}
  end

  test "3.7 no reply reaches a caller that has given up", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    put_call_timeout(shard, 0)

    for call <- [
          fn -> Batcher.write(shard, "p", {:a}, 1) end,
          fn -> Batcher.write_batch(shard, [{:a}]) end,
          fn -> Batcher.write_put_batch(shard, [{"k", "v", 0}]) end,
          fn -> Batcher.write_delete_batch(shard, ["k"]) end
        ] do
      assert {:timeout, _} = catch_exit(call.())
      release(next_commit(shard))
      assert Batcher.flush(shard) == :ok
      assert mailbox() == []
    end
  end

  test "3.7 no reply reaches a caller that gave up while it was queued", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    put_call_timeout(shard, 0)
    blocking = give_up(shard, {:blocking})
    commit = next_commit(shard)
    await(blocking)
    assert {:timeout, _} = catch_exit(Batcher.write(shard, "p", {:queued}, 1))
    release(commit)
    assert next_commit(shard).list == [{:queued}]
    assert Batcher.flush(shard) == :ok
    assert mailbox() == []
  end

  test "3.7 no reply, whatever becomes of the write", %{shard: shard} do
    for {behaviour, n} <- Enum.with_index([{:return, :odd}, {:exit, :x}, {:raise, :x}]) do
      start_batcher(shard, call_timeout: 0)
      backend(shard, :block)
      assert {:timeout, _} = catch_exit(Batcher.write_batch(shard, [{n}]))
      release(next_commit(shard), behaviour)
      assert Batcher.flush(shard) == :ok
      stop_supervised!({Batcher, shard})
    end

    # The committing process is killed.
    owner = start_alone(shard, adoption_timeout: 0, call_timeout: 0)
    backend(shard, [:block, :reply])
    assert {:timeout, _} = catch_exit(Batcher.write_batch(shard, [{:a}]))
    Process.exit(next_commit(shard).pid, :kill)
    assert Batcher.flush(shard) == :ok

    # The owner is killed, and what is queued is given up.
    backend(shard, :block)
    tag = write(shard, {:blocking})
    commit = next_commit(shard, :__commit_batch_direct__)
    assert {:timeout, _} = catch_exit(Batcher.write(shard, "p", {:b}, 1))
    Process.exit(owner, :kill)
    wait_until(fn -> Batcher.snapshot(shard) == nil end)
    release(commit)
    await_reply(tag)
    assert mailbox() == []
  end

  test "3.7 whoever was answered in time is not told that it waited too long", %{shard: shard} do
    start_batcher(shard)
    test = self()
    id = make_ref()

    # After the replies, before the commit has ended.
    block = fn _event, _measurements, metadata, _config ->
      if metadata.shard_index == shard, do: send(test, {:answered, self()})

      receive do
        :go_on -> :ok
      end
    end

    :ok = :telemetry.attach(id, [:ferricstore, :waraft, :batcher, :slot_flush], block, nil)
    on_exit(fn -> :telemetry.detach(id) end)
    answered = wait(shard, "p", 1_000)
    assert_receive {:answered, committer}, 5_000
    late = wait(shard, "q", 1_100, @long_ms)
    assert_receive {^late}, 5_000
    send(committer, :go_on)
    assert await_reply(answered) == {:done, {:a}}
    :telemetry.detach(id)
    assert Batcher.flush(shard) == :ok
    assert replies() == []
  end

  test "3.7 whoever waited too long gets no reply any more, queued or in flight", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    in_flight = for _ <- 1..600, do: wait(shard, :put_batch, 20)
    commit = next_commit(shard)
    queued = for _ <- 1..600, do: wait(shard, :put_batch, 20)
    for tag <- in_flight ++ queued, do: assert_receive({^tag}, 5_000)
    backend(shard, :reply)
    release(commit)
    assert Batcher.flush(shard) == :ok
    # They had given up, their writes had not.
    commits = for {:commit, %{shard: ^shard, list: list}} <- mailbox(), do: length(list)
    assert Enum.sum([length(commit.list) | commits]) == 1_200
    assert replies() == []
  end

  test "3.7 each waits its own time, whatever others do", %{shard: shard} do
    start_batcher(shard)
    patient = wait(shard, "p", @long_ms, @long_ms)
    tags = for ms <- [60, 20, 40], do: wait(shard, "p", ms, @long_ms)
    for n <- [1, 2, 0], tag = Enum.at(tags, n), do: assert_receive({^tag}, 5_000)
    assert replies() == []
    assert Batcher.flush(shard) == :ok
    assert replies() == [{patient, {:done, {:a}}}]
  end

  test "3.7 20 000 of them, each with a time of its own: each is told once", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    in_flight = wait(shard, "p", @long_ms)
    commit = next_commit(shard)

    # Not in the order of arrival. Every other one has patience.
    pairs =
      for n <- 1..10_000,
          do: {wait(shard, "p", 200 + rem(n * 7_919, 1_009)), wait(shard, "p", @long_ms + n)}

    {impatient, patient} = Enum.unzip(pairs)

    # In the order of their deadlines: a mailbox of so many is walked through for each that comes from its middle.
    told = for _ <- impatient, do: next_message()
    assert Enum.sort(told) == Enum.sort(for tag <- impatient, do: {tag})
    assert replies() == []
    backend(shard, :reply)
    release(commit)
    assert Batcher.flush(shard) == :ok
    # Nobody twice, and none of those who have given up.
    assert Enum.sort(replies()) ==
             Enum.sort(for tag <- [in_flight | patient], do: {tag, {:done, {:a}}})

    commits = for {:commit, %{shard: ^shard, list: list}} <- mailbox(), do: length(list)
    assert Enum.sum(commits) == 20_000
  end

  test "3.7 reply or timeout, never both, when they meet", %{shard: shard} do
    start_batcher(shard)
    put_call_timeout(shard, 1)
    backend(shard, {:run, &reply_about_when_callers_give_up/2})

    callers =
      for n <- 1..2_000 do
        call_async(fn ->
          result =
            try do
              Batcher.write(shard, "p", {n}, 1)
            catch
              :exit, {:timeout, {Batcher, :write, _}} -> :gave_up
            end

          {n, result}
        end)
      end

    for task <- callers do
      {n, result} = await(task)
      assert result in [:gave_up, {:done, {n}}]
    end
  end

  test "3.7 the mailbox of each is empty after such a meeting", %{shard: shard} do
    start_batcher(shard)
    put_call_timeout(shard, 1)
    backend(shard, {:run, &reply_about_when_callers_give_up/2})
    test = self()

    callers =
      for n <- 1..500 do
        spawn_link(fn ->
          try do
            Batcher.write(shard, "p", {n}, 1)
          catch
            :exit, _ -> :gave_up
          end

          send(test, :over)
          assert_receive {:show, ^test}, @long_ms
          send(test, {:mailbox, mailbox()})
        end)
      end

    for _ <- callers, do: assert_receive(:over, 5_000)
    assert Batcher.flush(shard) == :ok
    for caller <- callers, do: send(caller, {:show, test})
    for _ <- callers, do: assert_receive({:mailbox, []}, 5_000)
  end

  for function <- [:write_put_batch_async, :write_delete_batch_async] do
    @function function

    test "3.7 #{function}: nothing reaches a from whose alias is closed", %{shard: shard} do
      start_batcher(shard)
      backend(shard, :block)
      alias_ref = :erlang.alias()
      assert apply(Batcher, @function, [shard, [:a], {self(), [:alias | alias_ref]}]) == :ok
      commit = next_commit(shard)
      # What a call does that has waited long enough.
      :erlang.unalias(alias_ref)
      release(commit)
      assert Batcher.flush(shard) == :ok
      assert mailbox() == []
    end

    test "3.7 #{function}: nothing reaches one who called through a server", %{shard: shard} do
      start_batcher(shard)
      backend(shard, :block)
      test = self()

      server =
        spawn_link(fn ->
          receive do
            {:"$gen_call", from, :write} ->
              send(test, {:written, apply(Batcher, @function, [shard, [:a], from])})
          end

          Process.sleep(:infinity)
        end)

      assert {:timeout, _} = catch_exit(GenServer.call(server, :write, 5))
      assert_receive {:written, :ok}
      release(next_commit(shard))
      assert Batcher.flush(shard) == :ok
      assert mailbox() == []
    end
  end

  # A write of this process, which waits for so long, and for a window.
  defp wait(shard, lane, wait_ms, window_ms \\ 1) do
    tag = make_ref()
    item = if is_binary(lane), do: {:a}, else: [{"k", "v", 0}]
    :queued = Native.offer(shard, lane, item, 1, window_ms, tag, wait_ms, nil)
    tag
  end

  defp replies, do: Enum.reject(mailbox(), &match?({:commit, _}, &1))

  defp give_up(shard, command),
    do: call_async(fn -> catch_exit(Batcher.write(shard, "p", command, 1)) end)

  # Writes for somebody who does not give up.
  defp write(shard, command) do
    tag = make_ref()
    request = {:write, "p", command, 1}
    send(Process.whereis(Batcher.name(shard)), {:"$gen_call", {self(), tag}, request})
    tag
  end

  # Some ms, as a commit takes: so that the callers' patience ends before, meanwhile and after.
  defp reply_about_when_callers_give_up(function, list) do
    receive do
    after
      rem(length(list), 4) -> {:ok, TestBackend.replies(function, list)}
    end
  end
end
