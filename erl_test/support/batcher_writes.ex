defmodule Ferricstore.Raft.WARaftBackend.Batcher.Writes do
  @moduledoc false
  # Writes of any lane in one shape, for tests that say the same of several lanes: a lane is a prefix or
  # the name of a hot one, its item a command or a list.
  #
  # Invariant: `queue/4` answers when the write stands in its slot, so that a test knows the order of
  # arrival; the window is so long that only what the test does can end it.

  import ExUnit.Assertions
  import Ferricstore.Raft.WARaftBackend.Batcher.Case

  alias Ferricstore.Raft.WARaftBackend.Batcher

  @long_ms 60_000
  @event_ms 5_000
  @hot [:batch, :put_batch, :delete_batch]

  @doc "A window that ends with no test."
  def long_ms, do: @long_ms

  @doc "A lane of each kind."
  def lanes, do: ["p" | @hot]

  @doc "An item of one command for a lane; `n` tells it from others."
  def item(lane, n \\ 0)
  def item(prefix, n) when is_binary(prefix), do: {:set, n}
  def item(:batch, n), do: [{:set, n}]
  def item(:put_batch, n), do: [{"k#{n}", "v", n}]
  def item(:delete_batch, n), do: ["k#{n}"]

  @doc "What the backend is given for this item."
  def listed(prefix, command) when is_binary(prefix), do: [command]
  def listed(_hot, list), do: list

  @doc "The function of the backend that commits `item/2` of a lane."
  def function(:put_batch), do: :__commit_put_batch_direct__
  def function(:delete_batch), do: :__commit_delete_batch_direct__
  def function(_generic_or_prefix), do: :__commit_batch_direct__

  @doc "The telemetry event of a lane's commits, its last part."
  def event(prefix) when is_binary(prefix), do: :slot_flush
  def event(_hot), do: :hot_flush

  @doc "A public, synchronous write."
  def write(shard, lane, item, window_ms \\ @long_ms)
  def write(shard, :batch, commands, _ms), do: Batcher.write_batch(shard, commands)
  def write(shard, :put_batch, entries, _ms), do: Batcher.write_put_batch(shard, entries)
  def write(shard, :delete_batch, keys, _ms), do: Batcher.write_delete_batch(shard, keys)
  def write(shard, prefix, command, ms), do: Batcher.write(shard, prefix, command, ms)

  @doc "The same in a task, which the test awaits; returns when it is queued."
  def queue(shard, lane, item, window_ms \\ @long_ms) do
    before = queued(shard, lane)
    task = call_async(fn -> write(shard, lane, item, window_ms) end)
    wait_queued(shard, lane, before + 1)
    task
  end

  @doc "An asynchronous write with the calling process in `from`; answers the tag of the reply."
  def cast(shard, lane, items, token \\ nil) do
    tag = make_ref()
    assert cast_from(shard, lane, items, {self(), tag}, token) == :ok
    tag
  end

  @doc "The same with a `from` of the test's; answers what the function does."
  def cast_from(shard, :put_batch, entries, from, token),
    do: Batcher.write_put_batch_async(shard, entries, from, token)

  def cast_from(shard, :delete_batch, keys, from, token),
    do: Batcher.write_delete_batch_async(shard, keys, from, token)

  def cast_from(shard, :batch, commands, from, token),
    do: Batcher.write_batch_async(shard, commands, from, token)

  def cast_from(shard, :single, [command], from, token),
    do: Batcher.write_single_async(shard, command, from, token)

  @doc """
  The raw call of the owner that writes to a lane, any window allowed; answers the tag of the reply.
  """
  def raw(shard, lane, item, window_ms),
    do: raw_call(Batcher.name(shard), request(lane, item, window_ms))

  @doc "What `GenServer.call/2` sends, without the wait; answers the tag of the reply."
  def raw_call(owner, request) do
    tag = make_ref()
    send(owner, {:"$gen_call", {self(), tag}, request})
    tag
  end

  defp request(:batch, list, ms), do: {:write_batch, list, ms}
  defp request(:put_batch, list, ms), do: {:write_put_batch, list, ms}
  defp request(:delete_batch, list, ms), do: {:write_delete_batch, list, ms}
  defp request(prefix, command, ms), do: {:write, prefix, command, ms}

  @doc """
  Makes an idle lane busy: a commit of `item/2` that waits for `release/2`. The next behaviour of the
  backend must be `:block`. Answers the commit, with `:tag` the one of its reply.
  """
  def occupy(shard, lane, n \\ 0) do
    tag = raw(shard, lane, item(lane, n), 0)
    commit = next_commit(shard)
    assert commit.list == listed(lane, item(lane, n))
    Map.put(commit, :tag, tag)
  end

  @doc "Several commits of a shard, in the order in which they came."
  def next_commits(shard, count), do: for(_ <- 1..count//1, do: next_commit(shard))

  @doc "Forgets the commits that were reported so far."
  def drop_commits(shard) do
    receive do
      {:commit, %{shard: ^shard}} -> drop_commits(shard)
    after
      0 -> :ok
    end
  end

  @doc "The oldest message of the test."
  def next_message do
    receive do
      message -> message
    after
      @event_ms -> flunk("no message within #{@event_ms} ms")
    end
  end

  @doc "Fails unless a task is still waiting after a while."
  def refute_done(task), do: assert(Task.yield(task, 30) == nil)

  @doc "The next event of a kind: `:slot_flush`, `:hot_flush` or `:quorum_submit`."
  def next_event(kind) do
    receive do
      {:telemetry, [_, _, ^kind], measurements, metadata} -> {measurements, metadata}
      {:telemetry, [_, _, _, ^kind], measurements, metadata} -> {measurements, metadata}
    after
      @event_ms -> flunk("no event #{kind} within #{@event_ms} ms")
    end
  end

  @doc "Why the next batch left (13.5)."
  def next_reason, do: next_event(:quorum_submit) |> elem(1) |> Map.fetch!(:reason)

  @doc "Keeps a scheduler busy for so long."
  def spin_us(us), do: spin_until(System.monotonic_time(:microsecond) + us)

  defp spin_until(until),
    do: if(System.monotonic_time(:microsecond) < until, do: spin_until(until), else: :ok)
end
