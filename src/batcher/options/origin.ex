defmodule Ferricstore.Raft.WARaftBackend.Batcher.Options.Origin do
  @moduledoc false
  # What holds for a shard, and where it comes from: for `Batcher.options/1`.
  #
  # Invariant: what it says is what a write meets that comes now.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Budgets, Options, Settings}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Options.Schema

  @host :ferricstore
  @during_flush :waraft_generic_batch_during_flush

  @doc "All options of a shard."
  @spec all(integer) :: %{atom => {value :: term, Schema.source()}}
  def all(shard) do
    given = Settings.given(Settings.of(shard))
    for {key, spec} <- Schema.table(), into: %{}, do: {key, one(key, spec, given, shard)}
  end

  defp one(key, spec, given, shard) do
    with :error <- Map.fetch(given, key),
         :error <- from_host(key, spec[:host]) do
      {default(key, spec, given, shard), :default}
    else
      {:ok, {value, source}} -> {value, source}
      {:host, value} -> {value, :ferricstore}
    end
  end

  # What depends on others.
  defp default(:max_in_flight, _spec, given, _shard), do: Options.max_in_flight(given)

  defp default(:overflow, _spec, _given, shard),
    do: if(Budgets.measured?(shard), do: :refuse, else: :queue)

  defp default(_key, spec, _given, _shard), do: spec[:default]

  defp from_host(_key, nil), do: :error

  # Two keys of the host's are one option here.
  defp from_host(:generic_batch_window_ms, key) do
    case {Application.fetch_env(@host, key), Application.fetch_env(@host, @during_flush)} do
      {{:ok, window_ms}, _} when not is_integer(window_ms) or window_ms > 0 -> {:host, window_ms}
      {_, {:ok, during_flush}} when during_flush != true -> {:host, :direct}
      {:error, :error} -> :error
      {_, _} -> {:host, 0}
    end
  end

  defp from_host(_key, key),
    do: with({:ok, value} <- Application.fetch_env(@host, key), do: {:host, value})
end
