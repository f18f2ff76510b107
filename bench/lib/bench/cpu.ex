defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Cpu do
  @moduledoc false
  # What the whole VM takes of the machine: memory, and processor time, that is schedulers, their waiting for work
  # included, garbage collection, the library's own threads. The time is the operating system's, in steps of 1 ms;
  # `/proc/self/stat` has the same in steps of 10 ms, too coarse for a sample of half a second that is mostly idle.

  @doc "Nanoseconds of processor time so far. Asks no other process, which would have to wait its turn."
  @spec read() :: non_neg_integer
  def read, do: 1_000_000 * elem(:erlang.statistics(:runtime), 0)

  @doc "Memory that the operating system counts as the VM's, or what the VM itself counts."
  @spec resident_bytes() :: non_neg_integer
  def resident_bytes do
    with {:ok, status} <- File.read("/proc/self/status"),
         [_, kilobytes] <- Regex.run(~r/^VmRSS:\s+(\d+)/m, status) do
      1_024 * String.to_integer(kilobytes)
    else
      _elsewhere -> :erlang.memory(:total)
    end
  end
end
