# A release of another project: settings of its own, and nothing of ferricstore's or of the workshop's.
# Invariant: the project is made in a directory of its own and built from this checkout, as `path:` says.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.ReleaseTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  # What the script of a release calls. No compiler is among it.
  @tools ~w(awk basename cat cut dirname env grep id mkdir mktemp od readlink rm sed sh tr uname)

  @files %{
    "mix.exs" => """
    defmodule Scratch.MixProject do
      use Mix.Project

      def project do
        [
          app: :scratch,
          version: "0.1.0",
          deps: [{:ferricstore_batcher, path: System.fetch_env!("SCRATCH_BATCHER")}]
        ]
      end

      def application, do: [mod: {Scratch, []}, extra_applications: [:logger]]
    end
    """,
    "config/config.exs" => """
    import Config
    config :ferricstore_batcher, backend: Scratch.Log, hot_batch_window_ms: 3, hot_batch_max: 100
    """,
    "config/runtime.exs" => """
    import Config
    config :ferricstore_batcher, max_queue_items: String.to_integer(System.fetch_env!("SCRATCH_ITEMS"))
    """,
    "lib/scratch.ex" => """
    defmodule Scratch.Log do
      @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Backend
      def __commit_batch_direct__(shard, commands), do: commit(shard, commands)
      def __commit_put_batch_direct__(shard, entries), do: commit(shard, entries)
      def __commit_delete_batch_direct__(shard, keys), do: commit(shard, keys)
      defp commit(shard, list), do: {:ok, Enum.map(list, &{:logged, shard, &1})}
    end

    defmodule Scratch.OtherLog do
      @behaviour Ferricstore.Raft.WARaftBackend.Batcher.Backend
      def __commit_batch_direct__(_shard, commands), do: {:ok, Enum.map(commands, fn _ -> :other end)}
      def __commit_put_batch_direct__(shard, entries), do: __commit_batch_direct__(shard, entries)
      def __commit_delete_batch_direct__(shard, keys), do: __commit_batch_direct__(shard, keys)
    end

    defmodule Scratch do
      use Application
      alias Ferricstore.Raft.WARaftBackend.Batcher

      def start(_type, _args) do
        children = [
          {Batcher, 0},
          {Batcher, {1, backend: Scratch.OtherLog, pacing: :auto}},
          {Task, &run/0}
        ]

        Supervisor.start_link(children, strategy: :one_for_one)
      end

      defp run do
        say("tools", Enum.filter(~w(cargo rustc gcc cc ld), &System.find_executable/1))
        say("host", {Application.spec(:ferricstore, :vsn), Code.ensure_loaded?(Mix)})
        for shard <- 0..1, do: say("options", Map.take(Batcher.options(shard), ~w(backend max_queue_items hot_batch_window_ms pacing call_timeout)a))
        for shard <- 0..1, do: say("write", Batcher.write(shard, "p", {:put, "k", "v", 0}, 1))
        say("batch", Batcher.write_put_batch(0, [{"k", "v", 0}]))
        say("wrong", Batcher.start_link(2, backend: Scratch.NoLog))
        System.stop(0)
      end

      defp say(what, term), do: IO.puts("\#{what} \#{inspect(term, limit: :infinity, custom_options: [sort_maps: true])}")
    end
    """
  }

  @tag timeout: 600_000
  test "18.1 a release of another project, with settings in config.exs and in runtime.exs" do
    folder = Path.join(System.tmp_dir!(), "release-test-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(folder) end)

    for {name, text} <- @files do
      path = Path.join(folder, name)
      File.mkdir_p!(Path.dirname(path))
      File.write!(path, text)
    end

    unset = for name <- ~w(MIX_EXS MIX_BUILD_PATH MIX_BUILD_ROOT MIX_DEPS_PATH), do: {name, nil}
    built = [{"MIX_ENV", "prod"}, {"SCRATCH_BATCHER", File.cwd!()} | unset]
    run("mix", ["release", "--quiet"], cd: folder, env: built)

    # The project's sources are not needed any more, nor is what built them.
    release = Path.join(folder, "release")
    File.rename!(Path.join(folder, "_build/prod/rel/scratch"), release)
    File.rm_rf!(Path.join(folder, "_build"))
    bin = tools(Path.join(folder, "bin"))
    started = [{"PATH", bin}, {"SCRATCH_ITEMS", "4321"}, {"RELEASE_DISTRIBUTION", "none"}]
    lines = run(Path.join(release, "bin/scratch"), ["start"], env: started)

    assert lines == [
             "tools []",
             "host {nil, false}",
             "options %{backend: {Scratch.Log, :ferricstore_batcher}, call_timeout: {30000, :default}, " <>
               "hot_batch_window_ms: {3, :ferricstore_batcher}, max_queue_items: {4321, :ferricstore_batcher}, " <>
               "pacing: {:commit, :default}}",
             "options %{backend: {Scratch.OtherLog, :option}, call_timeout: {30000, :default}, " <>
               "hot_batch_window_ms: {3, :ferricstore_batcher}, max_queue_items: {4321, :ferricstore_batcher}, " <>
               "pacing: {:auto, :option}}",
             "write {:logged, 0, {\"k\", \"v\", 0}}",
             "write :other",
             "batch {:ok, [{:logged, 0, {\"k\", \"v\", 0}}]}",
             "wrong {:error, {:backend_not_available, Scratch.NoLog, [__commit_batch_direct__: 2, " <>
               "__commit_put_batch_direct__: 2, __commit_delete_batch_direct__: 2]}}"
           ]
  end

  defp run(command, args, opts) do
    {output, status} = System.cmd(command, args, [stderr_to_stdout: true] ++ opts)
    assert status == 0, output
    String.split(output, "\n", trim: true)
  end

  # A path with what a release needs to start, and nothing else.
  defp tools(folder) do
    File.mkdir_p!(folder)

    for tool <- @tools,
        path = System.find_executable(tool),
        do: File.ln_s!(path, Path.join(folder, tool))

    folder
  end
end
