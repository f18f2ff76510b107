defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peer do
  @moduledoc false
  # What is measured against what: a way to have a write committed.
  # One invariant: whatever differs between two peers is in their modules; work, callers and clock are shared.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Peers
  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Work

  @peers [
    batcher: Peers.Batcher,
    auto: Peers.Auto,
    genserver: Peers.GenServerBatcher,
    gbs: Peers.Gbs,
    floor: Peers.Floor,
    direct: Peers.Direct
  ]

  @typedoc "The name in options, lines and tables."
  @type name :: :batcher | :auto | :genserver | :gbs | :floor | :direct
  @type handle :: term

  @doc "Starts what serves this work, linked to the calling process."
  @callback start(Work.t()) :: handle
  @doc "Ends it. No call is under way any more."
  @callback stop(handle, Work.t()) :: :ok
  @doc "The call that a caller makes again and again. It returns the reply: an `{:error, _}` is a failure."
  @callback call(handle, Work.t(), caller :: non_neg_integer) :: (() -> term)

  @spec names() :: [name]
  def names, do: Keyword.keys(@peers)

  @spec module(name) :: module
  def module(name), do: Keyword.fetch!(@peers, name)

  @doc "Whether a peer calls the backend, and so has commits to count."
  @spec commits?(name) :: boolean
  def commits?(name), do: name != :floor
end
