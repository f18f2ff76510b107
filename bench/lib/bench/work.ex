defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Work do
  @moduledoc false
  # What the callers of one measurement write, and where to.
  # One invariant: it depends on the caller's number alone, so that every peer gets exactly the same work.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.From

  @enforce_keys [:callers, :backend]
  defstruct [
    :callers,
    :backend,
    lane: :namespace,
    group: 1,
    from: nil,
    value_size: 16,
    value: nil,
    shards: 1,
    namespaces: 1,
    window_ms: 1
  ]

  @typedoc """
  `group`: entries of one call in the put lane. `from`: what asynchronous calls have as such, `nil` for synchronous
  ones. `backend`: the module that commits.
  """
  @type t :: %__MODULE__{
          callers: pos_integer,
          backend: module,
          lane: :namespace | :put,
          group: pos_integer,
          from: From.kind() | nil,
          value_size: non_neg_integer,
          value: binary,
          shards: pos_integer,
          namespaces: pos_integer,
          window_ms: non_neg_integer
        }

  @doc "Work with a value made for it: random, so that no store can make it small."
  @spec new(keyword) :: t
  def new(fields) do
    work = struct!(__MODULE__, fields)
    %{work | value: :rand.bytes(work.value_size)}
  end

  @spec shard(t, non_neg_integer) :: non_neg_integer
  def shard(work, caller), do: rem(caller, work.shards)

  @doc "The namespace that a caller writes to."
  @spec prefix(t, non_neg_integer) :: binary
  def prefix(work, caller), do: "ns#{rem(div(caller, work.shards), work.namespaces)}"

  @doc "The lane that a caller writes to: a namespace or `:put_batch`."
  @spec lane(t, non_neg_integer) :: binary | :put_batch
  def lane(%{lane: :put}, _caller), do: :put_batch
  def lane(work, caller), do: prefix(work, caller)

  @doc "All lanes that are written to."
  @spec lanes(t) :: [{shard :: non_neg_integer, binary | :put_batch}]
  def lanes(%{lane: :put} = work), do: for(shard <- 0..(work.shards - 1), do: {shard, :put_batch})

  def lanes(work) do
    for shard <- 0..(work.shards - 1),
        namespace <- 0..(work.namespaces - 1),
        do: {shard, "ns#{namespace}"}
  end

  @doc "A caller's one command. Its key stays the same, so that a backend that stores holds no more with time."
  @spec command(t, non_neg_integer) :: {:put, binary, binary, 0}
  def command(work, caller), do: {:put, key(caller, 1), work.value, 0}

  @doc "A caller's one group for the put lane."
  @spec entries(t, non_neg_integer) :: [{binary, binary, 0}]
  def entries(work, caller),
    do: for(number <- 1..work.group, do: {key(caller, number), work.value, 0})

  # As long as keys are in practice.
  defp key(caller, number), do: "caller:#{caller}:key:#{number}"
end
