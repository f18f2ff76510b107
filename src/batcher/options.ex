defmodule Ferricstore.Raft.WARaftBackend.Batcher.Options do
  @moduledoc false
  # The options of a shard: put together from where they come from, checked, changed, and told to the library.
  #
  # They come from the options that the shard is started with, then from the environment of `:ferricstore_batcher`, as
  # it is at the start, then from that of `:ferricstore`, which is read at each call (contract 2, `Settings`), then from
  # the schema.
  #
  # Invariant: what `check/1` and `change/2` let through, the library takes: no other place looks at a value again.

  require Logger

  alias Ferricstore.Raft.WARaftBackend.Batcher.Budgets
  alias Ferricstore.Raft.WARaftBackend.Batcher.Options.{Schema, Type}

  @app :ferricstore_batcher
  @no_limit 0xFFFF_FFFF_FFFF_FFFF
  @max_in_flight %{lane: 256, shard: 1}
  # As similar as two names are if one of them is a slip of the pen: a letter too many, too few, or in the wrong place.
  @near 0.93

  @typedoc "What was given, by key, and where: what was not is left out."
  @type t :: %{atom => {value :: term, Schema.source()}}
  @typedoc """
  What is wrong with an option: its key and its value; of two that don't go together a pair of each.
  """
  @type invalid :: {:invalid_option, key :: term | {atom, atom}, value :: term | {term, term}}

  @doc """
  Options that a shard is started with, and what the environment of `:ferricstore_batcher` says beside them. Unknown
  ones are left out, unless they are `strict`.
  """
  @spec check(list) :: {:ok, t} | {:error, invalid}
  def check(opts) do
    given = Map.merge(take(Application.get_all_env(@app), @app), take(opts, :option))

    with :ok <- valid(given),
         :ok <- if(get(given, :strict), do: known(opts), else: :ok),
         :ok <- agreeing(given),
         do: {:ok, given}
  end

  @doc "The same with what is to be changed while a batcher runs: all of it, or nothing."
  @spec change(t, list) :: {:ok, t} | {:error, invalid}
  def change(given, changes) do
    changed = take(changes, :configured)
    options = Map.merge(given, changed)

    with :ok <- known(changes),
         :ok <- valid(changed),
         :ok <- changeable(changed),
         :ok <- agreeing(options),
         do: {:ok, options}
  end

  @doc "What was changed while a batcher ran."
  @spec configured(t) :: t
  def configured(given), do: Map.filter(given, &match?({_key, {_value, :configured}}, &1))

  @doc "The value of an option: what was given, or its default."
  @spec get(t, atom) :: term
  def get(given, key) do
    case given do
      %{^key => {value, _source}} -> value
      _ -> Schema.fetch(key)[:default]
    end
  end

  @doc "The same, but for the value that has been given; `nil` if none has."
  @spec given(t, atom) :: term | nil
  def given(given, key), do: with({value, _source} <- given[key], do: value)

  @doc "Options as the library wants them, with the budgets of `Budgets.open/2`: see `Native.open/2`."
  @spec native(t, Budgets.usage() | nil) :: tuple
  def native(options, budgets) do
    overflow = get(options, :overflow) || if(budgets, do: :refuse, else: :queue)

    {
      {limit(get(options, :namespace_batch_max)), limit(get(options, :hot_batch_max)),
       min(max_in_flight(options), @no_limit)},
      {get(options, :pacing), get(options, :commit_scope), overflow},
      {min(get(options, :max_queue_items), @no_limit),
       min(get(options, :max_queue_bytes), @no_limit)},
      get(options, :adoption_timeout),
      budgets
    }
  end

  @doc "Most commits in flight: what was given, or what fits the scope of commits."
  @spec max_in_flight(t) :: pos_integer
  def max_in_flight(options),
    do: get(options, :max_in_flight) || @max_in_flight[get(options, :commit_scope)]

  @doc """
  Says in the log, once for each key, that an unknown option, or a key of the environment, looks like a known one.
  """
  @spec warn_of_slips(list) :: :ok
  def warn_of_slips(opts) do
    for {key, _value} <- opts, name = near(key), Schema.fetch(key) == nil, do: warn(key, name)

    for {key, _value} <- Application.get_all_env(@app),
        not Schema.environment_key?(key),
        name = near(key),
        do: warn(key, name)

    :ok
  end

  @doc """
  The option or key of the environment with nearly this name; of two that are as near, the one that begins alike for
  longer.
  """
  @spec near(term) :: atom | nil
  def near(key) when is_atom(key) do
    {similarity, _alike, name} = Schema.names() |> Enum.map(&similarity(&1, key)) |> Enum.max()
    if similarity >= @near, do: name
  end

  def near(_no_key), do: nil

  defp similarity(name, key) do
    texts = [known, given] = Enum.map([name, key], &Atom.to_string/1)
    {String.jaro_distance(known, given), :binary.longest_common_prefix(texts), name}
  end

  defp warn(key, name) do
    told = {__MODULE__, :told, key}

    unless :persistent_term.get(told, false) do
      :persistent_term.put(told, true)
      Logger.warning("batcher: #{inspect(key)} is no option and was ignored: #{meant(key, name)}")
    end
  end

  # Of the known options the first of each key: a host's list may hold whatever else it likes.
  defp take(opts, source) do
    for {key, value} <- Enum.reverse(opts), key in Schema.keys(), into: %{} do
      {key, {value, source}}
    end
  end

  # In the order of the schema, so that the same mistake is always told in the same way.
  defp valid(given) do
    first_error(Schema.table(), fn {key, spec} ->
      case given do
        %{^key => {value, _source}} -> if not Type.valid?(spec[:type], value), do: {key, value}
        _ -> nil
      end
    end)
  end

  defp known(opts) do
    first_error(opts, fn
      {key, value} -> if Schema.fetch(key) == nil, do: {key, value}
      no_option -> {no_option, nil}
    end)
  end

  defp changeable(changed) do
    first_error(changed, fn {key, {value, _source}} ->
      if Schema.fetch(key)[:fixed], do: {key, value}
    end)
  end

  # Only what was given: a default never stands in the way of another option.
  defp agreeing(given) do
    first_error(conflicts(), fn {key, than, _why} ->
      {value, other} = {given(given, key), given(given, than)}

      if is_integer(value) and is_integer(other) and value > other,
        do: {{key, than}, {value, other}}
    end)
  end

  # `{key, other, why}`: the first may not be above the other.
  defp conflicts do
    [
      {:hot_batch_max, :max_queue_items, "no batch could ever be so large"},
      {:namespace_batch_max, :max_queue_items, "no batch could ever be so large"},
      {:hot_batch_window_ms, :call_timeout, "its callers would wait for longer than that"},
      {:generic_batch_window_ms, :call_timeout, "its callers would wait for longer than that"}
    ]
  end

  defp first_error(list, check) do
    case Enum.find_value(list, check) do
      nil -> :ok
      {key, value} -> {:error, {:invalid_option, key, value}}
    end
  end

  @doc "What is wrong with an option, for people."
  @spec message(invalid) :: String.t()
  def message({:invalid_option, :shard, shard}),
    do: "the index of a shard must be at most #{@no_limit}, got: #{inspect(shard)}"

  # Of `Batcher.Supervisor`.
  def message({:invalid_option, :shards, shards}) do
    "option :shards must be a number of shards, or a list of indexes and of {index, options}, each index once, got: " <>
      inspect(shards, limit: 20, printable_limit: 200)
  end

  def message({:invalid_option, :ra, ra}) do
    "option :ra must be a keyword list, the options of Batcher.Backend.Ra.start/1, got: " <>
      inspect(ra, limit: 20, printable_limit: 200)
  end

  def message({:invalid_option, :max_total_queue_bytes, bytes})
      when bytes not in [nil, :infinity] and not (is_integer(bytes) and bytes > 0) do
    ":max_total_queue_bytes in the environment of #{inspect(@app)} must be a positive integer, :infinity or nil, got: " <>
      inspect(bytes)
  end

  def message({:invalid_option, {key, other}, {value, limit}}) do
    why = Enum.find_value(conflicts(), "", fn {k, o, why} -> {k, o} == {key, other} && why end)

    "option #{inspect(key)}, which is #{inspect(value)}, must be at most #{inspect(other)}, which is " <>
      "#{inspect(limit)}: #{why}"
  end

  def message({:invalid_option, key, value}) do
    case Schema.fetch(key) do
      nil ->
        "unknown option #{inspect(key)}" <>
          if(name = near(key), do: ": #{meant(key, name)}", else: "")

      spec ->
        if spec[:fixed] && Type.valid?(spec[:type], value),
          do: "option #{inspect(key)} can't be changed while a batcher runs: #{spec[:fixed]}",
          else:
            "option #{inspect(key)} must be #{Type.describe(spec[:type])}, got: " <>
              inspect(value, limit: 20, printable_limit: 200)
    end
  end

  # What is one of the environment alone, and stands elsewhere or is misspelt.
  defp meant(key, key), do: "it belongs into the environment of #{inspect(@app)}"

  defp meant(_key, name) do
    where = if Schema.fetch(name), do: "", else: ", in the environment of #{inspect(@app)}"
    "did you mean #{inspect(name)}#{where}?"
  end

  defp limit(limit) when limit in [nil, :infinity], do: nil
  defp limit(limit), do: min(limit, @no_limit)
end
