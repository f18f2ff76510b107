defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.ReadBack do
  @moduledoc false
  # Compares what a shard holds with what its callers were told, after a load or a replay.
  # One invariant: an acknowledged write counts as read back only when the shard holds what it must have led to;
  # writes to a key of unknown content count neither as read back nor as lost.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Call, Command, Load, Plan}

  @examples 5

  @typedoc "What a key should hold, its possible contents first, then the acknowledged writes that it stands for."
  @type expectation :: {binary(), [content()], non_neg_integer()}
  @type content :: {binary(), integer()} | :absent | :unknown | {:sum, Range.t()}
  @type stored :: %{binary() => {binary(), integer()}}

  @typedoc "Writes read back and lost, keys that nobody's write explains, and a few examples in words."
  @type t :: %{
          read_back: non_neg_integer(),
          lost: non_neg_integer(),
          unexpected: non_neg_integer(),
          examples: [String.t()]
        }

  @spec none() :: t()
  def none, do: %{read_back: 0, lost: 0, unexpected: 0, examples: []}

  @spec merge(t(), t()) :: t()
  def merge(one, other) do
    %{
      read_back: one.read_back + other.read_back,
      lost: one.lost + other.lost,
      unexpected: one.unexpected + other.unexpected,
      examples: Enum.take(one.examples ++ other.examples, @examples)
    }
  end

  @doc "`expectations` must name each key once, and be all there is to say about this shard."
  @spec compare(stored(), Enumerable.t()) :: t()
  def compare(stored, expectations) do
    {result, present} =
      Enum.reduce(expectations, {none(), 0}, fn {key, contents, writes}, {result, present} ->
        found = Map.get(stored, key, :absent)
        present = if found == :absent, do: present, else: present + 1

        cond do
          contents == [:unknown] ->
            {result, present}

          Enum.any?(contents, &holds?(&1, found)) ->
            {%{result | read_back: result.read_back + writes}, present}

          true ->
            {lost(result, key, contents, found, writes), present}
        end
      end)

    %{result | unexpected: map_size(stored) - present}
  end

  @doc "What the load's callers expect of one shard, derived from the plan."
  @spec expectations(Plan.t(), [Load.trace()], non_neg_integer()) :: Enumerable.t()
  def expectations(plan, traces, shard), do: Stream.flat_map(traces, &of_caller(plan, &1, shard))

  defp of_caller(_plan, %{calls: 0}, _shard), do: []

  defp of_caller(plan, %{caller: caller, calls: calls} = trace, shard) do
    failed = MapSet.new(trace.failed)
    counter = Plan.counter(caller)

    {expectations, sums} =
      0..Plan.round(calls - 1)
      |> Stream.filter(&(Plan.shard(plan, caller, &1) == shard))
      |> Enum.flat_map_reduce([], fn round, sums ->
        effects = effects(plan, caller, Enum.filter(Plan.numbers(round), &(&1 < calls)), failed)
        {sum, effects} = Map.pop(effects, counter, [])
        {for({key, writes} <- effects, do: expectation(key, writes)), sum ++ sums}
      end)

    if sums == [], do: expectations, else: [expectation(counter, sums) | expectations]
  end

  # Key => [{command, acknowledged?}], the last one first.
  defp effects(plan, caller, numbers, failed) do
    for number <- numbers,
        command <- Call.commands(Plan.call(plan, caller, number)),
        reduce: %{} do
      effects ->
        write = {command, not MapSet.member?(failed, number)}
        Map.update(effects, Command.key(command), [write], &[write | &1])
    end
  end

  # A write that was not acknowledged may have been done, also after later ones (a call that timed out stays queued).
  defp expectation(key, [{{:incr, _, _}, _} | _] = writes) do
    sum = fn acknowledged? ->
      writes |> Enum.filter(&(elem(&1, 1) == acknowledged?)) |> Enum.map(&by/1) |> Enum.sum()
    end

    {certain, possible} = {sum.(true), sum.(false)}
    content = {:sum, certain..(certain + possible)}
    {key, if(certain == 0, do: [:absent, content], else: [content]), acknowledged(writes)}
  end

  defp expectation(key, writes) do
    certain =
      Enum.find_value(writes, :absent, fn {command, acknowledged?} ->
        acknowledged? and content(command)
      end)

    possible = for {command, false} <- writes, do: content(command)
    {key, [certain | possible], acknowledged(writes)}
  end

  defp acknowledged(writes), do: Enum.count(writes, &elem(&1, 1))

  defp by({{:incr, _key, by}, _acknowledged?}), do: by

  defp content({:put, _key, value, expire_at_ms}), do: {value, expire_at_ms}
  defp content({:delete, _key}), do: :absent

  defp holds?({:sum, range}, {value, 0}) do
    case Command.integer(value) do
      {:ok, sum} -> sum in range
      :error -> false
    end
  end

  defp holds?(content, found), do: content == found

  defp lost(result, key, contents, found, writes) do
    example =
      "#{show(key)} should be #{Enum.map_join(contents, " or ", &show/1)}, and is #{show(found)}"

    merge(%{result | lost: result.lost + max(writes, 1)}, %{none() | examples: [example]})
  end

  defp show(:absent), do: "absent"
  defp show({:sum, sum..sum//_}), do: "#{sum}"
  defp show({:sum, low..high//_}), do: "#{low} to #{high}"
  defp show({value, 0}), do: show(value)
  defp show({value, expire_at_ms}), do: "#{show(value)} with expiry #{expire_at_ms}"

  defp show(bytes) when byte_size(bytes) > 40,
    do: show(binary_part(bytes, 0, 40)) <> "... (#{byte_size(bytes)} bytes)"

  defp show(bytes), do: inspect(bytes, binaries: :as_strings)
end
