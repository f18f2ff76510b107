defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.ClockedVm do
  @moduledoc false
  # A VM of its own with a library that keeps how long calls hold the lock of a shard (`Native.lock_times/0`): built
  # with the feature `lock-times`, which the library of this VM has not.
  # One invariant: that library is installed below _build/bench alone, where no other VM looks for one, and its VM has
  # ended when `run/1` returns.

  @app "ferricstore_batcher"
  @folder "_build/bench/lock-times/#{@app}"
  @cargo ~w(build --release --locked --package batcher_nif --features lock-times --target-dir target)

  @doc "Calls a function with what calls functions there: `call.(module, function, args)`."
  @spec run(((module, atom, list -> term) -> result)) :: result when result: term
  def run(function) do
    build()
    install()
    {:ok, vm, _node} = :peer.start_link(%{connection: :standard_io})

    try do
      call = fn module, name, args -> :peer.call(vm, module, name, args, :infinity) end
      :ok = call.(:code, :add_pathsa, [Enum.reverse(code_path())])
      {:ok, _started} = call.(:application, :ensure_all_started, [:elixir])
      function.(call)
    after
      :peer.stop(vm)
    end
  end

  defp build do
    cargo = System.find_executable("cargo") || failed("cargo was not found on the PATH")
    # The path of what it builds depends on it.
    environment = [{"CARGO_BUILD_TARGET", nil}]

    case System.cmd(cargo, @cargo, stderr_to_stdout: true, env: environment) do
      {_output, 0} -> :ok
      {output, _status} -> failed("cargo #{Enum.join(@cargo, " ")}: #{errors(output)}")
    end
  end

  # What it compiled before is left out.
  defp errors(output) do
    output
    |> String.split("\n", trim: true)
    |> Enum.filter(&String.starts_with?(&1, "error"))
    |> Enum.join(" / ")
  end

  # An application of the same name, with the code of this one.
  defp install do
    native = Path.join(@folder, "priv/native")
    library = Path.join(native, "batcher_nif.so")
    File.rm_rf!(@folder)
    File.mkdir_p!(native)
    File.ln_s!(ebin(), Path.join(@folder, "ebin"))
    File.cp!(Path.join("target/release", built()), library)
  end

  defp built do
    extension = if :os.type() == {:unix, :darwin}, do: "dylib", else: "so"
    "libbatcher_nif.#{extension}"
  end

  defp code_path do
    own = String.to_charlist(ebin())
    [String.to_charlist(Path.expand(Path.join(@folder, "ebin"))) | :code.get_path() -- [own]]
  end

  defp ebin, do: Path.dirname(to_string(:code.which(__MODULE__)))

  defp failed(text), do: exit({:sample_failed, text})
end
