# What becomes of a command whose server ends: the calls of the Ra backend, with processes of the test's as servers.
# Invariant: a stand-in reports each command that it is handed, and its successor takes what comes again, so that
# a command which is sent twice is seen and answered.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.ClientTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.RaCase, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.Machine

  @compile {:no_warn_undefined, [:ra]}

  # How a server ends, and what the caller is told of it.
  @ends [
    {:noproc, {:noproc, :server}},
    {{:nodedown, :"gone@127.0.0.1"}, {:nodedown, :server}},
    {:normal, {:server_down, :server, :normal}},
    {:shutdown, {:server_down, :server, :shutdown}},
    {:killed, {:server_down, :server, :killed}}
  ]

  @secret "known to the caller alone"

  setup %{dir: dir} do
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

  # What is logged or shown of an error must not hold what callers write.
  test "an error says why the server ended, and holds nothing of the command", %{
    server: server
  } do
    :ok = :ra.stop_server(:ferricstore_batcher, server)

    for {reason, error} <- @ends, entries <- secrets() do
      stand_in(server, {:end, reason})
      assert {:error, told} = Ra.__commit_put_batch_direct__(0, entries)
      refute secret?(told)
      assert told == of(error, server)
      remove(server)
    end
  end

  test "an error holds nothing of the command that a killed server had in its mailbox", %{
    server: {name, _node} = server
  } do
    for entries <- secrets() do
      # The killed one's successor is no leader yet.
      assert {:ok, ^server} = Ra.leader(0)
      assert {:ok, _commits} = Ra.commits(0)
      pid = Process.whereis(name)
      :ok = :sys.suspend(pid)
      :erlang.trace(pid, true, [:receive])
      commit = Task.async(fn -> Ra.__commit_put_batch_direct__(0, entries) end)
      assert_receive {:trace, ^pid, :receive, {:"$gen_call", _from, {:leader_call, _command}}}

      Process.exit(pid, :kill)
      assert {:error, told} = Task.await(commit, 30_000)
      refute secret?(told)
      assert told == {:server_down, server, :killed}
    end
  end

  # One that goes to Ra as a packed binary, and one that goes as it is.
  defp secrets do
    entries = for times <- [1, 100], do: [{"key", String.duplicate(@secret, times), 0}]
    assert [packed, {:put_batch, _}] = Enum.map(entries, &Machine.pack({:put_batch, &1}))
    assert secret?(packed)
    entries
  end

  # In the external format, where a binary stands as it is, also within another one.
  defp secret?(term), do: :binary.match(:erlang.term_to_binary(term), @secret) != :nomatch

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
