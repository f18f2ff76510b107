defmodule Mix.Tasks.Batcher.Demo do
  @shortdoc "Writes to shards on Raft with and without the batcher, compares, and reads all back"
  @moduledoc """
  Starts shards on Ra in a fresh directory, lets many callers write at once, first with a commit for each call, then
  through the batcher, compares the two, and reads every acknowledged write back.

      mix batcher.demo
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
