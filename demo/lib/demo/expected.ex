defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Expected do
  @moduledoc false
  # Compares what a shard holds with a file that says what all shards together should hold.
  # One invariant: the file is read line by line, and each line is judged by the one shard that its key belongs to.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.ReadBack

  @examples 5

  @type t :: %{equal: non_neg_integer(), wrong: non_neg_integer(), examples: [String.t()]}

  @spec none() :: t()
  def none, do: %{equal: 0, wrong: 0, examples: []}

  @spec merge(t(), t()) :: t()
  def merge(one, other) do
    examples = Enum.take(one.examples ++ other.examples, @examples)
    %{equal: one.equal + other.equal, wrong: one.wrong + other.wrong, examples: examples}
  end

  @doc "`mine?` tells whether a key belongs to the shard that holds `stored`."
  @spec compare(Path.t(), ReadBack.stored(), (binary() -> boolean())) :: t()
  def compare(path, stored, mine?) do
    {result, present} =
      path
      |> File.stream!()
      |> Stream.with_index(1)
      |> Enum.reduce({none(), 0}, fn {line, number}, {result, present} = seen ->
        case parse(line) do
          {:ok, key, value, expires?} ->
            if mine?.(key),
              do: judge(result, present, key, {value, expires?}, Map.get(stored, key)),
              else: seen

          # It belongs to no shard; taking it for a key makes just one of them count it.
          :error ->
            if mine?.(line), do: {wrong(result, 1, malformed(number)), present}, else: seen
        end
      end)

    case map_size(stored) - present do
      0 -> result
      more -> wrong(result, more, "#{more} keys are stored that the file does not have")
    end
  end

  defp parse(line) do
    with [key, value, flag] when flag in ["0", "1"] <-
           line |> String.trim_trailing() |> String.split("\t"),
         {:ok, key} <- Base.decode64(key),
         {:ok, value} <- Base.decode64(value) do
      {:ok, key, value, flag == "1"}
    else
      _bad -> :error
    end
  end

  defp malformed(number),
    do: "line #{number} is not a key, a value in Base64 and 0 or 1, set apart by tabs"

  defp judge(result, present, key, _expected, nil),
    do: {wrong(result, 1, "#{show(key)} is missing"), present}

  defp judge(result, present, key, {value, expires?}, {stored, expire_at_ms}) do
    cond do
      value != stored ->
        {wrong(result, 1, "#{show(key)} has another value"), present + 1}

      expires? != (expire_at_ms != 0) ->
        {wrong(result, 1, "#{show(key)} has expiry #{expire_at_ms}"), present + 1}

      true ->
        {%{result | equal: result.equal + 1}, present + 1}
    end
  end

  defp wrong(result, count, example),
    do: merge(%{result | wrong: result.wrong + count}, %{none() | examples: [example]})

  defp show(key), do: inspect(key, binaries: :as_strings, printable_limit: 60)
end
