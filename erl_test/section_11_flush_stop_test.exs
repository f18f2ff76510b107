# flush and stop: clauses 11.1 to 11.5 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section11FlushStopTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @shutting_down {:error, :shutting_down}

  setup do
    put_env(:waraft_hot_batch_window_ms, 60_000)
    put_env(:waraft_generic_batch_window_ms, 60_000)
  end

  test "11.1 flush starts a commit of every slot at once, in all lanes side by side", context do
    %{shard: shard} = context
    start_batcher(shard)
    attach_telemetry(shard)
    backend(shard, :block)
    lanes = ["q", "r" | lanes()]
    tasks = for lane <- lanes, do: queue(shard, lane, item(lane))
    refute_commit(shard)

    flush = call_async(fn -> Batcher.flush(shard) end)
    commits = next_commits(shard, 6)
    assert map_size(Batcher.snapshot(shard).in_flight) == 6
    lists = for lane <- lanes, do: listed(lane, item(lane))
    assert Enum.sort(for commit <- commits, do: commit.list) == Enum.sort(lists)

    # It answers when all have been answered, not before.
    {last, others} = List.pop_at(commits, -1)
    Enum.each(others, &release/1)
    refute_done(flush)
    release(last)
    assert await(flush) == :ok
    for task <- tasks, do: assert({:ok, _} = Task.yield(task, 1_000))
    assert for(_ <- lanes, do: next_reason()) == List.duplicate(:flush, 6)
  end

  test "11.1 when flush answers, every reply has been sent", %{shard: shard} do
    start_batcher(shard)

    for round <- 1..50 do
      lane = Enum.at([:put_batch, :delete_batch], rem(round, 2))
      tags = for n <- 1..300, do: cast(shard, lane, item(lane, n))
      assert Batcher.flush(shard) == :ok
      for tag <- tags, do: assert_received({^tag, {:ok, [_]}})
    end
  end

  test "11.1 flush waits for what is in flight and for what is queued behind it", context do
    %{shard: shard} = context
    start_batcher(shard, namespace_batch_max: 2)
    backend(shard, :block)
    first = occupy(shard, "p")
    tasks = for n <- 1..5, do: queue(shard, "p", {n})
    flush = call_async(fn -> Batcher.flush(shard) end)
    refute_done(flush)

    release(first)

    for size <- [2, 2] do
      commit = next_commit(shard)
      assert length(commit.list) == size
      refute_done(flush)
      release(commit)
    end

    release(next_commit(shard))
    assert await(flush) == :ok
    Enum.each(tasks, &await/1)
  end

  for pacing <- [:commit, :window] do
    test "11.1 pacing: #{inspect(pacing)}: later writes do not delay flush", %{shard: shard} do
      start_batcher(shard, pacing: unquote(pacing))
      backend(shard, :block)
      first = occupy(shard, "p")
      before = queue(shard, "p", {:before})
      flush = call_async(fn -> Batcher.flush(shard) end)
      refute_done(flush)

      # In the same lane it joins no slot that flush waits for; another lane is none of its business.
      later = queue(shard, "p", {:later}, 1)
      other = occupy(shard, "q")
      release(first)
      commit = next_commit(shard)
      assert commit.list == [{:before}]
      refute_done(flush)
      release(commit)
      assert await(flush) == :ok
      assert await(before) == {:done, {:before}}

      commit = next_commit(shard)
      assert commit.list == [{:later}]
      release(commit)
      release(other)
      assert await(later) == {:done, {:later}}
    end
  end

  test "11.1 later writes are not hurried by flush", %{shard: shard} do
    start_batcher(shard, pacing: :window)
    backend(shard, :block)
    first = occupy(shard, "p")
    hung = occupy(shard, "hung")
    before = queue(shard, "p", {:before})
    flush = call_async(fn -> Batcher.flush(shard) end)
    refute_done(flush)

    same_lane = queue(shard, "p", {:later})
    other_lane = queue(shard, "q", {:later})
    release(first)
    commit = next_commit(shard)
    assert commit.list == [{:before}]
    release(commit)
    assert await(before) == {:done, {:before}}
    refute_commit(shard)
    release(hung)
    assert await(flush) == :ok
    refute_commit(shard)
    assert {queued(shard, "p"), queued(shard, "q")} == {1, 1}

    backend(shard, :reply)
    assert Batcher.flush(shard) == :ok
    assert [await(same_lane), await(other_lane)] == [{:done, {:later}}, {:done, {:later}}]
  end

  test "11.1 flush does not starve under steady traffic", %{shard: shard} do
    start_batcher(shard)
    backend(shard, {:run, fn function, list -> {:ok, TestBackend.replies(function, list)} end})
    ended = :atomics.new(1, [])

    prefixes = for n <- 1..20, do: "p#{rem(n, 3)}"
    writers = for p <- prefixes, do: call_async(fn -> write_until(ended, shard, p) end)
    for _ <- 1..50, do: assert(Batcher.flush(shard) == :ok)
    :atomics.put(ended, 1, 1)
    Enum.each(writers, &await/1)
  end

  test "11.1 flush of a batcher that holds nothing", %{shard: shard} do
    start_batcher(shard)
    assert Batcher.flush(shard) == :ok
    assert Batcher.flush(shard, 0) in [:ok, {:error, {:timeout, {Batcher, :flush, [shard, 0]}}}]
    refute_commit(shard)
  end

  test "11.1 a flush answers even if its batch fails", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [{:exit, :boom}, :block])
    task = queue(shard, "p", {:a})
    assert Batcher.flush(shard) == :ok
    assert await(task) == {:error, {:backend_exit, :boom}}

    next_commit(shard)
    first = occupy(shard, "p")
    flush = call_async(fn -> Batcher.flush(shard) end)
    refute_done(flush)
    Process.exit(first.pid, :kill)
    assert await(flush) == :ok
    assert await_reply(first.tag) == {:error, {:backend_exit, :killed}}
  end

  test "11.2 many flush callers are all answered", %{shard: shard} do
    start_batcher(shard)
    backend(shard, :block)
    first = occupy(shard, "p")
    task = queue(shard, "q", {:a})
    public = for _ <- 1..50, do: call_async(fn -> Batcher.flush(shard) end)
    raw = for _ <- 1..50, do: call_async(fn -> GenServer.call(Batcher.name(shard), :flush) end)
    second = next_commit(shard)
    release(first)
    Enum.each(Enum.take(public, 5), &refute_done/1)
    release(second)
    for flush <- public ++ raw, do: assert(await(flush) == :ok)
    assert await(task) == {:done, {:a}}
  end

  test "11.2 many flush and stop callers are all answered", %{shard: shard} do
    {:ok, _owner} = Batcher.start_link(shard)
    backend(shard, [:block, :block, :reply])
    first = occupy(shard, "p")
    second = occupy(shard, "q")
    task = queue(shard, "q", {:a})
    name = Batcher.name(shard)

    # One wave before the stop has begun, one after.
    waves =
      for _ <- 1..2 do
        flushes = for _ <- 1..20, do: call_async(fn -> Batcher.flush(shard) end)
        raw_flushes = for _ <- 1..20, do: raw_call(name, :flush)
        stops = for _ <- 1..20, do: call_async(fn -> Batcher.stop(shard) end)
        raw_stops = for _ <- 1..20, do: raw_call(name, :stop)
        wait_refusing(shard)
        {flushes ++ stops, raw_flushes ++ raw_stops}
      end

    {public, raw} = Enum.unzip(waves)
    release(first)
    Enum.each(Enum.take(hd(public), 2), &refute_done/1)
    release(second)
    for task <- Enum.concat(public), do: assert(await(task) == :ok)
    for tag <- Enum.concat(raw), do: assert(await_reply(tag) == :ok)
    assert await(task) == {:done, {:a}}
    assert Process.whereis(name) == nil
  end

  test "11.2 what reaches the owner while it ends is answered", %{shard: shard} do
    {:ok, owner} = Batcher.start_link(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    stop = call_async(fn -> Batcher.stop(shard) end)
    wait_refusing(shard)

    # It hears that all is drained, and behind that finds these.
    :erlang.suspend_process(owner)
    release(first)
    wait_until(fn -> Process.info(owner, :message_queue_len) == {:message_queue_len, 1} end)
    barriers = for request <- [:flush, :stop], do: raw_call(owner, request)
    writes = for lane <- lanes(), do: raw(shard, lane, item(lane), 1)
    tag = make_ref()
    token = TestGate.token()
    GenServer.cast(owner, {:write_put_batch, [{"k", "v", 0}], 1, {self(), tag}, token})
    :erlang.resume_process(owner)

    assert Enum.map(barriers, &await_reply/1) == [:ok, :ok]
    for tag <- [tag | writes], do: assert(await_reply(tag) == @shutting_down)
    assert_receive {:left, ^token, _pid}
    assert await(stop) == :ok
    assert await_reply(first.tag) == {:done, item("p")}
    refute_commit(shard)
  end

  test "11.3 stop refuses new writes, of every function", %{shard: shard} do
    {:ok, _owner} = Batcher.start_link(shard)
    backend(shard, [:block, :reply])
    first = occupy(shard, "p")
    stop = call_async(fn -> Batcher.stop(shard) end)
    wait_refusing(shard)

    for lane <- ["new" | lanes()], do: assert(write(shard, lane, item(lane)) == @shutting_down)

    for lane <- lanes(),
        do: assert(await_reply(raw(shard, lane, item(lane), 1)) == @shutting_down)

    for lane <- [:put_batch, :delete_batch] do
      token = TestGate.token()
      tag = cast(shard, lane, item(lane), token)
      assert await_reply(tag) == @shutting_down
      assert_received {:left, ^token, _pid}
    end

    release(first)
    assert await(stop) == :ok
    assert await_reply(first.tag) == {:done, item("p")}
    refute_commit(shard)
  end

  test "11.3 stop commits what is queued, in all lanes side by side", %{shard: shard} do
    {:ok, owner} = Batcher.start_link(shard)
    monitor = Process.monitor(owner)
    attach_telemetry(shard)
    backend(shard, :block)
    first = occupy(shard, "busy")
    behind = queue(shard, "busy", {:behind})
    tasks = for lane <- lanes(), do: queue(shard, lane, item(lane))
    refute_commit(shard)

    stop = call_async(fn -> Batcher.stop(shard) end)
    commits = next_commits(shard, 4)
    release(first)
    commits = [next_commit(shard) | commits]
    refute_done(stop)
    Enum.each(commits, &release/1)
    assert await(stop) == :ok
    assert_received {:DOWN, ^monitor, :process, ^owner, :normal}
    assert await(behind) == {:done, {:behind}}
    for task <- tasks, do: assert(await(task))
    assert [:immediate | for(_ <- 1..5, do: :stop)] == for(_ <- 1..6, do: next_reason())
  end

  test "11.3 stop drains for drain_timeout at most", %{shard: shard} do
    {:ok, owner} = Batcher.start_link(shard, drain_timeout: 20)
    monitor = Process.monitor(owner)
    backend(shard, [:block, :reply])
    hung = occupy(shard, "p")
    behind = queue(shard, "p", {:behind})
    open = queue(shard, "q", {:open})
    assert Batcher.stop(shard) == :ok
    assert_received {:DOWN, ^monitor, :process, ^owner, :normal}
    assert [await(behind), await(open)] == [@shutting_down, {:done, {:open}}]
    release(hung)
    assert await_reply(hung.tag) == {:done, item("p")}
  end

  test "11.3 stop answers once the name is free", %{shard: shard} do
    for _ <- 1..30 do
      {:ok, owner} = Batcher.start_link(shard)
      assert Batcher.stop(shard) == :ok
      assert Process.whereis(Batcher.name(shard)) == nil
      refute Process.alive?(owner)
    end

    # The raw call too, though the owner itself answers it: the first of many to hear looks.
    for _ <- 1..5 do
      {:ok, owner} = Batcher.start_link(shard)
      :erlang.suspend_process(owner)
      stops = for _ <- 1..3_000, do: raw_call(owner, :stop)
      :erlang.resume_process(owner)
      assert {_tag, :ok} = next_message()
      assert Process.whereis(Batcher.name(shard)) == nil
      for _ <- tl(stops), do: assert({_tag, :ok} = next_message())
    end
  end

  test "11.3 under a permanent supervisor stop means drain and restart", %{shard: shard} do
    owner = start_batcher(shard)
    task = queue(shard, "p", {:a})
    assert Batcher.stop(shard) == :ok
    assert await(task) == {:done, {:a}}
    assert await_successor(shard, owner) != owner
    # The successor batches.
    next_commit(shard)
    task = queue(shard, "p", {:b})
    refute_commit(shard)
    assert Batcher.flush(shard) == :ok
    assert await(task) == {:done, {:b}}
  end

  test "11.4 writes that come after stop commit directly", %{shard: shard} do
    {:ok, _owner} = Batcher.start_link(shard)
    assert Batcher.stop(shard) == :ok

    for lane <- lanes() do
      assert write(shard, lane, item(lane))
      assert %{pid: pid, list: list} = next_commit(shard)
      assert {pid, list} == {self(), listed(lane, item(lane))}
    end

    for lane <- [:put_batch, :delete_batch] do
      from = {self(), make_ref()}
      token = TestGate.token()
      assert {:direct, {:ok, [_]}} = cast_from(shard, lane, item(lane), from, token)
      assert next_commit(shard).pid == self()
    end

    refute_received _no_reply_and_no_release
  end

  test "11.5 a backend that hangs: flush times out, other lanes go on", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    hung = occupy(shard, "p")
    assert {:error, {:timeout, _}} = Batcher.flush(shard, 20)
    for lane <- lanes() -- ["p"], do: assert(raw(shard, lane, item(lane), 1) |> await_reply())
    assert Batcher.write(shard, "q", {:a}, 1) == {:done, {:a}}

    # Nothing comes late.
    release(hung)
    assert await_reply(hung.tag) == {:done, item("p")}
    assert Batcher.flush(shard) == :ok
    for _ <- 1..4, do: next_commit(shard)
    refute_received _any
  end

  test "11.5 the same if flush itself began the commit that hangs", %{shard: shard} do
    start_batcher(shard)
    backend(shard, [:block, :reply])
    task = queue(shard, "p", {:hangs})
    assert {:error, {:timeout, _}} = Batcher.flush(shard, 50)
    hung = next_commit(shard)
    assert hung.list == [{:hangs}]
    assert Batcher.write(shard, "q", {:a}, 1) == {:done, {:a}}
    assert {:error, {:timeout, _}} = Batcher.flush(shard, 20)
    assert Process.alive?(Process.whereis(Batcher.name(shard)))

    release(hung)
    assert await(task) == {:done, {:hangs}}
    assert Batcher.flush(shard) == :ok
    next_commit(shard)
    refute_received _any
  end

  # Waits until the stop has begun. The probes that are accepted until then must not be blocked.
  defp wait_refusing(shard) do
    wait_until(fn -> Batcher.write(shard, "probe", {:probe}, 1) == @shutting_down end)
    drop_commits(shard)
  end

  defp write_until(ended, shard, lane) do
    if :atomics.get(ended, 1) == 0 do
      # With a window of 1 ms, also in a hot lane.
      {:ok, _} = GenServer.call(Batcher.name(shard), {:write_batch, [{:a}], 1})
      {:done, _} = Batcher.write(shard, lane, {:a}, 1)
      write_until(ended, shard, lane)
    end
  end
end
