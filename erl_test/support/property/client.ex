defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Client do
  @moduledoc false
  # One client of a program: a process that makes its calls one after the other and logs each.
  #
  # Invariant: whatever comes into its mailbox is the reply to a call of its own and becomes part of that
  # call's record; the rest is reported as stray.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Property.{Backend, Log}

  @await_ms 6_000

  @doc """
  Runs the steps. Messages to `context.runner`: `{:begun, self()}` at each call, `{:awaited, self()}` when
  all replies that must come are there; then, told to `:finish`, `{:strays, self(), messages}`.
  """
  def run(steps, index, context) do
    waiting =
      steps
      |> Enum.with_index()
      |> Enum.reduce(%{}, fn {step, number}, waiting ->
        send(context.runner, {:begun, self()})
        call(step, {index, number}, context, waiting)
      end)

    waiting = await(waiting, System.monotonic_time(:millisecond) + @await_ms)
    send(context.runner, {:awaited, self()})

    receive do
      :finish -> send(context.runner, {:strays, self(), sweep(waiting)})
    end
  end

  # `waiting`: calls whose reply comes as a message, by its tag.
  defp call(step, id, context, waiting) do
    shard = Enum.at(context.shards, elem(step, 1))
    mark = fn index -> {context.run, elem(id, 0), elem(id, 1), index} end
    plan = plan(step, mark)
    token = if plan[:token], do: {context.run, id}

    call =
      Map.merge(
        %{id: id, step: step, shard: shard, pid: self(), lane: nil, count: 0, kind: :sync}
        |> Map.merge(plan),
        %{
          token: token,
          begun: Log.tick(),
          returned: nil,
          outcome: nil,
          ms: nil,
          replies: [],
          missing: []
        }
      )

    Log.call(call)
    began = System.monotonic_time(:millisecond)
    {outcome, tag} = perform(step, shard, plan, token, context)

    call = %{
      call
      | returned: Log.tick(),
        outcome: outcome,
        ms: System.monotonic_time(:millisecond) - began
    }

    after_call(call, tag, waiting)
  end

  # The writes of a call: lane, item, how many marks, what it costs in its lane (6.1).
  defp plan({:write, _, prefix, shape, window_ms}, mark) do
    {command, count} = Backend.command(shape, mark, 0)
    %{lane: prefix, item: command, count: count, window: window_ms, improper: improper?(shape)}
  end

  defp plan({:batch, _, shapes}, mark) do
    {commands, count} = Backend.commands(shapes, mark, 0)
    %{lane: :batch, item: commands, count: count, improper: improper?({:nested, shapes})}
  end

  defp plan({kind, _, n}, mark) when kind in [:put, :delete], do: hot(kind, n, mark)

  defp plan({kind, _, n, from, token?}, mark)
       when kind in [:put_async, :delete_async, :batch_async] do
    lane = %{put_async: :put_batch, delete_async: :delete_batch, batch_async: :batch}[kind]
    lane |> raw(n, mark) |> Map.merge(%{kind: :async, from: from, token: token?})
  end

  defp plan({:raw, _, lane, n, window_ms}, mark),
    do: lane |> raw(n, mark) |> Map.merge(%{kind: :raw, window: window_ms})

  defp plan({:raw_cast, _, lane, n, window_ms, token?}, mark),
    do: lane |> raw(n, mark) |> Map.merge(%{kind: :raw_cast, window: window_ms, token: token?})

  defp plan({:improper, _, lane}, mark) do
    {[item], 1} =
      if lane == :batch, do: Backend.commands([:plain], mark, 0), else: {[mark.(0)], 1}

    %{lane: lane, item: [item | :tail], count: 1, improper: true}
  end

  defp plan(_no_write, _mark), do: %{kind: :other}

  defp hot(:put, n, mark), do: hot(:put_batch, Backend.entries(n, mark), n)
  defp hot(:delete, n, mark), do: hot(:delete_batch, Backend.keys(n, mark), n)

  defp hot(lane, item, n) when is_list(item),
    do: %{lane: lane, item: item, count: n, apart: Backend.apart?(n)}

  defp raw(:put_batch, n, mark), do: hot(:put, n, mark)
  defp raw(:delete_batch, n, mark), do: hot(:delete, n, mark)

  defp raw(:batch, n, mark) do
    {commands, count} = Backend.commands(List.duplicate(:plain, n), mark, 0)
    %{lane: :batch, item: commands, count: count}
  end

  defp raw(prefix, n, mark) do
    {command, count} = Backend.command({:nested, List.duplicate(:plain, n)}, mark, 0)
    %{lane: prefix, item: command, count: count}
  end

  defp improper?(:improper), do: true
  defp improper?({:nested, shapes}), do: Enum.any?(shapes, &improper?/1)
  defp improper?(_shape), do: false

  # `{outcome, tag}`: tag of the reply that comes as a message.
  defp perform({kind, _, _, from, _}, shard, plan, token, _context)
       when kind in [:put_async, :delete_async, :batch_async] do
    {from, tag} = from(from)
    function = function(kind)
    outcome = attempt(fn -> apply(Batcher, function, [shard, plan.item, from, token]) end)
    {outcome, if(outcome == {:returned, :ok}, do: tag)}
  end

  defp perform({:raw_cast, _, lane, _, window_ms, _}, shard, plan, token, _context) do
    {from, tag} = from(Enum.random([:plain, :process]))
    kind = :"write_#{lane}"

    outcome =
      attempt(fn ->
        GenServer.cast(Batcher.name(shard), {kind, plan.item, window_ms, from, token})
      end)

    {outcome, tag}
  end

  defp perform({:junk, _, n}, shard, _plan, _token, _context),
    do: {attempt(fn -> junk(n, Batcher.name(shard)) end), nil}

  defp perform(step, shard, plan, _token, context),
    do: {attempt(fn -> sync(step, shard, plan, context) end), nil}

  defp function(:put_async), do: :write_put_batch_async
  defp function(:delete_async), do: :write_delete_batch_async
  defp function(:batch_async), do: :write_batch_async

  defp sync({:write, _, prefix, _, ms}, shard, plan, _),
    do: Batcher.write(shard, prefix, plan.item, ms)

  defp sync({:batch, _, _}, shard, plan, _), do: Batcher.write_batch(shard, plan.item)
  defp sync({:put, _, _}, shard, plan, _), do: Batcher.write_put_batch(shard, plan.item)
  defp sync({:delete, _, _}, shard, plan, _), do: Batcher.write_delete_batch(shard, plan.item)
  defp sync({:improper, _, :batch}, shard, plan, _), do: Batcher.write_batch(shard, plan.item)

  defp sync({:improper, _, :put_batch}, shard, plan, _),
    do: Batcher.write_put_batch(shard, plan.item)

  defp sync({:improper, _, :delete_batch}, shard, plan, _),
    do: Batcher.write_delete_batch(shard, plan.item)

  defp sync({:flush, _}, shard, _, context), do: Batcher.flush(shard, context.timeout_ms)
  defp sync({:stop, _}, shard, _, _), do: Batcher.stop(shard)
  defp sync({:snapshot, _}, shard, _, _), do: Batcher.snapshot(shard)
  defp sync({:configure, _, changes}, shard, _, _), do: Batcher.configure(shard, changes)

  # Only where one runs for certain, or this client would become its parent.
  defp sync({:start_again, number}, shard, _, context),
    do: if(Enum.at(context.steady, number), do: Batcher.start_link(shard), else: :skipped)

  defp sync({:raw_flush, _}, shard, _, context),
    do: GenServer.call(Batcher.name(shard), :flush, context.timeout_ms)

  defp sync({:raw, _, lane, _, ms}, shard, plan, context) do
    kind =
      if is_binary(lane),
        do: {:write, lane, plan.item, ms},
        else: {:"write_#{lane}", plan.item, ms}

    GenServer.call(Batcher.name(shard), kind, context.timeout_ms + max(ms, 0))
  end

  defp junk(0, name), do: GenServer.cast(name, :junk)
  defp junk(1, name), do: GenServer.cast(name, {:write_put_batch, [], 0, :nobody, nil})

  defp junk(n, name),
    do:
      send_if_there(
        name,
        Enum.at(
          [{:flush, "a"}, :flush_hot_put_batch, {:EXIT, self()}, {make_ref(), :ok}, nil],
          n - 2
        )
      )

  defp send_if_there(name, message) do
    if pid = Process.whereis(name), do: send(pid, message)
    :ok
  end

  defp from(:bad), do: {{"no process", make_ref()}, nil}

  # As a call of a `GenServer` has it, and as ferricstore does.
  defp from(kind) when kind in [:alias, :call_given_up] do
    ref = :erlang.alias()
    tag = [:alias | ref]
    {{self(), tag}, if(kind == :alias, do: tag, else: {:given_up, ref, tag})}
  end

  defp from(kind) when kind in [:process, :given_up] do
    ref = :erlang.alias()
    tag = {__MODULE__, make_ref()}
    {{ref, tag}, if(kind == :process, do: tag, else: {:given_up, ref, tag})}
  end

  defp from(:plain) do
    tag = make_ref()
    {{self(), tag}, tag}
  end

  defp attempt(fun) do
    {:returned, fun.()}
  catch
    :exit, reason -> {:exit, reason}
    kind, reason -> {kind, reason}
  end

  # Gives up at once: a reply that comes before is one, none comes after.
  defp after_call(call, {:given_up, ref, tag}, waiting) do
    :erlang.unalias(ref)
    log(%{call | replies: take(tag)})
    waiting
  end

  # Everything accepted before a flush has been answered: it is in the mailbox.
  defp after_call(%{step: {:flush, _}, outcome: {:returned, :ok}} = call, nil, waiting) do
    mine = for {tag, %{shard: shard, kind: :async}} <- waiting, shard == call.shard, do: tag
    waiting = Enum.reduce(mine, waiting, &receive_now/2)
    missing = for tag <- mine, is_map_key(waiting, tag), do: waiting[tag].id
    log(%{call | missing: missing})
    waiting
  end

  defp after_call(call, tag, waiting) do
    log(call)
    if tag, do: Map.put(waiting, tag, call), else: waiting
  end

  defp receive_now(tag, waiting) do
    case take(tag) do
      [] -> waiting
      [reply] -> answered(waiting, tag, reply)
    end
  end

  defp take(tag) do
    receive do
      {^tag, reply} -> [reply]
    after
      0 -> []
    end
  end

  defp answered(waiting, tag, reply) do
    {call, waiting} = Map.pop!(waiting, tag)
    log(%{call | replies: [reply]})
    waiting
  end

  # A cast to an owner that dies may get no reply, so nobody waits for it.
  defp await(waiting, deadline) do
    certain = for {tag, %{kind: :async}} <- waiting, do: tag

    Enum.reduce(certain, waiting, fn tag, waiting ->
      receive do
        {^tag, reply} -> answered(waiting, tag, reply)
      after
        max(deadline - System.monotonic_time(:millisecond), 0) -> waiting
      end
    end)
  end

  defp sweep(waiting, strays \\ []) do
    receive do
      {tag, reply} when is_map_key(waiting, tag) ->
        waiting |> answered(tag, reply) |> sweep(strays)

      stray ->
        sweep(waiting, [stray | strays])
    after
      0 -> strays
    end
  end

  # The item was only for the call, and may be long.
  defp log(call), do: call |> Map.delete(:item) |> Log.call()
end
