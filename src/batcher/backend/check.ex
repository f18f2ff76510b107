defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Check do
  @moduledoc false
  # Whether a backend is there, when a batcher starts, and what is said where that was not to be asked.
  #
  # Invariant: what is logged names functions and places, and never what was to be written.

  require Logger

  @functions [
    __commit_batch_direct__: 2,
    __commit_put_batch_direct__: 2,
    __commit_delete_batch_direct__: 2
  ]

  @typedoc "What there is to say of a backend that lacks functions."
  @type unavailable ::
          {:backend_not_available, term, missing_functions :: [{atom, arity}, ...]}

  @doc "Whether a module can be loaded and has all functions that a backend needs."
  @spec available(term) :: :ok | {:error, unavailable}
  def available(module) do
    case missing(module) do
      [] -> :ok
      missing -> {:error, {:backend_not_available, module, missing}}
    end
  end

  defp missing(module) when is_atom(module) do
    if Code.ensure_loaded?(module),
      do:
        for(
          {function, arity} <- @functions,
          not function_exported?(module, function, arity),
          do: {function, arity}
        ),
      else: @functions
  end

  defp missing(_no_module), do: @functions

  @doc "The same, for people."
  @spec message(unavailable) :: String.t()
  def message({:backend_not_available, module, missing}) do
    functions = Enum.map_join(missing, ", ", fn {function, arity} -> "#{function}/#{arity}" end)
    loaded? = is_atom(module) and Code.ensure_loaded?(module)
    what = if loaded?, do: "has no #{functions}", else: "can't be loaded"

    "the backend #{inspect(module)} #{what}: name another one with the option :backend, or in the environment of " <>
      ":ferricstore_batcher, or say backend_check: :lazy if it is loaded later"
  end

  @doc "A batcher starts: what a backend has failed in is told again."
  @spec forget(term) :: :ok
  def forget(module) do
    :persistent_term.erase({__MODULE__, module})
    :ok
  end

  @doc """
  Says in the log, once for each module, that a commit failed because the backend has no such function. `stack` is that
  of the failure: another function than the backend's may be missing, which is the backend's own affair.
  """
  @spec tell(integer, Exception.stacktrace()) :: :ok
  def tell(shard, [{module, function, args, _location} | _] = stack)
      when is_list(args) and length(args) == 2 do
    told = {__MODULE__, module}

    if backend_function?(function) and not :persistent_term.get(told, false) do
      :persistent_term.put(told, true)

      Logger.error(
        "batcher #{shard}: the backend #{inspect(module)} has no #{function}/2, so that writes fail\n" <>
          Exception.format_stacktrace(without_arguments(stack))
      )
    end

    :ok
  end

  def tell(_shard, _stack), do: :ok

  defp backend_function?(function), do: String.starts_with?(Atom.to_string(function), "__commit_")

  defp without_arguments(stack) do
    for {module, function, args, location} <- stack do
      {module, function, if(is_list(args), do: length(args), else: args), location}
    end
  end
end
