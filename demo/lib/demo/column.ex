defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Column do
  @moduledoc false
  # What the demo compares: one column of its table for each way to commit.
  # One invariant: each column has shards of its own, so that all begin with nothing stored.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Call, CommandLine, Outage}

  @typedoc """
  `batcher` are the options that the batchers of its shards are started with; `unknown?` says after which errors
  nobody can know what became of the writes, and nobody is to blame.
  """
  @type t :: %{
          name: String.t(),
          via: Call.via(),
          batcher: keyword(),
          shards: Range.t(),
          unknown?: (term() -> boolean())
        }

  @doc "Direct commits, the batcher with its defaults, the batcher with the chosen options."
  @spec all(CommandLine.t(), backend :: module()) :: [t()]
  def all(options, backend) do
    [
      new("direct", {:direct, backend}, [], shards(options, 0)),
      new("default", :batched, [], shards(options, 1)),
      new("#{options.pacing}", :batched, batcher_options(options), shards(options, 2))
    ]
  end

  @doc "The batcher with the chosen options once more, for the run in which a node is killed."
  @spec outage(CommandLine.t()) :: t()
  def outage(options) do
    column = new("killed", :batched, batcher_options(options), shards(options, 3))
    %{column | unknown?: &Outage.unknown?/1}
  end

  @doc "How many shards there are in all."
  @spec shard_count(CommandLine.t()) :: pos_integer()
  def shard_count(options), do: options.shards * if(options.kill?, do: 4, else: 3)

  @doc "What the columns with a batcher are called, and what that means."
  @spec legend(CommandLine.t()) :: String.t()
  def legend(options) do
    "default: the batcher with no options; #{options.pacing}: " <>
      "with pacing #{options.pacing}, commit scope #{options.commit_scope}"
  end

  defp new(name, via, batcher, shards),
    do: %{
      name: name,
      via: via,
      batcher: batcher,
      shards: shards,
      unknown?: fn _reason -> false end
    }

  defp batcher_options(options), do: [pacing: options.pacing, commit_scope: options.commit_scope]

  defp shards(%{shards: count}, place), do: (place * count)..((place + 1) * count - 1)
end
