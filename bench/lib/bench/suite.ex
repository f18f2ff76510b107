defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Suite do
  @moduledoc false
  # What a run measures, the whole of it and the quick one, and how options change that.
  # One invariant: `specs/1` gives specs that can be run as they stand, in this order.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Backends, CommandLine, Peer, Scenarios}

  @callers [1, 16, 256, 2_000, 10_000]
  @batching [:batcher, :genserver, :gbs]
  @bounded @batching ++ [:floor]
  @committing @batching ++ [:direct]
  @all @bounded ++ [:direct]

  @typedoc """
  Lists are run through, each combination of them. `seconds` counts for one sample of one peer, `repeat` samples of
  each are taken.
  """
  @type spec :: %{
          kind: atom,
          module: module,
          backend: Backends.name(),
          peers: [Peer.name()],
          lane: :namespace | :put,
          callers: [pos_integer],
          groups: [pos_integer],
          values: [non_neg_integer],
          shards: [pos_integer],
          namespaces: [pos_integer],
          loads: [pos_integer],
          windows: [non_neg_integer],
          depths: [pos_integer],
          writes: pos_integer,
          repeat: pos_integer,
          seconds: number,
          warm_up: number
        }

  @usual %{
    module: Scenarios.Closed,
    backend: :null,
    peers: @bounded,
    lane: :namespace,
    callers: [256],
    groups: [1],
    values: [16],
    shards: [1],
    namespaces: [1],
    loads: [],
    windows: [],
    depths: [],
    writes: 1_000_000,
    repeat: 3,
    seconds: 0.5,
    warm_up: 0.2
  }

  @open %{
    peers: [:auto, :direct, :batcher],
    windows: [0, 1, 5],
    loads: [5, 10, 25, 50, 65, 80, 95],
    # As many as a sample should have, `seconds` is the most it takes.
    writes: 2_000,
    repeat: 2,
    seconds: 0.9,
    warm_up: 0.15
  }
  @open_quick %{windows: [1], loads: [25, 80], seconds: 0.5}

  # {kind, what differs from the usual, what differs from that in a quick run}
  @plan [
    {:throughput,
     %{callers: @callers, peers: @all ++ [:auto], repeat: 5, seconds: 0.5, warm_up: 0.15},
     %{peers: @bounded ++ [:auto]}},
    {:latency, %{callers: @callers, peers: @bounded ++ [:auto], seconds: 0.4},
     %{callers: [1, 16, 256, 2_000]}},
    {:throughput,
     %{
       backend: :slow,
       callers: [16, 64, 256],
       peers: @batching ++ [:auto],
       repeat: 5,
       seconds: 0.4,
       warm_up: 0.15
     }, %{}},
    {:latency, %{backend: :slow, callers: [16, 64, 256], peers: @batching ++ [:auto], repeat: 1},
     %{}},
    {:wake, %{peers: [:floor]}, %{}},
    {:throughput,
     %{
       backend: :ra,
       callers: [16, 256, 2_000],
       peers: @committing,
       repeat: 7,
       seconds: 0.5
     }, %{repeat: 1, seconds: 0.8, warm_up: 0.2}},
    {:latency, %{backend: :ra, callers: [16, 256, 2_000], peers: @committing, repeat: 1}, %{}},
    {:mix,
     %{
       backend: :ra,
       callers: [1, 4, 16, 64, 256, 2_000],
       shards: [1, 4],
       namespaces: [1, 16],
       peers: [:auto, :direct, :batcher],
       # Many and short: a disk that is slow for a second is so for all peers.
       repeat: 8,
       seconds: 0.2,
       warm_up: 0.1
     }, %{callers: [1, 16, 256], namespaces: [16]}},
    {:open, Map.merge(@open, %{backend: :ra, callers: [2_000]}), @open_quick},
    {:open, Map.merge(@open, %{backend: :log_200us}), @open_quick},
    {:open, Map.merge(@open, %{backend: :log_1ms}), @open_quick},
    {:open, Map.merge(@open, %{backend: :log_5ms}), @open_quick},
    {:groups, %{lane: :put, groups: [1, 10, 100]}, %{groups: [1, 100]}},
    {:async,
     %{
       lane: :put,
       callers: [256, 2_000],
       groups: [1, 10],
       peers: [:batcher, :genserver, :floor],
       repeat: 5,
       seconds: 0.2,
       warm_up: 0.05
     }, %{groups: [1]}},
    {:values, %{values: [16, 1_024, 65_536]}, %{}},
    {:shards, %{callers: [2_000], shards: [1, 2, 4, 8, 64]}, %{shards: [1, 64]}},
    {:namespaces, %{callers: [2_000], namespaces: [1, 100]}, %{}},
    {:window, %{windows: [1, 5, 20], peers: [:batcher, :genserver], seconds: 2.5},
     %{windows: [5], seconds: 1.5}},
    {:depth, %{depths: [1_000, 10_000, 100_000, 1_000_000], peers: [:batcher, :floor], repeat: 2},
     %{depths: [1_000, 100_000, 1_000_000], writes: 300_000}},
    {:memory, %{callers: [10_000], values: [16, 1_024, 65_536], peers: @batching}, %{}},
    {:lock, %{callers: [1, 256], peers: [:batcher]}, %{}}
  ]

  # What a quick run takes of each, unless the plan has something else.
  @quick %{repeat: 1, seconds: 0.4, warm_up: 0.1}

  @modules %{
    async: Scenarios.Async,
    mix: Scenarios.Mix,
    open: Scenarios.Open,
    window: Scenarios.Window,
    depth: Scenarios.Depth,
    memory: Scenarios.Memory,
    lock: Scenarios.Lock,
    wake: Scenarios.Wake
  }

  # What scenarios of a special make can measure, and which of them bring their backend.
  @peers %{
    async: [:batcher, :genserver, :floor],
    depth: [:batcher, :floor],
    window: @committing,
    mix: @committing ++ [:auto],
    memory: @batching,
    lock: [:batcher],
    wake: [:floor]
  }
  @own_backend [:window, :depth, :memory, :lock, :wake]

  @spec names() :: [atom]
  def names, do: @plan |> Enum.map(&elem(&1, 0)) |> Enum.uniq()

  @doc "What these options ask for, or what is wrong with the combination."
  @spec specs(CommandLine.t()) :: {:ok, [spec]} | {:error, String.t()}
  def specs(options) do
    specs =
      for {kind, full, quick} <- @plan, options.only == nil or kind in options.only do
        usual = %{kind: kind, module: Map.get(@modules, kind, Scenarios.Closed)}
        chosen = if options.quick, do: full |> Map.merge(@quick) |> Map.merge(quick), else: full
        @usual |> Map.merge(usual) |> Map.merge(chosen)
      end

    specs
    |> on_backend(options.backend)
    |> Enum.map(&override(&1, options))
    |> possible(options)
  end

  # What can't be measured is left out, unless it was asked for by name.
  defp possible(specs, options) do
    impossible = for spec <- specs, problem = problem(spec, options), do: {spec, problem}

    case impossible do
      [{spec, problem} | _] when options.only != nil -> {:error, "--only #{spec.kind} #{problem}"}
      _ -> {:ok, specs -- Enum.map(impossible, &elem(&1, 0))}
    end
  end

  defp problem(spec, options) do
    cond do
      options.backend not in [nil, :null] and spec.kind in @own_backend ->
        "has a backend of its own, which stores nothing, and not #{options.backend}"

      spec.peers == [] ->
        "can measure these peers: #{Enum.join(peers(spec.kind), ", ")}"

      true ->
        nil
    end
  end

  # The plan's own numbers for that backend where it has some, else those of the first one.
  defp on_backend(specs, nil), do: specs

  defp on_backend(specs, backend) do
    for kind <- specs |> Enum.map(& &1.kind) |> Enum.uniq() do
      [first | _] = same = Enum.filter(specs, &(&1.kind == kind))
      Enum.find(same, %{first | backend: backend}, &(&1.backend == backend))
    end
  end

  defp override(spec, options) do
    spec =
      for {key, value} <- options,
          value != nil and is_map_key(spec, key),
          reduce: spec,
          do: (spec -> Map.put(spec, key, value))

    possible = peers(spec.kind)
    %{spec | peers: Enum.filter(spec.peers, &(&1 in possible))}
  end

  defp peers(kind), do: Map.get(@peers, kind, Peer.names())
end
