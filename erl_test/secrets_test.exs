# Nothing of what callers write is in what is logged or reported, whatever goes wrong.
#
# A secret stands in keys, values, prefixes, tokens, tags and in the errors of the backend. The whole log is listened to,
# with the reports of OTP, also those that a default logger does not show.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.SecretsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import Ferricstore.Raft.WARaftBackend.Batcher.Writes

  alias Ferricstore.Raft.WARaftBackend.Batcher.Telemetry

  @secret "xyzzy-secret"

  defmodule Listener do
    # A handler of Erlang's logger that passes on all that is logged, as terms and as text.
    def log(event, %{config: %{test: test}}), do: send(test, {:logged, event, text(event)})

    defp text(event) do
      :logger_formatter.format(event, %{}) |> IO.chardata_to_string()
    rescue
      _not_to_be_formatted -> ""
    end
  end

  @moduletag :capture_log

  setup %{shard: shard} do
    id = :"listener_#{shard}"
    before = :logger.get_primary_config()
    # With the reports of progress and of crashes, which Elixir's own handler translates or drops.
    :ok = :logger.set_primary_config(:level, :all)
    :ok = :logger.add_handler(id, Listener, %{level: :all, config: %{test: self()}})

    on_exit(fn ->
      :logger.remove_handler(id)
      :logger.set_primary_config(:level, before.level)
    end)
  end

  # Everything that was logged so far.
  defp logged do
    receive do
      {:logged, event, text} -> [{event, text} | logged()]
    after
      0 -> []
    end
  end

  # Those of this shard, once all of these kinds have come. Others' may be among them: they are looked at as well.
  defp await_kinds(kinds, seen \\ []) do
    seen = seen ++ logged()
    found = for {%{meta: %{kind: kind}}, _text} <- seen, do: kind

    case kinds -- found do
      [] ->
        seen

      _missing ->
        assert_receive {:logged, event, text}
        await_kinds(kinds, seen ++ [{event, text}])
    end
  end

  defp assert_no_secret(lines) do
    for {event, text} <- lines do
      refute text =~ @secret
      refute inspect(event, limit: :infinity, printable_limit: :infinity) =~ @secret
    end
  end

  defp put(n), do: {:put, "#{@secret}#{n}", @secret, 0}
  defp tag, do: {@secret, make_ref()}

  # Writes to all kinds of lanes: replies come with a tag that holds the secret.
  defp write_all(shard) do
    owner = Batcher.name(shard)
    from = fn -> {self(), tag()} end
    entries = [{@secret, @secret, 0}]
    send(owner, {:"$gen_call", from.(), {:write, @secret, put(0), 1}})
    send(owner, {:"$gen_call", from.(), {:write_batch, [put(1)], 1}})
    send(owner, {:"$gen_call", from.(), {:write_put_batch, entries, 1}})
    send(owner, {:"$gen_call", from.(), {:write_delete_batch, [@secret], 1}})
    Batcher.write_put_batch_async(shard, entries, from.(), {self(), @secret})
    # What is no write at all.
    send(owner, {@secret, put(2)})
    GenServer.cast(owner, {:write, @secret, put(3), 1})
    send(owner, {:"$gen_call", from.(), {@secret, put(4)}})
    :sys.get_state(owner)
  end

  for {name, behaviour, kind} <- [
        {"answers with an error", {:return, {:error, {:no, @secret, [@secret]}}}, :commit_failed},
        {"exits", {:exit, {:timeout, {:m, :f, [@secret]}}}, :backend_failed},
        {"raises", {:raise, {:badmatch, @secret}}, :backend_failed},
        {"throws", {:throw, @secret}, :backend_failed},
        {"gives too many replies", {:return, {:ok, [@secret, @secret, @secret]}},
         :replies_mismatched}
      ] do
    test "a backend that #{name}", %{shard: shard} do
      start_batcher(shard, slow_commit_ms: 0, stuck_ms: 0)
      :ok = Telemetry.attach_default_logger(level: :error)
      on_exit(fn -> Telemetry.detach_default_logger() end)
      backend(shard, unquote(Macro.escape(behaviour)))
      write_all(shard)
      Batcher.flush(shard)
      seen = await_kinds([unquote(kind)])
      assert Enum.any?(seen, fn {_event, text} -> text =~ "slot_flush" end)
      assert_no_secret(seen)
    end
  end

  test "committers that are killed, and an owner that is killed and taken over", %{shard: shard} do
    owner = start_batcher(shard)
    backend(shard, [:block, :block, :reply])
    send(owner, {:"$gen_call", {self(), tag()}, {:write, @secret, put(0), 1}})
    commit = next_commit(shard)
    Process.exit(commit.pid, {:no, @secret, put(1)})
    Process.exit(commit.pid, :kill)
    # Queued, in flight, and in the mailbox.
    send(owner, {:"$gen_call", {self(), tag()}, {:write, @secret, put(2), 1}})
    commit = next_commit(shard)
    send(owner, {:"$gen_call", {self(), tag()}, {:write, @secret, put(3), long_ms()}})
    wait_queued(shard, @secret, 1)
    :sys.suspend(owner)
    send(owner, {:"$gen_call", {self(), tag()}, {:write, @secret, put(4), 1}})
    Process.exit(owner, :kill)
    await_successor(shard, owner)
    release(commit)
    assert_no_secret(await_kinds([:committer_down, :adopted]))
  end

  test "an owner that fails, and processes that :sys ends", %{shard: shard} do
    owner = start_batcher(shard)
    [committer, other | _] = committers(owner)
    backend(shard, :block)
    send(owner, {:"$gen_call", {self(), tag()}, {:write, @secret, put(0), 1}})
    commit = next_commit(shard)
    idle = if commit.pid == committer, do: other, else: committer
    send(idle, {@secret, put(1)})
    spawn(fn -> :sys.terminate(idle, :no_good) end)
    await_death(idle)
    send(owner, {:"$gen_call", {self(), tag()}, {:write, @secret, put(2), long_ms()}})
    wait_queued(shard, @secret, 1)
    spawn(fn -> :sys.terminate(owner, :no_good) end)
    await_successor(shard, owner)
    release(commit)
    seen = await_kinds([:committer_down, :adopted])
    # There is a report of each, so that there was something to look at.
    for pid <- [idle, owner],
        do: assert(Enum.any?(seen, fn {event, _text} -> report_of?(event, pid) end))

    assert_no_secret(seen)
  end

  test "a full queue, a drain that ends too early, and nobody who takes over", %{shard: shard} do
    owner = start_alone(shard, max_queue_items: 2, drain_timeout: 0, stuck_ms: 0)
    backend(shard, :block)
    send(owner, {:"$gen_call", {self(), tag()}, {:write, @secret, put(0), 1}})
    commit = next_commit(shard)
    send(owner, {:"$gen_call", {self(), tag()}, {:write, @secret, put(1), 1}})
    wait_queued(shard, @secret, 1)
    for _ <- 1..3, do: {:error, :batcher_overloaded} = Batcher.write(shard, @secret, put(2), 1)
    seen = await_kinds([:commit_stuck, :overload_began, :queue_filling])
    Batcher.stop(shard)
    seen = seen ++ await_kinds([:drain_refused])
    release(commit)
    assert_no_secret(seen)

    orphan = start_alone(shard, adoption_timeout: 1_500)
    backend(shard, :reply)
    waiting = call_async(fn -> Batcher.write(shard, @secret, put(3), long_ms()) end)
    wait_queued(shard, @secret, 1)
    Process.exit(orphan, :kill)
    assert await(waiting) == {:error, :batcher_down}
    assert_no_secret(await_kinds([:nobody_adopted]))
  end

  defp report_of?(%{msg: {:report, %{label: {:proc_lib, :crash}}}, meta: %{pid: pid}}, pid),
    do: true

  defp report_of?(_event, _pid), do: false
end
