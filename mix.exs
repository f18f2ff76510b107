# The Mix project: the BEAM side in src/, tested from erl_test/, and the shared library built by a compiler of its own.
# Invariant: there is no Hex dependency, so that a clone compiles where Hex can't be reached.

Code.require_file("mix/compile_batcher_native.exs", __DIR__)

# Ra and the like, as `make setup` unpacks them, for this project's tests and demo. A project that depends on this one
# is on Mix's stack already when this file is loaded, and brings its own Ra or none.
if Mix.Project.get() == nil do
  for ebin <- Path.wildcard(Path.join(__DIR__, ".erlang-libs/*/ebin")), do: Code.append_path(ebin)
end

defmodule FerricstoreBatcher.MixProject do
  use Mix.Project

  # Modules that are called when the host brings them, and are no dependencies; the last five by demo and benchmarks.
  @brought_by_the_host [
    :ra,
    :ra_system,
    :telemetry,
    :prometheus_model_helpers,
    :observer_cli,
    :prometheus_registry,
    :prometheus_text_format,
    :inets,
    :httpd,
    :gen_batch_server
  ]
  # For those who work on this project: not in a release, not in the package, not where this is a dependency.
  # Demo and benchmarks don't know each other; what both use is in tools.
  @workshop if Mix.Project.get() == nil,
              do: %{
                dev: ["demo/lib", "bench/lib", "tools/lib"],
                test: ["demo/lib", "tools/lib", "erl_test/support"]
              },
              else: %{}

  # For people: in the package, and in what ExDoc makes.
  @documents ~w(README.md CHANGELOG.md UPGRADE.md CONTRIBUTING.md RELIABILITY.md) ++
               Path.wildcard("docs/*.md")

  def project do
    [
      app: :ferricstore_batcher,
      version: "0.1.0",
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      test_paths: ["erl_test"],
      compilers: [:batcher_native] ++ Mix.compilers(),
      # Ra and the like are on the code path, but not among the dependencies.
      prune_code_paths: false,
      deps: [],
      description: "Write batcher of ferricstore's Raft backend: Elixir API, Rust engine",
      package: package(),
      docs: docs()
    ] ++ optional(@brought_by_the_host)
  end

  def application, do: [extra_applications: [:logger]]

  defp elixirc_paths(env), do: ["src" | Map.get(@workshop, env, [])]

  # Elixir 1.20 warns of the old way, Elixir 1.14 knows no other.
  defp optional(modules) do
    if Version.match?(System.version(), "< 1.19.0"),
      do: [xref: [exclude: modules]],
      else: [elixirc_options: [no_warn_undefined: modules]]
  end

  # For ExDoc, which whoever publishes this brings.
  defp docs do
    batcher = "Ferricstore.Raft.WARaftBackend.Batcher"

    [
      main: batcher,
      extras: @documents ++ ["bench/REPORT.md"],
      assets: %{"docs" => "docs"},
      groups_for_extras: [Guides: ~r{docs/(operating|backend|ferricstore)}, Reference: ~r{docs/}],
      groups_for_modules: [
        Backends: ~r/^#{batcher}\.Backend/,
        Observing: ~r/^#{batcher}\.(Stats|Telemetry|Metrics|Prometheus|Seshat|ObserverCli)/
      ]
    ]
  end

  # The library is built where it is used, so the Rust sources are part of the package, its tests are not.
  defp package do
    [
      licenses: ["Apache-2.0"],
      links: %{},
      files:
        ~w(mix.exs mix src .formatter.exs LICENSE Cargo.toml Cargo.lock) ++
          @documents ++
          Path.wildcard("docs/*.{json,svg}") ++
          Path.wildcard("native/*/{Cargo.toml,build.rs,src}") ++
          Path.wildcard(".cargo/config.toml")
    ]
  end
end
