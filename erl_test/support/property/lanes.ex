defmodule Ferricstore.Raft.WARaftBackend.Batcher.Property.Lanes do
  @moduledoc false
  # Judges the commits of a program among themselves: each write at most once and in one piece, lanes
  # kept apart, order, sizes, one commit at a time, no more in flight than a shard may have.
  #
  # Invariant: a commit in a calling process was direct, and belongs to no lane.

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
        direct? = first != nil and first.pid == commit.pid
        Map.merge(commit, %{groups: groups, lane: first && first.lane, direct?: direct?})
      end

    queued = Enum.reject(commits, & &1.direct?)

    [
      for(
        {id, [_, _ | _] = twice} <- context.lanes,
        do: {:committed_twice, {id, Enum.map(twice, &elem(&1, 0))}}
      ),
      for(commit <- context.commits, commit.ended == nil, do: {:never_ended, commit}),
      Enum.map(commits, &pieces(&1, calls)),
      Enum.map(queued, &size(&1, context.program, calls)),
      queued
      |> Enum.group_by(&{&1.shard, &1.lane})
      |> Enum.map(fn {_lane, commits} -> [serial(commits), ordered(commits, calls)] end),
      queued
      |> Enum.group_by(& &1.shard)
      |> Enum.map(fn {_shard, commits} -> crowded(commits, context.program, calls) end)
    ]
    |> List.flatten()
    |> Enum.reject(&is_nil/1)
  end

  # Whole groups of one lane of one shard, by the function of that lane (7.2, 7.3).
  defp pieces(commit, calls) do
    for {id, indices, _offset} <- commit.groups do
      case calls[id] do
        nil ->
          {:strange_commit, commit}

        call ->
          cond do
            indices != Enum.to_list(0..(call.count - 1)) ->
              {:torn, %{call: call, commit: commit}}

            call.shard != commit.shard or call.lane != commit.lane ->
              {:wrong_lane, %{call: call, commit: commit}}

            not function?(commit, call) ->
              {:wrong_function, %{call: call, commit: commit}}

            true ->
              nil
          end
      end
    end
  end

  defp function?(%{function: function, lane: lane}, _call) when lane in @hot, do: function == lane
  defp function?(%{function: :batch}, _call), do: true
  defp function?(%{direct?: true}, _call), do: false
  defp function?(%{function: :put_batch}, call), do: match?({:write, _, _, :put, _}, call.step)

  defp function?(%{function: :delete_batch}, call),
    do: match?({:write, _, _, :delete, _}, call.step)

  # 6.4
  defp size(commit, program, calls) do
    {key, weight} =
      if commit.lane in @hot,
        do: {:hot_batch_max, length(commit.marks)},
        else: {:namespace_batch_max, length(commit.groups)}

    with %{} = options <- options(commit, program, calls),
         max when is_integer(max) <- Map.get(options, key, @default_max),
         true <- weight > max and length(commit.groups) > 1,
         do: {:too_large, %{max: max, commit: commit}},
         else: (_ -> nil)
  end

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
         %{max_in_flight: max} <- options(first, program, calls),
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

  defp in_flight_at?(commit, number),
    do: commit.number < number and (commit.ended == nil or commit.ended > number)

  # Those of the shard that a commit was made in; `nil` if it is none of this program's.
  defp options(commit, program, calls) do
    with %{step: step} <- calls[commit.groups |> hd() |> elem(0)] do
      {_mode, options} = Enum.at(program.shards, elem(step, 1))
      Map.new(options)
    end
  end

  # 4.3: what was accepted before another call began is committed before it. What goes through the owner's
  # mailbox is accepted later than it is sent.
  defp ordered(commits, calls) do
    calls =
      for commit <- commits,
          {id, _, _} <- commit.groups,
          call = calls[id],
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
