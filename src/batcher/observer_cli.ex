defmodule Ferricstore.Raft.WARaftBackend.Batcher.ObserverCli do
  @moduledoc """
  A page of [observer_cli](https://hex.pm/packages/observer_cli): the shards of this node, sorted by whatever column you
  like, and above them the busiest lanes, in 80 columns.

  `:observer_cli` is no dependency of this library. On a node that has it:

      #{inspect(__MODULE__)}.start()

  in a remote shell, or `mix batcher.top NODE` from elsewhere. Where the host has plugins of its own, add

      %{module: #{inspect(__MODULE__)}, title: ~c"Batcher", shortcut: ~c"BA", sort_column: 2}

  to `:plugins` of `:observer_cli`.

  The keys below take Return behind them. `q` quits, `H` goes to observer_cli's own pages, `F` and `B` to the next and the
  former page of shards, a number sets the milliseconds between two samples; the letter in the head of a column sorts by it:

  | column | of each shard |
  | --- | --- |
  | `writes(w)` | writes accepted, per second |
  | `commit(c)` | commits that ended, per second |
  | `w/c(p)` | writes in one commit, the mean |
  | `queue(u)` | items that wait for a commit, now |
  | `oldest(o)` | how long the oldest of them has waited, in ms, now |
  | `p99(t)` | 99 of 100 commits took less, in ms |
  | `ref(r)` | writes refused per second, for whatever cause |

  Rates, means and percentiles are those since the last sample.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.Top

  # How far apart those of the first page are, which has no sample before it.
  @first_sample_ms 250

  @plugin %{module: __MODULE__, title: ~c"Batcher", shortcut: ~c"BA", sort_column: 2}

  # Title, key, width, decimals, and where the value is. observer_cli draws 14 characters around these.
  @columns [
    {"shard", nil, 8, 0, :shard},
    {"writes", "w", 9, 0, :writes_per_second},
    {"commit", "c", 9, 0, :commits_per_second},
    {"w/c", "p", 8, 1, :writes_per_commit},
    {"queue", "u", 8, 0, :queued_items},
    {"oldest", "o", 9, 1, :oldest_wait_ms},
    {"p99", "t", 8, 1, :commit_p99_ms},
    {"ref", "r", 7, 0, :refused_per_second}
  ]
  @line_width 77

  @doc """
  Opens the page on the terminal of the calling process, and returns when it is left. `{:error, :no_observer_cli}` where
  that can't be loaded.
  """
  @spec start() :: :ok | {:error, :no_observer_cli}
  def start do
    if Code.ensure_loaded?(:observer_cli) do
      :ok = register()
      _ = :observer_cli.start_plugin()
      :ok
    else
      {:error, :no_observer_cli}
    end
  end

  @doc "Makes the page the first of observer_cli's plugins on this node: the key `P` on its own pages leads there."
  @spec register() :: :ok
  def register do
    # Whoever loads an application anew sets its environment anew.
    _ = Application.load(:observer_cli)
    plugins = Application.get_env(:observer_cli, :plugins, [])
    others = Enum.reject(plugins, &(&1[:module] == __MODULE__))
    Application.put_env(:observer_cli, :plugins, [@plugin | others])
  end

  # What observer_cli asks for at each sample. State is the sample before, `:undefined` at first.

  @doc false
  def sheet_header do
    for {title, key, width, _decimals, _name} <- @columns do
      header = %{title: to_charlist(title), width: width}
      if key, do: Map.put(header, :shortcut, to_charlist(key)), else: header
    end
  end

  @doc false
  def sheet_body(state) do
    {before, now} = samples(state)
    {for(row <- Top.shards(before, now), do: cells(row)), now}
  end

  @doc false
  def attributes(state) do
    {before, now} = samples(state)
    lines = Top.summary(Top.shards(before, now), Top.lanes(before, now))
    {for(line <- lines, do: [%{content: to_charlist(line), width: @line_width}]), now}
  end

  defp samples(:undefined) do
    before = Top.sample()
    Process.sleep(@first_sample_ms)
    {before, Top.sample()}
  end

  defp samples(before), do: {before, Top.sample()}

  # observer_cli sorts by the cells as they are. Text that is flush right sorts as its numbers do.
  defp cells(row) do
    for {_title, _key, width, decimals, name} <- @columns,
        do: row |> Top.cell(name, decimals, width - 2) |> to_charlist()
  end
end
