defmodule Ferricstore.Raft.WARaftBackend.Batcher.Json do
  @moduledoc false
  # JSON for what the exporters tell. Own, since Erlang has an encoder from OTP 27 on only, and a host may have none.
  #
  # Invariant: whatever is encoded can be decoded; bytes that are no text are told as Elixir shows them.

  @typedoc "Maps have atoms as keys."
  @type value ::
          %{atom => value} | [value] | String.t() | binary | number | atom

  @spec encode(value) :: iodata
  def encode(%{} = map) do
    pairs =
      for {key, value} <- Enum.sort(map), do: [string(Atom.to_string(key)), ?:, encode(value)]

    [?{, Enum.intersperse(pairs, ?,), ?}]
  end

  def encode(list) when is_list(list),
    do: [?[, Enum.intersperse(Enum.map(list, &encode/1), ?,), ?]]

  def encode(nil), do: "null"
  def encode(boolean) when is_boolean(boolean), do: Atom.to_string(boolean)
  def encode(atom) when is_atom(atom), do: string(Atom.to_string(atom))
  def encode(integer) when is_integer(integer), do: Integer.to_string(integer)
  def encode(float) when is_float(float), do: Float.to_string(float)

  def encode(binary) when is_binary(binary),
    do: string(if String.valid?(binary), do: binary, else: inspect(binary))

  defp string(text), do: [?", for(<<char::utf8 <- text>>, do: escape(char)), ?"]

  defp escape(?"), do: ~S(\")
  defp escape(?\\), do: ~S(\\)

  # What a terminal might take for a command, and what it does not show, such as marks that turn the direction of text.
  defp escape(char)
       when char < 0x20 or char in 0x7F..0x9F or char in [0xAD, 0x61C, 0xFEFF] or
              char in 0x200B..0x200F or char in 0x2028..0x202E or char in 0x2060..0x206F,
       do: ["\\u", char |> Integer.to_string(16) |> String.pad_leading(4, "0")]

  defp escape(char), do: <<char::utf8>>
end
