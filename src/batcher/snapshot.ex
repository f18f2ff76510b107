defmodule Ferricstore.Raft.WARaftBackend.Batcher.Snapshot do
  @moduledoc false
  # The live state of a shard in the types of contract 15.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @spec take(integer) :: Batcher.snapshot() | nil
  def take(shard) do
    case Native.lanes(shard) do
      :not_running -> nil
      lanes -> Enum.reduce(lanes, empty(), &add/2)
    end
  end

  defp empty,
    do: %{slots: %{}, batch_slot: nil, put_slot: nil, delete_slot: nil, in_flight: %{}}

  defp add({lane, slots, committer}, snapshot) do
    snapshot =
      if committer, do: put_in(snapshot.in_flight[in_flight_key(lane)], committer), else: snapshot

    cond do
      slots == [] -> snapshot
      is_binary(lane) -> put_in(snapshot.slots[lane], slot(slots))
      true -> Map.put(snapshot, slot_key(lane), hot_slot(slots))
    end
  end

  defp slot(slots) do
    slots
    |> common()
    |> Map.merge(%{
      commands: Enum.flat_map(slots, &items/1),
      froms: Enum.flat_map(slots, &froms/1)
    })
  end

  defp hot_slot(slots) do
    groups = for slot <- slots, group <- Enum.zip(froms(slot), items(slot)), do: group
    Map.put(common(slots), :groups, groups)
  end

  # Behind a busy lane there may be several; the first opened first.
  defp common([{_items, _froms, _count, window_ms, age_us} | _] = slots) do
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
