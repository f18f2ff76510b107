defmodule Ferricstore.Raft.WARaftBackend.Batcher.Prometheus do
  @moduledoc """
  A collector for [prometheus.erl](https://hex.pm/packages/prometheus): what `Batcher.stats/0` tells, as metrics.

  `:prometheus` is no dependency of this library. Where the host has it, either configure

      config :prometheus, collectors: [:default, #{inspect(__MODULE__)}]

  or register the collector once `:prometheus` runs:

      :prometheus_registry.register_collector(#{inspect(__MODULE__)})

  From then on whatever the host serves of that registry has the metrics of all shards that are open. Nothing is counted
  for this: a scrape reads what the library keeps anyway.

  ## Metrics

  Each name of `Batcher.stats/1` with the prefix `ferricstore_batcher_` and the label `shard`, and with those that the
  statistics have: `lane`, a kind of lane and never a prefix, `cause`, `reason`, `result`. Times are in seconds and sizes
  in bytes: `commit_us` is `ferricstore_batcher_commit_seconds`. Counters end in `_total`; they go on when a batcher is
  stopped and started again, and `rate()` copes with `Batcher.reset_stats/1`. Distributions are classic histograms, with
  `_bucket`, `_sum` and `_count`.

  A shard has some hundreds of series, most of them buckets. Those that nobody looks at a scraper can drop by name.
  `docs/grafana.json` is a dashboard of these metrics.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.Families

  @prefix "ferricstore_batcher_"

  @doc "What `:prometheus` calls at each scrape: passes each metric family to `callback`."
  @spec collect_mf(registry :: atom, callback :: (tuple -> term)) :: :ok
  def collect_mf(_registry, callback) do
    for family <- Families.now(), do: callback.(metric_family(family))
    :ok
  end

  @doc "What `:prometheus` calls when the collector is taken out of a registry: there is nothing to clean up."
  @spec deregister_cleanup(registry :: atom) :: :ok
  def deregister_cleanup(_registry), do: :ok

  @doc "A family as a record of `:prometheus`."
  @spec metric_family(Families.t()) :: tuple
  def metric_family(%{name: name, type: type, help: help, values: values}) do
    metrics = for {labels, value} <- values, do: metric(type, labels, value)
    :prometheus_model_helpers.create_mf(@prefix <> name, help, type, metrics)
  end

  defp metric(:histogram, labels, %{buckets: buckets, count: count, sum: sum}),
    do: {labels, buckets, count, sum}

  defp metric(_number, labels, value), do: {labels, value}
end
