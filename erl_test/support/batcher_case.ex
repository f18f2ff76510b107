defmodule Ferricstore.Raft.WARaftBackend.Batcher.Case do
  @moduledoc false
  # What the tests of the BEAM side share: a shard of its own for each test, a backend that does as the
  # test says, and waiting for events.
  #
  # Invariant: a test that leaves the application environment alone meets no other test, so it can be
  # `async: true`. One that calls `put_env/2` must be `async: false`.

  use ExUnit.CaseTemplate

  import ExUnit.Callbacks

  alias Ferricstore.Raft.WARaftBackend.Batcher

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Log,
    Native,
    Options,
    Settings,
    TestBackend,
    TestGate,
    TestTelemetry
  }

  require Settings

  @app :ferricstore
  @event_ms 5_000
  # How long a test listens for something that must not come.
  @silence_ms 30

  using do
    quote do
      import Ferricstore.Raft.WARaftBackend.Batcher.Case

      alias Ferricstore.Raft.WARaftBackend.Batcher
      alias Ferricstore.Raft.WARaftBackend.Batcher.{TestBackend, TestGate}
    end
  end

  setup do
    shard = new_shard()
    %{shard: shard}
  end

  @doc "Once, before the tests: tables, and the backend and the gate that all tests use."
  def prepare do
    TestBackend.create_table()
    TestTelemetry.start()
    Application.put_env(@app, :waraft_backend_batcher_backend, TestBackend)
    Application.put_env(@app, :waraft_backend_batcher_sync_gate, TestGate)
  end

  @doc "Whether a module is part of what a host gets."
  def from_src?(module) do
    source = to_string(module.module_info(:compile)[:source])
    match?(["src" | _], source |> Path.relative_to_cwd() |> Path.split())
  end

  @doc "A shard that no other test knows; its commits are reported to the calling process."
  def new_shard do
    shard = :erlang.unique_integer([:positive])
    TestBackend.register(shard, self())
    shard
  end

  @doc "Starts a batcher under the test's supervisor, which restarts it, and stops it at the end."
  def start_batcher(shard, opts \\ []), do: start_supervised!({Batcher, {shard, opts}})

  @doc "Starts a batcher that nobody restarts, and stops it at the end."
  def start_alone(shard, opts \\ []) do
    {:ok, owner} = Batcher.start_link(shard, opts)
    Process.unlink(owner)
    on_exit(fn -> Batcher.stop(shard) end)
    owner
  end

  @doc """
  The test becomes the owner of a shard with these options, and its only committer, which rests: what
  `Native` takes.
  """
  def own_and_commit(shard, opts) do
    {:ok, given} = Options.check(opts)
    {:ok, []} = Native.open(shard, Options.native(given, nil))
    committer = Native.join(shard)
    :rest = Native.take(committer)
    committer
  end

  @doc "Bounds what the batchers that start from now on hold together, in bytes, until the end of the test."
  def put_total(bytes) do
    Application.put_env(:ferricstore_batcher, :max_total_queue_bytes, bytes)

    on_exit(fn ->
      Application.delete_env(:ferricstore_batcher, :max_total_queue_bytes)
      Native.bound_total(nil)
    end)
  end

  @doc "What the backend of this shard does from now on, see `TestBackend`."
  def backend(shard, behaviour), do: TestBackend.script(shard, List.wrap(behaviour))

  @doc "The next call of the backend of this shard, a map: see `TestBackend`."
  def next_commit(shard) do
    receive do
      {:commit, %{shard: ^shard} = commit} -> commit
    after
      @event_ms -> flunk("no commit of shard #{shard} within #{@event_ms} ms")
    end
  end

  @doc "The next call of one function of the backend."
  def next_commit(shard, function) do
    receive do
      {:commit, %{shard: ^shard, function: ^function} = commit} -> commit
    after
      @event_ms -> flunk("no #{function} of shard #{shard} within #{@event_ms} ms")
    end
  end

  @doc "Fails if the backend is called."
  def refute_commit(shard, ms \\ @silence_ms) do
    receive do
      {:commit, %{shard: ^shard} = commit} -> flunk("unexpected commit: #{inspect(commit)}")
    after
      ms -> :ok
    end
  end

  @doc "Lets a blocked commit go on, with one of the behaviours of `TestBackend`."
  def release(%{pid: pid, ref: ref}, behaviour \\ :reply) do
    send(pid, {ref, behaviour})
    :ok
  end

  @doc "Runs a write in a task of its own."
  def call_async(fun), do: Task.async(fun)

  @doc "The result of `call_async/1`."
  def await(task), do: Task.await(task, @event_ms)

  @doc "The reply that reached a `from` with this tag."
  def await_reply(tag) do
    receive do
      {^tag, reply} -> reply
    after
      @event_ms -> flunk("no reply to #{inspect(tag)} within #{@event_ms} ms")
    end
  end

  @doc """
  Brings a batcher to the point where it is being stopped while a commit is in flight: answers the
  task that waits for that, and the commit.
  """
  def stopping(shard) do
    backend(shard, :block)
    task = call_async(fn -> Batcher.write(shard, "in flight", {:a}, 1) end)
    commit = next_commit(shard)
    queued = call_async(fn -> Batcher.write(shard, "queued", {:b}, 60_000) end)
    wait_queued(shard, "queued", 1)
    GenServer.cast(Batcher.name(shard), :stop)
    # This one only left because the batcher is being stopped.
    release(next_commit(shard))
    {:done, {:b}} = await(queued)
    {task, commit}
  end

  @doc "Waits until a task waits for a message."
  def wait_waiting(%Task{pid: pid}),
    do: wait_until(fn -> Process.info(pid, :status) == {:status, :waiting} end)

  @doc "Waits until a predicate holds that no message announces."
  def wait_until(predicate, tries \\ @event_ms) do
    cond do
      predicate.() ->
        :ok

      tries == 0 ->
        flunk("waited in vain")

      true ->
        receive do
        after
          1 -> wait_until(predicate, tries - 1)
        end
    end
  end

  @doc "Waits until exactly that many calls are queued in a lane: a prefix or the name of a hot one."
  def wait_queued(shard, lane, calls), do: wait_until(fn -> queued(shard, lane) == calls end)

  @doc "How many calls are queued in a lane."
  def queued(shard, lane) do
    case queued_slot(shard, lane) do
      nil -> 0
      %{froms: froms} -> length(froms)
      %{groups: groups} -> length(groups)
    end
  end

  @doc "What is queued in a lane, as `snapshot/1` shows it."
  def queued_slot(shard, lane) do
    snapshot = Batcher.snapshot(shard) || %{slots: %{}}

    case lane do
      prefix when is_binary(prefix) -> snapshot.slots[prefix]
      :batch -> snapshot[:batch_slot]
      :put_batch -> snapshot[:put_slot]
      :delete_batch -> snapshot[:delete_slot]
    end
  end

  @doc "Waits until nothing is queued or in flight."
  def wait_idle(shard) do
    wait_until(fn ->
      case Batcher.snapshot(shard) do
        nil ->
          true

        snapshot ->
          snapshot.slots == %{} and snapshot.in_flight == %{} and
            {snapshot.batch_slot, snapshot.put_slot, snapshot.delete_slot} == {nil, nil, nil}
      end
    end)
  end

  @doc "Everything in the mailbox of the calling process."
  def mailbox do
    {:messages, messages} = Process.info(self(), :messages)
    messages
  end

  @doc "The processes that commit for an owner."
  def committers(owner), do: linked(owner, Batcher.Committer)

  @doc "The processes that watch the shard of an owner: one, but for a moment."
  def watchers(owner), do: linked(owner, Batcher.Watch)

  @doc "The one that watches the shard of an owner."
  def watcher(owner) do
    [watcher] = watchers(owner)
    watcher
  end

  @doc "Has a watcher look at its shard now; returns when it has looked."
  def look(watcher) do
    send(watcher, :look)
    :sys.get_state(watcher)
  end

  @doc "As if the time had passed in which a kind of line is written to the log only once."
  def pass_limit(shard), do: Enum.each(Log.kinds(), &pass_limit(shard, &1))

  def pass_limit(shard, kind) do
    i = Enum.find_index(Log.kinds(), &(&1 == kind))
    :atomics.put(:persistent_term.get({Log, shard}), 2 + 2 * i, 0)
  end

  # The processes linked to an owner that run a module. One that dies meanwhile is none.
  defp linked(owner, module) do
    {:links, links} = Process.info(owner, :links)

    for pid <- links,
        is_pid(pid),
        {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
        match?({^module, :init, _}, dictionary[:"$initial_call"]),
        do: pid
  end

  @doc "Kills one of an owner's committers after the other, at any moment, until `stop_killing/1`."
  def start_killing(owner), do: spawn_link(fn -> kill_committers(owner, 0) end)

  @doc "How many were killed."
  def stop_killing(killer) do
    send(killer, {:stop, self()})

    receive do
      {:killed, ^killer, killed} -> killed
    after
      @event_ms -> flunk("the killer goes on after #{@event_ms} ms")
    end
  end

  # A moment passes in between, so that something is done at all.
  defp kill_committers(owner, killed) do
    victims = committers(owner)
    if victims != [], do: victims |> Enum.random() |> Process.exit(:kill)
    killed = killed + min(length(victims), 1)

    receive do
      {:stop, test} -> send(test, {:killed, self(), killed})
    after
      :rand.uniform(2) - 1 -> kill_committers(owner, killed)
    end
  end

  @doc "Waits until a process is dead; answers the reason."
  def await_death(pid) do
    monitor = Process.monitor(pid)

    receive do
      {:DOWN, ^monitor, :process, _pid, reason} -> reason
    after
      @event_ms -> flunk("#{inspect(pid)} lives after #{@event_ms} ms")
    end
  end

  @doc "Waits until the name of a shard belongs to another process than `former`; answers that."
  def await_successor(shard, former) do
    wait_until(fn -> Process.whereis(Batcher.name(shard)) not in [nil, former] end)
    Process.whereis(Batcher.name(shard))
  end

  @doc "Sets a key of the application environment until the end of the test."
  def put_env(key, value) do
    restore_env(key)
    Application.put_env(@app, key, value)
  end

  @doc "Removes a key of the application environment until the end of the test."
  def delete_env(key) do
    restore_env(key)
    Application.delete_env(@app, key)
  end

  defp restore_env(key) do
    before = Application.fetch_env(@app, key)

    on_exit(fn ->
      case before do
        {:ok, value} -> Application.put_env(@app, key, value)
        :error -> Application.delete_env(@app, key)
      end
    end)
  end

  @doc """
  Shortens the 30 s of a sync call (3.7) to a running batcher, until that is started anew. May be less than its windows,
  which options may not, and less than nothing.
  """
  def put_call_timeout(shard, ms) do
    settings = Settings.settings(Settings.of(shard), call_timeout_ms: ms)
    :persistent_term.put(Settings.key(shard), settings)
  end

  @doc """
  From now on, each event of this shard reaches the calling process as
  `{:telemetry, event, measurements, metadata}`, or with another first element.
  """
  def attach_telemetry(shard, name \\ :telemetry) do
    test = self()
    id = make_ref()

    report = fn event, measurements, metadata, _config ->
      if metadata.shard_index == shard,
        do: send(test, {name, event, measurements, metadata})
    end

    :ok = :telemetry.attach_many(id, TestTelemetry.events_of_batchers(), report, nil)
    on_exit(fn -> :telemetry.detach(id) end)
  end
end
