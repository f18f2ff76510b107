# The options of the Ra backend, checked, and the running configuration of this node.
# Invariant: what is stored is read without a lock or a copy at each commit, and written only by start and stop.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Config do
  @moduledoc false

  @key {__MODULE__, :running}

  @most_logs 64

  # Ra makes file names and its own ids (base64url) of it.
  @name_format ~r/\A[A-Za-z0-9_-]+\z/

  @defaults [
    shards: 1,
    nodes: nil,
    logs: nil,
    name: "ferricstore_batcher",
    command_timeout: 30_000
  ]

  @typedoc "What start asks for; may travel to other nodes. `logs`: nil is for each to decide, and is a number where it runs."
  @type spec :: %{
          name: String.t(),
          logs: pos_integer() | nil,
          data_dir: Path.t(),
          nodes: [node(), ...],
          indexes: [non_neg_integer(), ...],
          timeout: pos_integer()
        }

  @type server :: {atom(), node()}

  @typedoc """
  A shard as this node sees it. `leader` holds one number: the place in `servers` of the member that was
  leader last, from 1, or 0 when none is known. An atomic, because a reader pays a few nanoseconds and a
  writer needs neither a process nor the garbage collection that rewriting a persistent term costs all.
  """
  @type shard :: %{
          index: non_neg_integer(),
          cluster: atom(),
          servers: tuple(),
          leader: :atomics.atomics_ref()
        }

  @type t :: %{spec: spec(), shards: %{non_neg_integer() => shard()}}

  @type invalid ::
          {:missing_option, atom(), String.t()} | {:invalid_option, term(), term(), String.t()}

  @spec validate(term()) :: {:ok, spec()} | {:error, invalid()}
  def validate(opts) do
    with :ok <- check_keyword(opts),
         :ok <- check_known(opts),
         opts = Keyword.merge(@defaults, opts),
         {:ok, indexes} <- indexes(opts[:shards]),
         {:ok, data_dir} <- data_dir(Keyword.fetch(opts, :data_dir)),
         {:ok, nodes} <- nodes(opts[:nodes] || [node()]),
         {:ok, logs} <- logs(opts[:logs]),
         {:ok, name} <- name(opts[:name]),
         {:ok, timeout} <- timeout(opts[:command_timeout]) do
      {:ok,
       %{
         name: name,
         logs: logs,
         data_dir: data_dir,
         nodes: nodes,
         indexes: indexes,
         timeout: timeout
       }}
    end
  end

  @doc "The running configuration of this node."
  @spec running() :: t() | nil
  def running, do: :persistent_term.get(@key, nil)

  @spec shard(term()) ::
          {:ok, shard(), timeout_ms :: pos_integer()}
          | {:error, :not_started | {:unknown_shard, term()}}
  def shard(index) do
    case :persistent_term.get(@key, nil) do
      %{shards: %{^index => shard}, spec: %{timeout: timeout}} -> {:ok, shard, timeout}
      nil -> {:error, :not_started}
      _ -> {:error, {:unknown_shard, index}}
    end
  end

  @doc "Whether `spec` may be started here: a running instance takes more shards, but no other place or members."
  @spec check_compatible(spec()) :: :ok | {:error, {:already_started, map(), String.t()}}
  def check_compatible(spec) do
    identity = [:name, :data_dir, :nodes]

    case running() do
      nil ->
        :ok

      %{spec: running} ->
        if Map.take(running, identity) == Map.take(spec, identity),
          do: :ok,
          else:
            {:error,
             {:already_started, Map.take(running, identity),
              "one instance runs per node; call stop/0 before starting another one than " <>
                inspect(Map.take(running, identity))}}
    end
  end

  @doc "Stores `spec` as running here, its shards in addition to those that run already."
  @spec store(spec()) :: :ok
  def store(spec) do
    shards = Map.new(spec.indexes, &{&1, new_shard(spec, &1)})

    shards =
      case running() do
        nil -> shards
        # The leaders known so far stay known.
        %{shards: already} -> Map.merge(shards, already)
      end

    :persistent_term.put(@key, %{spec: %{spec | indexes: Map.keys(shards)}, shards: shards})
  end

  @spec erase() :: :ok
  def erase do
    _ = :persistent_term.erase(@key)
    :ok
  end

  @spec new_shard(spec(), non_neg_integer()) :: shard()
  def new_shard(spec, index) do
    cluster = cluster(spec, index)
    servers = List.to_tuple(for node <- spec.nodes, do: {cluster, node})
    %{index: index, cluster: cluster, servers: servers, leader: :atomics.new(1, signed: false)}
  end

  # The name of a shard's Raft group, of its server's process on each node, and of its data there.
  @spec cluster(spec(), non_neg_integer()) :: atom()
  def cluster(spec, index), do: String.to_atom("#{spec.name}_#{index}")

  ## Options

  defp check_keyword(opts) do
    if Keyword.keyword?(opts),
      do: :ok,
      else:
        {:error,
         {:invalid_option, :opts, opts,
          "the options of Ra must be a keyword list, got: #{shown(opts)}"}}
  end

  defp check_known(opts) do
    known = [:data_dir | Keyword.keys(@defaults)]

    case Keyword.keys(opts) -- known do
      [] -> :ok
      [key | _] -> {:error, {:invalid_option, key, opts[key], unknown(key, known)}}
    end
  end

  defp unknown(key, known),
    do: "unknown option #{inspect(key)} of Ra: known are #{inspect(known)}"

  defp indexes(count) when is_integer(count) and count > 0,
    do: {:ok, Enum.to_list(0..(count - 1))}

  defp indexes([_ | _] = indexes) do
    if proper?(indexes) and Enum.all?(indexes, &(is_integer(&1) and &1 >= 0)),
      do: {:ok, Enum.uniq(indexes)},
      else: invalid_shards(indexes)
  end

  defp indexes(other), do: invalid_shards(other)

  defp invalid_shards(value),
    do: invalid(:shards, value, "must be a count > 0 or a list of shard indexes >= 0")

  # Ra wants characters, where a file system may take any bytes.
  defp data_dir({:ok, dir}) when is_binary(dir) and dir != "" do
    path = Path.expand(dir)

    if String.valid?(path) and not String.contains?(path, <<0>>),
      do: {:ok, path},
      else: invalid_data_dir(dir)
  end

  defp data_dir({:ok, other}), do: invalid_data_dir(other)

  defp data_dir(:error) do
    {:error,
     {:missing_option, :data_dir,
      "option :data_dir of Ra is missing: name the directory that the Raft log is kept in, such as " <>
        "data_dir: \"/var/lib/app/raft\""}}
  end

  defp invalid_data_dir(value),
    do: invalid(:data_dir, value, "must be the path of a directory, as a string in UTF-8")

  # Sorted, so that each member may list them in its own order.
  defp nodes([_ | _] = nodes) do
    if proper?(nodes) and Enum.all?(nodes, &(is_atom(&1) and &1 not in [nil, true, false])),
      do: {:ok, Enum.sort(Enum.uniq(nodes))},
      else: invalid_nodes(nodes)
  end

  defp nodes(other), do: invalid_nodes(other)

  defp invalid_nodes(value),
    do:
      invalid(:nodes, value, "must be a list of node names, such as [:\"a@host1\", :\"b@host2\"]")

  defp logs(count) when count == nil or (is_integer(count) and count in 1..@most_logs),
    do: {:ok, count}

  defp logs(other), do: invalid(:logs, other, "must be a count from 1 to #{@most_logs}")

  defp name(name) when is_atom(name) and name not in [nil, true, false],
    do: name(Atom.to_string(name))

  defp name(name) when is_binary(name) do
    if byte_size(name) <= 100 and Regex.match?(@name_format, name),
      do: {:ok, name},
      else: invalid_name(name)
  end

  defp name(other), do: invalid_name(other)

  defp invalid_name(value) do
    invalid(:name, value, "must be an atom or string of 1 to 100 letters, digits, _ and -")
  end

  defp timeout(ms) when is_integer(ms) and ms > 0 and ms <= 0xFFFF_FFFF, do: {:ok, ms}

  defp timeout(other),
    do: invalid(:command_timeout, other, "must be milliseconds, an integer from 1 to 4294967295")

  defp proper?(list), do: List.improper?(list) == false

  @doc "How many logs a node may have."
  @spec most_logs() :: pos_integer()
  def most_logs, do: @most_logs

  @doc "What is wrong with an option, in words that name it."
  @spec invalid(term(), term(), String.t()) :: {:error, invalid()}
  def invalid(key, value, text) do
    {:error,
     {:invalid_option, key, value, "option #{inspect(key)} of Ra: #{text}, got: #{shown(value)}"}}
  end

  defp shown(value), do: inspect(value, limit: 20, printable_limit: 200)
end
