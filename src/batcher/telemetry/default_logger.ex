defmodule Ferricstore.Raft.WARaftBackend.Batcher.Telemetry.DefaultLogger do
  @moduledoc false
  # A handler of telemetry that writes a line for each event.
  #
  # Invariant: no payload in a line: prefixes are left out, and of a reason only its atoms are shown.

  require Logger

  alias Ferricstore.Raft.WARaftBackend.Batcher.Log
  alias Ferricstore.Raft.WARaftBackend.Batcher.Telemetry.{Emit, Events}

  @levels [:emergency, :alert, :critical, :error, :warning, :notice, :info, :debug]

  @doc false
  def attach(level_or_options) do
    level = level!(level_or_options)
    events = for %{event: event} <- Events.all(), do: event
    handler = &__MODULE__.handle/4
    Emit.prepare()
    call(:attach_many, [__MODULE__, events, handler, %{level: level}])
  end

  @doc false
  def detach, do: call(:detach, [__MODULE__])

  defp level!([]), do: :debug
  defp level!(level) when level in @levels, do: level
  defp level!(level: level) when level in @levels, do: level

  defp level!(other) do
    raise ArgumentError,
          "attach_default_logger takes a level, or `level: level`, of #{inspect(@levels)}, got: #{inspect(other)}"
  end

  # A `:telemetry` that is loaded and was not started can attach nothing.
  defp call(function, args) do
    if Emit.loaded?(),
      do: apply(:telemetry, function, args),
      else: {:error, :no_telemetry}
  catch
    :exit, {:noproc, _call} -> {:error, :no_telemetry}
  end

  @doc false
  def handle(event, measurements, metadata, %{level: level}) do
    Logger.log(
      level,
      fn ->
        what = List.last(event)

        "batcher #{metadata.shard_index}: #{what} #{shown(measurements)} #{shown(safe(metadata))}"
      end,
      shard: metadata.shard_index
    )
  end

  defp safe(metadata), do: Map.drop(metadata, [:shard_index, :prefix, :commit])

  defp shown(map) do
    map |> Enum.sort() |> Enum.map_join(" ", fn {key, value} -> "#{key}=#{value(value)}" end)
  end

  defp value(number) when is_integer(number), do: Integer.to_string(number)
  defp value(pid) when is_pid(pid), do: inspect(pid)
  # `Log.shape/1` has made it.
  defp value(text) when is_binary(text), do: text
  defp value(term), do: Log.shape(term)
end
