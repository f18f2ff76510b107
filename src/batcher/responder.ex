defmodule Ferricstore.Raft.WARaftBackend.Batcher.Responder do
  @moduledoc false
  # Tells the callers of one scheduler that their writes are committed: to wake a process of another
  # scheduler takes ten times as long as to wake a neighbour. Committers give the replies to the responder.
  #
  # Invariant: no reply depends on a responder. What was not sent when a batch is to end, its committer sends.

  # What `:sys` asks is answered between two handovers. One that is suspended leaves what it was given to committers, and
  # ends with its owner, to which it is linked for that.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{From, Library, Native, Shown}
  require Library

  use Shown, :responder

  # Waits awake for so long, if the last wait was no longer.
  @stay_us 200

  @doc "Starts the responders of a shard, one for each scheduler; they end with the calling owner."
  @spec start_all(integer) :: [pid]
  def start_all(shard) do
    owner = self()

    for scheduler <- 1..System.schedulers_online(),
        do: start([shard, owner], scheduler)
  end

  # The VM does not document `:scheduler`. Without it a responder is none the worse but for its speed.
  defp start(args, scheduler) do
    apply(:proc_lib, :spawn_opt, [__MODULE__, :init, args, [scheduler: scheduler]])
  rescue
    ArgumentError -> :proc_lib.spawn(__MODULE__, :init, args)
  end

  @doc false
  def init(shard, owner) do
    if ref = Native.join_responder(shard) do
      Process.flag(:trap_exit, true)
      Process.link(owner)
      Shown.label(:responder, shard)
      loop(ref, %{shard: shard, owner: owner, debug: []}, now_us())
    end
  end

  @doc false
  def loop(ref, %{owner: owner} = about, idle_us) do
    receive do
      {^ref, :handover} ->
        heard(ref, about, answer(ref, idle_us))

      {:EXIT, ^owner, _reason} ->
        :ok

      {:system, _from, _request} = system ->
        heard(ref, about, system)

      _stranger ->
        __MODULE__.loop(ref, about, idle_us)
    end
  end

  defp heard(ref, about, {:system, from, request}) do
    state = {ref, about}
    :sys.handle_system_msg(request, from, about.owner, __MODULE__, about.debug, state)
  end

  defp heard(ref, about, idle_us), do: __MODULE__.loop(ref, about, idle_us)

  # --- What `:sys` asks for

  @doc false
  def system_continue(_parent, debug, {ref, about}),
    do: loop(ref, %{about | debug: debug}, now_us())

  @doc false
  def system_terminate(reason, _parent, _debug, _state) do
    Shown.forget_messages()
    exit(reason)
  end

  defp shown({_ref, about}), do: %{shard: about.shard}

  # --- Replies

  # Sends what was handed over, and lets the callers run. The time since when there is nothing to do, or what `:sys` has
  # asked meanwhile.
  defp answer(ref, idle_us) do
    near? = near?(idle_us)
    respond(ref)
    :erlang.yield()
    idle_us = now_us()
    if near?, do: stay(ref, idle_us), else: idle_us
  end

  # Commits follow each other so closely that to sleep between them would take longer than a commit, since a
  # scheduler that sleeps is woken by its operating system. So the scheduler is kept awake for the next handover. Any
  # other process that can run here does.
  defp stay(ref, idle_us) do
    receive do
      {^ref, :handover} ->
        answer(ref, idle_us)

      {:system, _from, _request} = system ->
        system
    after
      0 ->
        :erlang.yield()
        if near?(idle_us), do: stay(ref, idle_us), else: idle_us
    end
  end

  defp near?(idle_us), do: now_us() - idle_us < @stay_us

  defp respond(ref) do
    case Library.call(Native.respond(ref)) do
      :done ->
        :ok

      :more ->
        respond(ref)

      {:own, proxied} ->
        From.pass(proxied, fn -> Native.pass_respond(ref) end)
        respond(ref)
    end
  end

  defp now_us, do: System.monotonic_time(:microsecond)
end
