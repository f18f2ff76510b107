defmodule Mix.Tasks.Batcher.Demo do
  @shortdoc "Writes to shards on Raft with and without the batcher, compares, and reads all back"
  @moduledoc """
  Starts shards on Ra in a fresh directory, lets many callers write at once, with a commit for each call, through the
  batcher with its defaults, and through the batcher with the chosen options, compares the three, and reads every
  acknowledged write back. With three nodes it kills the leader's.

      mix batcher.demo
      mix batcher.demo --nodes 3
      mix batcher.demo --pacing window --commit-scope lane
      mix batcher.demo --shards 8 --callers 1000 --seconds 30
      mix batcher.demo --input appendonly.aof

  `mix batcher.demo --help` lists the options. The exit status is 0 if nothing was lost, otherwise 1.
  """

  use Mix.Task

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo

  @impl Mix.Task
  def run(argv) do
    Mix.Task.run("app.start")

    case Demo.main(argv) do
      0 -> :ok
      status -> exit({:shutdown, status})
    end
  end
end
