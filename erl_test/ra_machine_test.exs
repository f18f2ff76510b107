# The state machine that the Ra backend replicates, alone: it needs no Ra.
# Invariant: each term gets the replies that contract 6.2 counts, and none makes the machine fail.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.MachineTest do
  use ExUnit.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Null
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.{Machine, Snapshot}

  @max 9_223_372_036_854_775_807
  @min -9_223_372_036_854_775_808

  setup do
    %{state: Machine.init(%{name: :test})}
  end

  test "6.2: answers as many replies as the behaviour counts, nested batches included", %{
    state: state
  } do
    batches = [
      [],
      [{:put, "a", "1", 0}, {:delete, "a"}, {:incr, "a", 1}],
      [{:batch, []}, {:put_batch, []}, {:delete_batch, []}],
      [{:put_batch, [{"a", "1", 0}, {"b", "2", 9}]}, {:delete_batch, ["a", "b", "c"]}],
      [
        {:batch, [{:batch, [{:put_batch, [{"a", "1", 0}]}, :what]}, {:delete, "a"}]},
        {:put, "b"}
      ],
      [
        {:put_batch, :no_list},
        {:delete_batch, nil},
        {:batch, 7},
        {:put_batch, [:bad, :bad]}
      ]
    ]

    for batch <- batches do
      {_state, replies} = Machine.apply(%{index: 1}, {:batch, batch}, state)
      assert length(replies) == Backend.reply_count(batch)
      assert {:ok, oks} = Null.__commit_batch_direct__(0, batch)
      assert length(oks) == length(replies)
    end
  end

  test "a nesting of 100 000 levels is applied and counted", %{state: state} do
    deep = Enum.reduce(1..100_000, {:put, "deep", "1", 0}, fn _, inner -> {:batch, [inner]} end)
    assert {state, [:ok]} = Machine.apply(%{index: 1}, deep, state)
    assert Machine.fetch_all(state) == %{"deep" => {"1", 0}}
    assert Backend.reply_count([deep]) == 1
  end

  test "never fails, and a term it does not know changes nothing", %{state: state} do
    terms = [
      nil,
      :atom,
      [],
      [1 | 2],
      {},
      {:put, "k", "v"},
      {:put, :k, "v", 0},
      {:put, "k", <<1::3>>, 0},
      {:delete, 1},
      {:batch, [1 | 2]},
      {:incr, "k", 1.0},
      {:machine_version, 0, 1},
      {:down, self(), :noproc},
      {:nodeup, node()},
      make_ref(),
      fn -> :ok end,
      "no packed term",
      <<131>>,
      <<131, 109, 255, 255, 255, 255, 1>>,
      "",
      <<1::3>>
    ]

    for term <- terms do
      assert {state, [{:error, {:unknown_command, ^term}}]} =
               Machine.apply(%{index: 1}, term, state)

      assert Machine.fetch_all(state) == %{}
    end
  end

  test "judges the items of put and delete batches one by one", %{state: state} do
    entries = [{"a", "1", 0}, {"b", :no_binary, 0}, :junk, {"c", "3", -5}]

    assert {state, replies} = Machine.apply(%{index: 1}, {:put_batch, entries}, state)

    assert replies == [
             :ok,
             {:error, {:invalid_entry, {"b", :no_binary, 0}}},
             {:error, {:invalid_entry, :junk}},
             :ok
           ]

    assert Machine.fetch_all(state) == %{"a" => {"1", 0}, "c" => {"3", -5}}

    assert {state, [:ok, {:error, {:invalid_key, 5}}, :ok]} =
             Machine.apply(%{index: 2}, {:delete_batch, ["a", 5, "missing"]}, state)

    assert Machine.fetch_all(state) == %{"c" => {"3", -5}}
  end

  test "of writes to one key in one batch the last one stays", %{state: state} do
    entries = for i <- 1..5_000, do: {"k#{rem(i, 3)}", "#{i}", i}
    {state, _oks} = Machine.apply(%{index: 1}, {:put_batch, entries}, state)

    assert Machine.fetch_all(state) ==
             %{"k1" => {"4999", 4999}, "k2" => {"5000", 5000}, "k0" => {"4998", 4998}}
  end

  test "a command is packed into one binary, unless large binaries are shared" do
    small = {:batch, [{:put, "a", String.duplicate("v", 64), 0}, {:incr, "n", 1}, self(), :what]}
    many_small = {:put_batch, for(i <- 1..64, do: {"#{i}", String.duplicate("v", 128), 0})}
    large = {:put_batch, [{"a", String.duplicate("v", 1_024), 0}]}
    assert is_binary(Machine.pack(small))
    assert is_binary(Machine.pack(many_small))
    assert Machine.pack(large) == large

    for command <- [small, many_small, large] do
      [plain, packed] =
        for command <- [command, Machine.pack(command)] do
          {state, replies} = Machine.apply(%{index: 1}, command, Machine.init(%{}))
          {Machine.fetch_all(state), Machine.commits(state), replies}
        end

      assert plain == packed
    end

    many = {:put_batch, for(i <- 1..100_000, do: {"key#{i}", "value", i})}
    assert is_binary(Machine.pack(many))
    {state, replies} = Machine.apply(%{index: 1}, Machine.pack(many), Machine.init(%{}))
    assert length(replies) == 100_000
    assert Machine.overview(state) == %{keys: 100_000, commits: 1}
  end

  test "increments decimal text of 64 bits, and keeps the expiry", %{state: state} do
    incr = fn value, by ->
      {state, [:ok]} = Machine.apply(%{index: 1}, {:put, "n", value, 77}, state)
      {after_incr, [reply]} = Machine.apply(%{index: 2}, {:incr, "n", by}, state)
      {reply, Machine.fetch_all(after_incr)["n"]}
    end

    assert {_, [{:ok, -3}]} = Machine.apply(%{index: 1}, {:incr, "missing", -3}, state)
    assert incr.("41", 1) == {{:ok, 42}, {"42", 77}}
    assert incr.("-1", 1) == {{:ok, 0}, {"0", 77}}
    assert incr.("#{@max - 1}", 1) == {{:ok, @max}, {"#{@max}", 77}}
    assert incr.("#{@min}", @max) == {{:ok, -1}, {"-1", 77}}

    for text <- ["", "x", "1x", " 1", "+1", "01", "-0", "1.0", "#{@max + 1}", "#{@min - 1}"] do
      assert incr.(text, 1) == {{:error, :not_an_integer}, {text, 77}}
    end

    assert {{:error, :not_an_integer}, _} = incr.(String.duplicate("1", 100_000), 1)
    assert incr.("#{@max}", 1) == {{:error, :increment_overflow}, {"#{@max}", 77}}
    assert incr.("#{@min}", -1) == {{:error, :increment_overflow}, {"#{@min}", 77}}
    assert incr.("0", @max + 1) == {{:error, :increment_overflow}, {"0", 77}}
  end

  test "asks for a snapshot once the log weighs as much as the state, and not before", %{
    state: state
  } do
    # 1 MiB a command, of which only one stays: the floor decides.
    command = {:put_batch, [{"k", String.duplicate("x", 1_048_576), 0}]}
    assert cursors(state, command, 40) == [16, 32]

    # 32 MiB of state: the next is due when as much has come again.
    grow = fn i -> {:put_batch, [{"k#{i}", String.duplicate("x", 1_048_576), 0}]} end
    assert cursors(Machine.init(%{}), grow, 70) == [16, 32, 64]
  end

  test "does not keep a caller's large buffer for the sake of a small part of it", %{
    state: state
  } do
    <<key::binary-size(100), value::binary-size(200), _::binary>> = :binary.copy("x", 1_000_000)
    <<small::binary-size(10), _::binary>> = :binary.copy("y", 1_000_000)

    for {key, value} <- [{key, value}, {small, value}, {key, small}, {small, small}] do
      command = Machine.pack({:batch, [{:put, key, value, 0}]})
      {state, [:ok]} = Machine.apply(%{index: 1}, command, state)
      [{^key, {^value, 0}}] = Map.to_list(Machine.fetch_all(state))
      [{key, value, 0}] = :ets.tab2list(state.table)
      # Of a small binary that stands alone, OTP 27 tells the size in bits.
      assert :binary.referenced_byte_size(key) in [byte_size(key), bit_size(key)]
      assert :binary.referenced_byte_size(value) in [byte_size(value), bit_size(value)]
      Machine.apply(%{index: 2}, {:delete, key}, state)
    end
  end

  test "a snapshot of small values is a few binaries, and no heap full of references", %{
    state: state
  } do
    entries = for i <- 1..50_000, do: {"k#{i}", String.duplicate("x", 128), i}
    {state, _oks} = Machine.apply(%{index: 1}, {:put_batch, entries}, state)
    {frozen, weight} = Snapshot.freeze(state)
    assert weight > 50_000 * 128
    assert Enum.all?(frozen.rows, &match?([_one], &1))
    assert frozen.rows |> :erts_debug.size() < 1_000
  end

  test "what a snapshot holds is what was there when it was asked for", %{state: state} do
    # 1 MiB a command: the 16th asks, and leaves 16 rows of 1 MiB, of which each is shared.
    put = fn i -> {:put_batch, [{"k#{i}", String.duplicate("x", 1_048_576), i}]} end

    {state, frozen} =
      Enum.reduce(1..20, {state, nil}, fn i, {state, frozen} ->
        case Machine.apply(%{index: i}, put.(i), state) do
          {state, [:ok]} -> {state, frozen}
          {state, [:ok], [{:release_cursor, 16, frozen}]} -> {state, frozen}
        end
      end)

    {state, [:ok]} = Machine.apply(%{index: 21}, {:delete, "k1"}, state)
    assert Machine.overview(state) == %{keys: 19, commits: 20}
    assert frozen.commits == 16

    rows =
      for chunk <- frozen.rows,
          row <- chunk |> IO.iodata_to_binary() |> :erlang.binary_to_term(),
          do: row

    assert rows |> Enum.map(&elem(&1, 2)) |> Enum.sort() == Enum.to_list(1..16)
    assert Snapshot.prepare(%{}, frozen) == frozen
    assert frozen.rows |> :erts_debug.size() < 10_000
  end

  test "a process holds one state's table at a time", %{state: state} do
    assert :ets.info(state.table, :owner) == self()
    other = Machine.init(%{})
    assert :ets.info(state.table) == :undefined
    assert Machine.fetch_all(other) == %{}
  end

  defp cursors(state, command, count) do
    {_state, indexes} =
      Enum.reduce(1..count, {state, []}, fn index, {state, indexes} ->
        command = if is_function(command), do: command.(index), else: command

        case Machine.apply(%{index: index}, command, state) do
          {state, [:ok]} -> {state, indexes}
          {state, [:ok], [{:release_cursor, ^index, _frozen}]} -> {state, [index | indexes]}
        end
      end)

    Enum.reverse(indexes)
  end
end
