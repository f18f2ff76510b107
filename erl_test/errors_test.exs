# Each error of the batcher's own, made to happen: whether the write behind it was committed is as `committed?/1` says.
# async: false, since the host's module that measures is one for the whole VM.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.ErrorsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.ApplyWorkDouble, only: [context: 1, load: 0]
  import Ferricstore.Raft.WARaftBackend.Batcher.Writes, only: [raw: 4]

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @moduletag :capture_log

  defp put(i), do: {:put, "k#{i}", "v", 0}

  defp not_committed(error, shard) do
    refute_commit(shard)
    assert Batcher.committed?(error) == :no
    assert {:error, reason} = error
    assert Batcher.committed?(reason) == :no
  end

  defp unknown(error) do
    assert Batcher.committed?(error) == :unknown
    assert {:error, reason} = error
    assert Batcher.committed?(reason) == :unknown
  end

  # A write in flight, and what comes behind it.
  defp fly(shard) do
    backend(shard, [:block, :reply])
    task = call_async(fn -> Batcher.write(shard, "a", put(1), 1) end)
    {task, next_commit(shard)}
  end

  defp queue(shard) do
    task = call_async(fn -> Batcher.write(shard, "a", put(2), 60_000) end)
    wait_queued(shard, "a", 1)
    task
  end

  test "a message that is no write", c do
    start_batcher(c.shard)
    error = await_reply(raw(c.shard, "a", :no_command, 1))
    assert {:error, {:invalid_request, {:write, "a", :no_command, 1}}} = error
    not_committed(error, c.shard)
  end

  test "an improper list", c do
    start_batcher(c.shard)
    error = Batcher.write_put_batch(c.shard, [{"k", "v", 0} | :tail])
    assert error == {:error, :invalid_batch_command_list}
    not_committed(error, c.shard)
  end

  test "a shard that is full", c do
    start_batcher(c.shard, max_queue_items: 1, namespace_batch_max: 1, hot_batch_max: 1)
    {first, commit} = fly(c.shard)
    error = Batcher.write(c.shard, "b", put(2), 1)
    assert error == {:error, :batcher_overloaded}
    not_committed(error, c.shard)
    release(commit)
    assert {:done, _} = await(first)
  end

  test "more work than one commit may be", c do
    load()
    budgets = [batch_command_apply_budget: 3, compound_member_apply_budget: 3]
    start_batcher(c.shard, apply_context: context(budgets))

    for {command, reason} <- [
          {{:work, 4, 0, 0, 1}, :batch_command_apply_budget_exceeded},
          {{:work, 1, 4, 0, 1}, :compound_member_apply_budget_exceeded},
          {{:work, 1, 1, 1, 2}, :namespace_batch_reply_width_unsupported}
        ] do
      error = Batcher.write(c.shard, "p", command, 1)
      assert error == {:error, reason}
      not_committed(error, c.shard)
    end
  end

  test "a batcher that is being stopped", c do
    start_alone(c.shard, drain_timeout: 50)
    {first, commit} = fly(c.shard)
    second = queue(c.shard)
    assert Batcher.stop(c.shard) == :ok
    error = await(second)
    assert error == {:error, :shutting_down}
    not_committed(error, c.shard)
    release(commit)
    assert {:done, _} = await(first)
  end

  test "an owner that was killed, and nobody who takes over", c do
    owner = start_alone(c.shard, adoption_timeout: 10)
    second = call_async(fn -> Batcher.write(c.shard, "a", put(2), 60_000) end)
    wait_queued(c.shard, "a", 1)
    Process.exit(owner, :kill)
    error = await(second)
    assert error == {:error, :batcher_down}
    not_committed(error, c.shard)
  end

  test "what the backend does instead of an answer", c do
    start_batcher(c.shard)

    for {behaviour, reason} <- [
          {{:return, {:ok, [:one, :two]}}, {:batch_result_mismatch, 1, 2}},
          {{:exit, :gone}, {:backend_exit, :gone}},
          {{:throw, :ball}, {:backend_error, :throw, :ball}},
          {{:raise, ArgumentError.exception("no")},
           {:backend_error, :error, ArgumentError.exception("no")}}
        ] do
      backend(c.shard, behaviour)
      error = Batcher.write(c.shard, "p", put(1), 1)
      assert error == {:error, reason}
      unknown(error)
    end
  end

  test "a committer that was killed", c do
    start_batcher(c.shard)
    {first, commit} = fly(c.shard)
    Process.exit(commit.pid, :kill)
    error = await(first)
    assert {:error, {:backend_exit, :killed}} = error
    unknown(error)
  end

  test "a library that has failed", c do
    start_alone(c.shard)
    {first, commit} = fly(c.shard)
    Native.panic_thread(c.shard)
    error = await(first)
    assert {:error, {:batcher_crashed, "provoked"}} = error
    unknown(error)
    release(commit)
  end

  test "a call that has waited too long, and an error of the backend's own", c do
    start_batcher(c.shard, call_timeout: 10)
    backend(c.shard, [:block, {:return, {:error, :disk_full}}])

    exit_reason = catch_exit(Batcher.write(c.shard, "a", put(1), 1))

    assert {:timeout, {Batcher, :write, _args}} = exit_reason
    assert Batcher.committed?(exit_reason) == :unknown
    release(next_commit(c.shard))
    wait_idle(c.shard)
    error = Batcher.write(c.shard, "a", put(2), 1)
    assert error == {:error, :disk_full}
    unknown(error)
  end

  test "errors of arguments say of what shape they were, and no more", %{shard: shard} do
    for from <- [
          "s3cret",
          {"s3cret", "s3cret"},
          {nil, "s3cret"},
          {self(), "s3cret", :three},
          ["s3cret"]
        ] do
      for write <- [
            &Batcher.write_put_batch_async(shard, [], &1),
            &Batcher.write_batch_async(shard, [], &1),
            &Batcher.write_single_async(shard, {:a}, &1)
          ] do
        error = assert_raise ArgumentError, fn -> write.(from) end
        refute error.message =~ "s3cret"
        assert error.message =~ "from must be a GenServer.from()"
      end
    end

    error =
      assert_raise ArgumentError, fn -> Batcher.write_batch_async(shard, [], {nil, "s3cret"}) end

    assert String.ends_with?(error.message, "got: {nil, _}")

    for {commands, where} <- [
          {[{:put, "s3cret"}, {:put_batch, ["s3cret" | "s3cret"]}],
           "that of command 2, {:put_batch, _}"},
          {[{:batch, [{:batch, ["s3cret" | "s3cret"]}]}], "that of command 1, {:batch, _}"},
          {["s3cret", "s3cret" | "s3cret"],
           "that of all commands, which are 2 and something else"}
        ] do
      error = assert_raise ArgumentError, fn -> Batcher.Backend.reply_count(commands) end
      refute error.message =~ "s3cret"
      assert error.message == "an improper list: " <> where
    end
  end
end
