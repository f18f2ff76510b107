defmodule Ferricstore.Raft.WARaftBackend.Batcher.Committer.Batch do
  @moduledoc false
  # What one lane brings to a commit, as a committer has received it, and what those of one commit hold together.
  #
  # Invariant: the writes of a batch stay in the lists that they came in, and these in their order.

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Native, Proposal, Telemetry}

  @typedoc "The name of the lane, what it proposes, and what is told of it."
  @type t :: {Native.lane(), Proposal.part(), Telemetry.Emit.info()}

  @doc "A batch whose last entries came with the rest of it. `parts`: the entries before these, the last ones first."
  @spec of([list], Native.small_batch()) :: t
  def of([], {lane, function, entries, info}),
    do: {lane, {function, lists(lane, [entries])}, info}

  def of(parts, {lane, function, entries, info}),
    do: {lane, {function, lists(lane, :lists.reverse(parts, [entries]))}, info}

  @doc "The batches of a commit that has come whole, mostly one."
  @spec small([Native.small_batch(), ...]) :: [t, ...]
  def small([batch]), do: [of([], batch)]
  def small(batches), do: for(batch <- batches, do: of([], batch))

  # A namespace lane comes as entries, a hot one as the callers' lists.
  defp lists(lane, parts) when is_binary(lane), do: parts
  defp lists(_lane, [groups]), do: groups
  defp lists(_lane, parts), do: :lists.append(parts)

  @doc "What they propose."
  @spec parts([t, ...]) :: [Proposal.part(), ...]
  def parts([{_lane, part, _info}]), do: [part]
  def parts(batches), do: for({_lane, part, _info} <- batches, do: part)

  @doc "Whose they are."
  @spec lanes([t, ...]) :: [Native.lane(), ...]
  def lanes(batches), do: for({lane, _part, _info} <- batches, do: lane)

  @doc "How many replies, items, calls and bytes they hold."
  @spec counts([t]) ::
          {replies :: non_neg_integer, items :: non_neg_integer, calls :: non_neg_integer,
           bytes :: non_neg_integer}
  def counts([{_lane, _part, {{replies, cost, groups, bytes}, _, _, _}}]),
    do: {replies, max(cost, groups), groups, bytes}

  def counts(batches) do
    for {_lane, _part, {{replies, cost, groups, bytes}, _, _, _}} <- batches,
        reduce: {0, 0, 0, 0} do
      {all_replies, items, calls, size} ->
        {all_replies + replies, items + max(cost, groups), calls + groups, size + bytes}
    end
  end

  @doc "Whether the commit followed another one, so that its lane lingers (5.4)."
  @spec lingers?([t, ...]) :: boolean
  def lingers?([{_lane, _part, {_counts, _window_ms, _wait_us, reason}} | _]),
    do: reason == :commit
end
