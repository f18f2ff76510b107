# What becomes of a command whose server ends: the calls of the Ra backend, with processes of the test's as servers.
# Invariant: a stand-in reports each command that it is handed, and its successor takes what comes again, so that
# a command which is sent twice is seen and answered.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.ClientTest do
  use ExUnit.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra

  @moduletag :ra
  @moduletag :capture_log

  @compile {:no_warn_undefined, [:ra]}

  unless Code.ensure_loaded?(:ra) do
    @moduletag skip: "Ra is not on the code path: run `make setup`"
  end

  # How a server ends, and what the caller is told of it.
  @ends [
    {:noproc, {:noproc, :server}},
    {{:nodedown, :"gone@127.0.0.1"}, {:nodedown, :server}},
    {:normal, {:server_down, :server, :normal}},
    {:shutdown, {:server_down, :server, :shutdown}},
    {:killed, {:server_down, :server, :killed}}
  ]

  setup do
    dir = Path.join(System.tmp_dir!(), "ra_client_test_#{System.unique_integer([:positive])}")
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    on_exit(&Ra.stop/0)
    assert :ok = Ra.start(data_dir: dir, command_timeout: 10_000)
    assert {:ok, server} = Ra.leader(0)
    %{server: server}
  end

  for {reason, error} <- @ends do
    test "7.4: a command is handed over once, though its server ends: #{inspect(reason)}", %{
      server: server
    } do
      :ok = :ra.stop_server(:ferricstore_batcher, server)
      stand_in(server, {:end, unquote(Macro.escape(reason))})

      assert {:error, told} = Ra.__commit_batch_direct__(0, [{:incr, "n", 1}])
      assert told == of(unquote(Macro.escape(error)), server)
      assert_received {:handed_over, ^server}
      refute_received {:handed_over, _}

      # The successor is there, and gets what is a command of its own.
      assert {:ok, [:ok]} = Ra.__commit_batch_direct__(0, [{:incr, "n", 1}])
      assert_received {:handed_over, ^server}
    end
  end

  test "7.4: a command that was passed on to a leader which ends is not handed over again", %{
    server: {name, node} = server
  } do
    leader = {:"#{name}_leader", node}
    :ok = :ra.stop_server(:ferricstore_batcher, server)
    stand_in(server, {:pass_on, leader})
    stand_in(leader, {:end, :noproc})

    # Nobody of that name, says Ra; but whom it means can't be told, since the one that was asked is there.
    assert {:error, {:noproc, ^server}} = Ra.__commit_batch_direct__(0, [{:incr, "n", 1}])
    for asked <- [server, leader], do: assert_received({:handed_over, ^asked})
    refute_received {:handed_over, _}
  end

  defp of(error, server), do: put_elem(error, 1, server)

  ## Stand-ins

  defp stand_in({name, _node} = server, on_command) do
    test = self()
    true = Process.register(spawn(fn -> serve(server, on_command, test) end), name)
    on_exit(fn -> remove(server) end)
  end

  defp remove({name, _node}) do
    with pid when pid != nil <- Process.whereis(name) do
      watch = Process.monitor(pid)
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^watch, :process, _, _}
    end
  end

  defp serve({name, _node} = server, on_command, test) do
    receive do
      {:"$gen_call", from, {:leader_call, call}} when elem(call, 0) == :command ->
        send(test, {:handed_over, server})

        case on_command do
          :accept ->
            :gen_statem.reply(from, {:ok, [:ok], server})

          {:pass_on, leader} ->
            :gen_statem.reply(from, {:redirect, leader})

          # As a server that its supervisor has started again before anybody looks.
          {:end, reason} ->
            true = Process.unregister(name)
            true = Process.register(spawn(fn -> serve(server, :accept, test) end), name)
            exit(reason)
        end

      {:"$gen_call", from, {:leader_call, _who_leads}} ->
        :gen_statem.reply(from, {:ok, [server], server})
    end

    serve(server, on_command, test)
  end
end
