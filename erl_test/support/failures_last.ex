defmodule Ferricstore.Raft.WARaftBackend.Batcher.FailuresLast do
  @moduledoc """
  Prints the failed tests once more when all have ended: where only the end of a long output is kept, as in CI, it says
  what failed.
  """

  use GenServer

  # Some are as good as all, and all may be a thousand.
  @most 20

  @impl true
  def init(_options), do: {:ok, []}

  @impl true
  def handle_cast({:test_finished, %ExUnit.Test{state: {:failed, failures}} = test}, failed) do
    {:noreply, [{test, failures} | failed]}
  end

  # A `setup_all` that failed: its tests did not run.
  def handle_cast({:module_finished, %{state: {:failed, failures}} = module}, failed) do
    {:noreply, [{module, failures} | failed]}
  end

  def handle_cast({:suite_finished, _times}, failed) do
    for {failure, n} <- failed |> Enum.reverse() |> Enum.take(@most) |> Enum.with_index(1),
        do: IO.puts(["\nfailed: ", format(failure, n)])

    {:noreply, failed}
  end

  def handle_cast(_event, failed), do: {:noreply, failed}

  defp format({%ExUnit.Test{} = test, failures}, n),
    do: ExUnit.Formatter.format_test_failure(test, failures, n, :infinity, &plain/2)

  defp format({module, failures}, n),
    do: ExUnit.Formatter.format_test_all_failure(module, failures, n, :infinity, &plain/2)

  defp plain(:diff_enabled?, _default), do: false
  defp plain(_key, text), do: text
end
