defmodule Ferricstore.Raft.WARaftBackend.Batcher.PropertyTest do
  # Random programs of many clients, backends that do as they please and faults, against a model.
  #
  #   * `PROPERTY_CALLS` - how many calls at least (default 20 000)
  #   * `PROPERTY_SEED` - the first program's seed; it is then run many times, since a race may need that
  #   * `BATCHER_PACING`, `BATCHER_SCOPE` - how all shards commit (see `Ways`)
  #   * `PROPERTY_SHRINK_MS` - how long a failing program is made smaller (default 30 000)
  #
  # Invariant: whatever fails can be run again from its seed.
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Property.{
    Backend,
    Gate,
    Log,
    Model,
    Program,
    Runner,
    Shrink
  }

  @replays 100
  @runs_to_believe 5

  setup do
    put_env(:waraft_backend_batcher_backend, Backend)
    put_env(:waraft_backend_batcher_sync_gate, Gate)
    for key <- [:waraft_hot_batch_window_ms, :waraft_generic_batch_window_ms], do: put_env(key, 1)
    put_env(:waraft_generic_batch_during_flush, true)
    # Owners and committers die by the hundred: that is what is tested, nothing to tell.
    %{level: level} = :logger.get_primary_config()
    :logger.set_primary_config(:level, :none)
    on_exit(fn -> :logger.set_primary_config(:level, level) end)
    Log.create_table()
    :ok
  end

  @tag timeout: :infinity
  test "the whole contract: random programs keep to the model" do
    calls = integer_env("PROPERTY_CALLS", 20_000)
    given = System.get_env("PROPERTY_SEED")
    seed = integer_env("PROPERTY_SEED", :rand.uniform(1_000_000_000))
    program = Program.generate(seed)
    if given, do: for(_ <- 1..@replays, do: check(program, seed))
    check_from(seed, calls)
  end

  defp check_from(_seed, calls) when calls <= 0, do: :ok

  defp check_from(seed, calls) do
    program = Program.generate(seed)
    check(program, seed)
    check_from(seed + 1, calls - Program.calls(program))
  end

  defp check(program, seed) do
    case violations(program) do
      [] -> :ok
      violations -> fail(program, seed, violations)
    end
  end

  # Shards are used again and again, so that what a program leaves behind meets the next. After a failure
  # they may not be fit for that.
  defp violations(program) do
    run = Process.get(:run, 0)
    Process.put(:run, run + 1)
    indices = Process.get(:indices) || renew()
    violations = Model.violations(program, run, Runner.run(program, indices, run))
    if violations != [], do: renew()
    violations
  end

  defp renew do
    indices = for _ <- 1..2, do: :erlang.unique_integer([:positive])
    Process.put(:indices, indices)
    indices
  end

  defp fail(program, seed, violations) do
    deadline = System.monotonic_time(:millisecond) + integer_env("PROPERTY_SHRINK_MS", 30_000)
    {kind, _details} = hd(violations)

    fails = fn candidate ->
      Enum.find_value(1..@runs_to_believe, fn _ ->
        same = candidate |> violations() |> Enum.filter(&match?({^kind, _}, &1))
        if same != [], do: same
      end)
    end

    {program, [violation | _] = all} =
      Shrink.shrink(program, Enum.filter(violations, &match?({^kind, _}, &1)), fails, deadline)

    flunk("""
    #{kind}, #{length(all)} times; PROPERTY_SEED=#{seed} replays it. Shrunk to #{Program.calls(program)} calls:

    #{inspect(program, pretty: true, limit: :infinity)}

    #{inspect(violation, pretty: true, limit: 60, printable_limit: 60)}
    """)
  end

  defp integer_env(name, default) do
    case System.get_env(name) do
      nil ->
        default

      text ->
        case Integer.parse(text) do
          {integer, ""} -> integer
          _other -> flunk("#{name} must be an integer, got: #{inspect(text)}")
        end
    end
  end
end
