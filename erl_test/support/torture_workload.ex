defmodule Ferricstore.Raft.WARaftBackend.Batcher.Torture.Workload do
  @moduledoc false
  # What a caller of the torture test writes, one operation after the other, and how it judges the answer.
  #
  # Invariant: an operation follows from its caller and its number alone, so whoever knows how far a caller
  # came knows what it wrote, even if the caller's node died; and each key but a counter's is touched by one
  # operation, or put by one and deleted by the next.

  alias Ferricstore.Raft.WARaftBackend.Batcher

  @shard 0
  @shared_counters 4
  @padding String.duplicate("v", 200)
  # Longer than the batcher and the backend may take together.
  @async_ms 120_000

  @typedoc "Which node, which of its lives, which caller there."
  @type id :: {site :: atom, life :: pos_integer, caller :: pos_integer}
  @typedoc "What one reply stands for. A mark is a counter that is incremented once."
  @type effect :: {:mark | :count | :put | :delete, key :: binary}
  @type call ::
          {:write, binary, tuple, pos_integer}
          | {:batch | :puts | :async_puts | :deletes, list}
  @type outcome ::
          :acked | {:not_committed | :unknown, kind :: String.t()} | {:odd, what :: String.t()}
  @typedoc "The last sum that the caller was told of each counter."
  @type sums :: %{binary => integer}

  @doc "The value that is put under a key."
  @spec value(binary) :: binary
  def value(key), do: key <> @padding

  @doc "The operation with the number `seq`, and what each of its replies stands for."
  @spec operation(id, non_neg_integer) :: {call, [effect]}
  def operation(id, seq), do: operation(rem(seq, 9), id, seq)

  defp operation(0, id, seq), do: write("marks", 1, mark(id, seq, 0))

  defp operation(1, id, seq) do
    effects = [mark(id, seq, 0), own(id), mark(id, seq, 1), shared(seq)]
    {{:batch, Enum.map(effects, &command/1)}, effects}
  end

  defp operation(2, id, seq), do: puts(:puts, for(n <- 0..2, do: put(id, seq, n)))
  # Deleted by the next one.
  defp operation(3, id, seq), do: write("values", 2, put(id, seq, 0))

  defp operation(4, id, seq) do
    {:put, key} = put(id, seq - 1, 0)
    {{:deletes, [key]}, [{:delete, key}]}
  end

  defp operation(5, id, seq) do
    effects = [mark(id, seq, 0), shared(seq), put(id, seq, 1), own(id)]
    {{:write, "nested", {:batch, Enum.map(effects, &command/1)}, 5}, effects}
  end

  defp operation(6, id, _seq), do: write("counters", 1, own(id))
  # The first of these is deleted by the next one.
  defp operation(7, id, seq), do: puts(:async_puts, for(n <- 0..1, do: put(id, seq, n)))

  defp operation(8, id, seq) do
    {:put, key} = put(id, seq - 1, 0)
    write("values", 2, {:delete, key})
  end

  defp write(prefix, window_ms, effect),
    do: {{:write, prefix, command(effect), window_ms}, [effect]}

  defp puts(how, effects), do: {{how, for({:put, key} <- effects, do: entry(key))}, effects}

  defp command({:put, key}), do: {:put, key, value(key), 0}
  defp command({:delete, key}), do: {:delete, key}
  defp command({_counter, key}), do: {:incr, key, 1}

  defp entry(key), do: {key, value(key), 0}

  defp mark(id, seq, n), do: {:mark, "mark #{text(id)} #{seq} #{n}"}
  defp put(id, seq, n), do: {:put, "value #{text(id)} #{seq} #{n}"}
  defp own(id), do: {:count, "count #{text(id)}"}
  defp shared(seq), do: {:count, "count shared #{rem(seq, @shared_counters)}"}

  defp text({site, life, caller}), do: "#{site}.#{life}.#{caller}"

  @doc "Carries out a call through the batcher. Answers what it returned, or what it was ended by."
  @spec run(call) :: {:returned, term} | {:exit | :error | :throw, term} | :no_reply
  def run(call) do
    case perform(call) do
      {:await, tag} -> await(tag)
      result -> {:returned, result}
    end
  catch
    class, reason -> {class, reason}
  end

  defp perform({:write, prefix, command, window_ms}),
    do: Batcher.write(@shard, prefix, command, window_ms)

  defp perform({:batch, commands}), do: Batcher.write_batch(@shard, commands)
  defp perform({:puts, entries}), do: Batcher.write_put_batch(@shard, entries)
  defp perform({:deletes, keys}), do: Batcher.write_delete_batch(@shard, keys)

  defp perform({:async_puts, entries}) do
    tag = make_ref()

    case Batcher.write_put_batch_async(@shard, entries, {self(), tag}) do
      :ok -> {:await, tag}
      {:direct, result} -> result
    end
  end

  defp await(tag) do
    receive do
      {^tag, result} -> {:returned, result}
    after
      @async_ms -> :no_reply
    end
  end

  @doc "What the answer to a call means for its effects. Odd is what neither batcher nor backend may answer."
  @spec judge(call, [effect], term, sums) :: {outcome, sums}
  def judge(call, effects, answer, sums) do
    case replies(call, answer) do
      {:ok, replies} when length(replies) == length(effects) -> acked(effects, replies, sums)
      {:ok, replies} -> {{:odd, "replies #{inspect(replies)} to #{inspect(effects)}"}, sums}
      outcome -> {outcome, sums}
    end
  end

  # A single command gets its bare reply.
  defp replies({:write, _, {:incr, _, _}, _}, {:returned, {:ok, _} = reply}), do: {:ok, [reply]}

  defp replies({:write, _, _, _}, {:returned, :ok}), do: {:ok, [:ok]}
  defp replies(_call, {:returned, {:ok, replies}}) when is_list(replies), do: {:ok, replies}
  defp replies(_call, {:returned, {:error, reason}}), do: failed(reason)
  defp replies(_call, {:exit, {:timeout, {Batcher, _, _}}}), do: {:unknown, "caller timed out"}
  defp replies(_call, other), do: {:odd, inspect(other)}

  # As the batcher and the backend on Ra document them.
  defp failed({:no_leader, _}), do: {:not_committed, "no_leader"}
  defp failed({tag, _server}) when tag in [:timeout, :nodedown, :noproc], do: {:unknown, "#{tag}"}
  defp failed({:server_down, _, reason}), do: {:unknown, "server_down #{inspect(reason)}"}
  defp failed(reason), do: {:odd, inspect({:error, reason})}

  defp acked(effects, replies, sums) do
    Enum.zip(effects, replies)
    |> Enum.reduce({:acked, sums}, fn {effect, reply}, {outcome, sums} ->
      if right?(effect, reply, sums),
        do: {outcome, remember(effect, reply, sums)},
        else: {{:odd, "reply #{inspect(reply)} to #{inspect(effect)}"}, sums}
    end)
  end

  defp right?({:mark, _key}, reply, _sums), do: reply == {:ok, 1}

  # What was acknowledged is in every later sum.
  defp right?({:count, key}, {:ok, sum}, sums), do: sum > Map.get(sums, key, 0)
  defp right?({kind, _key}, reply, _sums), do: kind in [:put, :delete] and reply == :ok

  defp remember({:count, key}, {:ok, sum}, sums), do: Map.put(sums, key, sum)
  defp remember(_effect, _reply, sums), do: sums
end
