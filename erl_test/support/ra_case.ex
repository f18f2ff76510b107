defmodule Ferricstore.Raft.WARaftBackend.Batcher.RaCase do
  @moduledoc false
  # A test of the backend on Ra in this VM; skipped where there is no Ra.
  #
  # Invariant: each test has a directory of its own, `dir`, and nothing of Ra runs or lies about after it.

  use ExUnit.CaseTemplate

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra

  using do
    quote do
      @moduletag :ra
      @moduletag :capture_log

      unless Code.ensure_loaded?(:ra) do
        @moduletag skip:
                     "Ra is not on the code path: run `make setup`, or add {:ra, \"~> 2.0 or ~> 3.0\"}"
      end
    end
  end

  setup do
    dir = Path.join(System.tmp_dir!(), "ra_test_#{System.unique_integer([:positive])}")
    File.rm_rf!(dir)
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    on_exit(&Ra.stop/0)
    %{dir: dir}
  end
end
