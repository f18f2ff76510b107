defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Options do
  @moduledoc false
  # The demo's command line. One invariant: what `parse/1` accepts can be run as it stands.

  @defaults [shards: 4, callers: 256, seconds: 10, value_size: 128, window: 1, backend: "ra"]
  @ranges [
    shards: 1..256,
    callers: 1..100_000,
    seconds: 1..86_400,
    value_size: 0..16_777_216,
    window: 0..60_000
  ]
  @types [
    shards: :integer,
    callers: :integer,
    seconds: :integer,
    value_size: :integer,
    window: :integer,
    backend: :string,
    data_dir: :string,
    input: :string,
    expected: :string,
    help: :boolean
  ]

  @enforce_keys Keyword.keys(@defaults)
  defstruct @enforce_keys ++ [:data_dir, :input, :expected]

  @type t :: %__MODULE__{
          shards: pos_integer(),
          callers: pos_integer(),
          seconds: pos_integer(),
          value_size: non_neg_integer(),
          window: non_neg_integer(),
          backend: String.t(),
          data_dir: Path.t() | nil,
          input: Path.t() | nil,
          expected: Path.t() | nil
        }

  @spec parse([String.t()]) :: {:ok, t()} | :help | {:error, String.t()}
  def parse(argv) do
    case OptionParser.parse(argv, strict: @types, aliases: [h: :help]) do
      {options, [], []} ->
        if options[:help],
          do: :help,
          else: check(struct!(__MODULE__, Keyword.merge(@defaults, options)))

      {_options, _arguments, [{option, nil} | _]} ->
        {:error, "#{option} is no option of the demo or lacks its value; --help lists them"}

      {_options, _arguments, [{option, value} | _]} ->
        {:error, "#{option} takes a whole number, not #{inspect(value)}"}

      {_options, [argument | _], []} ->
        {:error, "the demo takes options only, not #{inspect(argument)}; --help lists them"}
    end
  end

  defp check(options) do
    wrong = Enum.find(@ranges, fn {name, range} -> Map.fetch!(options, name) not in range end)

    cond do
      wrong ->
        {name, low..high//_} = wrong
        {:error, "#{flag(name)} must be from #{low} to #{high}, not #{Map.fetch!(options, name)}"}

      options.backend not in ["ra", "null"] ->
        {:error, "--backend must be ra or null, not #{inspect(options.backend)}"}

      options.expected && !options.input ->
        {:error, "--expected compares the result of a replay, so it needs --input FILE"}

      options.expected && options.backend == "null" ->
        {:error,
         "--expected compares what is stored, and the null backend stores nothing; use --backend ra"}

      true ->
        readable(options, [:input, :expected])
    end
  end

  defp readable(options, []), do: {:ok, options}

  defp readable(options, [name | names]) do
    path = Map.fetch!(options, name)

    with true <- is_binary(path),
         {:error, reason} <- File.open(path, [:read, :raw], fn _io -> :ok end) do
      {:error, "#{flag(name)} #{path}: #{:file.format_error(reason)}"}
    else
      _absent_or_opened -> readable(options, names)
    end
  end

  defp flag(name), do: "--" <> String.replace(Atom.to_string(name), "_", "-")

  @spec help() :: String.t()
  def help do
    """
    Usage: mix batcher.demo [options]

    Starts shards, lets many callers write to them at once, first with a commit for each call, then through the
    batcher, compares the two, and reads every acknowledged write back.

      --shards N        number of shards (#{@defaults[:shards]})
      --callers N       number of concurrent callers (#{@defaults[:callers]})
      --seconds N       how long they write, both phases together (#{@defaults[:seconds]})
      --value-size N    bytes per value (#{@defaults[:value_size]})
      --window MS       window of the put and delete lanes, and the shortest of the namespaces (#{@defaults[:window]});
                        0: puts and deletes outside of namespaces are committed in the caller
      --backend NAME    ra: Raft on disk; null: answers at once and stores nothing (#{@defaults[:backend]})
      --data-dir DIR    where Raft keeps its files: a new or empty directory, which is left in place
                        (by default a fresh one, removed when all went well)
      --input FILE      replay the commands of FILE instead: a Redis append-only file in its text form
                        (SET with EX, PX, EXAT, PXAT; DEL, INCR, INCRBY, DECR, DECRBY; the rest is reported)
      --expected FILE   compare what the replay stored with FILE, one line for each key: the key in Base64, a tab,
                        the value in Base64, a tab, 1 if it has an expiry, otherwise 0
      --help            this text

    The last line is "N writes acknowledged, N read back, 0 lost" and the exit status 0; otherwise it is 1.
    """
  end
end
