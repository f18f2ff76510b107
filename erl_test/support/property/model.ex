defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Model do
  @moduledoc false
  # Judges the history of a program: what each call was told against what was committed.
  #
  # A write ends in one of three ways: *not accepted* or *accepted and never handed over* - the reply says
  # so and no commit has it -, or *handed over*: one commit has it, and the reply follows from what the
  # backend did there. `Lanes` judges the commits among themselves.
  #
  # Invariant: no fault, no time-out and no race that the contract allows is a violation.

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Property.{Lanes, Program, Runner}

  @killed {:error, {:backend_exit, :killed}}
  # What a new owner learns of a committer that died under the one before.
  @dead {:error, {:backend_exit, :noproc}}
  @invalid {:error, :invalid_batch_command_list}
  @overloaded {:error, :batcher_overloaded}
  @not_committed [{:error, :shutting_down}, {:error, :batcher_down}, @overloaded]
  # A machine that does other things too.
  @slack_ms 5_000

  @doc "What contradicts the contract: `[{kind, details}]`, `[]` if nothing does."
  def violations(program, run, history) do
    lanes = Lanes.index(run, history)
    context = Map.merge(history, %{program: program, run: run, lanes: lanes})

    List.flatten([
      for(stray <- history.strays, do: {:stray_message, stray}),
      for(stuck <- history.stuck, do: {:stuck, stuck}),
      for(death <- history.deaths, do: {:client_crashed, death}),
      Lanes.violations(context),
      Enum.map(history.calls, &call(&1, context)),
      tokens(context)
    ])
  end

  defp call(%{returned: nil} = call, context) do
    if killed?(call, context), do: [], else: [{:no_return, call}]
  end

  defp call(call, context) do
    [
      # A direct commit waits for the backend alone.
      if(call.ms > Runner.timeout_ms(context.program) + window(call) + @slack_ms,
        do: {:waited_too_long, call}
      ),
      verdict(call, context)
    ]
    |> List.flatten()
    |> Enum.reject(&is_nil/1)
  end

  defp window(call), do: max(Map.get(call, :window, 3), 0)

  # Functions that write nothing.
  defp verdict(%{kind: :other, step: {:flush, shard}} = call, context) do
    lossless? = lossless?(context, shard)

    case call.outcome do
      {:returned, :ok} when lossless? and call.missing != [] ->
        {:flushed_before_reply, call}

      {:returned, :ok} ->
        if lossless?, do: Lanes.flushed(call, context)

      {:returned, {:error, {:timeout, {Batcher, :flush, [_, _]}}}}
      when not context.program.patient ->
        nil

      {:returned, {:error, _reason}} when not lossless? ->
        nil

      _other ->
        {:flush_failed, call}
    end
  end

  defp verdict(%{kind: :other, step: {:raw_flush, shard}} = call, context) do
    case call.outcome do
      {:returned, :ok} -> nil
      {:returned, {:error, _}} -> if lossless?(context, shard), do: {:flush_failed, call}
      {:exit, reason} -> raw_exit(call, shard, reason, context)
      _other -> {:flush_failed, call}
    end
  end

  defp verdict(%{kind: :other, step: {:stop, _}, outcome: {:returned, :ok}}, _context), do: nil
  defp verdict(%{kind: :other, step: {:junk, _, _}, outcome: {:returned, _}}, _context), do: nil

  # All of it or nothing, and nothing is lost by it: the other verdicts see to that.
  defp verdict(%{kind: :other, step: {:configure, shard, _}} = call, context) do
    case call.outcome do
      {:returned, :ok} ->
        nil

      {:returned, {:error, {:invalid_option, {_maximum, :max_queue_items}, {above, most}}}}
      when above > most ->
        nil

      {:returned, {:error, reason}} when reason in [:not_running, :shutting_down] ->
        if Program.steady?(context.program, shard), do: {:not_configured, call}

      _other ->
        {:not_configured, call}
    end
  end

  defp verdict(%{kind: :other, step: {:start_again, shard}, outcome: outcome} = call, context) do
    case {Program.steady?(context.program, shard), outcome} do
      {true, {:returned, {:error, {:already_started, _pid}}}} -> nil
      {false, {:returned, :skipped}} -> nil
      _other -> {:started_twice, call}
    end
  end

  defp verdict(
         %{kind: :other, step: {:snapshot, _}, outcome: {:returned, snapshot}} = call,
         _context
       ),
       do: unless(snapshot?(snapshot), do: {:bad_snapshot, call})

  defp verdict(%{kind: :other} = call, _context), do: {:unexpected, call}

  # Writes.
  defp verdict(%{kind: :sync} = call, context) do
    case {call.outcome, commits(call, context)} do
      {{:exit, {:timeout, {Batcher, _function, _args}}}, commits} ->
        timed_out(call, commits, context)

      {outcome, [{%{pid: pid} = commit, _slice}]} when pid == call.pid ->
        own(call, outcome, commit, context)

      {{:returned, reply}, _commits} ->
        reply(call, reply, context)

      # An empty list, committed directly.
      {{_kind, _reason}, []} when call.count == 0 ->
        unless direct?(call, context), do: {:unexpected, call}

      _other ->
        {:unexpected, call}
    end
  end

  defp verdict(%{kind: :raw, step: {:raw, shard, _, _, _}} = call, context) do
    case call.outcome do
      {:returned, reply} ->
        reply(call, reply, context)

      {:exit, reason} ->
        raw_exit(call, shard, reason, context)

      _other ->
        {:unexpected, call}
    end
  end

  defp verdict(%{kind: :raw_cast} = call, context) do
    certain? = Program.steady?(context.program, elem(call.step, 1)) and not killed?(call, context)

    case call.replies do
      [reply] -> reply(call, reply, context)
      [] when certain? -> {:no_reply, call}
      [] -> nil
    end
  end

  defp verdict(%{kind: :async, from: :bad} = call, context) do
    unless match?({:error, %ArgumentError{}}, call.outcome) and commits(call, context) == [],
      do: {:bad_from_accepted, call}
  end

  defp verdict(%{kind: :async} = call, context) do
    case {call.outcome, call.replies, commits(call, context)} do
      {{:returned, :ok}, [reply], _} ->
        reply(call, reply, context)

      {{:returned, :ok}, [], _} when call.from in [:given_up, :call_given_up] ->
        nil

      {{:returned, :ok}, [], _} ->
        unless killed?(call, context), do: {:no_reply, call}

      {{:returned, {:direct, _}}, [], []} when call.count == 0 ->
        nil

      {outcome, [], [{commit, _}]} when commit.pid == call.pid ->
        direct(call, outcome, commit, context)

      {{_, _}, [], []} when call.count == 0 ->
        unless direct?(call, context), do: {:unexpected, call}

      _other ->
        {:unexpected, call}
    end
  end

  # A reply of the batcher's.
  defp reply(%{improper: true} = call, reply, context) do
    unless reply == @invalid and commits(call, context) == [], do: {:improper_list_accepted, call}
  end

  defp reply(call, reply, context) when reply in @not_committed do
    shard = elem(call.step, 1)

    cond do
      commits(call, context) != [] -> {:committed_though_refused, call}
      reply == @overloaded and ever(context, shard, :max_queue_items) != [nil] -> nil
      reply == @overloaded and :refuse in ever(context, shard, :overflow) -> nil
      reply == @overloaded -> {:refused_without_reason, call}
      # Nobody waits for a cast: the end of the program may come first.
      call.kind == :raw_cast and not kept?(call, context) -> nil
      lossless?(context, shard) -> {:refused_without_reason, call}
      true -> nil
    end
  end

  # No mark says what became of it.
  defp reply(%{count: 0}, _reply, _context), do: nil

  defp reply(call, reply, context) do
    case commits(call, context) do
      [] ->
        # The process was killed before it came to call the backend.
        unless killed_reply?(reply, call, context) and
                 Program.fault?(context.program, :kill_committer, elem(call.step, 1)),
               do: {:acknowledged_not_committed, Map.put(call, :reply, reply)}

      [{commit, slice}] ->
        expected = expected(call, commit, slice)
        # It may be killed after the commit and before the reply.
        killed? = is_map_key(context.killed, commit.pid) and killed_reply?(reply, call, context)

        unless reply === expected or killed?,
          do: {:wrong_reply, %{call: call, reply: reply, expected: expected, commit: commit}}

      # `Lanes` tells of it.
      _twice ->
        nil
    end
  end

  defp killed_reply?(@killed, _call, _context), do: true

  defp killed_reply?(@dead, call, context),
    do: not Program.steady?(context.program, elem(call.step, 1))

  defp killed_reply?(_other, _call, _context), do: false

  # 9: what the backend's outcome means for one caller.
  defp expected(call, %{outcome: {:value, {:ok, list} = value}} = commit, {offset, count}) do
    total = length(commit.marks)

    cond do
      not is_list(list) or List.improper?(list) -> value
      length(list) != total -> {:error, {:batch_result_mismatch, total, length(list)}}
      is_binary(call.lane) and call.count == 1 -> Enum.at(list, offset)
      true -> {:ok, Enum.slice(list, offset, count)}
    end
  end

  defp expected(_call, %{outcome: {:value, value}}, _), do: value
  defp expected(_call, %{outcome: {:exit, reason}}, _), do: {:error, {:backend_exit, reason}}
  defp expected(_call, %{outcome: :killed}, _), do: @killed
  defp expected(_call, %{outcome: nil}, _), do: :none_yet

  defp expected(_call, %{outcome: {kind, reason}}, _),
    do: {:error, {:backend_error, kind, reason}}

  # Committed by its caller, because it was alone (5.6), or directly.
  defp own(call, {:returned, reply} = outcome, commit, context) do
    alone? = Program.alone?(context.program, elem(call.step, 1))

    unless alone? and reply(call, reply, context) == nil,
      do: direct(call, outcome, commit, context)
  end

  defp own(call, outcome, commit, context), do: direct(call, outcome, commit, context)

  # 10.1, 10.2
  defp direct(call, outcome, commit, context) do
    expected =
      case {call, commit.outcome} do
        {%{lane: prefix}, {:value, {:ok, [reply]}}} when is_binary(prefix) -> {:returned, reply}
        {%{kind: :async}, {:value, value}} -> {:returned, {:direct, value}}
        {_, {:value, value}} -> {:returned, value}
        {_, raised} -> raised
      end

    cond do
      not direct?(call, context) -> {:committed_directly, call}
      outcome !== expected -> {:wrong_reply, %{call: call, expected: expected, commit: commit}}
      true -> nil
    end
  end

  defp direct?(call, context),
    do: Program.direct?(context.program, elem(call.step, 1), call.lane)

  # 3.7
  defp timed_out(call, commits, context) do
    cond do
      context.program.patient -> {:timed_out, call}
      call.ms < Runner.timeout_ms(context.program) -> {:timed_out_early, call}
      commits == [] and call.count > 0 and kept?(call, context) -> {:lost, call}
      true -> nil
    end
  end

  # The write of a caller who gave up is still committed, unless the end of the program came first.
  defp kept?(call, context) do
    shard = elem(call.step, 1)

    lossless?(context, shard) and option(context, shard, :drain_timeout) == nil and
      option(context, shard, :shutdown_timeout) not in [0, 20]
  end

  defp raw_exit(call, shard, reason, context) do
    steady? = Program.steady?(context.program, shard)

    case reason do
      {:timeout, {GenServer, :call, _}} -> if context.program.patient, do: {:timed_out, call}
      {_reason, {GenServer, :call, _}} -> if steady?, do: {:owner_died, call}
      _other -> {:unexpected, call}
    end
  end

  # 12.1: once where the write was taken, never where the caller has to do it.
  defp tokens(context) do
    released = Enum.frequencies(context.left)
    owned = for %{token: token} = call <- context.calls, token, into: %{}, do: {token, call}

    strange =
      for {token, _} <- released, not is_map_key(owned, token), do: {:strange_token, token}

    strange ++
      Enum.flat_map(owned, fn {token, call} -> token(call, released[token] || 0, context) end)
  end

  defp token(call, times, context) do
    steady? = Program.steady?(context.program, elem(call.step, 1))

    allowed =
      case call do
        %{returned: nil} -> 0..1
        %{kind: :raw_cast} -> if steady? and not killed?(call, context), do: 1..1, else: 0..1
        %{outcome: {:returned, :ok}} -> 1..1
        _direct_or_refused -> 0..0
      end

    if times in allowed, do: [], else: [{:token_released, %{times: times, call: call}}]
  end

  defp commits(call, context), do: Map.get(context.lanes, call.id, [])
  defp killed?(call, context), do: is_map_key(context.killed, call.pid)
  defp lossless?(context, shard), do: Program.lossless?(context.program, shard)

  defp option(context, shard, key), do: Program.option(context.program, shard, key)
  defp ever(context, shard, key), do: Program.ever(context.program, shard, key)

  defp snapshot?(nil), do: true

  defp snapshot?(%{slots: slots, in_flight: in_flight} = snapshot) do
    Enum.all?(slots, fn {prefix, slot} ->
      is_binary(prefix) and length(slot.commands) == slot.count and
        length(slot.froms) == slot.count
    end) and
      Enum.all?([:batch_slot, :put_slot, :delete_slot], &hot_slot?(snapshot[&1])) and
      Enum.all?(in_flight, fn {_lane, reference} -> is_reference(reference) end)
  end

  defp snapshot?(_other), do: false

  defp hot_slot?(nil), do: true
  defp hot_slot?(slot), do: slot.groups != [] and is_integer(slot.count)
end
