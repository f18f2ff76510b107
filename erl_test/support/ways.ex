defmodule Ferricstore.Raft.WARaftBackend.Batcher.Ways do
  @moduledoc false
  # The ways in which a shard can be asked to commit, for tests that hold for all of them: when batches leave (pacing),
  # and what one commit takes (its scope). A seed chooses; `BATCHER_PACING` and `BATCHER_SCOPE` fix what they name.
  #
  # Invariant: the same seed chooses the same way, whatever is fixed.

  @pacing [:commit, :window, :auto]
  @scopes [:lane, :shard]

  @doc "Draws a way from the random numbers of the calling process."
  def draw do
    drawn = [pacing: Enum.random(@pacing), commit_scope: Enum.random(@scopes)]
    Keyword.merge(drawn, fixed())
  end

  @doc "What the environment fixes."
  def fixed do
    for {key, variable, values} <- [
          {:pacing, "BATCHER_PACING", @pacing},
          {:commit_scope, "BATCHER_SCOPE", @scopes}
        ],
        text = System.get_env(variable),
        do: {key, value(variable, text, values)}
  end

  defp value(variable, text, values) do
    Enum.find(values, &("#{&1}" == text)) ||
      raise ArgumentError,
            "#{variable} must be one of #{Enum.join(values, ", ")}, got: #{inspect(text)}"
  end

  @doc "The way of a test in this run of the tests: the seed that ExUnit prints chooses it."
  def of(test) do
    seed = ExUnit.configuration()[:seed] || 0
    state = :rand.seed_s(:exsss, {seed, :erlang.phash2(test), 0})
    {pacing, state} = uniform(@pacing, state)
    {scope, _state} = uniform(@scopes, state)
    Keyword.merge([pacing: pacing, commit_scope: scope], fixed())
  end

  defp uniform(list, state) do
    {n, state} = :rand.uniform_s(length(list), state)
    {Enum.at(list, n - 1), state}
  end
end
