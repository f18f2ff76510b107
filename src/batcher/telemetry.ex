defmodule Ferricstore.Raft.WARaftBackend.Batcher.Telemetry do
  alias Ferricstore.Raft.WARaftBackend.Batcher.Telemetry.{DefaultLogger, Events}

  @moduledoc """
  What a batcher tells `:telemetry`, where the host has it. It need not be there when a batcher starts: it is looked for
  at each commit. A handler that fails hurts nobody: it is the library `:telemetry` that detaches it.

  Events of a commit are emitted by the process that commits, `:start` before it calls the backend, all others after the
  callers have been answered; a handler that takes long keeps the next commit waiting. A commit of several lanes emits
  them for each lane.

  No event has a key or a value in it. `:prefix` and what a backend gives as its reason are passed on as they are.

  #{Events.docs()}

  ## Attach

  `attach_default_logger/1` writes a line for each event. For numbers over time, `Batcher.Metrics.definitions/0` has
  what `Telemetry.Metrics` takes, and `Batcher.stats/1` what is counted without any handler.
  """

  @typedoc "An event, as `:telemetry` names it."
  @type event :: [atom, ...]
  @typedoc "What is known of one: see `events/0`."
  @type description :: %{
          event: event,
          help: String.t(),
          measurements: [{atom, unit :: atom, help :: String.t()}],
          metadata: [{atom, help :: String.t()}]
        }
  @typedoc "Kind of a lane: any namespace, the generic lane, the put or the delete lane."
  @type lane :: :namespace | :batch | :put_batch | :delete_batch

  @doc "All events, with what is in their measurements and their metadata."
  @spec events() :: [description]
  defdelegate events(), to: Events, as: :all

  @doc """
  Writes a line to the log for each event of every batcher: its measurements, and of its metadata what holds no payload.

  Takes the level of all lines, such as `:info`, alone or as `level: :info`; `:debug` if none is given. It is for a look:
  at full load there are thousands of lines a second.

  Errors: `{:error, :already_exists}`; `{:error, :no_telemetry}` if there is none, or it does not run. Anything that is
  no level raises `ArgumentError`.
  """
  @spec attach_default_logger(Logger.level() | [level: Logger.level()]) ::
          :ok | {:error, :already_exists | :no_telemetry}
  defdelegate attach_default_logger(level_or_options \\ []), to: DefaultLogger, as: :attach

  @doc "Undoes that: `{:error, :not_found}` if there is nothing to undo."
  @spec detach_default_logger() :: :ok | {:error, :not_found | :no_telemetry}
  defdelegate detach_default_logger(), to: DefaultLogger, as: :detach
end
