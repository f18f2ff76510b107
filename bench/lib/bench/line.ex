defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Line do
  @moduledoc false
  # One figure or a few that belong together, as a line for machines: `kind key=value key=value ...`.
  # One invariant: values hold no blanks, so that a line splits at its blanks and each part at its first `=`.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Statistics

  @enforce_keys [:kind, :params, :values]
  defstruct @enforce_keys

  @typedoc "`params`: what was measured, `values`: what came out, both in order; a value of `nil` is left out."
  @type t :: %__MODULE__{kind: atom, params: keyword, values: keyword}

  @spec new(atom, keyword, keyword) :: t
  def new(kind, params, values),
    do: %__MODULE__{
      kind: kind,
      params: params,
      values: for({k, v} <- values, v != nil, do: {k, v})
    }

  @doc """
  A line of medians, one for each peer of `figures`, and the ratios of the first peer to all others.
  """
  @spec compare(atom, keyword, [{atom, [number]}]) :: t
  def compare(kind, params, [{first, own} | others] = figures) do
    medians = for {peer, numbers} <- figures, do: {peer, Statistics.median(numbers)}

    ratios = for {peer, numbers} <- others, do: {:"ratio_#{peer}", Statistics.ratio(own, numbers)}

    new(kind, params, medians ++ ratios ++ [{:"spread_#{first}", Statistics.spread(own)}])
  end

  @spec to_string(t) :: String.t()
  def to_string(line) do
    parts = for {key, value} <- line.params ++ line.values, do: "#{key}=#{format(value)}"
    Enum.join([line.kind | parts], " ")
  end

  @doc "The first line of that kind with these params, among others."
  @spec find([t], atom, keyword) :: t | nil
  def find(lines, kind, params),
    do: Enum.find(lines, &(&1.kind == kind and params -- &1.params == []))

  defp format(value) when is_float(value) and abs(value) >= 1_000,
    do: Integer.to_string(round(value))

  defp format(value) when is_float(value),
    do: :erlang.float_to_binary(value, decimals: if(abs(value) >= 10, do: 1, else: 3))

  defp format(value), do: value |> Kernel.to_string() |> String.replace(~r/\s+/, "_")
end
