defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Shrink do
  @moduledoc false
  # Makes a failing program smaller.
  #
  # Invariant: what it answers has failed when it was last run, in the same way (kind of violation) as the
  # program that it began with. A race fails now and then only, so a candidate is run several times.

  @doc """
  The smallest failing program found until `deadline` (monotonic ms). `fails` runs one: nil, or the
  violations.
  """
  def shrink(program, violations, fails, deadline) do
    smaller =
      Enum.find_value(candidates(program), fn candidate ->
        if System.monotonic_time(:millisecond) < deadline, do: failing(candidate, fails)
      end)

    case smaller do
      nil -> {program, violations}
      {candidate, violations} -> shrink(candidate, violations, fails, deadline)
    end
  end

  defp failing(candidate, fails) do
    case fails.(candidate) do
      nil -> nil
      violations -> {candidate, violations}
    end
  end

  # The largest cuts first.
  defp candidates(program) do
    Stream.concat([
      for(clients <- without(program.clients), clients != [], do: %{program | clients: clients}),
      for(faults <- without(program.faults), do: %{program | faults: faults}),
      for(behaviours <- without(program.behaviours), do: %{program | behaviours: behaviours}),
      replaced(program, :clients, &for(steps <- without(&1), steps != [], do: steps)),
      [%{program | shards: Enum.drop(program.shards, -1)}],
      replaced(program, :behaviours, &if(&1 == :ok, do: [], else: [:ok])),
      replaced(program, :shards, fn {mode, options} ->
        for o <- without(options), do: {mode, o}
      end),
      plain(program),
      replaced(program, :clients, &replaced_in(&1, fn step -> simpler(step) end))
    ])
    |> Stream.filter(&(&1 != program and valid?(&1)))
  end

  # Without a half, without a quarter, ..., without one.
  defp without([]), do: []

  defp without(list) do
    length = length(list)

    length
    |> Stream.iterate(&div(&1, 2))
    |> Enum.take_while(&(&1 > 0))
    |> Enum.flat_map(fn size ->
      for from <- 0..(length - 1)//size, do: Enum.take(list, from) ++ Enum.drop(list, from + size)
    end)
  end

  defp replaced(program, key, simpler),
    do:
      for(list <- replaced_in(Map.fetch!(program, key), simpler), do: Map.put(program, key, list))

  defp replaced_in(list, simpler) do
    for {element, index} <- Enum.with_index(list),
        other <- simpler.(element),
        do: List.replace_at(list, index, other)
  end

  defp plain(program) do
    for {key, value} <- [hot_ms: 1, generic_ms: 0, during_flush: true, patient: true],
        Map.fetch!(program, key) != value,
        do: Map.put(program, key, value)
  end

  defp simpler({:write, shard, prefix, shape, ms}) do
    for {shape, ms} <- [{:plain, 1}, {:plain, ms}, {shape, 1}],
        do: {:write, shard, prefix, shape, ms}
  end

  defp simpler({:batch, shard, shapes}),
    do: for(shapes <- [[:plain] | without(shapes)], do: {:batch, shard, shapes})

  defp simpler({kind, shard, n}) when kind in [:put, :delete] and n > 1,
    do: for(n <- [1, div(n, 2)], do: {kind, shard, n})

  defp simpler({kind, shard, n, from, token?}) when kind in [:put_async, :delete_async] do
    for {n, from, token?} <- [{1, from, token?}, {n, :plain, token?}, {n, from, false}],
        do: {kind, shard, n, from, token?}
  end

  defp simpler({:configure, shard, changes}),
    do: for(changes <- without(changes), do: {:configure, shard, changes})

  defp simpler(_step), do: []

  # Every step and every fault must meet its shard or client.
  defp valid?(%{clients: clients, shards: shards, faults: faults}) do
    shards != [] and
      Enum.all?(clients, fn steps -> Enum.all?(steps, &(elem(&1, 1) < length(shards))) end) and
      Enum.all?(faults, fn
        {_at, {:kill_client, client}} -> client < length(clients)
        {_at, {_fault, shard}} -> shard < length(shards)
      end)
  end
end
