defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Cost do
  @moduledoc false
  # What the demo itself takes: to plan or to read and parse a write, to make the call, to time it, to keep its result.
  # One invariant: it is measured with the code of the columns, by calls that go to nobody and are answered at once.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{CommandLine, Load, Meter, Plan, Replay}

  # How long it is measured.
  @milliseconds 300
  # Processor time is told in milliseconds: less than this says nothing.
  @least_ms 20

  @doc "Microseconds of processor time for each write; nil if there were too few writes to tell."
  @spec per_write(CommandLine.t()) :: float() | nil
  def per_write(options) do
    shards = 0..(options.shards - 1)
    meter = Meter.new("nobody", :nobody, shards)
    {started_ms, _since} = :erlang.statistics(:runtime)
    write(options, meter)
    {ended_ms, _since} = :erlang.statistics(:runtime)
    :ets.delete(meter.failures)
    spent_ms = ended_ms - started_ms
    writes = Meter.acknowledged(meter)
    if spent_ms >= @least_ms and writes > 0, do: spent_ms * 1000 / writes
  end

  defp write(%{input: nil} = options, meter) do
    plan = Plan.new(meter.shards, options.window, options.value_size)
    callers = min(options.callers, System.schedulers_online())
    Load.run(plan, meter, 0..(callers - 1), @milliseconds)
  end

  defp write(options, meter) do
    replay = Replay.run(options.input, meter, options.callers, 1, @milliseconds)
    :ets.delete(replay.model)
  end
end
