defmodule Ferricstore.Raft.WARaftBackend.Batcher.Options.Type do
  @moduledoc false
  # The types of options: which values they have, in what words, and as a typespec.
  #
  # Invariant: a value that is one of a type never has to be looked at again.

  @max_ms 0xFFFF_FFFF

  @type t ::
          :any
          | :boolean
          | :generic_window
          | :limit
          | :milliseconds
          | :module
          | :positive
          | :timer
          | :window
          | {:one_of, [atom]}

  @doc "The longest time in ms: the longest that a process can wait."
  def max_ms, do: @max_ms

  @doc "Whether a value is one of a type."
  @spec valid?(t, term) :: boolean
  def valid?(:any, _value), do: true
  def valid?(:boolean, value), do: is_boolean(value)

  def valid?(:generic_window, value),
    do: value == :direct or (is_integer(value) and value in 0..@max_ms)

  def valid?(:limit, value),
    do: value in [nil, :infinity] or (is_integer(value) and value >= 0)

  def valid?(:milliseconds, value), do: is_integer(value) and value in 0..@max_ms
  def valid?(:module, value), do: is_atom(value) and value not in [nil, true, false]
  def valid?(:positive, value), do: is_integer(value) and value > 0
  def valid?(:timer, value), do: value == :infinity or valid?(:milliseconds, value)
  def valid?(:window, value), do: is_integer(value) and value <= @max_ms
  def valid?({:one_of, values}, value), do: value in values

  @doc "What a value of a type is, in words that follow \"must be\"."
  @spec describe(t) :: String.t()
  def describe(:any), do: "any term"
  def describe(:boolean), do: "`true` or `false`"
  def describe(:generic_window), do: "0 to #{@max_ms} ms, or `:direct`"
  def describe(:limit), do: "an integer of at least 0, or `:infinity` or `nil` for no limit"
  def describe(:milliseconds), do: "0 to #{@max_ms} ms"
  def describe(:module), do: "a module"
  def describe(:positive), do: "an integer of at least 1"
  def describe(:timer), do: "0 to #{@max_ms} ms, or `:infinity`"
  def describe(:window), do: "an integer of at most #{@max_ms} ms"

  def describe({:one_of, values}) do
    {last, others} = values |> Enum.map(&"`#{inspect(&1)}`") |> List.pop_at(-1)
    "#{Enum.join(others, ", ")} or #{last}"
  end

  @doc "The type as a typespec, quoted."
  @spec spec(t) :: Macro.t()
  def spec(:any), do: quote(do: term)
  def spec(:boolean), do: quote(do: boolean)
  def spec(:generic_window), do: quote(do: non_neg_integer | :direct)
  def spec(:limit), do: quote(do: non_neg_integer | :infinity | nil)
  def spec(:milliseconds), do: quote(do: non_neg_integer)
  def spec(:module), do: quote(do: module)
  def spec(:positive), do: quote(do: pos_integer)
  def spec(:timer), do: quote(do: non_neg_integer | :infinity)
  def spec(:window), do: quote(do: integer)
  def spec({:one_of, values}), do: union(values)

  @doc "Several of these as one, quoted."
  @spec union([Macro.t(), ...]) :: Macro.t()
  def union(specs), do: Enum.reduce(Enum.reverse(specs), &{:|, [], [&1, &2]})
end
