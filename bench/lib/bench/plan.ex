defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Plan do
  @moduledoc false
  # How long a run will take, part by part, for those who wait for it.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Suite

  # What each part takes beside its samples: a backend that starts and stops.
  @around_seconds 0.5

  @doc "A line for each part, the last one for all of them, in minutes."
  @spec table([Suite.spec()]) :: String.t()
  def table(specs) do
    parts = for spec <- specs, do: {"#{spec.kind} on #{spec.backend}", seconds(spec)}
    whole = parts |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    Enum.map_join(parts ++ [{"all of it, about", whole}], "\n", &line/1)
  end

  defp seconds(spec), do: spec.module.seconds(spec) + @around_seconds

  defp line({part, seconds}) do
    minutes = :erlang.float_to_binary(seconds / 60, decimals: 1)
    "  " <> String.pad_trailing(part, 24) <> String.pad_leading(minutes, 5) <> " min"
  end
end
