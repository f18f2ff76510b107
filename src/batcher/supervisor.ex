# The batchers of several shards under one supervisor.
# Invariant: of a shutdown all shards hear at once, so that it takes as long as the slowest of them, not all together.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Supervisor do
  @moduledoc """
  Starts the batchers of several shards, and Ra before them if it is what they commit to; stops them together.

      alias Ferricstore.Raft.WARaftBackend.Batcher

      children = [
        {Batcher.Supervisor,
         shards: 4, ra: [data_dir: "/var/lib/app/raft"], pacing: :auto, commit_scope: :shard}
      ]

  Options:

    * `:shards` (required) - how many, with indexes from 0; or a list of indexes, where `{index, opts}` is one that
      has options of its own beside those of all
    * `:ra` - options of `Batcher.Backend.Ra.start/1`: it is started first, with the same shards, and stopped last, and is
      the `:backend` of all of them, whatever else is given as `:backend`, or as `:shards` in there
    * `:name` - what the supervisor is registered under
    * all others are options of each shard: see `Batcher`

  Under an ordinary supervisor shards are shut down one after the other, and each may take its `:shutdown_timeout`. Here
  all drain at once: the shutdown takes as long as the slowest shard, 5 s at most with the default, and then the time
  that Ra needs to stop. `Batcher.stop/1` may be called for all shards, also at once: each is started anew, as always.
  If Ra, or a part of it, has ended for good, Ra and the shards are started anew. A batcher that can't be started again,
  or Ra, ends the supervisor, whose own supervisor decides then.
  """

  use Supervisor

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.{Options, Start}

  # So often in 5 s a shard may be stopped, or its owner die, before its supervisor gives up.
  @restarts_of_shard 20

  @typedoc "Options of `start_link/1`; beside these those of each shard."
  @type option ::
          {:shards, non_neg_integer | [Batcher.shard() | {Batcher.shard(), keyword}]}
          | {:ra, keyword}
          | {:name, Supervisor.name()}
          | {atom, term}

  @doc """
  Starts the shards; returns when all run.

  Errors: those of `Batcher.start_link/2` and `Batcher.Backend.Ra.start/1`, of the first shard that could not be started,
  when those before it have been stopped again; `{:error, {:missing_option, :shards}}`,
  `{:error, {:invalid_option, :shards | :ra, value}}`.
  """
  @spec start_link([option]) :: {:ok, pid} | {:error, term}
  def start_link(opts) when is_list(opts) do
    {own, common} = Keyword.split(opts, [:shards, :ra, :name])

    with {:ok, given} <- fetch_shards(own),
         :ok <- check_ra(own[:ra]),
         {:ok, shards} <- shards(given, common, own[:ra]),
         :ok <- check(shards) do
      case Supervisor.start_link(__MODULE__, {shards, own[:ra]}, Keyword.take(own, [:name])) do
        {:error, {:shutdown, {:failed_to_start_child, _child, reason}}} -> {:error, reason}
        result -> result
      end
    end
  end

  defp fetch_shards(own) do
    with :error <- Keyword.fetch(own, :shards), do: {:error, {:missing_option, :shards}}
  end

  defp check_ra(none) when none in [nil, false], do: :ok

  defp check_ra(ra),
    do: if(Keyword.keyword?(ra), do: :ok, else: {:error, {:invalid_option, :ra, ra}})

  # Of each its index and its options.
  defp shards(count, common, ra) when is_integer(count) and count >= 0,
    do: shards(Enum.take(0..count, count), common, ra)

  # A proper list.
  defp shards(list, common, ra) when length(list) >= 0 do
    backend = if ra, do: [backend: Backend.Ra], else: []

    given = for shard <- list, do: if(is_tuple(shard), do: shard, else: {shard, []})

    if Enum.all?(given, &shard?/1) and Enum.uniq_by(given, &elem(&1, 0)) == given,
      do:
        {:ok,
         for(
           {index, opts} <- given,
           do: {index, common |> Keyword.merge(opts) |> Keyword.merge(backend)}
         )},
      else: {:error, {:invalid_option, :shards, list}}
  end

  defp shards(other, _common, _ra), do: {:error, {:invalid_option, :shards, other}}

  defp shard?({index, opts}), do: is_integer(index) and index >= 0 and Keyword.keyword?(opts)
  defp shard?(_other), do: false

  # Before anything is started.
  defp check(shards) do
    Enum.find_value(shards, :ok, fn {_shard, opts} ->
      with {:ok, _options} <- Options.check(opts), do: nil
    end)
  end

  @impl Supervisor
  def init({shards, ra}) do
    indexes = for {index, _opts} <- shards, do: index
    ra = if ra, do: [{Backend.Ra, Keyword.put(ra, :shards, indexes)}], else: []

    batchers = %{
      id: :shards,
      start: {__MODULE__, :start_shards, [shards]},
      type: :supervisor,
      shutdown: :infinity
    }

    # Without Ra no shard can do anything.
    Supervisor.init(ra ++ [batchers], strategy: :rest_for_one)
  end

  # A dynamic supervisor ends all its children at once.
  @doc false
  def start_shards(shards) do
    {:ok, supervisor} = DynamicSupervisor.start_link(strategy: :one_for_one)

    case Enum.find_value(shards, &failure(supervisor, &1)) do
      nil ->
        {:ok, supervisor}

      reason ->
        DynamicSupervisor.stop(supervisor)
        {:error, reason}
    end
  end

  defp failure(supervisor, {shard, opts} = it) do
    child = %{
      id: shard,
      start: {__MODULE__, :start_shard, [shard, opts]},
      type: :supervisor,
      shutdown: :infinity
    }

    case DynamicSupervisor.start_child(supervisor, child) do
      {:ok, _pid} ->
        nil

      {:error, {:shutdown, {:failed_to_start_child, _child, {:already_started, owner} = reason}}} ->
        if ends?(owner, opts), do: failure(supervisor, it), else: reason

      {:error, {:shutdown, {:failed_to_start_child, _child, reason}}} ->
        reason

      {:error, reason} ->
        reason
    end
  end

  # Where the supervisor of the shards was killed, their owners before may still drain.
  defp ends?(owner, opts) do
    monitor = Process.monitor(owner)

    receive do
      {:DOWN, ^monitor, :process, _owner, _reason} -> true
    after
      Start.shutdown_ms(opts) ->
        Process.demonitor(monitor, [:flush])
        false
    end
  end

  # A supervisor for each shard, so that what befalls one is not counted for the others.
  @doc false
  def start_shard(shard, opts) do
    children = [{Batcher, {shard, opts}}]
    Supervisor.start_link(children, strategy: :one_for_one, max_restarts: @restarts_of_shard)
  end
end
