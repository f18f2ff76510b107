defmodule Ferricstore.Raft.WARaftBackend.Batcher.Snapshot do
  @moduledoc false
  # The live state of a shard in the types of contract 15.
  #
  # Invariant: a look changes nothing, and what is not queued or in flight is not in it.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.{Budgets, Native}

  @doc "What a shard holds that does not run."
  @spec empty() :: Batcher.snapshot()
  def empty,
    do: %{slots: %{}, batch_slot: nil, put_slot: nil, delete_slot: nil, in_flight: %{}}

  @doc """
  What `:sys` may show of a snapshot: how many lanes with something queued, items,
  callers and lanes in flight are in it, and no payload.
  """
  @spec counts(Batcher.snapshot()) :: %{atom => non_neg_integer}
  def counts(snapshot) do
    hot = Enum.reject([snapshot.batch_slot, snapshot.put_slot, snapshot.delete_slot], &is_nil/1)
    slots = Map.values(snapshot.slots)

    %{
      lanes: length(slots) + length(hot),
      queued: Enum.sum(Enum.map(slots ++ hot, & &1.count)),
      callers: Enum.sum(Enum.map(slots, &length(&1.froms)) ++ Enum.map(hot, &length(&1.groups))),
      in_flight: map_size(snapshot.in_flight)
    }
  end

  @doc "The live state of a shard; `nil` if the shard does not run."
  @spec take(integer) :: Batcher.snapshot() | nil
  def take(shard) do
    case Native.lanes(shard) do
      :not_running -> nil
      lanes -> Enum.reduce(lanes, empty(), &add(&1, &2, Budgets.measured?(shard)))
    end
  end

  defp add({lane, slots, committer}, snapshot, measured?) do
    snapshot =
      if committer, do: put_in(snapshot.in_flight[in_flight_key(lane)], committer), else: snapshot

    cond do
      slots == [] -> snapshot
      is_binary(lane) -> put_in(snapshot.slots[lane], slot(slots, measured?))
      true -> Map.put(snapshot, slot_key(lane), hot_slot(slots, measured?))
    end
  end

  defp slot(slots, measured?) do
    slots
    |> common(measured?)
    |> Map.merge(%{
      commands: Enum.flat_map(slots, &items/1),
      froms: Enum.flat_map(slots, &froms/1)
    })
  end

  defp hot_slot(slots, measured?) do
    groups = for slot <- slots, group <- Enum.zip(froms(slot), items(slot)), do: group
    Map.put(common(slots, measured?), :groups, groups)
  end

  # Behind a busy lane there may be several slots; the one that was opened first is the first.
  defp common(slots, true) do
    usages = Enum.map(slots, &elem(&1, 5))

    [command, compound, visits] =
      for part <- 0..2, do: Enum.sum(Enum.map(usages, &elem(&1, part)))

    work = %{command_work: command, compound_work: compound, visit_work: visits}
    Map.merge(common(slots, false), work)
  end

  defp common([{_items, _froms, _count, window_ms, age_us, _usage} | _] = slots, false) do
    %{
      count: slots |> Enum.map(&elem(&1, 2)) |> Enum.sum(),
      window_ms: window_ms,
      created_mono: System.monotonic_time(:microsecond) - age_us,
      timer_ref: nil,
      timer_token: nil
    }
  end

  defp items(slot), do: elem(slot, 0)
  defp froms(slot), do: elem(slot, 1)

  defp in_flight_key(prefix) when is_binary(prefix), do: {:prefix, prefix}
  defp in_flight_key(hot), do: hot

  defp slot_key(:batch), do: :batch_slot
  defp slot_key(:put_batch), do: :put_slot
  defp slot_key(:delete_batch), do: :delete_slot
end
