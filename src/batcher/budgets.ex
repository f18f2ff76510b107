defmodule Ferricstore.Raft.WARaftBackend.Batcher.Budgets do
  @moduledoc false
  # What a commit may be to the host's state machine, and what a group is (contract 16.3). Modules of the
  # host's know both; they are looked for at run time.
  #
  # Invariant: groups are measured in the process that writes them, before anything is queued.

  import Ferricstore.Raft.WARaftBackend.Batcher.Settings, only: [exports?: 3]

  alias Ferricstore.Raft.WARaftBackend.Batcher.Native

  @context Ferricstore.Raft.ApplyContext
  @work Ferricstore.Raft.ApplyWork
  @no_limit 0xFFFF_FFFF_FFFF_FFFF

  @typedoc "Command items, members of compound values, visits."
  @type usage :: {non_neg_integer, non_neg_integer, non_neg_integer}

  @doc """
  What a start option `:apply_context` comes to: the context and its budgets; `nil`: groups are not measured.
  """
  @spec find(term) :: {context :: term, usage} | nil
  def find(:host) do
    if exports?(@context, :default, 0), do: find(apply(@context, :default, []))
  end

  def find(context) do
    measures? =
      context != nil and exports?(@work, :batch_usage, 2) and exports?(@work, :admit_items, 2)

    if measures? do
      {context,
       {budget(context, :batch_command_apply_budget),
        budget(context, :compound_member_apply_budget), visits(context)}}
    end
  end

  @doc "Has the groups of a shard that is about to be opened measured with what `find/1` found; the shard's budgets."
  @spec open(non_neg_integer, {term, usage} | nil) :: usage | nil
  def open(shard, nil) do
    # To erase a term that isn't there costs nothing, nor does it to put one that is there.
    :persistent_term.erase({__MODULE__, shard})
    nil
  end

  def open(shard, {context, budgets}) do
    # Read by each caller, and never copied.
    :persistent_term.put({__MODULE__, shard}, {:ok, context})
    budgets
  end

  @doc "Whether groups of this shard are measured."
  @spec measured?(integer) :: boolean
  def measured?(shard), do: :persistent_term.get({__MODULE__, shard}, nil) != nil

  @doc """
  What a group is: its usage and its number of replies, or the error that its caller gets.
  """
  @spec measure(integer, Native.lane(), term) ::
          {:ok, usage, replies :: non_neg_integer} | {:error, atom}
  def measure(shard, lane, items) when lane in [:put_batch, :delete_batch] do
    with {:ok, count} <- apply(@work, :admit_items, [context(shard), items]),
         do: {:ok, {count, 0, 0}, count}
  end

  def measure(shard, lane, item) do
    commands = if is_binary(lane), do: [item], else: item

    case apply(@work, :batch_usage, [context(shard), commands]) do
      {:ok, %{replies: replies}} when is_binary(lane) and replies != 1 ->
        {:error, :namespace_batch_reply_width_unsupported}

      {:ok, usage} ->
        {:ok, {usage.command_items, usage.compound_members, usage.visits}, usage.replies}

      {:error, _reason} = error ->
        error
    end
  end

  # No context any more if the shard was just started anew without one: then the host's modules have to refuse.
  defp context(shard), do: elem(:persistent_term.get({__MODULE__, shard}, {:ok, nil}), 1)

  defp budget(context, key) when is_map_key(context, key), do: limit(Map.fetch!(context, key))
  defp budget(_context, _key), do: @no_limit

  defp visits(context) do
    if exports?(@work, :visit_budget, 1),
      do: limit(apply(@work, :visit_budget, [context])),
      else: @no_limit
  end

  defp limit(number) when is_integer(number) and number >= 0, do: min(number, @no_limit)
  defp limit(_none), do: @no_limit
end
