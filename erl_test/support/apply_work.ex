defmodule Ferricstore.Raft.WARaftBackend.Batcher.ApplyWorkDouble do
  @moduledoc false
  # The host's `Ferricstore.Raft.ApplyWork` and its context (contract 16.3), for as long as a test runs.
  #
  # A command `{:work, items, members, visits, replies}` is what it says; any other is one of each, no members. A
  # context has budgets, and may have `test`, which hears of each call.
  #
  # Invariant: the host's name is there only while a test wants it.

  import ExUnit.Callbacks

  @host Ferricstore.Raft.ApplyWork
  @host_context Ferricstore.Raft.ApplyContext

  @doc "Loads the module under the host's name until the end of the test."
  def load do
    forward =
      quote do
        defdelegate batch_usage(context, commands), to: unquote(__MODULE__)
        defdelegate admit_items(context, items), to: unquote(__MODULE__)
        defdelegate visit_budget(context), to: unquote(__MODULE__)
      end

    create(@host, forward)
  end

  @doc "The same for the host's context, whose default this is."
  def load_default(context) do
    context = Macro.escape(context)
    create(@host_context, quote(do: def(default, do: unquote(context))))
  end

  defp create(module, body) do
    Module.create(module, body, Macro.Env.location(__ENV__))

    on_exit(fn ->
      :code.purge(module)
      :code.delete(module)
      :code.purge(module)
    end)
  end

  @doc "A context with these budgets."
  def context(budgets \\ []) do
    budgets = Map.new(budgets)

    Map.merge(
      %{
        batch_command_apply_budget: 100,
        compound_member_apply_budget: 100,
        visits: 100,
        test: self()
      },
      budgets
    )
  end

  def visit_budget(context), do: context.visits

  def admit_items(context, items) do
    called(context, :admit_items, items)
    if items == [:strange], do: {:error, :strange_item}, else: {:ok, length(items)}
  end

  def batch_usage(context, commands) do
    called(context, :batch_usage, commands)

    case commands do
      [{:strange}] ->
        {:error, :strange_command}

      [{:raise}] ->
        raise "not understood"

      _known ->
        works = Enum.map(commands, &work/1)

        [items, members, visits, replies] =
          for n <- 0..3, do: Enum.sum(Enum.map(works, &elem(&1, n)))

        {:ok,
         %{command_items: items, compound_members: members, visits: visits, replies: replies}}
    end
  end

  defp work({:work, items, members, visits, replies}), do: {items, members, visits, replies}
  defp work(_command), do: {1, 0, 1, 1}

  defp called(%{test: test}, function, list), do: send(test, {function, self(), list})
  defp called(_context, _function, _list), do: :ok
end
