defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Options do
  @moduledoc false
  # The command line: one table, from which checks and help are made.
  # One invariant: what `parse/1` accepts can be run as it stands.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Backends, Peer, Scenarios, Suite}

  @flags [
    quick: "a first impression: fewer numbers, shorter, less than two minutes",
    report:
      "write bench/REPORT.md and its plots (--no-report: don't; the default of a whole run)",
    help: "this text"
  ]

  # Lists are written with commas.
  @numbers [
    callers: {1..100_000, "how many callers write at once"},
    groups: {1..100_000, "entries in one call of the put lane (groups, async)"},
    values: {0..16_777_216, "bytes of a value"},
    shards: {1..256, "how many shards the callers are spread over"},
    namespaces: {1..10_000, "and how many namespaces in each"},
    rates: {50..1_000_000, "writes per second, multiples of 50 (open)"},
    windows: {1..60_000, "windows in milliseconds (window)"},
    depths: {1..10_000_000, "queued writes (depth)"}
  ]

  @types [
    only: :string,
    peers: :string,
    backend: :string,
    repeat: :integer,
    seconds: :float,
    warm_up: :float,
    data_dir: :string
  ]

  @strict Enum.map(@flags, fn {key, _} -> {key, :boolean} end) ++
            Enum.map(@numbers, fn {key, _} -> {key, :string} end) ++ @types

  @data_dir "_build/bench/data"

  defstruct Keyword.keys(@numbers) ++
              Keyword.keys(Keyword.delete(@types, :data_dir)) ++
              [quick: false, report: nil, data_dir: @data_dir]

  @type t :: %__MODULE__{}

  @spec parse([String.t()]) :: {:ok, t} | :help | {:error, String.t()}
  def parse(argv) do
    case OptionParser.parse(argv, strict: @strict, aliases: [h: :help]) do
      {options, [], []} ->
        if options[:help], do: :help, else: check(options)

      {_options, _arguments, [{option, nil} | _]} ->
        {:error,
         "#{option} is no option of the benchmarks or lacks its value; allowed: #{allowed()}"}

      {_options, _arguments, [{option, value} | _]} ->
        {:error, "#{option} takes a number, not #{inspect(value)}"}

      {_options, [argument | _], []} ->
        {:error,
         "the benchmarks take options only, not #{inspect(argument)}; allowed: #{allowed()}"}
    end
  end

  defp allowed, do: Enum.map_join(@strict, " ", fn {key, _type} -> flag(key) end)

  defp check(options) do
    options
    |> Enum.reduce_while({:ok, %__MODULE__{}}, fn {key, value}, {:ok, parsed} ->
      case value(key, value) do
        {:ok, value} -> {:cont, {:ok, Map.put(parsed, key, value)}}
        {:error, what} -> {:halt, {:error, "#{flag(key)} #{what}, not #{value}"}}
      end
    end)
    |> with_report(options)
  end

  defp value(:only, names), do: names(names, Suite.names())
  defp value(:peers, names), do: names(names, Peer.names())

  defp value(:backend, name) do
    with {:ok, names} <- names(name, Backends.names()) do
      if match?([_], names), do: {:ok, hd(names)}, else: {:error, "takes one backend"}
    end
  end

  defp value(:repeat, number), do: in_range(number, 1..1_000)

  defp value(key, seconds) when key in [:seconds, :warm_up] do
    if seconds > 0 and seconds <= 3_600,
      do: {:ok, seconds},
      else: {:error, "must be more than 0 and at most 3600 seconds"}
  end

  defp value(key, text) when key in [:data_dir, :quick, :report], do: {:ok, text}

  defp value(key, text) do
    {range, _help} = Keyword.fetch!(@numbers, key)

    text
    |> String.split(",")
    |> Enum.reduce_while({:ok, []}, fn part, {:ok, numbers} ->
      with {number, ""} <- Integer.parse(part),
           {:ok, number} <- step(key, number),
           {:ok, number} <- in_range(number, range) do
        {:cont, {:ok, numbers ++ [number]}}
      else
        {:error, what} -> {:halt, {:error, what}}
        _no_number -> {:halt, {:error, "takes whole numbers with commas between"}}
      end
    end)
  end

  defp step(:rates, rate) do
    step = Scenarios.Open.rate_step()
    if rem(rate, step) == 0, do: {:ok, rate}, else: {:error, "takes multiples of #{step}"}
  end

  defp step(_key, number), do: {:ok, number}

  defp in_range(number, low..high//_) do
    if number in low..high, do: {:ok, number}, else: {:error, "must be from #{low} to #{high}"}
  end

  defp names(text, allowed) do
    names = String.split(text, ",")
    known = Map.new(allowed, &{Atom.to_string(&1), &1})

    if Enum.all?(names, &is_map_key(known, &1)),
      do: {:ok, Enum.map(names, &known[&1])},
      else: {:error, "takes names out of #{Enum.join(allowed, ", ")}"}
  end

  # Unless asked for, only the whole of it makes a report.
  defp with_report({:ok, parsed}, options) do
    whole? = Keyword.drop(options, [:data_dir, :report]) == []
    parsed = %{parsed | report: Keyword.get(options, :report, whole?)}
    # Options that are right each may not go together.
    with {:ok, _specs} <- Suite.specs(parsed), do: {:ok, parsed}
  end

  defp with_report(error, _options), do: error

  defp flag(key), do: "--" <> String.replace(Atom.to_string(key), "_", "-")

  @spec help() :: String.t()
  def help do
    """
    Usage: mix batcher.bench [options]

    Measures the batcher against a GenServer batcher, gen_batch_server, direct commits and the floor of what a call
    through a process costs, all in one run, in turn, and compares the medians with the goals.

      --only NAMES      #{Enum.join(Suite.names(), ", ")} (all)
      --peers NAMES     #{Enum.join(Peer.names(), ", ")}; figures are compared with the first one's
      --backend NAME    #{Enum.join(Backends.names(), ", ")}: answers at once; takes 1 ms; Raft on disk
    #{Enum.map_join(@numbers, "\n", fn {key, {_range, help}} -> line("#{flag(key)} LIST", help) end)}
      --repeat N        samples of each figure
      --seconds S       length of a sample
      --warm-up S       what goes before it
      --data-dir DIR    where Raft keeps its files while it is measured, on a real disk (#{@data_dir})
    #{Enum.map_join(@flags, "\n", fn {key, help} -> line(flag(key), help) end)}

    For one figure: mix batcher.bench --only throughput --callers 2000 --backend null --peers batcher,floor
    The exit status is 0 if everything was measured, whatever came out, 1 if not, 2 for a bad option.
    """
  end

  defp line(option, help), do: "  " <> String.pad_trailing(option, 18) <> help
end
