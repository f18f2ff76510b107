defmodule Mix.Tasks.Batcher.Bench do
  @shortdoc "Measures the batcher against its peers and compares with the goals"
  @moduledoc """
  Measures the batcher against a GenServer batcher, `gen_batch_server`, direct commits and a bare send and receive, all
  in one run, and compares the medians with the goals. A whole run takes less than 20 minutes and writes
  `bench/REPORT.md`; `--quick` takes less than four. How long each part will take is printed first.

      mix batcher.bench
      mix batcher.bench --quick
      mix batcher.bench --only mix,open
      mix batcher.bench --only throughput --callers 2000 --backend null --peers batcher,floor --repeat 3 --seconds 2

  The scenarios:

    * `throughput`, `latency`: callers in closed loops: writes per second and processor time, and, in samples of their
      own, latency and writes per commit; backends that do nothing, take 1 ms, or are Ra
    * `mix`: the batcher, by default and as `auto`, against direct commits to Ra, for 1 to 2 000 callers, 1 and 4
      shards, 1 and 16 namespaces in each: all figures
    * `open`: latency over the rate of Poisson arrivals, of direct commits, of the batcher with fixed windows, and of
      `auto`, on Ra and on logs that take 0.2, 1 and 5 ms for a commit; and what saturates each
    * `groups`, `async`, `values`, `shards`, `namespaces`: writes or entries per second over each of these; `async`:
      by what the replies go to
    * `window`: when a commit begins after its first write, on an idle machine
    * `depth`, `memory`: time and memory of a write over what is queued already
    * `wake`, `lock`: how long it takes to wake a process of an idle scheduler, and how long a write holds its shard's
      lock

  `auto` is the batcher with the options of `Bench.Peers.Auto`; the line `options` of a run says which these were.

  `mix batcher.bench --help` lists the options. The exit status is 0 if everything was measured, whether or not the
  goals are met; 1 if something failed, 2 for a bad option.
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
