defmodule Ferricstore.Raft.WARaftBackend.Batcher.LogLines do
  @moduledoc false
  # What is logged of a shard, as messages to a test.
  #
  # Invariant: a line is in the mailbox of the test before the process that wrote it goes on. So what a watcher says is
  # there when `look/1` returns.

  import ExUnit.Assertions

  @doc "From now on each line of this shard reaches the calling process, until the end of the test."
  def listen(shard) do
    id = :"listener_#{shard}"
    config = %{level: :all, config: %{test: self(), shard: shard}}
    :ok = :logger.add_handler(id, __MODULE__, config)
    ExUnit.Callbacks.on_exit(fn -> :logger.remove_handler(id) end)
  end

  @doc false
  def log(event, %{config: %{test: test, shard: shard}}) do
    if event.meta[:shard] == shard do
      {:string, text} = event.msg
      send(test, {:log, event.level, event.meta, IO.chardata_to_string(text)})
    end
  end

  @doc "The next line of a kind."
  def next_line(kind) do
    assert_receive {:log, level, %{kind: ^kind} = meta, text}
    {level, meta, text}
  end

  @doc "None of this kind comes."
  def refute_line(kind), do: refute_receive({:log, _level, %{kind: ^kind}, _text}, 30)

  @doc "None of this kind has come: of a process that is known to have done its work."
  def refute_written(kind), do: refute_received({:log, _level, %{kind: ^kind}, _text})
end
