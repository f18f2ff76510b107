defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Runner do
  @moduledoc false
  # Runs one program and answers what happened, for `Model` to judge.
  #
  # Invariant: when it answers, no process of the program lives, no batcher runs, and nothing is queued
  # or in flight in its shards; or it says what is left (`stuck`).

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Property.{Client, Log, Program}

  @patient_ms 4_000
  @impatient_ms 15
  # Longer than any client waits: for one call, and for its replies at the end.
  @stuck_ms 15_000

  @doc "How long a call of a program waits."
  def timeout_ms(%{patient: true}), do: @patient_ms
  def timeout_ms(%{patient: false}), do: @impatient_ms

  @doc """
  Runs a program on shards of these indices. Answers the history of `Log`, with `strays`, messages that
  reached a client and were no reply to it; `stuck`, what did not end; `deaths`, clients that crashed.
  """
  def run(program, indices, run) do
    context = %{
      run: run,
      runner: self(),
      shards: Enum.take(indices, length(program.shards)),
      options: for({_mode, options} <- program.shards, do: patient(program, options)),
      steady: for(shard <- 0..(length(program.shards) - 1), do: Program.steady?(program, shard)),
      timeout_ms: timeout_ms(program)
    }

    prepare(program, context)
    supervisor = start(program, context)

    clients =
      for {steps, index} <- Enum.with_index(program.clients) do
        {pid, monitor} = spawn_monitor(fn -> Client.run(steps, index, context) end)
        {pid, monitor}
      end

    state = %{
      context: context,
      supervisor: supervisor,
      pids: Enum.map(clients, &elem(&1, 0)),
      running: Map.new(clients),
      begun: 0,
      faults: program.faults,
      helpers: %{},
      deaths: [],
      stuck: []
    }

    history = state |> listen() |> faults(:all) |> end_helpers() |> finish()
    Enum.each(clients, fn {_pid, monitor} -> Process.demonitor(monitor, [:flush]) end)
    history
  end

  defp prepare(program, context) do
    Log.begin(context.run, program.behaviours)
    put_env(:waraft_hot_batch_window_ms, program.hot_ms)
    put_env(:waraft_generic_batch_window_ms, program.generic_ms)
    put_env(:waraft_generic_batch_during_flush, program.during_flush)
  end

  defp patient(program, options), do: [{:call_timeout, timeout_ms(program)} | options]

  defp put_env(key, value), do: Application.put_env(:ferricstore, key, value)

  defp start(program, context) do
    modes = Enum.map(program.shards, &elem(&1, 0))
    shards = Enum.zip([context.shards, modes, context.options])
    children = for {index, :supervised, options} <- shards, do: {Batcher, {index, options}}
    for {index, :alone, options} <- shards, do: start_alone(index, options)

    {:ok, supervisor} =
      Supervisor.start_link(children,
        strategy: :one_for_one,
        max_restarts: 1_000_000,
        max_seconds: 1
      )

    supervisor
  end

  defp start_alone(index, options \\ []) do
    case Batcher.start_link(index, options) do
      {:ok, owner} -> Process.unlink(owner)
      {:error, {:already_started, _owner}} -> :ok
    end
  end

  # Until every client has made its calls and has its replies.
  defp listen(%{running: running} = state) when running == %{}, do: state

  defp listen(state) do
    receive do
      {:begun, _client} -> %{state | begun: state.begun + 1} |> faults(:due) |> listen()
      {:awaited, client} -> listen(%{state | running: Map.delete(state.running, client)})
      {:DOWN, _monitor, :process, pid, reason} -> state |> died(pid, reason) |> listen()
    after
      @stuck_ms ->
        stuck = for {pid, _} <- state.running, do: {:client, stack(pid)}
        Enum.each(state.running, fn {pid, _} -> kill(pid) end)
        %{state | running: %{}, stuck: stuck ++ state.stuck}
    end
  end

  defp died(state, pid, reason) do
    deaths = if reason in [:normal, :killed], do: state.deaths, else: [reason | state.deaths]
    {running, helpers} = {Map.delete(state.running, pid), Map.delete(state.helpers, pid)}
    %{state | running: running, helpers: helpers, deaths: deaths}
  end

  defp faults(%{faults: [{at, fault} | faults]} = state, which)
       when which == :all or at <= state.begun,
       do: %{state | faults: faults} |> fault(fault) |> faults(which)

  defp faults(state, _which), do: state

  defp fault(state, {:kill_client, index}) do
    kill(Enum.at(state.pids, index))
    state
  end

  defp fault(state, {:kill_owner, shard}) do
    case Process.whereis(Batcher.name(index(state, shard))) do
      nil -> :ok
      owner -> kill(owner)
    end

    state
  end

  # One that commits, if there is one.
  defp fault(state, {:kill_committer, shard}) do
    index = index(state, shard)
    busy = for %{shard: ^index, pid: pid} <- Log.busy(), pid not in state.pids, do: pid

    case busy ++ resting(state, index) do
      [] -> :ok
      [pid | _] -> kill(pid)
    end

    state
  end

  # These take as long as a commit that hangs.
  defp fault(state, {:stop, shard}),
    do: helper(state, fn -> :ok = Batcher.stop(index(state, shard)) end)

  defp fault(state, {:start, shard}) do
    options = Enum.at(state.context.options, shard)
    helper(state, fn -> start_alone(index(state, shard), options) end)
  end

  defp fault(state, {:shutdown, shard}) do
    helper(state, fn ->
      Supervisor.terminate_child(state.supervisor, {Batcher, index(state, shard)})
      restart(state.supervisor, {Batcher, index(state, shard)})
    end)
  end

  # An owner that is killed while it starts is the caller's to start again, not the supervisor's.
  defp restart(supervisor, child) do
    case Supervisor.restart_child(supervisor, child) do
      {:error, :killed} -> restart(supervisor, child)
      _started_or_running -> :ok
    end
  end

  defp resting(state, index) do
    with owner when is_pid(owner) <- Process.whereis(Batcher.name(index)),
         {:links, links} <- Process.info(owner, :links),
         do: for(pid <- links, is_pid(pid), pid != state.supervisor, do: pid),
         else: (_ -> [])
  end

  defp kill(pid) do
    Log.kill(pid)
    Process.exit(pid, :kill)
  end

  defp index(state, shard), do: Enum.at(state.context.shards, shard)

  defp helper(state, fun) do
    {pid, _monitor} = spawn_monitor(fun)
    put_in(state.helpers[pid], true)
  end

  defp end_helpers(%{helpers: helpers} = state) when helpers == %{}, do: state

  defp end_helpers(state) do
    receive do
      {:DOWN, _monitor, :process, pid, reason} -> state |> died(pid, reason) |> end_helpers()
    after
      @stuck_ms ->
        stuck = for {pid, _} <- state.helpers, do: {:fault, stack(pid)}
        Enum.each(state.helpers, fn {pid, _} -> Process.exit(pid, :kill) end)
        %{state | helpers: %{}, stuck: stuck ++ state.stuck}
    end
  end

  # What killed clients or calls that timed out have left behind is committed before the end.
  defp finish(state) do
    {closer, monitor} =
      spawn_monitor(fn ->
        await_killed()
        Supervisor.stop(state.supervisor)
        for index <- state.context.shards, do: start_alone(index)
        for index <- state.context.shards, do: :ok = Batcher.stop(index)
      end)

    Process.unlink(state.supervisor)
    stuck = state.stuck ++ await_down(monitor, closer)
    history = Log.history()
    committers = history.commits |> Enum.map(& &1.pid) |> Enum.uniq()
    stuck = stuck ++ Enum.flat_map(committers -- state.pids, &await_down(Process.monitor(&1), &1))
    strays = Enum.flat_map(state.pids, &strays/1)

    Map.merge(Log.history(), %{strays: strays, stuck: stuck, deaths: state.deaths})
  end

  # On a busy machine it takes a while to die. A committer that were still to do so would be found dead by an owner
  # of the next program, in which nobody has killed any.
  defp await_killed do
    for {pid, _at} <- Log.history().killed do
      monitor = Process.monitor(pid)

      receive do
        {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
      end
    end
  end

  defp await_down(monitor, pid) do
    receive do
      {:DOWN, ^monitor, :process, _pid, reason} when reason in [:normal, :noproc, :killed] ->
        []

      {:DOWN, ^monitor, :process, _pid, reason} ->
        [{:crashed, reason}]
    after
      @stuck_ms -> [{:left, stack(pid)}]
    end
  end

  defp strays(client) do
    monitor = Process.monitor(client)
    send(client, :finish)

    receive do
      {:strays, ^client, messages} ->
        Process.demonitor(monitor, [:flush])
        messages

      {:DOWN, ^monitor, :process, ^client, _reason} ->
        []
    end
  end

  defp stack(pid), do: Process.info(pid, [:current_stacktrace, :messages])
end
