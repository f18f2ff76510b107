defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Verdict do
  @moduledoc false
  # What became of all that was acknowledged: reads the shards back and puts what is wrong into words.
  # One invariant: no words mean that every call was answered and every acknowledged write found again.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{
    Expected,
    Meter,
    Phase,
    ReadBack,
    Replay,
    Shards
  }

  @typedoc "What to print at the very end, and what went wrong."
  @type t :: {String.t() | nil, [String.t()]}

  @doc "Phases are given with a function from a shard to what it must hold."
  @spec read_back(Shards.t(), [{Phase.t(), (non_neg_integer() -> Enumerable.t())}]) :: t()
  def read_back(shards, phases) do
    acknowledged =
      phases |> Enum.map(fn {phase, _} -> Meter.acknowledged(phase.meter) end) |> Enum.sum()

    failures = Enum.flat_map(phases, fn {phase, _} -> failures(phase.meter) end)

    if Shards.readable?(shards) do
      {result, errors} =
        Enum.reduce(phases, {ReadBack.none(), []}, fn {phase, expectations}, {sum, errors} ->
          compare = &ReadBack.compare(&2, expectations.(&1))
          {result, more} = each_shard(shards, phase.meter.shards, ReadBack, compare)
          {ReadBack.merge(sum, result), errors ++ more}
        end)

      last_line =
        "#{acknowledged} writes acknowledged, #{result.read_back} read back, #{result.lost} lost"

      {last_line, failures ++ errors ++ problems(result, acknowledged)}
    else
      {"#{acknowledged} writes acknowledged; the null backend stores nothing to read back",
       failures}
    end
  end

  defp failures(meter) do
    for {reason, count} <- Meter.failures(meter),
        do: "#{meter.name}: #{count} failed: #{reason}"
  end

  defp problems(result, acknowledged) do
    unknown = acknowledged - result.read_back - result.lost

    [
      {result.lost > 0, ["#{result.lost} acknowledged writes are lost"]},
      {result.unexpected > 0, ["#{result.unexpected} keys are stored that no write explains"]},
      {unknown != 0, ["#{unknown} acknowledged writes could not be checked"]},
      {true, result.examples}
    ]
    |> Enum.flat_map(fn {applies?, lines} -> if applies?, do: lines, else: [] end)
  end

  @doc "What is not as the file has it that a replay's shards are compared with, if there is one."
  @spec compare(Shards.t(), Path.t() | nil, Range.t()) :: [String.t()]
  def compare(_shards, nil, _range), do: []

  def compare(shards, path, range) do
    mine? = fn shard -> &(Replay.shard(range, &1) == shard) end
    compare = fn shard, stored -> Expected.compare(path, stored, mine?.(shard)) end
    {result, errors} = each_shard(shards, range, Expected, compare)
    IO.puts("#{result.equal} keys are as #{path} has them, #{result.wrong} are not")
    if result.wrong > 0, do: errors ++ ["not as in #{path}:" | result.examples], else: errors
  end

  # A few shards at once: each takes the memory of all that it holds.
  defp each_shard(shards, range, results, fun) do
    range
    |> Task.async_stream(
      fn shard ->
        case Shards.stored(shards, shard) do
          {:ok, stored} -> {:ok, fun.(shard, stored)}
          {:error, reason} -> {:error, "shard #{shard} can't be read back: #{inspect(reason)}"}
        end
      end,
      timeout: :infinity,
      ordered: false
    )
    |> Enum.reduce({results.none(), []}, fn
      {:ok, {:ok, result}}, {sum, errors} -> {results.merge(sum, result), errors}
      {:ok, {:error, error}}, {sum, errors} -> {sum, [error | errors]}
    end)
  end
end
