defmodule Mix.Tasks.Compile.BatcherNative do
  @moduledoc """
  Builds the shared library of the batcher with cargo and installs it as `priv/native/batcher_nif.so`,
  for this project's own tests as `batcher_nif_seams.so`, with the feature `seams`.

  Runs before the Elixir compiler, in this project and in every project that depends on it. Needs `cargo` only
  when something changed: the Rust sources, their manifests, the installed library or the environment below.
  `mix compile --force` asks cargo in any case. `mix clean` removes the installed library.

  Environment:

    * `BATCHER_NIF_FEATURES` - cargo features of the crate `batcher_nif`, separated by commas
    * `CARGO_BUILD_TARGET`, `RUSTFLAGS` - as cargo understands them

  Invariant: an installed library is never written to, only replaced, because a running VM may have it mapped.
  """

  use Mix.Task.Compiler

  @recursive true

  @folder "priv/native"
  @crate "batcher_nif"
  @sources ~w(Cargo.toml Cargo.lock .cargo/config.toml rust-toolchain.toml native/**/*)
  @environment ~w(CARGO_BUILD_TARGET RUSTFLAGS)

  @impl true
  def run(args) do
    inputs = inputs_digest()

    if "--force" not in args and File.read(manifest()) == {:ok, stamp(inputs)} do
      {:noop, []}
    else
      with {:ok, cargo} <- find_cargo(), :ok <- build(cargo) do
        install()

        # Mix links priv before it runs the compilers: on a first build there was nothing to link yet.
        Mix.Project.build_structure()
        File.mkdir_p!(Path.dirname(manifest()))
        File.write!(manifest(), stamp(inputs))
        {:ok, []}
      end
    end
  end

  @impl true
  def manifests, do: [manifest()]

  @impl true
  def clean do
    File.rm(manifest())
    File.rm_rf!(@folder)
  end

  defp manifest, do: Path.join(Mix.Project.manifest_path(), "compile.batcher_native")

  # Both what went in and what came out: builds of several environments share one installed library.
  defp stamp(inputs), do: Base.encode16(inputs <> file_digest(installed()))

  defp inputs_digest do
    files = for pattern <- @sources, path <- Path.wildcard(pattern), do: {path, file_digest(path)}
    environment = [features() | Enum.map(@environment, &System.get_env/1)]
    architecture = :erlang.system_info(:system_architecture)
    :erlang.md5(:erlang.term_to_binary({files, environment, architecture}))
  end

  # A folder or a missing file has no digest.
  defp file_digest(path) do
    case File.read(path) do
      {:ok, bytes} -> :erlang.md5(bytes)
      {:error, _reason} -> ""
    end
  end

  defp find_cargo do
    case System.find_executable("cargo") do
      nil ->
        failed("""
        cargo was not found on the PATH, and #{installed()} has to be built from Rust. \
        Install Rust (1.91 or later), or add the folder of cargo to the PATH.\
        """)

      cargo ->
        {:ok, cargo}
    end
  end

  defp build(cargo) do
    arguments = ~w(build --release --locked -p #{@crate} --target-dir target) ++ features()

    port =
      Port.open({:spawn_executable, cargo}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 1_000,
        args: arguments
      ])

    case stream(port, "", []) do
      {0, _lines} ->
        :ok

      {status, lines} ->
        failed(
          "cargo could not build #{@crate} (exit status #{status}), see its output above.",
          rust_errors(Enum.reverse(lines))
        )
    end
  end

  defp features do
    case seams() ++ String.split(System.get_env("BATCHER_NIF_FEATURES", ""), ",", trim: true) do
      [] -> []
      features -> ["--features", Enum.join(features, ",")]
    end
  end

  # This project's own tests need ways to make the library fail: they have a library of their own.
  defp seams, do: if(Mix.env() == :test, do: ["seams"], else: [])

  defp installed, do: Path.join(@folder, Enum.join([@crate | seams()], "_") <> ".so")

  # Whole lines only, because a piece may end within a character.
  defp stream(port, piece, lines) do
    receive do
      {^port, {:data, {:noeol, more}}} ->
        stream(port, piece <> more, lines)

      {^port, {:data, {:eol, end_of_line}}} ->
        line = piece <> end_of_line
        IO.puts(:stderr, line)
        stream(port, "", [line | lines])

      {^port, {:exit_status, status}} ->
        {status, lines}
    end
  end

  # rustc prints `error[E0001]: what` and below it ` --> file:line:column`.
  defp rust_errors(lines) do
    ~r/^error(?:\[\w+\])?: (.+)\n +--> (.+?):(\d+):(\d+)$/m
    |> Regex.scan(Enum.join(lines, "\n"), capture: :all_but_first)
    |> Enum.map(fn [message, file, line, column] ->
      position = {String.to_integer(line), String.to_integer(column)}
      diagnostic(message, Path.expand(file), position)
    end)
  end

  defp failed(message, diagnostics \\ []) do
    Mix.shell().error("** #{message}")
    {:error, if(diagnostics == [], do: [diagnostic(message)], else: diagnostics)}
  end

  defp diagnostic(message, file \\ Path.expand("Cargo.toml"), position \\ 0) do
    %Mix.Task.Compiler.Diagnostic{
      compiler_name: "batcher_native",
      file: file,
      message: message,
      position: position,
      severity: :error
    }
  end

  defp install do
    built = File.read!(built_path())

    if File.read(installed()) != {:ok, built} do
      File.mkdir_p!(@folder)
      fresh = "#{installed()}.#{System.pid()}"
      File.write!(fresh, built)
      File.rename!(fresh, installed())
    end
  end

  # The BEAM loads `.so` on macOS too.
  defp built_path do
    extension = if :os.type() == {:unix, :darwin}, do: "dylib", else: "so"
    target = System.get_env("CARGO_BUILD_TARGET", "")
    Path.join(["target", target, "release", "lib#{@crate}.#{extension}"])
  end
end
