defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Inline do
  @moduledoc false
  # Splits an inline command into its arguments by the rules of Redis: blanks separate, "..." takes \n \r \t \b \a, \xHH
  # and \ before anything else, '...' takes \' only, and a closing quote ends its argument.
  # One invariant: an argument comes out byte for byte as Redis would take it, or the whole line is refused.

  @blank [?\s, ?\t, ?\r, ?\n, ?\v, ?\f]

  defguardp is_hex(byte) when byte in ?0..?9 or byte in ?a..?f or byte in ?A..?F

  @spec split(binary()) :: {:ok, [binary()]} | {:error, String.t()}
  def split(line), do: blanks(line, [])

  defp blanks("", args), do: {:ok, Enum.reverse(args)}
  defp blanks(<<byte, rest::binary>>, args) when byte in @blank, do: blanks(rest, args)
  defp blanks(rest, args), do: bare(rest, "", args)

  defp bare("", arg, args), do: blanks("", [arg | args])
  defp bare(<<?", rest::binary>>, arg, args), do: double(rest, arg, args)
  defp bare(<<?', rest::binary>>, arg, args), do: single(rest, arg, args)
  defp bare(<<byte, rest::binary>>, arg, args) when byte in @blank, do: blanks(rest, [arg | args])

  # Redis takes a NUL for the end of the line and drops the rest, which in a file means that something was lost.
  defp bare(<<0, _::binary>>, _arg, _args), do: {:error, "a NUL byte outside of quotes"}
  defp bare(<<byte, rest::binary>>, arg, args), do: bare(rest, <<arg::binary, byte>>, args)

  defp double("", _arg, _args), do: {:error, "a \" that is never closed"}
  defp double(<<?", rest::binary>>, arg, args), do: closed(rest, arg, args)

  defp double(<<?\\, ?x, high, low, rest::binary>>, arg, args)
       when is_hex(high) and is_hex(low) do
    double(rest, <<arg::binary, String.to_integer(<<high, low>>, 16)>>, args)
  end

  defp double(<<?\\, byte, rest::binary>>, arg, args),
    do: double(rest, <<arg::binary, escaped(byte)>>, args)

  defp double(<<byte, rest::binary>>, arg, args), do: double(rest, <<arg::binary, byte>>, args)

  defp escaped(?n), do: ?\n
  defp escaped(?r), do: ?\r
  defp escaped(?t), do: ?\t
  defp escaped(?b), do: ?\b
  defp escaped(?a), do: ?\a
  defp escaped(byte), do: byte

  defp single("", _arg, _args), do: {:error, "a ' that is never closed"}
  defp single(<<?\\, ?', rest::binary>>, arg, args), do: single(rest, <<arg::binary, ?'>>, args)
  defp single(<<?', rest::binary>>, arg, args), do: closed(rest, arg, args)
  defp single(<<byte, rest::binary>>, arg, args), do: single(rest, <<arg::binary, byte>>, args)

  defp closed("", arg, args), do: blanks("", [arg | args])

  defp closed(<<byte, _::binary>> = rest, arg, args) when byte in @blank,
    do: blanks(rest, [arg | args])

  defp closed(_rest, _arg, _args), do: {:error, "a closing quote must be followed by a blank"}
end
