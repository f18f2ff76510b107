# What the owner shows of a shard: clause 3.9 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section03StateTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog
  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  @secret "a secret that is nobody's business"
  @put {"key " <> @secret, @secret, 0}

  test "3.9 :sys.get_state answers with the maps of snapshot/1, live", %{shard: shard} do
    start_batcher(shard, hot_batch_window_ms: 60_000)
    name = Batcher.name(shard)
    empty = %{slots: %{}, batch_slot: nil, put_slot: nil, delete_slot: nil, in_flight: %{}}
    assert :sys.get_state(name) == empty

    write = queue(shard, "p", {:a}, 60_000)
    put = queue(shard, :put_batch, [@put])
    assert %{slots: %{"p" => %{count: 1, commands: [{:a}]}}} = :sys.get_state(name)
    assert %{put_slot: %{count: 1, groups: [{_from, [@put]}]}} = :sys.get_state(name)

    backend(shard, :block)
    flush = call_async(fn -> Batcher.flush(shard) end)
    commits = next_commits(shard, 2)
    assert %{slots: slots, put_slot: nil, in_flight: in_flight} = :sys.get_state(name)
    assert slots == %{}
    assert Map.keys(in_flight) == [:put_batch, {:prefix, "p"}]
    Enum.each(commits, &release/1)
    await(flush)
    assert await(write) == {:done, {:a}}
    assert {:ok, [_]} = await(put)
    assert :sys.get_state(name) == empty
  end

  test "3.9 :sys.replace_state changes nothing", %{shard: shard} do
    owner = start_batcher(shard)
    write = queue(shard, "p", {:a})
    before = Map.delete(:sys.get_state(owner), :in_flight)
    :sys.replace_state(owner, fn _state -> :garbage end)
    :sys.replace_state(owner, fn state -> %{state | slots: %{}} end)
    assert %{slots: %{"p" => %{count: 1}}} = :sys.get_state(owner)
    assert before.slots |> Map.keys() == ["p"]
    assert Batcher.flush(shard) == :ok
    assert await(write) == {:done, {:a}}
  end

  test "3.9 suspended and resumed, an owner goes on", %{shard: shard} do
    owner = start_batcher(shard)
    :ok = :sys.suspend(owner)
    assert catch_exit(GenServer.call(owner, {:write, "p", {:a}, 1}, 20))
    assert is_map(:sys.get_state(owner))
    :ok = :sys.resume(owner)
    assert Batcher.write(shard, "p", {:b}, 1) == {:done, {:b}}
    assert GenServer.call(owner, {:write, "p", {:c}, 1}) == {:done, {:c}}
  end

  for {reason, drains} <- [
        {:normal, true},
        {:shutdown, true},
        {{:shutdown, :done}, true},
        {:boom, false}
      ] do
    test "3.9 :sys.terminate, reason #{inspect(reason)}", %{shard: shard} do
      owner = start_alone(shard, adoption_timeout: 0)
      write = queue(shard, "p", {:a})

      monitor = Process.monitor(owner)

      capture_log(fn ->
        :ok = :sys.terminate(owner, unquote(reason))
        assert_receive {:DOWN, ^monitor, :process, ^owner, unquote(reason)}, 5_000
      end)

      drained = if unquote(drains), do: {:done, {:a}}, else: {:error, :batcher_down}
      assert await(write) == drained
    end
  end

  test "3.9 GenServer.stop drains", %{shard: shard} do
    owner = start_alone(shard)
    write = queue(shard, "p", {:a})
    assert GenServer.stop(owner) == :ok
    assert await(write) == {:done, {:a}}
  end

  test "3.9 a suspended owner ends with its supervisor's shutdown", %{shard: shard} do
    owner = start_batcher(shard)
    write = queue(shard, "p", {:a})
    :ok = :sys.suspend(owner)
    stop_supervised!({Batcher, shard})
    assert await(write) == {:done, {:a}}
    refute Process.alive?(owner)
  end

  test "3.9 a change of code", %{shard: shard} do
    owner = start_batcher(shard)
    :ok = :sys.suspend(owner)
    assert :sys.change_code(owner, Batcher.Owner, nil, nil) == :ok
    :ok = :sys.resume(owner)
    assert Batcher.write(shard, "p", {:b}, 1) == {:done, {:b}}
  end

  test "3.9 :sys.get_status shows counts and no payload", %{shard: shard} do
    owner = start_batcher(shard)
    writes = for n <- 1..3, do: queue(shard, "prefix #{@secret}", {:set, @secret, n})
    status = :sys.get_status(owner)

    assert {:status, ^owner, {:module, _}, [_dictionary, :running, _parent, _debug, data]} =
             status

    assert [counts] = for({:data, [{~c"State", counts}]} <- data, do: counts)
    assert %{lanes: 1, queued: 3, callers: 3, in_flight: 0, flushes: 0, ending?: false} = counts
    refute inspect(status, limit: :infinity, printable_limit: :infinity) =~ @secret
    Batcher.flush(shard)
    Enum.each(writes, &await/1)
  end

  test "3.9 :sys.trace and :sys.log tell of messages, not what is in them", %{shard: shard} do
    printed =
      capture_io(fn ->
        owner = start_alone(shard)
        send(self(), {:owner, owner})
        :ok = :sys.trace(owner, true)
        :ok = :sys.log(owner, true)
        assert {:ok, [_]} = GenServer.call(owner, {:write_put_batch, [@put], 1})
        GenServer.cast(owner, {:write_put_batch, [@put], 1, {self(), @secret}, nil})
        send(owner, {:stranger, @secret})
        assert {:ok, [_]} = await_reply(@secret)
        assert is_map(:sys.get_state(owner))
        :ok = :sys.trace(owner, false)
      end)

    assert_received {:owner, owner}
    assert printed =~ "call :write_put_batch"
    assert printed =~ "cast :write_put_batch"
    refute printed =~ @secret
    assert {:ok, events} = :sys.log(owner, :get)
    assert events != []
    refute inspect(:sys.get_status(owner), limit: :infinity) =~ @secret
    refute inspect(events, limit: :infinity) =~ @secret
  end

  # A handler of `:logger` that sees reports of crashes as well.
  def log(event, %{config: %{test: test}}), do: send(test, {:logged, event})

  @tag :capture_log
  test "3.9 an owner that crashes leaves no payload in the log", %{shard: shard} do
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: %{test: self()}})
    on_exit(fn -> :logger.remove_handler(__MODULE__) end)
    owner = start_alone(shard, adoption_timeout: 5_000)
    monitor = Process.monitor(owner)
    :erlang.suspend_process(owner)
    write = {:write, @secret, {:set, @secret}, 60_000}
    for _ <- 1..3, do: raw_call(owner, write)
    send(owner, {:batcher_crashed, "provoked"})
    for _ <- 1..3, do: raw_call(owner, write)
    GenServer.cast(owner, {:write_put_batch, [@put], 1, {self(), @secret}, @secret})
    :erlang.resume_process(owner)
    assert_receive {:DOWN, ^monitor, :process, ^owner, {:batcher_crashed, "provoked"}}, 5_000

    # What is logged by a process that ends is logged before that is told.
    events = for {:logged, event} <- mailbox(), do: inspect(event, limit: :infinity)
    assert Enum.any?(events, &(&1 =~ "provoked"))
    refute Enum.any?(events, &(&1 =~ @secret))
    start_batcher(shard)
    assert Batcher.flush(shard) == :ok
  end
end
