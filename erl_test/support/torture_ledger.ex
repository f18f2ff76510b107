defmodule Ferricstore.Raft.WARaftBackend.Batcher.Torture.Ledger do
  @moduledoc false
  # What each caller of the torture test was told, in a file of its own, and what of it the shard must hold.
  #
  # Invariant: a caller writes down an outcome before it begins its next operation. The operating system keeps
  # what was written when the node is killed, so at most one operation of each caller is in doubt: the next one.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra
  alias Ferricstore.Raft.WARaftBackend.Batcher.Torture.Workload

  @shard 0
  @examples 5
  @kinds [:lost, :doubled, :phantom, :wrong, :stray, :odd]

  @typedoc "The outcomes of a caller in order, and whether it ended as it was told to."
  @type account :: {Workload.id(), [Workload.outcome()], stopped? :: boolean}

  @typedoc """
  `writes` were acknowledged, `errors` are the others, by kind; of those whose outcome is unknown so many came
  about (where that can be told). Violations: `lost`, acknowledged and not there; `doubled`, run more than once;
  `phantom`, there, though certainly not committed; `wrong`, another value; `stray`, written by nobody; `odd`, an
  answer that must not be given. `open` are the lives of nodes in which a caller did not end as it was told to.
  """
  @type report :: %{
          writes: non_neg_integer,
          came_about: {non_neg_integer, :of, non_neg_integer},
          errors: %{String.t() => pos_integer},
          open: [{site :: atom, life :: pos_integer}],
          violations: %{atom => pos_integer},
          examples: [term]
        }

  @doc "The kinds of violations."
  @spec kinds() :: [atom]
  def kinds, do: @kinds

  ## Written by the callers

  @spec open(Path.t(), Workload.id()) :: :file.fd()
  def open(dir, {site, life, caller}) do
    {:ok, file} = :file.open(Path.join(dir, "#{site}.#{life}.#{caller}"), [:raw, :append])
    file
  end

  @spec append(:file.fd(), Workload.outcome() | :stopped) :: :ok
  def append(file, outcome) do
    record = :erlang.term_to_binary(outcome)
    :ok = :file.write(file, [<<byte_size(record)::32>>, record])
  end

  ## Read by the test

  @doc """
  Compares what the callers were told with what the shard holds, on the node that this is called on.
  While callers are at work (`:running`) only what they had noted before the shard was read is judged.
  """
  @spec audit(Path.t(), :running | :ended) :: report
  def audit(dir, phase) do
    accounts = read(dir)
    {:ok, data} = Ra.fetch_all(@shard)
    compare(accounts, data, phase)
  end

  @doc "All accounts in a directory."
  @spec read(Path.t()) :: [account]
  def read(dir) do
    for name <- File.ls!(dir) do
      [site, life, caller] = String.split(name, ".")
      id = {String.to_atom(site), String.to_integer(life), String.to_integer(caller)}
      records = dir |> Path.join(name) |> File.read!() |> records([])

      case records do
        [:stopped | outcomes] -> {id, Enum.reverse(outcomes), true}
        outcomes -> {id, Enum.reverse(outcomes), false}
      end
    end
  end

  defp records(<<size::32, record::binary-size(size), rest::binary>>, read),
    do: records(rest, [:erlang.binary_to_term(record) | read])

  # Possibly part of a record: then that operation is the one in doubt.
  defp records(_rest, read), do: read

  @doc "Compares accounts with the keys and values of the shard, as `Ra.fetch_all/1` gives them."
  @spec compare([account], %{binary => {binary, integer}}, :running | :ended) :: report
  def compare(accounts, data, phase) do
    expected = Enum.reduce(accounts, %{}, &expect/2)
    known = Enum.flat_map(expected, fn {key, range} -> violation(key, range, data, phase) end)
    # Meanwhile callers have gone on writing.
    strays = for {key, _} <- data, phase == :ended, not is_map_key(expected, key), do: key
    outcomes = Enum.flat_map(accounts, fn {_id, outcomes, _stopped?} -> outcomes end)
    odd = for {:odd, _what} = odd <- outcomes, do: odd
    violations = known ++ odd ++ for(key <- strays, do: {:stray, key})

    %{
      writes: Enum.count(outcomes, &(&1 == :acked)),
      errors: Enum.frequencies(for {c, kind} <- outcomes, c != :odd, do: "#{c}: #{kind}"),
      came_about: came_about(accounts, data),
      open: for({{site, life, _}, _, false} <- accounts, uniq: true, do: {site, life}),
      violations: Enum.frequencies_by(violations, &elem(&1, 0)),
      examples: examples(violations)
    }
  end

  defp came_about(accounts, data) do
    there? =
      for account <- accounts,
          {effects, :unknown} <- effects(account),
          # The last one: a put that is deleted by the next operation comes first.
          {kind, key} = List.last(effects),
          kind in [:mark, :put],
          do: is_map_key(data, key)

    {Enum.count(there?, & &1), :of, length(there?)}
  end

  defp examples(violations) do
    violations
    |> Enum.group_by(&elem(&1, 0))
    |> Enum.flat_map(fn {_kind, same} -> Enum.take(same, @examples) end)
  end

  # For each key how often it was incremented, at least and at most; a value is there (1) or not (0).
  defp expect(account, expected) do
    for {effects, class} <- effects(account), effect <- effects, reduce: expected do
      expected -> note(effect, class, expected)
    end
  end

  # What each operation of an account was to do, and whether it did.
  defp effects({id, outcomes, stopped?}) do
    doubt = if stopped?, do: [], else: [{:unknown, "node killed"}]

    (outcomes ++ doubt)
    |> Enum.with_index()
    |> Enum.map(fn {outcome, seq} -> {elem(Workload.operation(id, seq), 1), class(outcome)} end)
  end

  defp class(:acked), do: :acked
  defp class({:not_committed, _}), do: :not_committed
  # An odd answer proves nothing of what was done.
  defp class({_unknown_or_odd, _}), do: :unknown

  defp note({:delete, key}, class, expected) do
    Map.update!(expected, key, fn {kind, least, most} ->
      case class do
        # A put whose outcome is unknown may still be committed after a delete that was acknowledged.
        :acked when least == 1 -> {:deleted, 0, 0}
        :unknown -> {kind, 0, most}
        _ -> {kind, least, most}
      end
    end)
  end

  defp note({kind, key}, class, expected) do
    {_, least, most} = Map.get(expected, key, {kind, 0, 0})

    case class do
      :acked -> Map.put(expected, key, {kind, least + 1, most + 1})
      :unknown -> Map.put(expected, key, {kind, least, most + 1})
      :not_committed -> Map.put(expected, key, {kind, least, most})
    end
  end

  defp violation(key, {kind, least, most}, data, phase) do
    case {kind, Map.get(data, key)} do
      {:deleted, nil} -> []
      {:deleted, _value} -> [{:lost, key, :delete}]
      {:put, nil} when least > 0 -> [{:lost, key, :put}]
      {:put, nil} -> []
      {:put, _value} when most == 0 -> [{:phantom, key, :put}]
      {:put, {value, 0}} -> if value == Workload.value(key), do: [], else: [{:wrong, key, value}]
      {:put, value} -> [{:wrong, key, value}]
      {_counter, nil} -> count(key, kind, 0, least, most, phase)
      {_counter, {text, 0}} -> count(key, kind, String.to_integer(text), least, most, phase)
    end
  end

  defp count(key, _kind, count, least, _most, _phase) when count < least,
    do: [{:lost, key, {count, :of, least}}]

  # Meanwhile callers have gone on incrementing.
  defp count(_key, :count, _count, _least, _most, :running), do: []

  # A mark is nobody else's.
  defp count(key, _kind, count, _least, 0, _phase) when count > 0,
    do: [{:phantom, key, count}]

  defp count(key, _kind, count, least, most, _phase) when count > most,
    do: [{:doubled, key, {count, :where, least..most}}]

  defp count(_key, _kind, _count, _least, _most, _phase), do: []
end
