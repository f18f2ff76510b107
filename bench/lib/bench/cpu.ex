defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Cpu do
  @moduledoc false
  # What the whole VM takes of the machine: memory, and processor time, that is schedulers, their waiting for work
  # included, garbage collection, the library's own threads. From the operating system where it tells (Linux), the time
  # in steps of 10 ms; else from the VM.

  @stat "/proc/self/stat"
  # Clock ticks per second in that file: 100 on every Linux that the BEAM runs on.
  @tick_ns 10_000_000
  # Fields 14 and 15, user and system time, counted after the name, which may hold blanks.
  @user 11

  @typedoc "An open file: reading it needs no other process, which would have to wait its turn."
  @type clock :: {:proc, :file.fd()} | :vm

  @spec open() :: clock
  def open do
    case :file.open(@stat, [:read, :raw, :binary]) do
      {:ok, file} -> {:proc, file}
      {:error, _reason} -> :vm
    end
  end

  @spec close(clock) :: :ok
  def close({:proc, file}), do: :file.close(file)
  def close(:vm), do: :ok

  @doc "Nanoseconds of processor time so far."
  @spec read(clock) :: non_neg_integer
  def read({:proc, file}) do
    {:ok, line} = :file.pread(file, 0, 4_096)
    [_name, fields] = :binary.split(line, ") ")
    [user, system] = fields |> String.split(" ") |> Enum.slice(@user, 2)
    (String.to_integer(user) + String.to_integer(system)) * @tick_ns
  end

  def read(:vm), do: 1_000_000 * elem(:erlang.statistics(:runtime), 0)

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
