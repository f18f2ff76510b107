defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Progress do
  @moduledoc false
  # Where a run stands, on the standard error output: one line that is overwritten on a terminal, else one for each
  # part of the suite.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Tools.Terminal

  @enforce_keys [:parts, :started, :state]
  defstruct @enforce_keys

  @part 1

  @type t :: %__MODULE__{parts: pos_integer, started: integer, state: :counters.counters_ref()}

  @spec start(pos_integer) :: t
  def start(parts),
    do: %__MODULE__{parts: parts, started: now(), state: :counters.new(2, [])}

  @doc "What is about to be measured."
  @spec plan(String.t()) :: :ok
  def plan(text), do: IO.puts(:stderr, text)

  @doc "The next part of the suite begins."
  @spec next(t) :: :ok
  def next(progress) do
    :counters.add(progress.state, @part, 1)
    :counters.put(progress.state, 2, 0)
  end

  @doc "What is being measured now."
  @spec tell(t, String.t()) :: :ok
  def tell(progress, what) do
    line =
      "[#{:counters.get(progress.state, @part)}/#{progress.parts}] #{now() - progress.started} s: #{what}"

    cond do
      Terminal.watched?() -> Terminal.overwrite(:stderr, line)
      :counters.get(progress.state, 2) == 0 -> IO.puts(:stderr, line)
      true -> :ok
    end

    :counters.put(progress.state, 2, 1)
  end

  @doc "A line for the standard output, which takes the place of the progress on a terminal."
  @spec print(String.t()) :: :ok
  def print(line), do: Terminal.puts(:stdio, line)

  @spec stop(t) :: :ok
  def stop(progress),
    do: Terminal.puts(:stderr, "measured for #{now() - progress.started} s")

  @spec error(String.t()) :: :ok
  def error(message), do: IO.puts(:stderr, "error: " <> message)

  @doc "A term for an error message: its beginning says what went wrong."
  @spec brief(term) :: String.t()
  def brief(reason), do: reason |> inspect(printable_limit: 200) |> String.slice(0, 600)

  defp now, do: System.monotonic_time(:second)
end
