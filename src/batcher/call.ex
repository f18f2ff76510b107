defmodule Ferricstore.Raft.WARaftBackend.Batcher.Call do
  @moduledoc false
  # What the public functions of the hot lanes have in common: through the batcher where there is one and the lane has a
  # window, otherwise a commit in the caller (contract 2, 3, 10).
  #
  # Invariant: the settings of the shard are looked up once for each call.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.{Commit, Count, From, Log, Settings, Write}

  import From, only: [is_from: 1]

  @type lane :: :batch | :put_batch | :delete_batch

  @doc "Writes a list and returns the reply to it. `function`: the public one, for those who time out."
  @spec sync(integer, lane, list, atom) :: term
  def sync(shard, lane, list, function) do
    settings = Settings.of(shard)

    case {count(lane, list), window(lane, settings)} do
      {:improper, _window_ms} ->
        Write.refuse_list(shard)

      {_count, :direct} ->
        Commit.run_list(shard, lane, settings, list)

      {count, window_ms} ->
        case Write.call(shard, lane, list, count, window_ms, settings) do
          {:reply, reply} -> reply
          :not_running -> Commit.run_list(shard, lane, settings, list)
          :timeout -> time_out(function, [shard, list])
          error -> error
        end
    end
  end

  @doc "Queues a list whose reply goes to `from`: `:ok`, or `{:direct, result}`."
  @spec async(integer, lane, list, GenServer.from(), term) :: :ok | {:direct, term}
  def async(shard, lane, list, from, sync_token) do
    from!(from)
    settings = Settings.of(shard)

    case Write.Async.write(shard, lane, list, window(lane, settings), from, sync_token) do
      :ok -> :ok
      :not_running -> {:direct, Commit.run_list(shard, lane, settings, list)}
    end
  end

  @doc "The same for one command, whose reply is bare."
  @spec single_async(integer, tuple, GenServer.from(), term) :: :ok | {:direct, term}
  def single_async(shard, command, from, sync_token) do
    from!(from)
    settings = Settings.of(shard)
    window_ms = window(:batch, settings)

    case Write.Async.write(shard, :single, [command], window_ms, from, sync_token) do
      :ok -> :ok
      :not_running -> {:direct, Commit.run_single(shard, :batch, settings, command)}
    end
  end

  @doc "Ends a call that has waited for too long (3.7)."
  @spec time_out(atom, list) :: no_return
  def time_out(function, args), do: exit({:timeout, {Batcher, function, args}})

  defp window(:batch, settings), do: Settings.generic_window_ms(settings)

  defp window(_put_or_delete, settings) do
    window_ms = Settings.hot_window_ms(settings)
    if window_ms > 0, do: window_ms, else: :direct
  end

  defp count(:batch, commands), do: Count.commands(commands)
  defp count(_put_or_delete, items), do: Count.items(items)

  defp from!(from) when is_from(from), do: from

  # A tag may be anything that a caller wrote.
  defp from!(from) do
    raise ArgumentError,
          "from must be a GenServer.from(): {to, tag}, where to is a pid, an alias, a name or " <>
            "{name, node}, got: #{Log.shape(from)}"
  end
end
