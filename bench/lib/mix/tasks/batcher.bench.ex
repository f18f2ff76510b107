defmodule Mix.Tasks.Batcher.Bench do
  @shortdoc "Measures the batcher against its peers and compares with the goals"
  @moduledoc """
  Measures the batcher against a GenServer batcher, `gen_batch_server`, direct commits and a bare send and receive, all
  in one run, and compares the medians with the goals. A whole run takes less than 15 minutes and writes
  `bench/REPORT.md`; `--quick` takes less than two.

      mix batcher.bench
      mix batcher.bench --quick
      mix batcher.bench --only throughput --callers 2000 --backend null --peers batcher,floor --repeat 3 --seconds 2

  `mix batcher.bench --help` lists the options. The exit status is 0 if everything was measured, whether or not the goals
  are met; 1 if something failed, 2 for a bad option.
  """

  use Mix.Task

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench

  @impl Mix.Task
  def run(argv) do
    Mix.Task.run("app.start")

    case Bench.main(argv) do
      0 -> :ok
      status -> exit({:shutdown, status})
    end
  end
end
