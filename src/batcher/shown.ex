defmodule Ferricstore.Raft.WARaftBackend.Batcher.Shown do
  @moduledoc false
  # How the processes of a shard that are no behaviours say what they are, to observer, `:sys` and logs.
  #
  # Invariant: what is shown is the shard and what the process is for; nothing of what anybody wrote.

  alias Ferricstore.Raft.WARaftBackend.Batcher

  @typedoc "What a process is for."
  @type role :: :owner | :committer | :responder | :watcher

  @doc """
  Defines what `:sys` asks a module of such processes for when it shows one, or would change one. The module defines
  `shown/1`, which makes of its state a map with the `:shard`.
  """
  defmacro __using__(role) do
    quote do
      @doc false
      def system_get_state(state), do: {:ok, shown(state)}

      # There is nothing here that others could replace.
      @doc false
      def system_replace_state(_replace, state), do: {:ok, shown(state), state}

      @doc false
      def system_code_change(state, _module, _version, _extra), do: {:ok, state}

      @doc false
      def format_status(_reason, [_dictionary, _status, _parent, _debug, state] = status) do
        shown = shown(state)
        unquote(__MODULE__).status(unquote(role), shown.shard, shown, status)
      end
    end
  end

  @doc "Labels the calling process, where OTP has labels (27 and later)."
  @spec label(role, integer) :: :ok
  def label(role, shard) do
    # Looked for at run time: what is compiled on one version may run on another.
    if function_exported?(:proc_lib, :set_label, 1),
      do: apply(:proc_lib, :set_label, [{Batcher, role, shard}])

    :ok
  end

  @doc "What `:sys.get_status/1` shows of a process without a payload."
  @spec status(role, integer, map, list) :: keyword
  def status(role, shard, state, [_dictionary, status, parent, _debug, _state]) do
    [
      header: ~c"Status for #{role} of shard #{shard}",
      data: [{~c"Status", status}, {~c"Parent", parent}, {~c"Shard", shard}],
      data: [{~c"State", state}]
    ]
  end

  @doc "Empties the mailbox, so that nothing of it is in a report of this process's end."
  @spec forget_messages() :: :ok
  def forget_messages do
    receive do
      _message -> forget_messages()
    after
      0 -> :ok
    end
  end
end
