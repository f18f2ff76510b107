# A backend on Ra, RabbitMQ's Raft library: its public functions.
# Invariant: one Raft command per batch, handed to Ra at most once.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra do
  @moduledoc """
  A backend on Ra, RabbitMQ's Raft library, embedded: keys and values in
  memory, durable in Ra's log. One node by default, a cluster when given members.

      :ok = Backend.Ra.start(data_dir: "/var/lib/app/raft", shards: 4)
      {:ok, _} = Batcher.start_link(0, backend: Backend.Ra)

  Ra is no dependency of this library; where it is missing, `start/1` says so.

  ## Commands

  `{:put, key, value, expire_at_ms}`, `{:delete, key}`, `{:put_batch, entries}`, `{:delete_batch, keys}`,
  `{:batch, commands}` (nested as deep as you like) and `{:incr, key, by}`, each with the replies that
  `Batcher.Backend.reply_count/1` counts. A put or delete answers `:ok`; an increment `{:ok, sum}`, where a value is decimal
  text of a signed 64-bit integer, a missing key counts as 0, and the entry keeps its `expire_at_ms`.
  Errors stand in place of a reply and change nothing:

    * `{:error, {:unknown_command, command}}`: any other term;
    * `{:error, {:invalid_entry, entry}}`, `{:error, {:invalid_key, key}}`: an item of a put or delete batch
      that is not `{binary, binary, integer}` or a binary;
    * `{:error, :not_an_integer}`, `{:error, :increment_overflow}`: of an increment.

  `expire_at_ms` is stored, never acted on.

  ## Errors of a whole batch

  Certainly not committed:

    * `{:error, :not_started}`, `{:error, {:unknown_shard, shard}}`: see `start/1`;
    * `{:error, {:no_leader, shard}}`: no leader within `:command_timeout`;
    * `{:error, :invalid_batch_command_list}`: an improper list.

  Outcome unknown, since Ra may have accepted the batch and may still commit it. It is never sent
  again:

    * `{:error, {:timeout, server_id}}`: no answer within `:command_timeout`;
    * `{:error, {:server_down, server_id, reason}}`, `{:error, {:nodedown, server_id}}`,
      `{:error, {:noproc, server_id}}`: the server ended, or restarted, meanwhile.

  A leader change without such an error is followed, and costs the batch no more than the wait.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.{Client, Cluster, Config}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.{Instance, Machine}

  @behaviour Backend

  @stop_ms 30_000

  @typedoc "A member of a shard's Raft group: the name of its process, and its node."
  @type server_id :: {atom(), node()}

  @typedoc "The moment is in ms of the Unix clock, 0 is never."
  @type value :: {value :: binary(), expire_at_ms :: integer()}

  @doc """
  Starts the shards, or brings them back from `:data_dir` with everything that was acknowledged. Returns when
  each has a leader. Called again, it starts what is missing; more shards may be added so.

  Options:

    * `:data_dir` (required): a directory, a path. Each node keeps its data below `<data_dir>/<node name>`, and that of
      its other logs below `<data_dir>/<node name>+1` and so on; a node that comes back under another name starts empty.
    * `:shards` (default 1): a count, or a list of shard indexes.
    * `:logs` (default: one for each of these shards, at most 8): how many logs on disk the shards of a node share. Each
      is synced by itself, so that a commit need not wait for the sync of another log's shards; fewer logs make fewer
      syncs. It is decided when a node starts in an empty directory, and is then that of the data: another number is an
      error, none means that one.
    * `:nodes` (default `[node()]`): the members, by node. All are started from here; each must be able to
      load this library and Ra, and may call `start/1` with the same options itself, as it should when it
      boots. A minority that can't be reached is left out; where no majority can be reached, or a node refuses, nothing
      is started or made on any of them. A node that is no member may use the others.
      Members are fixed: starting with other ones on existing data does not change who takes part.
    * `:name` (default `"ferricstore_batcher"`): atom or string of letters, digits, `_` and `-`; begins the
      names of the Ra systems, the servers and their data.
    * `:command_timeout` (default 30_000): ms for a commit or query, and for each shard to find its leader.
      Should the member that was asked name another leader late, Ra grants the rest of the time anew.

  Errors: `{:error, {:ra_not_available, text}}` where Ra's libraries are missing,
  `{:error, {:invalid_option, key, value, text}}`, `{:error, {:missing_option, :data_dir, text}}`,
  `{:error, {:already_started, running, text}}` when an instance with another name, directory or other members
  runs, `{:error, {:data_dir, path, posix, text}}`, with `:in_use` for `posix` when another VM runs in this directory (it is
  locked until that stops or ends, also by a kill), `{:error, {:nif_not_loaded, reason}}` where it can't be locked because
  the library of the batcher is missing, `{:error, {:nodes_unreachable, nodes, text}}`, `{:error, {:no_leader, shard}}`,
  and what Ra itself or a node reports. A node that can't start its own shards stops what it has started of them; what
  other nodes have started, and what waits for a leader, stays: call it again, or `stop/0`.
  """
  @spec start(keyword()) :: :ok | {:error, term()}
  def start(opts) do
    with {:ok, spec} <- Config.validate(opts), do: Cluster.start(spec)
  end

  @doc """
  For a supervisor: `start/1` with these options when it starts its children, `stop/0` when it ends them. To stand before
  the batchers, so that it is stopped after them; `Batcher.Supervisor` does so with its option `:ra`. The child ends with
  `{:ra_ended, name}` when a Ra system or server of this node has ended and Ra has not started it again two seconds later.
  """
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(opts) do
    %{
      id: __MODULE__,
      start: {Instance, :start_link, [opts]},
      # Servers that stop write what they have not written.
      shutdown: @stop_ms
    }
  end

  @doc """
  Stops this node's servers and the Ra systems that hold them; data stays. Members on other nodes go on:
  stop each there. Ra's application and other Ra systems are left alone.
  """
  @spec stop() :: :ok
  def stop, do: Cluster.stop()

  @impl Backend
  def __commit_batch_direct__(shard, commands), do: commit(shard, :batch, commands)

  @impl Backend
  def __commit_put_batch_direct__(shard, entries), do: commit(shard, :put_batch, entries)

  @impl Backend
  def __commit_delete_batch_direct__(shard, keys), do: commit(shard, :delete_batch, keys)

  # `length/1` refuses improper lists, which the machine would take for one unknown command.
  defp commit(shard, kind, list) when is_list(list) and length(list) >= 0,
    do: Client.command(shard, Machine.pack({kind, list}))

  defp commit(_shard, _kind, _improper), do: {:error, :invalid_batch_command_list}

  @doc "What is stored under `key`, by the leader, as of now: every write acknowledged before is in it."
  @spec fetch(non_neg_integer(), binary()) :: {:ok, value()} | :not_found | {:error, term()}
  def fetch(shard, key) do
    with {:ok, found} <- Client.query(shard, {Machine, :fetch, [key]}), do: found
  end

  @doc "All keys of a shard, as `fetch/2` sees them. Copies the whole shard."
  @spec fetch_all(non_neg_integer()) :: {:ok, %{binary() => value()}} | {:error, term()}
  def fetch_all(shard), do: Client.query(shard, {Machine, :fetch_all, []})

  @doc "How many batches, that is Raft commands of this backend's, the shard has applied in its whole life."
  @spec commits(non_neg_integer()) :: {:ok, non_neg_integer()} | {:error, term()}
  def commits(shard), do: Client.query(shard, {Machine, :commits, []})

  @doc "The leader of a shard, asked of the members."
  @spec leader(non_neg_integer()) :: {:ok, server_id()} | {:error, term()}
  def leader(shard) do
    with {:ok, _members, leader} <- Client.members(shard), do: {:ok, leader}
  end

  @doc "The members of a shard, as its leader has them."
  @spec members(non_neg_integer()) :: {:ok, [server_id()]} | {:error, term()}
  def members(shard) do
    with {:ok, members, _leader} <- Client.members(shard), do: {:ok, members}
  end

  @doc "The indexes of the shards that run here, in order; none before `start/1`."
  @spec shards() :: [non_neg_integer()]
  def shards do
    case Config.running() do
      nil -> []
      config -> config.shards |> Map.keys() |> Enum.sort()
    end
  end
end
