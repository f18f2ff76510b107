defmodule Ferricstore.Raft.WARaftBackend.Batcher.ChildVM do
  @moduledoc false
  # A VM of its own for what might bring one down: runs a function of this build there, reads what it
  # prints, and says how it ended.
  #
  # Invariant: the VM that was started has ended when `run/2` returns, one that hangs is killed.

  @timeout_ms 120_000
  # What a shell reports of a program that a signal ended.
  @signal 128

  @typedoc """
  `status`: exit status, `signal`: that ended it, or `nil`; `lines`: what it printed, `values`: what it
  printed with `tell/2`, `down_ms`: from `down/0` to its end.
  """
  @type result :: %{
          status: non_neg_integer | :hung,
          signal: pos_integer | nil,
          lines: [binary],
          values: %{binary => [term]},
          down_ms: non_neg_integer | nil
        }

  @doc """
  Calls a function in a VM of its own, started with these flags of `erl`; `timeout_ms` is the longest that
  it may live.
  """
  @spec run({module, atom, list}, timeout_ms :: pos_integer, flags :: [binary]) :: result
  def run({module, function, args}, timeout_ms \\ @timeout_ms, flags \\ []) do
    call = Base.encode64(:erlang.term_to_binary({module, function, args}))

    # In a process of its own: until the function that `-eval` names returns, the VM counts as starting.
    eval = """
    {M, F, A} = binary_to_term(base64:decode("#{call}")),
    spawn(fun() ->
      try apply(M, F, A) catch C:R:S -> io:format("~p~n", [{C, R, S}]), halt(1) end
    end).
    """

    paths = Enum.flat_map(code_paths(), &["-pa", &1])
    erl = System.find_executable("erl")
    quiet = ["-noinput", "-kernel", "logger_level", "none"]
    arguments = [erl] ++ flags ++ quiet ++ ["-eval", eval | paths]

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 10_000,
        # No dumps: neither the kernel's nor the VM's. All of `malloc` in one place: `Soak` looks there.
        env: [{~c"ERL_CRASH_DUMP_BYTES", ~c"0"}, {~c"MALLOC_ARENA_MAX", ~c"1"}],
        args: ["-c", "ulimit -c 0; exec \"$@\"", "child_vm" | arguments]
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    collect(%{port: port, os_pid: os_pid, until: now_ms() + timeout_ms, down: nil, lines: []})
  end

  @doc "In the child: prints a term under a name, at once: an abort writes out no buffer."
  def tell(name, term) do
    line = "#{name}=#{Base.encode64(:erlang.term_to_binary(term))}\n"
    :ok = :file.write_file("/dev/stdout", line, [:append, :raw])
  end

  @doc "In the child: from here on the time to its end counts."
  def down, do: tell("down", :now)

  # Elixir and this build, its test support included.
  defp code_paths do
    for module <- [Kernel, Logger, __MODULE__], do: Path.dirname(to_string(:code.which(module)))
  end

  defp collect(%{port: port} = state) do
    receive do
      {^port, {:data, {_eol, "down=" <> _}}} ->
        collect(%{state | down: now_ms()})

      {^port, {:data, {_eol, line}}} ->
        collect(%{state | lines: [line | state.lines]})

      {^port, {:exit_status, status}} ->
        result(state, status)
    after
      max(state.until - now_ms(), 0) ->
        System.cmd("kill", ["-KILL", "#{state.os_pid}"])

        receive do
          {^port, {:exit_status, _killed}} -> result(state, :hung)
        end
    end
  end

  defp result(state, status) do
    {told, lines} = state.lines |> Enum.reverse() |> Enum.split_with(&(&1 =~ ~r/^\w+=\S+$/))

    values =
      for line <- told, reduce: %{} do
        values ->
          [name, term] = String.split(line, "=", parts: 2)
          term = term |> Base.decode64!() |> :erlang.binary_to_term()
          Map.update(values, name, [term], &(&1 ++ [term]))
      end

    %{
      status: status,
      signal: if(is_integer(status) and status > @signal, do: status - @signal),
      lines: lines,
      values: values,
      down_ms: state.down && now_ms() - state.down
    }
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
