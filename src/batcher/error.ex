# What the batcher itself says when a call has no result of the backend's.
# Invariant: `committed?/1` says `:no` only where nothing of the write can be committed any more.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Error do
  @moduledoc """
  The errors of the batcher.

  A write returns what the backend said of it, or one of these, as `{:error, reason}`:

  | reason | what happened | committed? |
  | --- | --- | --- |
  | `:invalid_batch_command_list` | an improper list; nothing was queued | no |
  | `:batcher_overloaded` | the shard holds as much as it may, or the lane does with `overflow: :refuse`; nothing was queued | no |
  | `:batch_command_apply_budget_exceeded`, `:compound_member_apply_budget_exceeded`, `:namespace_batch_reply_width_unsupported` | with `:apply_context`, more work than one commit may be; nothing was queued | no |
  | `:shutting_down` | the batcher is being stopped | no |
  | `:batcher_down` | its owner was killed and nobody took over in time | no |
  | `{:invalid_request, request}` | a message that is no valid write, sent to the batcher's process without its functions; nothing was queued | no |
  | `{:batch_result_mismatch, expected, actual}` | the backend gave another number of replies | unknown |
  | `{:backend_exit, reason}` | the backend exited, or the process that called it was killed | unknown |
  | `{:backend_error, :error \\| :throw, reason}` | the backend raised or threw | unknown |
  | `{:batcher_crashed, text}` | the library failed | unknown |

  With `:apply_context` a write may also return what the host's measuring said, `{:error, atom}`, with nothing queued; of
  such a reason, as of one of the backend's, nothing is known here. A call that has waited too long exits
  `{:timeout, {module, function, args}}`; its write may be committed all the same.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Backend, Options}

  @not_committed [
    :invalid_batch_command_list,
    :batcher_overloaded,
    :batch_command_apply_budget_exceeded,
    :compound_member_apply_budget_exceeded,
    :namespace_batch_reply_width_unsupported,
    :shutting_down,
    :batcher_down
  ]

  # Errors of `Backend.Ra.start/1`, whose last element is a text.
  @of_ra [
    :already_started,
    :data_dir,
    :invalid_option,
    :missing_option,
    :nodes_unreachable,
    :ra_not_available
  ]

  @typedoc "Nothing of the write is committed, nor will be."
  @type not_committed ::
          :invalid_batch_command_list
          | :batcher_overloaded
          | :batch_command_apply_budget_exceeded
          | :compound_member_apply_budget_exceeded
          | :namespace_batch_reply_width_unsupported
          | :shutting_down
          | :batcher_down
          | {:invalid_request, request :: term}

  @typedoc "Whether the write is committed, or will be, is unknown."
  @type unknown ::
          {:batch_result_mismatch, expected :: non_neg_integer, actual :: non_neg_integer}
          | {:backend_exit, reason :: term}
          | {:backend_error, :error | :throw, reason :: term}
          | {:batcher_crashed, text :: String.t()}

  @typedoc "Why a write has no result of the backend's."
  @type reason :: not_committed | unknown

  @typedoc "An error of the batcher's own, as a write returns it."
  @type t :: {:error, reason}

  @doc """
  Whether a write that got this error is committed, or may still be: `:no`, and it may be tried again; or `:unknown`,
  and whoever tries again may do it twice.

  `error` is what a write has returned, its reason alone, or that of the exit of a call that has waited too long. Errors
  of the backend's own are `:unknown`: only the backend could say.

      with {:error, _} = error <- Batcher.write(0, "users", {:put, "k", "v", 0}, 5),
           :no <- Batcher.committed?(error),
           do: try_again()
  """
  @spec committed?(t | reason | term) :: :no | :unknown
  def committed?({:error, reason}), do: committed?(reason)
  def committed?(reason) when reason in @not_committed, do: :no
  def committed?({:invalid_request, _request}), do: :no
  def committed?(_reason), do: :unknown

  @doc """
  An error of `Batcher.start_link/2`, `Batcher.configure/2`, `Batcher.Supervisor` or `Batcher.Backend.Ra.start/1` in
  words. Anything else is shown as a term.
  """
  @spec format(term) :: String.t()
  def format({:error, reason}), do: format(reason)
  def format({:invalid_option, _key, _value} = reason), do: Options.message(reason)
  def format({:missing_option, key}), do: "the option #{inspect(key)} is missing"

  def format({:backend_not_available, _module, [_ | _]} = reason),
    do: Backend.Check.message(reason)

  def format({:thread_not_started, text}),
    do: "the thread that keeps the time of the shard could not be started: #{text}"

  def format({:nif_not_loaded, reason}),
    do: "the shared library of the batcher could not be loaded: #{inspect(reason)}"

  def format(error)
      when is_tuple(error) and tuple_size(error) > 1 and elem(error, 0) in @of_ra and
             is_binary(elem(error, tuple_size(error) - 1)),
      do: elem(error, tuple_size(error) - 1)

  def format({:already_started, pid}), do: "a batcher runs already: #{inspect(pid)}"
  def format(other), do: inspect(other)
end
