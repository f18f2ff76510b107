defmodule Ferricstore.Raft.WARaftBackend.Batcher.Fuzz do
  @moduledoc false
  # In a child VM: calls every function of the library and every public one with terms of all types in
  # all positions.
  #
  # Invariant: each call runs in a process of its own and ends with a value or an exception; writes wait for
  # no window, since all shards are flushed without pause.

  import Bitwise

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null
  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, FuzzTerms, Native, VmLoad, Ways}

  # Shards of the public functions, and of those of the library, which may be left in any state.
  @shards [50, 51]
  @raw_shards [100, 101]
  @hang_ms 3_000
  @renew_every 1_000
  @watch __MODULE__.Watch
  @ends [:normal, :shutdown, {:shutdown, :parent_down}, :noproc]
  @samples 10
  # Makes the thread of a shard fail, on purpose; refuses what all shards are given.
  @left_out [panic_thread: 1, bound_total: 1, load: 0, loaded: 0]
  @skipped_public [__info__: 1, module_info: 0, module_info: 1]

  @doc "Makes so many calls; tells `returned`, `raised`, `hung`, `crashed`, why owners did, and `kept`, bytes that did not come back."
  def run(seed, terms) do
    {:ok, _} = Application.ensure_all_started(:elixir)
    Application.put_env(:ferricstore, :waraft_backend_batcher_backend, Null)
    Application.put_env(:ferricstore, :waraft_backend_batcher_sync_gate, __MODULE__)
    :rand.seed(:exsss, seed)
    ways = Map.new(@shards ++ @raw_shards, &{&1, Ways.draw()})
    :persistent_term.put({__MODULE__, :ways}, ways)
    ChildVM.tell("ways", Map.values(ways))
    Process.register(spawn_link(fn -> watch([]) end), @watch)
    start()
    calls(1, min(terms, 500), {0, 0, []})
    before = held()
    {returned, raised, hung} = calls(1, terms, {0, 0, []})
    ChildVM.tell("returned", returned)
    ChildVM.tell("raised", raised)
    ChildVM.tell("hung", Enum.take(hung, 5))
    # The product still works.
    for shard <- @shards do
      {:ok, _owner} = ensure(shard)
      {:ok, [:ok]} = Batcher.write_put_batch(shard, [{"k", "v", 0}])
      :ok = Batcher.flush(shard)
      ChildVM.tell("works", shard)
    end

    send(@watch, {:tell, self()})
    receive do: ({@watch, crashed} -> ChildVM.tell("crashed", Enum.take(crashed, 5)))
    # What is queued there may wait for ever, behind permits that this process was given.
    for shard <- @raw_shards,
        permit <- Process.get(:permits, []),
        do: Native.give_back(shard, permit, :slices)

    for shard <- @raw_shards, do: {Batcher.stop(shard), Native.close(shard)}
    ChildVM.tell("kept", held() - before)
    for shard <- @shards, do: Batcher.stop(shard)
    ChildVM.tell("threads", VmLoad.threads_left())
    System.halt(0)
  end

  @doc "As a sync gate: whatever the token is."
  def leave(_token), do: :ok

  defp start do
    for shard <- @shards ++ @raw_shards, do: {:ok, _owner} = ensure(shard)
    :persistent_term.put({__MODULE__, :dead}, dead_committer())
    parent = self()
    spawn_link(fn -> keep_flushing(parent) end)
  end

  # Fuzzing may have stopped it.
  defp ensure(shard) do
    way = Map.fetch!(:persistent_term.get({__MODULE__, :ways}), shard)

    case Batcher.start_link(shard, [adoption_timeout: 100, drain_timeout: 1_000] ++ way) do
      {:ok, owner} ->
        Process.unlink(owner)
        watched(owner)

      {:error, {:already_started, owner}} ->
        watched(owner)
    end
  end

  defp watched(owner) do
    send(@watch, {:owner, owner})
    {:ok, owner}
  end

  # Owners end when they are told to, or with the process that has started them; no term ends one.
  defp watch(crashed) do
    receive do
      {:owner, owner} ->
        if Process.get(owner) == nil, do: Process.put(owner, Process.monitor(owner))
        watch(crashed)

      {:DOWN, _monitor, :process, owner, reason} ->
        Process.delete(owner)
        watch(if reason in @ends, do: crashed, else: [reason | crashed])

      {:tell, parent} ->
        send(parent, {@watch, crashed})
        watch(crashed)
    end
  end

  defp keep_flushing(parent) do
    for shard <- @shards do
      {:ok, _owner} = ensure(shard)
      Batcher.flush(shard, 1_000)
    end

    receive do
    after
      5 -> keep_flushing(parent)
    end
  end

  defp dead_committer do
    parent = self()

    {pid, monitor} =
      spawn_monitor(fn -> send(parent, {:committer, Native.join(hd(@raw_shards))}) end)

    receive do: ({:DOWN, ^monitor, :process, ^pid, _} -> :ok)
    receive do: ({:committer, committer} -> committer)
  end

  defp calls(n, terms, outcomes) when n > terms, do: outcomes

  defp calls(n, terms, outcomes) do
    if rem(n, @renew_every) == 1, do: FuzzTerms.renew_big()
    {module, function, arity} = Enum.random(functions())
    known = known(module)
    args = for position <- 1..arity//1, do: argument(module, function, position, known)
    calls(n + 1, terms, count(call(module, function, args), outcomes))
  end

  defp count(:returned, {returned, raised, hung}), do: {returned + 1, raised, hung}
  defp count(:raised, {returned, raised, hung}), do: {returned, raised + 1, hung}
  defp count({:hung, _} = call, {returned, raised, hung}), do: {returned, raised, [call | hung]}

  defp functions do
    native = for {function, arity} <- Native.__info__(:functions), do: {Native, function, arity}
    public = for {function, arity} <- Batcher.__info__(:functions), do: {Batcher, function, arity}
    left_out = for {function, arity} <- @left_out, do: {Native, function, arity}
    skipped = for {function, arity} <- @skipped_public, do: {Batcher, function, arity}
    raw = for kind <- [:call, :cast], do: {__MODULE__, kind, 2}
    (native ++ public ++ raw) -- (left_out ++ skipped)
  end

  # An index of its own for each shard that is opened would be a thread for each.
  defp argument(Native, :open, 1, _known),
    do: Enum.random(@raw_shards ++ [-1, :a, "x", 1.0, [], 1 <<< 70])

  defp argument(Batcher, :start_link, 1, _known),
    do: Enum.random(@shards ++ [-1, :a, "x", 1.0, [], 1 <<< 70])

  # It makes the file that it locks.
  defp argument(Native, :lock_file, 1, _known) do
    file = Path.join(System.tmp_dir!(), "batcher_fuzz_lock")

    Enum.random([
      file,
      "",
      "/",
      "/no/such/file",
      "a\0b",
      <<255>>,
      :a,
      1,
      [],
      String.duplicate("x", 10_000)
    ])
  end

  # Of a known kind, or nothing would ever come of it (3.8).
  defp argument(__MODULE__, _call_or_cast, 1, known), do: request(:rand.uniform(5), known)
  defp argument(_module, _function, _position, known), do: FuzzTerms.term(known)

  defp request(n, known) do
    term = fn -> FuzzTerms.term(known) end
    kind = Enum.random([:write_batch, :write_put_batch, :write_delete_batch])

    case n do
      1 -> {:write, term.(), term.(), term.()}
      2 -> {kind, term.(), term.()}
      3 -> {kind, term.(), term.(), term.(), term.()}
      4 -> Enum.random([:flush, :stop])
      5 -> term.()
    end
  end

  defp known(Native) do
    [pacing: pacing, commit_scope: scope] = Ways.draw()
    limits = {10, nil, Enum.random([1, 128])}
    how = {pacing, scope, Enum.random([:queue, :refuse])}
    options = {limits, nil, how, {1_000, 1_000_000}, 100, Enum.random([nil, {9, 9, 9}])}

    from = Enum.random([{self(), make_ref()}, {renew_alias(), :tag}, {:other, :name, :tag}])
    dead = :persistent_term.get({__MODULE__, :dead})
    [dead, permit(), options, from, {1, 0, 2}, :batch, :single, "p", 1 | @raw_shards]
  end

  defp known(_public),
    do: [
      Enum.random([{self(), make_ref()}, {renew_alias(), :tag}, {:name, :tag}]),
      {:a},
      [{:a}],
      [{"k", "v", 0}],
      ["k"],
      "p",
      1 | @shards
    ]

  # The VM holds 200 bytes for each that is active.
  defp renew_alias do
    new = :erlang.alias()
    old = Process.put(:alias, new)
    if old, do: :erlang.unalias(old)
    new
  end

  # Of a write that was alone, and may have been given back since.
  defp permit do
    shard = Enum.random(@raw_shards)

    case Native.offer(shard, "permit", {:a}, 1, 0, make_ref(), 1_000, nil) do
      {:alone, permit, _bytes, _function} ->
        Process.put(:permit, permit)
        Process.put(:permits, [permit | Process.get(:permits, [])])

      _queued_or_refused ->
        :ok
    end

    Process.get(:permit)
  end

  @doc "Sends the owner of a shard a request as `GenServer.call` does."
  def call(request, from), do: send_owner({:"$gen_call", from, request})

  @doc "The same as `GenServer.cast` does, or whatever else."
  def cast(request, other), do: send_owner(Enum.random([{:"$gen_cast", request}, other]))

  # A message that ends or replaces a process of OTP is not the product's.
  defp send_owner(message) do
    owner = Process.whereis(Batcher.name(Enum.random(@shards)))
    if owner, do: send(owner, message)
  end

  defp call(module, function, args) do
    {pid, monitor} =
      spawn_monitor(fn ->
        if module == Native and :rand.uniform(4) == 1, do: become_committer()
        apply(module, function, args)
        exit(:returned)
      end)

    receive do
      {:DOWN, ^monitor, :process, ^pid, :returned} -> :returned
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :raised
    after
      @hang_ms ->
        where = Process.info(pid, :current_stacktrace)

        ChildVM.tell(
          "hang",
          {module, function, inspect(args, limit: 4, printable_limit: 10) |> String.slice(0, 300),
           where}
        )

        Process.exit(pid, :kill)
        {:hung, {module, function, inspect(args, limit: 5), where}}
    end
  end

  defp become_committer, do: Native.join(Enum.random(@raw_shards))

  # To this process, as the `from` of a request: they hold what was refused.
  defp forget_replies do
    receive do
      _reply -> forget_replies()
    after
      0 -> :ok
    end
  end

  # What another thread frees comes back a moment later: the least of some samples.
  defp held, do: Enum.min(for _ <- 1..@samples, do: sample())

  defp sample do
    Process.delete(:big)
    # What owners were sent is worked off when they answer.
    for shard <- @shards, do: {:ok, _owner} = ensure(shard)
    for shard <- @shards, do: :ok = Batcher.flush(shard)
    forget_replies()
    for _ <- 1..2, pid <- Process.list(), do: :erlang.garbage_collect(pid)
    :erlang.memory(:total)
  end
end
