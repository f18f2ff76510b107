# What a host gets: the files of the package, and the modules that are made of them.
# Invariant: a host is built in a directory of its own, of copies, and without cargo: nothing here is built anew.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.PackageTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: true

  # For those who work on this project.
  @workshop ~w(demo bench tools erl_test)

  test "the demo is not part of what a host gets: the package has the library's sources and none of its files" do
    packaged = packaged()
    assert Enum.filter(packaged, &(hd(Path.split(&1)) in @workshop)) == []
    sources = Path.wildcard("src/**/*.ex") ++ Path.wildcard("native/*/src/**/*.rs")
    assert sources -- packaged == []
  end

  @tag timeout: 300_000
  test "the demo is not part of what a host gets: none of its modules is made where this is a dependency" do
    directory = Path.join(System.tmp_dir!(), "package-test-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(directory) end)
    checkout = Path.join(directory, "checkout")
    workshop = Enum.flat_map(@workshop, &Path.wildcard("#{&1}/**/*.ex"))
    for path <- packaged() ++ workshop, do: copy(path, Path.join(checkout, path))

    {:ok, modules} = :application.get_key(:ferricstore_batcher, :modules)
    own = for module <- modules, from_src?(module), do: "#{module}.beam"

    # Those in which they are made here. A host that says nothing compiles its dependencies for `:prod`.
    for env <- [:dev, :test] do
      ebin = build_host(Path.join(directory, "#{env}"), checkout, env)
      beams = ebin |> Path.join("*.beam") |> Path.wildcard() |> Enum.map(&Path.basename/1)
      assert Enum.sort(beams) == Enum.sort(own)
    end
  end

  # A path may be that of a folder.
  defp packaged do
    for path <- Mix.Project.config()[:package][:files],
        path <- [path | Path.wildcard(path <> "/**", match_dot: true)],
        File.regular?(path),
        do: path
  end

  defp copy(path, copy) do
    File.mkdir_p!(Path.dirname(copy))
    File.cp!(path, copy)
  end

  # Returns the folder of the beams that it has of its dependency.
  defp build_host(host, checkout, env) do
    write(Path.join(host, "mix.exs"), """
    defmodule Host.MixProject do
      use Mix.Project

      def project do
        [
          app: :host,
          version: "0.1.0",
          deps: [{:ferricstore_batcher, path: #{inspect(checkout)}, env: #{inspect(env)}}]
        ]
      end
    end
    """)

    cargo = Path.join(host, "bin/cargo")

    # Nobody loads the library here.
    write(cargo, """
    #!/bin/sh
    mkdir -p target/release
    touch target/release/libbatcher_nif.so target/release/libbatcher_nif.dylib
    """)

    File.chmod!(cargo, 0o755)

    environment = %{
      "PATH" => Path.dirname(cargo) <> ":" <> System.fetch_env!("PATH"),
      "MIX_ENV" => "dev",
      "MIX_EXS" => nil,
      "MIX_BUILD_PATH" => nil,
      "MIX_BUILD_ROOT" => nil,
      "MIX_DEPS_PATH" => nil,
      "CARGO_BUILD_TARGET" => nil
    }

    {output, status} =
      System.cmd("mix", ["compile"], cd: host, env: environment, stderr_to_stdout: true)

    assert status == 0, output
    Path.join(host, "_build/dev/lib/ferricstore_batcher/ebin")
  end

  defp write(path, content) do
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, content)
  end
end
