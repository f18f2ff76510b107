defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Goals.Figures do
  @moduledoc false
  # The figures that goals are judged by, out of the lines of a run.
  # One invariant: a figure is `nil` if a line that it needs is missing.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Line

  @type measured :: number | {number, where :: String.t()} | nil
  @type figure :: ([Line.t()] -> measured)

  @doc "A value of the first line with these params."
  @spec value(atom, keyword, atom) :: figure
  def value(kind, params, name) do
    fn lines ->
      with %Line{values: values} <- Line.find(lines, kind, params), do: values[name]
    end
  end

  @doc "What one peer made in parts of what another one did, from their ratio if the line has it."
  @spec ratio(atom, keyword, atom, atom) :: figure
  def ratio(kind, params, own, other) do
    fn lines ->
      with %Line{values: values} <- Line.find(lines, kind, params) do
        cond do
          values[own] == nil or values[other] in [nil, 0, 0.0] -> nil
          values[:"spread_#{own}"] -> values[:"ratio_#{other}"]
          values[:"spread_#{other}"] -> inverse(values[:"ratio_#{own}"])
          true -> values[own] / values[other]
        end
      end
    end
  end

  defp inverse(ratio) when ratio in [nil, 0, 0.0], do: nil
  defp inverse(ratio), do: 1 / ratio

  @doc "Of figures that were all measured."
  @spec lowest([figure]) :: figure
  def lowest(figures), do: all(figures, &Enum.min/1)

  @doc "The same for the mean of ratios."
  @spec geometric_mean([figure]) :: figure
  def geometric_mean(figures) do
    all(figures, fn ratios ->
      :math.exp((ratios |> Enum.map(&:math.log/1) |> Enum.sum()) / length(ratios))
    end)
  end

  defp all(figures, function) do
    fn lines ->
      figures = for figure <- figures, do: figure.(lines)
      unless nil in figures, do: function.(figures)
    end
  end

  @doc """
  The one that is furthest from a bound, of at least so many that were measured: where that is, and how many do not keep
  to it.
  """
  @spec worst({:at_least | :at_most, number}, [{where :: String.t(), figure}], pos_integer) ::
          figure
  def worst({how, limit}, figures, at_least) do
    fn lines ->
      measured = for {where, figure} <- figures, value = figure.(lines), do: {value, where}

      if length(measured) >= at_least do
        {pick, beyond?} =
          if how == :at_least,
            do: {&Enum.min/1, &(&1 < limit)},
            else: {&Enum.max/1, &(&1 > limit)}

        {value, where} = pick.(measured)
        beyond = Enum.count(measured, fn {value, _where} -> beyond?.(value) end)
        {value, "#{where}; #{beyond} of #{length(measured)} beyond it"}
      end
    end
  end

  @doc "The highest figure on the way from one end to the other, in parts of that at the first."
  @spec growth(atom, keyword, {atom, number, number}, atom) :: figure
  def growth(kind, params, {param, first, last}, name) do
    fn lines ->
      figures =
        for line <- lines,
            line.kind == kind and params -- line.params == [],
            into: %{},
            do: {line.params[param], line.values[name]}

      if is_map_key(figures, first) and is_map_key(figures, last),
        do: Enum.max(Map.values(figures)) / figures[first]
    end
  end
end
