defmodule Mix.Tasks.Batcher.Top do
  @shortdoc "Shows what the shards of a running node do"

  @options """
    * `--once` - prints the page as text, and ends. Needs no terminal, and no observer_cli
    * `--json` - the same as JSON: `{"node", "seconds", "shards", "lanes"}`, with times in ms and rates per second, a
      mean or percentile `null` where nothing was committed. The `kind` of a lane is `namespace`, `batch`, `put_batch`
      or `delete_batch`. A prefix that is not in UTF-8 is in `lane_base64`, and `lane` then what Elixir shows of it
    * `--interval MS` - with these two: over how long, 1 000 ms by default
    * `--cookie C` - the cookie of the node, unless it is that in `~/.erlang.cookie`
    * `--help`, `-h` - prints this list
  """

  @moduledoc """
  Shows what the shards of a running node do, and its busiest lanes.

      mix batcher.top app@host
      mix batcher.top app@host.example.org --cookie secret
      mix batcher.top app@host --once
      mix batcher.top app@host --json

  Opens a page of observer_cli on the node, which must have that: see
  `Ferricstore.Raft.WARaftBackend.Batcher.ObserverCli` for its columns and keys. Options:

  #{@options}
  This VM joins as a hidden node with a name that it is given there, and needs no epmd of its own. The exit status is 1,
  and the reason told, if the node can't be reached or has no batcher.
  """

  use Mix.Task

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Json, Native, ObserverCli, Top}

  @switches [once: :boolean, json: :boolean, interval: :integer, cookie: :string, help: :boolean]
  @connect_ms 10_000
  @max_interval_ms 3_600_000
  # Of an atom, and what this VM calls itself before the host.
  @max_atom 255
  @own_name "undefined"
  @usage "usage: mix batcher.top NODE [--cookie C] [--once] [--json] [--interval MS]"

  @impl Mix.Task
  def run(argv) do
    case parse(argv) do
      {:ok, node, options} -> run(node, options)
      {:error, message} -> fail(message)
      :help -> IO.puts("Usage: mix batcher.top NODE [options]\n\n" <> @options)
    end
  end

  defp run(node, options) do
    with :ok <- connect(node, options[:cookie]),
         :ok <- batchers(node),
         :ok <- show(node, options) do
      :ok
    else
      {:error, message} -> fail(message)
    end
  end

  defp fail(message) do
    IO.puts(:stderr, "batcher.top: " <> message)
    exit({:shutdown, 1})
  end

  defp parse(argv) do
    case OptionParser.parse(argv, strict: @switches, aliases: [h: :help]) do
      {options, names, []} ->
        if options[:help], do: :help, else: check(names, options)

      {_options, _names, [{flag, nil} | _]} ->
        {:error, "#{flag} is no option or lacks its value; #{@usage}"}

      {_options, _names, [{flag, value} | _]} ->
        {:error, "#{flag} can't be #{inspect(value)}; #{@usage}"}
    end
  end

  defp check([name], options) do
    {interval, cookie} = {Keyword.get(options, :interval, 1_000), options[:cookie] || ""}

    cond do
      not (String.valid?(name) and name =~ ~r/\A[^@]+@[^@]+\z/) ->
        {:error, "#{inspect(name)} is no name of a node, such as app@host"}

      characters(@own_name <> name) > @max_atom ->
        {:error, "the name of a node can't have #{characters(name)} characters"}

      not String.valid?(cookie) ->
        {:error, "--cookie can't be #{inspect(cookie)}"}

      characters(cookie) > @max_atom ->
        {:error, "--cookie can't have #{characters(cookie)} characters"}

      interval not in 1..@max_interval_ms ->
        {:error, "--interval must be from 1 to #{@max_interval_ms}, not #{interval}"}

      true ->
        {:ok, String.to_atom(name), Keyword.put(options, :interval, interval)}
    end
  end

  defp check(names, _options), do: {:error, "takes one node, not #{length(names)}; #{@usage}"}

  # As atoms count them.
  defp characters(text), do: text |> String.to_charlist() |> length()

  # Without a name of its own and without listening, as a remote shell does.
  defp connect(node, cookie) do
    with :ok <- distribute(node) do
      if cookie, do: Node.set_cookie(node, String.to_atom(cookie))

      if :net_kernel.hidden_connect_node(node) == true,
        do: :ok,
        else: {:error, "#{node} can't be reached: is it running, and is this its cookie?"}
    end
  end

  defp distribute(node) do
    [_name, host] = node |> Atom.to_string() |> String.split("@")

    # A long name needs a host, and that of this machine may have none that will do; nobody connects to it anyway.
    {name, domain} =
      if host =~ ".",
        do: {:"#{@own_name}@#{host}", :longnames},
        else: {:undefined, :shortnames}

    if Node.alive?() do
      :ok
    else
      case :net_kernel.start(name, %{name_domain: domain}) do
        {:ok, _pid} -> :ok
        {:error, reason} -> {:error, "this VM can't be distributed: #{inspect(reason)}"}
      end
    end
  end

  defp batchers(node) do
    case call(node, Native, :shards, [], 0) do
      {:ok, []} -> {:error, "no batcher runs on #{node}"}
      {:ok, _shards} -> :ok
      {:error, message} -> {:error, message}
    end
  end

  defp show(node, options) do
    cond do
      options[:json] -> with {:ok, found} <- watch(node, options), do: print(json(node, found))
      options[:once] -> with {:ok, found} <- watch(node, options), do: print(Top.page(found))
      true -> open(node)
    end
  end

  defp watch(node, options), do: call(node, Top, :watch, [options[:interval]], options[:interval])

  defp open(node) do
    case call(node, ObserverCli, :start, [], :infinity) do
      {:ok, :ok} ->
        :ok

      {:ok, {:error, :no_observer_cli}} ->
        {:error, "#{node} has no observer_cli, and so no page: use --once or --json"}

      {:error, message} ->
        {:error, message}
    end
  end

  defp call(node, module, function, arguments, duration) do
    timeout = if duration == :infinity, do: :infinity, else: duration + @connect_ms

    case :rpc.call(node, module, function, arguments, timeout) do
      {:badrpc, {:EXIT, {:undef, [{^module, ^function, _, _} | _]}}} ->
        {:error, "#{node} has no batcher, or one without #{inspect(module)}"}

      {:badrpc, reason} ->
        {:error, "#{node} can't tell: #{inspect(reason)}"}

      result ->
        {:ok, result}
    end
  end

  defp print(text), do: IO.puts(text)

  defp json(node, found),
    do:
      Json.encode(Map.merge(found, %{node: node, lanes: Enum.map(found.lanes, &unmistakable/1)}))

  defp unmistakable(%{lane: kind} = lane) when is_atom(kind), do: Map.put(lane, :kind, kind)

  defp unmistakable(%{lane: prefix} = lane) do
    lane = Map.put(lane, :kind, :namespace)
    if String.valid?(prefix), do: lane, else: Map.put(lane, :lane_base64, Base.encode64(prefix))
  end
end
