defmodule Ferricstore.Raft.WARaftBackend.Batcher.Tools.Terminal do
  @moduledoc false
  # A line of progress that the next one takes the place of, where somebody watches.
  # One invariant: where nobody does, nothing is written that moves a cursor.

  @start_of_line "\r\e[K"

  @doc "Whether somebody watches."
  # `:io.columns/0` knows terminals on new releases only; the `elixir` script tells on all of them.
  @spec watched?() :: boolean
  def watched?, do: IO.ANSI.enabled?()

  @doc "Writes what the next line is to take the place of; only if somebody watches."
  @spec overwrite(IO.device(), IO.chardata()) :: :ok
  def overwrite(device, text),
    do: if(watched?(), do: IO.write(device, [@start_of_line, text]), else: :ok)

  @doc "Writes a line that stays, in the place of one that doesn't."
  @spec puts(IO.device(), IO.chardata()) :: :ok
  def puts(device, line) do
    overwrite(device, "")
    IO.puts(device, line)
  end
end
