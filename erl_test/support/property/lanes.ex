defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Lanes do
  @moduledoc false
  # Judges the commits of a program among themselves: each write at most once and in one piece, lanes
  # kept apart, order, sizes, one commit at a time, no more in flight than a shard may have.
  #
  # Invariant: a commit in a calling process was direct, and belongs to no lane, unless it can only have been one of a
  # write that was alone (5.6).

  @hot [:batch, :put_batch, :delete_batch]
  @default_max 10_000

  alias Ferricstore.Raft.WARaftBackend.Batcher.Property.Program

  @doc "Which commits have a call's writes, and where in them: `%{id => [{commit, {offset, count}}]}`."
  def index(run, history) do
    for commit <- history.commits, {id, indices, offset} <- groups(commit, run), reduce: %{} do
      index ->
        Map.update(
          index,
          id,
          [{commit, {offset, length(indices)}}],
          &[{commit, {offset, length(indices)}} | &1]
        )
    end
  end

  # `{id, indices, offset}` of each run of marks of one call; marks of another program have no id here.
  defp groups(commit, run) do
    {groups, _offset} =
      commit.marks
      |> Enum.chunk_by(fn {mark_run, client, call, _index} -> {mark_run, client, call} end)
      |> Enum.map_reduce(0, fn [{mark_run, client, call, _} | _] = marks, offset ->
        id = if mark_run == run, do: {client, call}, else: {:of_program, mark_run}
        {{id, Enum.map(marks, &elem(&1, 3)), offset}, offset + length(marks)}
      end)

    groups
  end

  def violations(context) do
    calls = Map.new(context.calls, &{&1.id, &1})

    commits =
      for commit <- context.commits, commit.marks != [] do
        groups = groups(commit, context.run)
        first = calls[groups |> hd() |> elem(0)]
        own? = first != nil and first.pid == commit.pid
        commit = Map.merge(commit, %{groups: groups, own?: own?})
        lanes = groups |> Enum.map(&calls[elem(&1, 0)][:lane]) |> Enum.uniq()
        Map.merge(commit, %{lanes: lanes, direct?: own? and not alone?(first, context.program)})
      end

    queued = Enum.reject(commits, & &1.direct?)

    [
      for(
        {id, [_, _ | _] = twice} <- context.lanes,
        do: {:committed_twice, {id, Enum.map(twice, &elem(&1, 0))}}
      ),
      for(commit <- context.commits, commit.ended == nil, do: {:never_ended, commit}),
      Enum.map(commits, &pieces(&1, context.program, calls)),
      Enum.map(queued, &size(&1, context.program, calls)),
      for(commit <- queued, lane <- commit.lanes, do: {{commit.shard, lane}, commit})
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
      |> Enum.map(fn {{_shard, lane}, commits} ->
        [serial(commits), ordered(commits, lane, calls)]
      end),
      queued
      |> Enum.group_by(& &1.shard)
      |> Enum.map(fn {_shard, commits} -> crowded(commits, context.program, calls) end)
    ]
    |> List.flatten()
    |> Enum.reject(&is_nil/1)
  end

  # Whether a commit in its caller can only have been that of a write that was alone.
  defp alone?(%{kind: :sync, step: step, lane: lane}, program) do
    shard = elem(step, 1)
    Program.alone?(program, shard) and not Program.direct?(program, shard, lane)
  end

  defp alone?(_call, _program), do: false

  # Whole groups of one shard, of one lane by the function of that (7.2, 7.3), or of several (4.4).
  defp pieces(commit, program, calls) do
    for {id, indices, _offset} <- commit.groups do
      case calls[id] do
        nil ->
          {:strange_commit, commit}

        call ->
          shard = elem(call.step, 1)
          together? = Program.together?(program, shard)

          cond do
            indices != Enum.to_list(0..(call.count - 1)) ->
              {:torn, %{call: call, commit: commit}}

            call.shard != commit.shard or (length(commit.lanes) > 1 and not together?) ->
              {:wrong_lane, %{call: call, commit: commit}}

            Program.always_together?(program, shard) and call[:apart] == true and
                length(commit.groups) > 1 ->
              {:not_apart, %{call: call, commit: commit}}

            not function?(commit, call, program) ->
              {:wrong_function, %{call: call, commit: commit}}

            true ->
              nil
          end
      end
    end
  end

  # Beside what stands for itself, entries and keys are commands. A group without any leaves no mark.
  defp function?(%{own?: false, function: :batch} = commit, %{lane: lane} = call, program)
       when lane in @hot do
    lane == :batch or length(commit.lanes) > 1 or
      (Program.together?(program, elem(call.step, 1)) and call[:apart] != true)
  end

  defp function?(%{function: function}, %{lane: lane}, _program) when lane in @hot,
    do: function == lane

  defp function?(%{function: :batch}, _call, _program), do: true

  defp function?(%{own?: true} = commit, call, program) do
    Program.alone?(program, elem(call.step, 1)) and
      function?(%{commit | own?: false}, call, program)
  end

  defp function?(%{function: :put_batch}, call, _program),
    do: match?({:write, _, _, :put, _}, call.step)

  defp function?(%{function: :delete_batch}, call, _program),
    do: match?({:write, _, _, :delete, _}, call.step)

  # 6.4, and of all lanes together 4.4
  defp size(commit, program, calls) do
    with options when is_function(options) <- options(commit, program, calls) do
      parts =
        commit.groups
        |> Enum.group_by(&calls[elem(&1, 0)][:lane])
        |> Enum.map(fn {lane, groups} -> {lane, cost(lane, groups), length(groups)} end)

      total = parts |> Enum.map(&elem(&1, 1)) |> Enum.sum()
      most = most(options, :hot_batch_max)
      too_large? = length(parts) > 1 and is_integer(most) and total > most

      [
        for(part <- parts, too_large?(part, options), do: {:too_large, {part, commit}}),
        if(too_large?, do: {:too_large, {total, commit}})
      ]
    end
  end

  defp cost(lane, groups) when lane in @hot,
    do: groups |> Enum.map(&length(elem(&1, 1))) |> Enum.sum()

  defp cost(_prefix, groups), do: length(groups)

  defp too_large?({lane, cost, groups}, options) do
    max = most(options, if(lane in @hot, do: :hot_batch_max, else: :namespace_batch_max))
    is_integer(max) and cost > max and groups > 1
  end

  # The largest that it ever was; an atom, which is no limit, is larger than any number.
  defp most(options, key), do: options |> ever(key, @default_max) |> Enum.max()

  defp ever(options, key, default), do: Enum.map(options.(key), &(&1 || default))

  # 4.2: the one before has ended, or its process was killed.
  defp serial(commits) do
    for [before, commit] <- Enum.chunk_every(commits, 2, 1, :discard),
        before.ended == nil or before.ended > commit.number,
        do: {:two_in_flight, [before, commit]}
  end

  # 4.2: those before it have ended, or their processes were killed, but for as many as may be in flight. Where a shard
  # is stopped, commits of the life before don't count (11.1): it is left out.
  defp crowded(commits, program, calls) do
    with [first | _] <- commits,
         options when is_function(options) <- options(first, program, calls),
         max when is_integer(max) <- max_in_flight(options),
         %{step: step} = calls[first.groups |> hd() |> elem(0)],
         true <- Program.steady?(program, elem(step, 1)) do
      for commit <- commits,
          before = Enum.filter(commits, &in_flight_at?(&1, commit.number)),
          length(before) >= max,
          do: {:too_many_in_flight, %{max: max, before: before, commit: commit}}
    else
      _no_limit_that_counts -> []
    end
  end

  defp max_in_flight(options) do
    together? = ever(options, :commit_scope, :lane) == [:shard]
    options |> ever(:max_in_flight, if(together?, do: 1, else: :unlimited)) |> Enum.max()
  end

  defp in_flight_at?(commit, number),
    do: commit.number < number and (commit.ended == nil or commit.ended > number)

  # What an option of the shard that a commit was made in may be; `nil` if it is none of this program's.
  defp options(commit, program, calls) do
    with %{step: step} <- calls[commit.groups |> hd() |> elem(0)],
         do: &Program.ever(program, elem(step, 1), &1)
  end

  # 4.3: what was accepted before another call began is committed before it. What goes through the owner's
  # mailbox is accepted later than it is sent.
  defp ordered(commits, lane, calls) do
    calls =
      for commit <- commits,
          {id, _, _} <- commit.groups,
          call = calls[id],
          call.lane == lane,
          call.kind in [:sync, :async],
          do: call

    {violations, _earliest} =
      calls
      |> Enum.reverse()
      |> Enum.map_reduce(nil, fn call, earliest ->
        overtaken? = earliest != nil and earliest.returned < call.begun

        next =
          if call.returned && (earliest == nil or call.returned < earliest.returned),
            do: call,
            else: earliest

        {if(overtaken?, do: {:out_of_order, [call, earliest]}), next}
      end)

    violations
  end

  @doc "11.1: what was accepted before a flush was committed before it returned."
  def flushed(flush, context) do
    for call <- context.calls,
        call.kind in [:sync, :async] and call.shard == flush.shard,
        call.returned != nil and call.returned < flush.begun,
        {commit, _slice} <- Map.get(context.lanes, call.id, []),
        commit.ended == nil or commit.ended > flush.returned,
        do: {:flushed_before_commit, %{flush: flush, call: call, commit: commit}}
  end
end
