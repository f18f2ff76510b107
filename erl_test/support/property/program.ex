defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Program do
  @moduledoc false
  # Random programs for the batcher: what several clients call, what the backend does, what goes wrong.
  #
  # A program is
  #
  #   * `patient` - whether calls wait for long; an impatient program also has a backend that is slow
  #   * `hot_ms, generic_ms, during_flush` - the application environment (contract 2)
  #   * `shards` - `{:supervised | :alone, options}` each
  #   * `behaviours` - of the backend, commit by commit; then it does as it should
  #   * `clients` - a list of steps each
  #   * `faults` - `{calls, fault}`: what goes wrong once that many calls have begun
  #
  # Invariant: a program follows from its seed, and from what the environment fixes (see `Ways`).

  alias Ferricstore.Raft.WARaftBackend.Batcher.Ways

  @prefixes ["a", "b", ""]
  @hot [:batch, :put_batch, :delete_batch]

  @doc "The program of a seed."
  def generate(seed) do
    :rand.seed(:exsss, {seed, 0, 0})
    patient = chance(75)
    shards = list(1, 2, fn -> shard(patient) end)
    width = length(shards)
    clients = list(1, 8, fn -> list(1, 16, fn -> step(pick(0..(width - 1))) end) end)

    %{
      patient: patient,
      hot_ms: pick([1, 1, 1, 1, 2, 3, 0]),
      generic_ms: pick([0, 0, 0, 1, 2, -1]),
      during_flush: chance(90),
      shards: shards,
      behaviours: if(chance(40), do: [], else: list(1, 30, fn -> behaviour(patient) end)),
      clients: clients,
      faults: if(chance(50), do: [], else: faults(shards, clients))
    }
  end

  @doc """
  Whether no write of a shard may be lost: its batcher is never stopped, and if it is killed there is
  a successor in time.
  """
  def lossless?(program, shard) do
    {mode, options} = Enum.at(program.shards, shard)
    adopted? = mode == :supervised and not Keyword.has_key?(options, :adoption_timeout)

    not stopped?(program, shard) and (adopted? or not fault?(program, :kill_owner, shard))
  end

  @doc "Whether one and the same owner serves a shard all the time."
  def steady?(program, shard),
    do: not stopped?(program, shard) and not fault?(program, :kill_owner, shard)

  @doc "Whether a program has a fault."
  def fault?(program, kind, shard),
    do: Enum.any?(program.faults, &match?({_, {^kind, ^shard}}, &1))

  @doc "What a shard of a program was started with for an option, if that is not its default."
  def option(program, shard, key) do
    {_mode, options} = Enum.at(program.shards, shard)
    options[key]
  end

  @doc "Whether a write to a lane may be committed directly in its caller (2.1, 2.3, 10.1)."
  def direct?(program, shard, lane) do
    windowless? =
      case lane do
        :batch ->
          program.generic_ms <= 0 and not program.during_flush

        prefix when is_binary(prefix) ->
          false

        _hot ->
          Enum.any?(ever(program, shard, :hot_batch_window_ms), &((&1 || program.hot_ms) <= 0))
      end

    windowless? or not lossless?(program, shard)
  end

  @doc """
  What an option of a shard may ever be in a program, `nil` being its default: what the shard is started with, and what
  its clients change (18.4).
  """
  def ever(program, shard, key) do
    changed =
      for steps <- program.clients,
          {:configure, ^shard, changes} <- steps,
          {^key, v} <- changes,
          do: v

    Enum.uniq([option(program, shard, key) | changed])
  end

  @doc "Whether a synchronous write that is alone may be committed by its caller (5.6)."
  def alone?(program, shard), do: :auto in ever(program, shard, :pacing)

  @doc "Whether one commit may take what is due of all lanes (4.4)."
  def together?(program, shard), do: :shard in ever(program, shard, :commit_scope)

  @doc "Whether each commit takes that."
  def always_together?(program, shard), do: ever(program, shard, :commit_scope) == [:shard]

  defp stopped?(program, shard) do
    fault?(program, :stop, shard) or fault?(program, :shutdown, shard) or
      Enum.any?(program.clients, &({:stop, shard} in &1))
  end

  @doc "How many calls it makes."
  def calls(program), do: program.clients |> Enum.map(&length/1) |> Enum.sum()

  defp shard(patient) do
    mode = pick([:supervised, :supervised, :supervised, :alone])

    options =
      [
        namespace_batch_max: maximum(),
        hot_batch_max: maximum(),
        max_in_flight: pick([nil, nil, 1, 2, 3]),
        hot_batch_window_ms: pick([nil, nil, nil, nil, nil, 2, 0]),
        pacing: pick([nil, nil, :window, :auto, :auto]),
        commit_scope: pick([nil, :shard]),
        overflow: pick([nil, nil, nil, :queue, :refuse]),
        max_queue_items: pick([nil, nil, nil, nil, nil, nil, 1, 4, 20]),
        # Nobody takes over a shard that stands alone, unless a fault starts a batcher.
        adoption_timeout:
          if(mode == :alone, do: pick([0, 20]), else: pick([nil, nil, nil, 0, 20])),
        drain_timeout: if(patient, do: nil, else: pick([nil, 0, 20])),
        shutdown_timeout: if(patient, do: 30_000, else: pick([nil, 0, 20]))
      ]
      |> Keyword.merge(Ways.fixed())
      |> Enum.reject(fn {_key, value} -> value == nil end)

    {mode, agreeing(options)}
  end

  # No maximum above what a shard may hold (18.3).
  defp agreeing(options) do
    most = options[:max_queue_items]
    maxima = [:namespace_batch_max, :hot_batch_max]
    Enum.reject(options, fn {key, max} -> key in maxima and is_integer(max) and max > most end)
  end

  # What is changed while the shard runs.
  defp changes do
    drawn = [
      namespace_batch_max: pick([:infinity, 0, 1, 2, 3, 5, 10]),
      hot_batch_max: pick([:infinity, 0, 1, 2, 3, 5, 10]),
      max_in_flight: pick([1, 2, 3]),
      hot_batch_window_ms: pick([1, 2, 3]),
      pacing: pick([:commit, :window, :auto]),
      commit_scope: pick([:lane, :shard]),
      overflow: pick([:queue, :refuse]),
      max_queue_items: pick([10, 20, 1_000_000])
    ]

    for {key, value} <- Keyword.drop(drawn, Keyword.keys(Ways.fixed())),
        chance(35),
        do: {key, value}
  end

  defp maximum, do: pick([nil, nil, nil, :infinity, 0, 1, 2, 3, 5, 10])

  defp behaviour(patient) do
    misbehaviours = ~w(error other improper long short mixed exit raise throw die)a

    cond do
      chance(60) -> :ok
      chance(30) -> {:slow, pick(1..3)}
      not patient and chance(20) -> {:slow, pick(30..60)}
      true -> pick(misbehaviours)
    end
  end

  defp step(shard) do
    case :rand.uniform(100) do
      n when n <= 22 ->
        {:write, shard, pick(@prefixes), shape(), window()}

      n when n <= 36 ->
        {:batch, shard, shapes()}

      n when n <= 48 ->
        {:put, shard, count()}

      n when n <= 57 ->
        {:delete, shard, count()}

      n when n <= 68 ->
        {:put_async, shard, count(), from(), chance(50)}

      n when n <= 72 ->
        {:delete_async, shard, count(), from(), chance(50)}

      n when n <= 76 ->
        {:batch_async, shard, pick(0..4), from(), chance(50)}

      n when n <= 83 ->
        {:raw, shard, pick(@prefixes ++ @hot), pick(0..3), pick(-1..3)}

      n when n <= 88 ->
        {:raw_cast, shard, pick(@hot), pick(0..3), pick(0..3), chance(50)}

      n when n <= 91 ->
        {:flush, shard}

      n when n <= 93 ->
        {:configure, shard, changes()}

      n when n <= 94 ->
        {:raw_flush, shard}

      n when n <= 96 ->
        {:snapshot, shard}

      n when n <= 97 ->
        {:start_again, shard}

      n when n <= 99 ->
        {:junk, shard, pick(0..6)}

      _ ->
        if(chance(50), do: {:stop, shard}, else: {:improper, shard, pick(@hot)})
    end
  end

  defp window, do: pick([1, 1, 1, 1, 2, 3, 6])

  defp from,
    do: pick([:plain, :plain, :alias, :process, :process, :call_given_up, :given_up, :bad])

  defp shapes, do: list(0, 4, &shape/0)

  # Mostly a few; sometimes so many that other paths are taken for long lists.
  defp count do
    cond do
      chance(1) -> pick([1_001, 2_100])
      chance(10) -> 0
      true -> pick(1..6)
    end
  end

  defp shape do
    case :rand.uniform(100) do
      n when n <= 45 -> :plain
      n when n <= 60 -> :put
      n when n <= 70 -> :delete
      n when n <= 78 -> {:puts, pick(0..3)}
      n when n <= 86 -> {:deletes, pick(0..3)}
      n when n <= 94 -> {:nested, list(0, 3, &flat_shape/0)}
      n when n <= 98 -> :odd
      _ -> :improper
    end
  end

  defp flat_shape, do: pick([:plain, :put, {:puts, 2}, {:deletes, 1}, {:nested, [:plain]}])

  defp faults(shards, clients) do
    total = clients |> Enum.map(&length/1) |> Enum.sum()

    list(1, 4, fn ->
      shard = pick(0..(length(shards) - 1))
      {mode, _options} = Enum.at(shards, shard)
      {pick(1..total), fault(mode, shard, length(clients))}
    end)
    |> Enum.sort()
  end

  defp fault(mode, shard, clients) do
    others = if mode == :supervised, do: [:shutdown], else: [:start, :start]

    case pick([
           :kill_committer,
           :kill_committer,
           :kill_owner,
           :kill_owner,
           :kill_client,
           :stop | others
         ]) do
      :kill_client -> {:kill_client, pick(0..(clients - 1))}
      fault -> {fault, shard}
    end
  end

  defp chance(percent), do: :rand.uniform(100) <= percent
  defp pick(%Range{first: first, last: last}), do: first - 1 + :rand.uniform(last - first + 1)
  defp pick(list), do: Enum.at(list, :rand.uniform(length(list)) - 1)
  defp list(min, max, make), do: for(_ <- 1..pick(min..max)//1, do: make.())
end
