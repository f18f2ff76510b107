defmodule Ferricstore.Raft.WARaftBackend.Batcher.TestJson do
  @moduledoc false
  # Reads JSON, in which the exporters tell things: Erlang can from OTP 27 on only.
  #
  # Invariant: what is no JSON raises, whatever it is.

  @numbers ~r/\A-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/

  @escaped %{
    ?" => ?",
    ?\\ => ?\\,
    ?/ => ?/,
    ?n => ?\n,
    ?t => ?\t,
    ?r => ?\r,
    ?b => ?\b,
    ?f => ?\f
  }

  @doc "Objects become maps with texts as keys."
  @spec decode!(binary) :: term
  def decode!(text) do
    {value, rest} = value(blanks(text))
    "" = blanks(rest)
    value
  end

  defp value("{" <> rest), do: members(blanks(rest), %{})
  defp value("[" <> rest), do: elements(blanks(rest), [])
  defp value("\"" <> rest), do: string(rest, "")
  defp value("true" <> rest), do: {true, rest}
  defp value("false" <> rest), do: {false, rest}
  defp value("null" <> rest), do: {nil, rest}

  defp value(text) do
    [number | fraction] = Regex.run(@numbers, text)
    rest = binary_part(text, byte_size(number), byte_size(text) - byte_size(number))
    if fraction == [], do: {String.to_integer(number), rest}, else: {float(number), rest}
  end

  # A fraction may be missing before an exponent.
  defp float(number) do
    {float, ""} = Float.parse(number)
    float
  end

  defp members("}" <> rest, map) when map == %{}, do: {map, rest}

  defp members("\"" <> rest, map) do
    {key, rest} = string(rest, "")
    ":" <> rest = blanks(rest)
    {value, rest} = value(blanks(rest))
    map = Map.put(map, key, value)

    case blanks(rest) do
      "," <> rest -> members(blanks(rest), map)
      "}" <> rest -> {map, rest}
    end
  end

  defp elements("]" <> rest, []), do: {[], rest}

  defp elements(text, list) do
    {value, rest} = value(text)

    case blanks(rest) do
      "," <> rest -> elements(blanks(rest), [value | list])
      "]" <> rest -> {Enum.reverse([value | list]), rest}
    end
  end

  defp string("\"" <> rest, text), do: {text, rest}

  defp string(<<?\\, ?u, digits::binary-4, rest::binary>>, text),
    do: string(rest, text <> <<String.to_integer(digits, 16)::utf8>>)

  defp string(<<?\\, sign, rest::binary>>, text),
    do: string(rest, text <> <<Map.fetch!(@escaped, sign)>>)

  defp string(<<char::utf8, rest::binary>>, text) when char >= 0x20,
    do: string(rest, text <> <<char::utf8>>)

  defp blanks(<<char, rest::binary>>) when char in [?\s, ?\t, ?\r, ?\n], do: blanks(rest)
  defp blanks(text), do: text
end
