defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Command do
  @moduledoc false
  # What a Redis command means to the store: the writes it stands for, or why it is passed over.
  # One invariant: a command is translated whole or not at all; an option that can't be honoured is never dropped.

  @type write ::
          {:put, binary(), binary(), non_neg_integer()}
          | {:delete, binary()}
          | {:incr, binary(), integer()}

  @typedoc "`:skip` and `:ignore` carry the name to report the command under."
  @type meaning :: {:writes, [write(), ...]} | {:ignore | :skip, String.t()}

  defguardp is_int64(number)
            when number >= -0x8000000000000000 and number <= 0x7FFFFFFFFFFFFFFF

  @doc "`now` is the wall clock in milliseconds: what EX and PX count from."
  @spec parse([binary(), ...], integer()) :: meaning()
  # As Redis writes most of them; only other names have to be looked at.
  def parse([name | args], now) when name in ["SET", "DEL"], do: meaning(name, args, now)
  def parse([name | args], now), do: meaning(label(name), args, now)

  @spec key(write()) :: binary()
  def key({:put, key, _value, _expire_at_ms}), do: key
  def key({:delete, key}), do: key
  def key({:incr, key, _by}), do: key

  @doc """
  Redis's rule for integers: decimal, 64 bits, no sign but "-", no leading zero, no blanks.
  """
  @spec integer(binary()) :: {:ok, integer()} | :error
  def integer(text) when byte_size(text) in 1..20 do
    case Integer.parse(text) do
      {number, ""} when is_int64(number) ->
        if Integer.to_string(number) == text, do: {:ok, number}, else: :error

      _other ->
        :error
    end
  end

  def integer(_text), do: :error

  defp meaning("SET", [key, value | options], now) do
    case expiry(options, now, 0) do
      {:ok, expire_at_ms} -> {:writes, [{:put, key, value, expire_at_ms}]}
      {:error, why} -> {:skip, "SET " <> why}
    end
  end

  defp meaning("DEL", [_ | _] = keys, _now), do: {:writes, Enum.map(keys, &{:delete, &1})}
  defp meaning("INCR", [key], _now), do: {:writes, [{:incr, key, 1}]}
  defp meaning("DECR", [key], _now), do: {:writes, [{:incr, key, -1}]}
  defp meaning("INCRBY", [key, by], _now), do: increment("INCRBY", key, integer(by), 1)
  defp meaning("DECRBY", [key, by], _now), do: increment("DECRBY", key, integer(by), -1)
  defp meaning("SELECT", [database], _now), do: {:ignore, "SELECT " <> label(database)}

  defp meaning(name, _args, _now) when name in ~w(SET DEL INCR DECR INCRBY DECRBY SELECT),
    do: {:skip, "#{name} (wrong number of arguments)"}

  defp meaning(name, _args, _now), do: {:skip, name}

  defp increment(_name, key, {:ok, by}, sign) when is_int64(by * sign),
    do: {:writes, [{:incr, key, by * sign}]}

  defp increment(name, _key, _bad, _sign), do: {:skip, "#{name} (increment is no 64-bit integer)"}

  # 0 stands for "no expiry", which also tells whether one was given already.
  defp expiry([], _now, expire_at_ms), do: {:ok, expire_at_ms}

  defp expiry([option | rest], now, expire_at_ms) do
    case {label(option), rest, expire_at_ms} do
      {"EX", [amount | rest], 0} -> expiry(amount, 1000, now, rest, now)
      {"PX", [amount | rest], 0} -> expiry(amount, 1, now, rest, now)
      {"EXAT", [amount | rest], 0} -> expiry(amount, 1000, 0, rest, now)
      {"PXAT", [amount | rest], 0} -> expiry(amount, 1, 0, rest, now)
      {name, _rest, _} when name in ~w(EX PX EXAT PXAT) -> {:error, "(syntax error)"}
      {name, _rest, _} when name in ~w(NX XX GET KEEPTTL) -> {:error, name}
      _other -> {:error, "(syntax error)"}
    end
  end

  # Redis refuses a time to live that is not positive, and one that leaves 64 bits.
  defp expiry(amount, unit, base, rest, now) do
    with {:ok, amount} when amount > 0 <- integer(amount),
         expire_at_ms when is_int64(expire_at_ms) <- amount * unit + base do
      expiry(rest, now, expire_at_ms)
    else
      _bad -> {:error, "(invalid expiry)"}
    end
  end

  # Names come from a file: they are shown, so they are kept short and printable.
  defp label(name) when byte_size(name) <= 40 do
    if String.printable?(name),
      do: String.upcase(name, :ascii),
      else: inspect(name, binaries: :as_strings)
  end

  defp label(name), do: label(binary_part(name, 0, 37)) <> "..."
end
