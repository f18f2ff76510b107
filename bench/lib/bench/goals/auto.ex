defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Goals.Auto do
  @moduledoc false
  # What the batcher is to reach with the options of `Peers.Auto`: never to be worse than direct commits, whatever the
  # number of callers, shards and namespaces, nor than its own defaults where these do well.
  # One invariant: a goal over the cells of `mix` needs all of them; one over the rates of `open` those whose samples
  # were not dropped.

  import Ferricstore.Raft.WARaftBackend.Batcher.Bench.Goals.Figures

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.Goals

  @cells for shards <- [1, 4],
             namespaces <- [1, 16],
             callers <- [1, 4, 16, 64, 256, 2_000],
             do: [shards: shards, namespaces: namespaces, callers: callers]
  # Writes/s against direct commits where many callers of many lanes write to four logs.
  @many [{64, 1.5}, {256, 1.5}, {2_000, 3}]
  @backends [
    ra: "Ra on disk",
    log_200us: "log of 0.2 ms",
    log_1ms: "log of 1 ms",
    log_5ms: "log of 5 ms"
  ]

  @spec goals() :: [Goals.to_reach()]
  def goals, do: mix() ++ open() ++ null() ++ slow()

  defp mix do
    {alone, others} = Enum.split_with(@cells, &(&1[:callers] == 1))

    [
      in_each(alone, "1 caller, writes/s", :writes, {:at_least, 0.95}),
      in_each(others, "from 4 callers, writes/s", :writes, {:at_least, 0.97}),
      {"mix: writes/s of auto against direct, geometric mean of #{length(@cells)} cells",
       {:at_least, 2}, geometric_mean(for cell <- @cells, do: against_direct(:writes, cell))},
      in_each(@cells, "latency p50", :p50_us, {:at_most, 1}),
      in_each(@cells, "latency p99", :p99_us, {:at_most, 1.1}),
      in_each(@cells, "processor time per write", :cpu_us, {:at_most, 1})
    ] ++ many() ++ [one_lane()]
  end

  defp in_each(cells, of, figure, bound) do
    figures = for cell <- cells, do: {where(cell), against_direct(figure, cell)}

    {"mix: #{of} of auto against direct, worst of #{length(cells)} cells", bound,
     worst(bound, figures, length(cells))}
  end

  defp many do
    for {callers, bound} <- @many do
      {"mix: 4 shards, 16 namespaces, #{callers} callers: writes/s of auto against direct",
       {:at_least, bound}, against_direct(:writes, shards: 4, namespaces: 16, callers: callers)}
    end
  end

  defp one_lane do
    cell = [figure: :writes, shards: 1, namespaces: 1, callers: 2_000]

    {"mix: 1 shard, 1 namespace, 2000 callers: writes/s of auto against the defaults",
     {:at_least, 1}, ratio(:mix, cell, :auto, :batcher)}
  end

  defp against_direct(figure, cell), do: ratio(:mix, [figure: figure] ++ cell, :auto, :direct)

  defp where(cell),
    do: "#{cell[:shards]} x #{cell[:namespaces]}, #{cell[:callers]} callers"

  defp open do
    for {backend, name} <- @backends, {text, bound, figure} <- open(backend) do
      {"open, #{name}: #{text}", bound, figure}
    end
  end

  # Below half of what saturates direct commits, up to 80 % of it, and at its own.
  defp open(backend) do
    [
      over_loads(
        "latency p50 of auto less that of direct below 50 %, in us",
        {:at_most, 20},
        for(load <- 1..49, do: {load, compared(backend, load, :p50_us, &Kernel.-/2)})
      ),
      over_loads(
        "latency p99 of auto against direct up to 80 %",
        {:at_most, 1.1},
        for(load <- 1..80, do: {load, compared(backend, load, :p99_us, &Kernel.//2)})
      ),
      {"saturation of auto against direct", {:at_least, 2},
       ratio(:saturation, [backend: backend], :auto, :direct)}
    ]
  end

  # Of those rates that were measured.
  defp over_loads(text, bound, figures) do
    figures = for {load, figure} <- figures, do: {"at #{load} %", figure}
    {text, bound, worst(bound, figures, 1)}
  end

  # What auto and direct make of it at the same rate.
  defp compared(backend, load, name, compare) do
    at = fn peer -> value(:open, [backend: backend, load: load, peer: peer], name) end
    both(at.(:auto), at.(:direct), compare)
  end

  defp both(own, other, compare) do
    fn lines ->
      with own when own != nil <- own.(lines),
           other when other != nil <- other.(lines),
           do: compare.(own, other)
    end
  end

  defp null do
    many =
      for callers <- [16, 256, 2_000, 10_000] do
        {"#{callers} callers: writes/s of auto against the defaults", {:at_least, 0.95},
         ratio(:throughput, [backend: :null, callers: callers], :auto, :batcher)}
      end

    [
      {"1 caller: writes/s of auto against gen_batch_server", {:at_least, 3},
       ratio(:throughput, [backend: :null, callers: 1], :auto, :gbs)}
      | many
    ]
  end

  defp slow do
    for callers <- [16, 64, 256] do
      {"commit of 1 ms, #{callers} callers: writes/s of auto against the defaults",
       {:at_least, 1}, ratio(:throughput, [backend: :slow, callers: callers], :auto, :batcher)}
    end
  end
end
