defmodule Ferricstore.Raft.WARaftBackend.Batcher.TestTerminal do
  @moduledoc false
  # A terminal for one program: shows the test what is written, and types what the test says.
  #
  # Invariant: nothing is typed before the test says so; a program waits for that, as for a person.

  @doc "Starts it. The calling process is sent `{:written, text}` for all that is written."
  @spec start() :: pid
  def start do
    test = self()
    spawn_link(fn -> loop(test, [], []) end)
  end

  @doc "Types a line."
  @spec type(pid, String.t()) :: :ok
  def type(terminal, line) do
    send(terminal, {:type, line <> "\n"})
    :ok
  end

  # What was typed and not read, and who reads and got nothing yet; one of the two is empty.
  defp loop(test, typed, readers) do
    receive do
      {:type, line} when readers == [] ->
        loop(test, typed ++ [line], [])

      {:type, line} ->
        [reader | readers] = readers
        reader.(line)
        loop(test, typed, readers)

      {:io_request, from, ref, request} ->
        reply = fn answer -> send(from, {:io_reply, ref, answer}) end

        case {request(request), typed} do
          {{:write, text}, _typed} ->
            send(test, {:written, text})
            reply.(:ok)
            loop(test, typed, readers)

          {:read, []} ->
            loop(test, [], readers ++ [reply])

          {:read, [line | typed]} ->
            reply.(line)
            loop(test, typed, readers)

          {:other, _typed} ->
            reply.({:error, :enotsup})
            loop(test, typed, readers)
        end
    end
  end

  defp request({:put_chars, _encoding, text}), do: {:write, IO.chardata_to_string(text)}

  defp request({:put_chars, _encoding, module, function, arguments}),
    do: {:write, module |> apply(function, arguments) |> IO.chardata_to_string()}

  defp request({:get_line, _encoding, _prompt}), do: :read
  defp request({:get_line, _prompt}), do: :read
  defp request(_other), do: :other
end
