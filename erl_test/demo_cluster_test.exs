# The demo's options of the batcher, its own cost, and its cluster of three nodes, one of which is killed.
# Invariant: no node, no name of this VM and no file of the demo's is left after a test.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.DemoClusterTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Demo, Options}

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{
    Call,
    Column,
    CommandLine,
    Cost,
    Meter,
    Outage,
    Plan
  }

  @moduletag :capture_log

  if Code.ensure_loaded?(:ra) do
    @ra []
  else
    @ra [skip: "Ra is not on the code path: run `make setup`, or add {:ra, \"~> 2.0 or ~> 3.0\"}"]
  end

  defp options(argv) do
    {:ok, options} = CommandLine.parse(argv)
    options
  end

  defp demo(argv) do
    test = self()
    output = capture_io(fn -> send(test, {:status, Demo.main(argv)}) end)
    assert_received {:status, status}
    {status, String.split(output, "\n", trim: true)}
  end

  describe "the options of the batcher" do
    test "are auto and shard unless others are given" do
      assert %{pacing: :auto, commit_scope: :shard, nodes: 1, kill?: false} = options([])

      assert %{pacing: :window, commit_scope: :lane} =
               options(~w(--pacing window --commit-scope lane))
    end

    test "go to the third column, whatever they are, and the second one has none" do
      for pacing <- ~w(commit window auto), scope <- ~w(lane shard) do
        options = options(["--pacing", pacing, "--commit-scope", scope])

        assert [%{name: "direct"}, %{name: "default", batcher: []}, %{name: ^pacing} = chosen] =
                 Column.all(options, Demo)

        assert chosen.batcher[:commit_scope] == String.to_atom(scope)
        assert {:ok, _checked} = Options.check(chosen.batcher)
        assert Column.legend(options) =~ "#{pacing}: with pacing #{pacing}, commit scope #{scope}"
      end
    end

    test "each column has shards of its own, the run with the kill too" do
      options = options(~w(--nodes 3 --shards 4))
      columns = Column.all(options, Demo) ++ [Column.outage(options)]
      shards = Enum.flat_map(columns, & &1.shards)
      assert Enum.sort(shards) == Enum.to_list(0..(Column.shard_count(options) - 1))
    end
  end

  describe "a kill" do
    test "comes with three nodes, unless it is not wanted, and not in a replay" do
      assert %{nodes: 3, kill?: true} = options(~w(--nodes 3))
      assert %{nodes: 3, kill?: false} = options(~w(--nodes 3 --no-kill))
      assert %{nodes: 3, kill?: false} = options(["--nodes", "3", "--input", __ENV__.file])
    end

    test "makes the outcome of a write unknown; an error that says it was not done is a failure" do
      for reason <- [
            :timeout,
            {:timeout, {:server, :node}},
            {:nodedown, {:server, :node}},
            {:noproc, {:server, :node}},
            {:server_down, {:server, :node}, :killed}
          ],
          do: assert(Outage.unknown?(reason))

      for reason <- [:batcher_overloaded, :shutting_down, {:no_leader, 0}, {:backend_exit, :x}],
          do: refute(Outage.unknown?(reason))
    end

    test "writes of unknown outcome are counted apart, where they are expected" do
      meter = Meter.new("killed", :nobody, 0..0, &Outage.unknown?/1)
      Meter.failed(meter, {:nodedown, :server}, 3)
      Meter.failed(meter, :batcher_overloaded, 2)
      assert {Meter.unknown(meter), Meter.failed(meter), Meter.acknowledged(meter)} == {3, 2, 0}
      assert Meter.unknowns(meter) == [{"{:nodedown, :server}", 3}]
      assert Meter.failures(meter) == [{":batcher_overloaded", 2}]

      meter = Meter.new("direct", :nobody, 0..0)
      Meter.failed(meter, {:nodedown, :server}, 3)
      assert {Meter.unknown(meter), Meter.failed(meter)} == {0, 3}
    end
  end

  describe "the demo's own cost" do
    test "is measured with the calls of the load, which nobody but the demo answers" do
      assert Cost.per_write(options(~w(--callers 16))) > 0
    end

    test "a call is acknowledged as far as its replies say so" do
      plan = Plan.new(0..1, 1, 8)

      for number <- 0..9, call = Plan.call(plan, 3, number) do
        count = length(Call.commands(call))
        assert Call.count(call) == count
        assert {:ok, replies} = Call.run(call, :nobody)
        assert Call.acknowledged(call, replies) == count
        assert Call.errors(call, replies) == []

        replies = List.replace_at(replies, -1, {:error, :no})
        assert Call.acknowledged(call, replies) == count - 1
        assert Call.errors(call, replies) == [{:error, :no}]
      end
    end

    test "values begin with their keys, and have the size that was asked for" do
      for size <- [0, 1, 7, 8, 128] do
        {:write, _, _, {:put, key, value, 0}, _} = Plan.call(Plan.new(0..0, 1, size), 12, 30)
        assert byte_size(value) == size
        assert String.starts_with?(value, String.slice(key, 0, size))
      end
    end
  end

  describe "three nodes" do
    @describetag @ra

    test "the leader's node is killed, nothing acknowledged is lost, the survivors have it" do
      {0, lines} = demo(~w(--nodes 3 --seconds 4 --callers 16 --shards 2))

      assert [_, writes, writes] =
               Regex.run(
                 ~r/\A(\d+) writes acknowledged, (\d+) read back, 0 lost\z/,
                 List.last(lines)
               )

      assert Enum.any?(
               lines,
               &(&1 =~ ~r/\Akilled batcher_demo_.*, the leader of [12] of 2 shards/)
             )

      assert [[_, _before, later]] =
               for(
                 line <- lines,
                 found =
                   Regex.run(~r/was killed after (\d+) acknowledged writes, (\d+) came/, line),
                 do: found
               )

      assert String.to_integer(later) > 0
      assert Enum.any?(lines, &(&1 =~ ~r/\Alongest time without an acknowledgement: \d+ ms/))
      assert Enum.any?(lines, &(&1 =~ ~r/\Awrites of unknown outcome, .*: \d+\z/))
      refute Node.alive?()
    end

    test "with --no-kill all live to the end" do
      {0, lines} = demo(~w(--nodes 3 --no-kill --seconds 1 --callers 16 --shards 1))
      assert List.last(lines) =~ ~r/\A[1-9]\d* writes acknowledged, \d+ read back, 0 lost\z/
      refute Enum.any?(lines, &(&1 =~ "killed"))
      refute Node.alive?()
    end
  end
end
