defmodule Ferricstore.Raft.WARaftBackend.Batcher.Bench.Machine do
  @moduledoc false
  # What the figures were measured on, as lines: machine, versions, the VM's settings, the batcher's options.

  alias Ferricstore.Raft.WARaftBackend.Batcher.Bench.{Cpu, Line, Peers}

  @spec lines(Path.t()) :: [Line.t()]
  def lines(data_dir) do
    [
      Line.new(:machine, [],
        cpu: cpu(),
        cores: :erlang.system_info(:logical_processors),
        memory_mib: memory_mib(),
        os: os(),
        disk: disk(data_dir),
        load: load()
      ),
      Line.new(:versions, [],
        batcher: version(:ferricstore_batcher),
        revision: revision(),
        elixir: System.version(),
        otp: otp(),
        erts: :erlang.system_info(:version),
        rust: rust(),
        gen_batch_server: version(:gen_batch_server),
        ra: version(:ra)
      ),
      Line.new(:vm, [],
        flavor: :erlang.system_info(:emu_flavor),
        schedulers: :erlang.system_info(:schedulers_online),
        dirty_cpu_schedulers: :erlang.system_info(:dirty_cpu_schedulers_online),
        dirty_io_schedulers: :erlang.system_info(:dirty_io_schedulers),
        flags: flags()
      ),
      Line.new(:options, [], batcher: options([]), auto: options(Peers.Auto.options()))
    ]
  end

  @doc "Where the processor time stands, the machine's and the VM's: for `disturbance/1`."
  @spec mark() :: {map | nil, non_neg_integer, integer}
  def mark, do: {machine(), Cpu.read(), System.monotonic_time(:nanosecond)}

  @doc """
  What else ran on the machine since a mark, in percent of one core: other processes, and what the host of a virtual
  machine took away. Figures of a run with much of it are worth little.
  """
  @spec disturbance({map | nil, non_neg_integer, integer}) :: [Line.t()]
  def disturbance({before, own_before, started}) do
    {now, own, ended} = mark()

    if before && now do
      percent = fn ns -> Float.round(100 * max(ns, 0) / (ended - started), 1) end
      others = now.busy - before.busy - (own - own_before)

      values = [
        others_percent: percent.(others),
        stolen_percent: percent.(now.stolen - before.stolen)
      ]

      [Line.new(:disturbance, [], values)]
    else
      []
    end
  end

  # All cores together, in nanoseconds: user, nice, system, idle, iowait, irq, softirq, steal, in ticks of 10 ms.
  defp machine do
    with {:ok, "cpu " <> text} <- File.read("/proc/stat"),
         [line | _] = String.split(text, "\n"),
         [user, nice, system, _idle, _wait, irq, soft, stolen | _] <-
           line
           |> String.split(" ", trim: true)
           |> Enum.map(&(10_000_000 * String.to_integer(&1))) do
      %{busy: user + nice + system + irq + soft, stolen: stolen}
    else
      _elsewhere -> nil
    end
  end

  defp cpu do
    with {:ok, text} <- File.read("/proc/cpuinfo"),
         [_, name] <- Regex.run(~r/^model name\s*: (.+)$/m, text) do
      name
    else
      _elsewhere -> List.to_string(:erlang.system_info(:system_architecture))
    end
  end

  defp memory_mib do
    with {:ok, text} <- File.read("/proc/meminfo"),
         [_, kilobytes] <- Regex.run(~r/^MemTotal:\s+(\d+)/m, text) do
      div(String.to_integer(kilobytes), 1_024)
    else
      _elsewhere -> nil
    end
  end

  defp os do
    {_family, name} = :os.type()

    case :os.version() do
      {a, b, c} -> "#{name} #{a}.#{b}.#{c}"
      text -> "#{name} #{text}"
    end
  end

  # Other work on the machine, before this one began: the mean of a minute.
  defp load do
    case File.read("/proc/loadavg") do
      {:ok, text} -> text |> String.split(" ") |> hd()
      {:error, _reason} -> nil
    end
  end

  defp disk(directory) do
    File.mkdir_p!(directory)

    with text when text != nil <- output("df", ["--output=fstype", directory]),
         do: text |> String.split("\n") |> List.last()
  end

  defp revision, do: output("git", ["rev-parse", "--short", "HEAD"])

  defp rust do
    case output("rustc", ["--version"]) do
      "rustc " <> version -> version |> String.split(" ") |> hd()
      _unknown -> nil
    end
  end

  defp output(program, arguments) do
    with path when path != nil <- System.find_executable(program),
         {text, 0} <- System.cmd(path, arguments, stderr_to_stdout: true) do
      String.trim(text)
    else
      _missing_or_failed -> nil
    end
  end

  defp otp do
    release = :erlang.system_info(:otp_release)

    case File.read(Path.join([:code.root_dir(), "releases", release, "OTP_VERSION"])) do
      {:ok, version} -> String.trim(version)
      {:error, _reason} -> List.to_string(release)
    end
  end

  defp version(application) do
    _ = Application.load(application)

    case Application.spec(application, :vsn) do
      nil -> nil
      version -> List.to_string(version)
    end
  end

  defp options(options) do
    case Enum.map_join(options, ",", fn {key, value} -> "#{key}:#{value}" end) do
      "" -> "defaults"
      text -> text
    end
  end

  # Whatever was set by hand: the run itself asks for nothing.
  defp flags do
    set =
      for name <- ~w(ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS ELIXIR_ERL_OPTIONS),
          value = System.get_env(name),
          do: value

    case Enum.join(set, " ") do
      "" -> "default"
      flags -> flags
    end
  end
end
