defmodule Ferricstore.Raft.WARaftBackend.Batcher.Tools.CommandLine do
  @moduledoc false
  # A command line that takes options only: one table, from which the values, the errors and the help are made.
  # One invariant: every value that `parse/3` returns is one that its option's type allows.

  @typedoc """
  `name` is what errors call the program, `takes` the verb that goes with it; `hint` says where to find the options,
  which are listed if there is none.
  """
  @type program :: %{
          required(:name) => String.t(),
          required(:takes) => String.t(),
          optional(:hint) => String.t()
        }

  @typedoc """
  `:default` is the value of an option that is not given, otherwise `nil`, and is shown at the end of the first line
  of `:help`; `:value` is what stands for the value there.
  """
  @type options :: [{atom, [type: type, value: String.t(), default: term, help: String.t()]}]

  @typedoc """
  A range with a step allows its multiples only. Lists are written with commas. A file is one that can be read.
  """
  @type type ::
          :flag
          | :text
          | :file
          | {:number, Range.t()}
          | {:numbers, Range.t()}
          | {:seconds, most :: pos_integer}
          | {:name, [atom, ...]}
          | {:names, [atom, ...]}

  @help [type: :flag, help: "this text"]
  # The column in which the explanations begin, unless an option is too long for it.
  @indent 20

  @doc """
  The value of each option, or what is wrong with the first that is not as it must be: the option, its value, and what
  is allowed. `--help` and `-h` are options of every program.
  """
  @spec parse([String.t()], program, options) ::
          {:ok, %{atom => term}} | :help | {:error, String.t()}
  def parse(argv, program, options) do
    options = options ++ [help: @help]
    strict = for {key, option} <- options, do: {key, switch(option[:type])}

    case OptionParser.parse(argv, strict: strict, aliases: [h: :help]) do
      {given, [], []} ->
        if given[:help], do: :help, else: check(given, options)

      {_given, _arguments, [{flag, nil} | _]} ->
        {:error,
         "#{flag} is no option of #{program.name} or lacks its value; #{hint(program, options)}"}

      {_given, _arguments, [{flag, text} | _]} ->
        {:error, "#{flag} takes #{kind(flag, options)}, not #{inspect(text)}"}

      {_given, [argument | _], []} ->
        {:error,
         "#{program.name} #{program.takes} options only, not #{inspect(argument)}; #{hint(program, options)}"}
    end
  end

  @doc "A line or more for each option, to stand in a text."
  @spec help(options) :: String.t()
  def help(options) do
    options = options ++ [help: @help]
    longest = options |> Enum.map(&String.length(left(&1))) |> Enum.max()
    Enum.map_join(options, "\n", &help_of(&1, max(@indent, longest + 2)))
  end

  @doc "An option as it is written."
  @spec flag(atom) :: String.t()
  def flag(key), do: "--" <> String.replace(Atom.to_string(key), "_", "-")

  defp switch(:flag), do: :boolean
  defp switch({:number, _range}), do: :integer
  defp switch({:seconds, _most}), do: :float
  defp switch(_type), do: :string

  defp kind(flag, options) do
    {_key, option} = Enum.find(options, {nil, []}, fn {key, _option} -> flag(key) == flag end)

    case option[:type] do
      {:number, _range} -> "a whole number"
      {:seconds, _most} -> "a number"
      _flag -> "no value"
    end
  end

  defp hint(%{hint: hint}, _options), do: hint

  defp hint(_program, options),
    do: "allowed: " <> Enum.map_join(options, " ", fn {key, _option} -> flag(key) end)

  # In the order of the table: the last of several values of an option counts.
  defp check(given, options) do
    options = Keyword.delete(options, :help)

    Enum.reduce_while(options, {:ok, %{}}, fn {key, option}, {:ok, values} ->
      case value(option, Keyword.get_values(given, key)) do
        {:ok, value} -> {:cont, {:ok, Map.put(values, key, value)}}
        {:error, what} -> {:halt, {:error, "#{flag(key)} #{what}"}}
      end
    end)
  end

  defp value(option, []), do: {:ok, option[:default]}
  defp value(option, given), do: value_of(option[:type], List.last(given))

  defp value_of({:number, range}, number), do: in_range(number, range, number)

  defp value_of({:numbers, range}, text) do
    text
    |> String.split(",")
    |> Enum.reduce_while({:ok, []}, fn part, {:ok, numbers} ->
      with {number, ""} <- Integer.parse(part),
           {:ok, number} <- in_range(number, range, text) do
        {:cont, {:ok, numbers ++ [number]}}
      else
        {:error, what} -> {:halt, {:error, what}}
        _no_number -> {:halt, {:error, "takes whole numbers with commas between, not #{text}"}}
      end
    end)
  end

  defp value_of({:seconds, most}, seconds) do
    if seconds > 0 and seconds <= most,
      do: {:ok, seconds},
      else: {:error, "must be more than 0 and at most #{most} seconds, not #{seconds}"}
  end

  defp value_of({:name, allowed}, text) do
    case Enum.find(allowed, &(Atom.to_string(&1) == text)) do
      nil -> {:error, "must be #{either(allowed)}, not #{inspect(text)}"}
      name -> {:ok, name}
    end
  end

  defp value_of({:names, allowed}, text) do
    known = Map.new(allowed, &{Atom.to_string(&1), &1})
    names = String.split(text, ",")

    if Enum.all?(names, &is_map_key(known, &1)),
      do: {:ok, Enum.map(names, &known[&1])},
      else: {:error, "takes names out of #{Enum.join(allowed, ", ")}, not #{text}"}
  end

  defp value_of(:file, path) do
    case File.open(path, [:read, :raw], fn _io -> :ok end) do
      {:ok, :ok} -> {:ok, path}
      {:error, reason} -> {:error, "#{path}: #{:file.format_error(reason)}"}
    end
  end

  defp value_of(_flag_or_text, value), do: {:ok, value}

  # `text` is what was given.
  defp in_range(number, low..high//step = range, text) do
    cond do
      number in range -> {:ok, number}
      rem(number, step) != 0 -> {:error, "takes multiples of #{step}, not #{text}"}
      true -> {:error, "must be from #{low} to #{high}, not #{text}"}
    end
  end

  defp either([name]), do: "#{name}"

  defp either(names) do
    {names, [last]} = Enum.split(names, -1)
    Enum.join(names, ", ") <> " or #{last}"
  end

  defp left({key, option}),
    do: "  " <> Enum.join([flag(key) | List.wrap(option[:value])], " ")

  defp help_of({_key, option} = named, indent) do
    [first | more] = String.split(option[:help], "\n")
    shown = if option[:default] in [nil, false], do: "", else: " (#{option[:default]})"
    lines = [String.pad_trailing(left(named), indent) <> first <> shown]
    Enum.join(lines ++ Enum.map(more, &(String.duplicate(" ", indent) <> &1)), "\n")
  end
end
