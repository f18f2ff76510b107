defmodule Ferricstore.Raft.WARaftBackend.Batcher.Top do
  @moduledoc false
  # What the shards and the busiest lanes have done between two samples of the statistics: what the live page and
  # `mix batcher.top` show.
  #
  # Invariant: a sample costs the library no more than `Batcher.stats/0` and `Batcher.top_lanes/2` of a few shards; in
  # text each character is one column wide, and none is a command to a terminal.

  alias Ferricstore.Raft.WARaftBackend.Batcher

  # How many shards are asked for their lanes, those that were given the most writes, for how many each, and how many
  # lanes are told in all.
  @asked_shards 16
  @asked_lanes 20
  @lanes 5

  @line_width 77
  @lane_width 28

  # The shards as text: title, where the value is, decimals, width. 80 columns in all, with a blank between.
  @columns [
    {"shard", :shard, 0, 7},
    {"writes/s", :writes_per_second, 0, 9},
    {"commits/s", :commits_per_second, 0, 10},
    {"per commit", :writes_per_commit, 1, 11},
    {"queue", :queued_items, 0, 8},
    {"oldest, ms", :oldest_wait_ms, 1, 11},
    {"p99, ms", :commit_p99_ms, 1, 8},
    {"refused/s", :refused_per_second, 0, 9}
  ]

  @typedoc "When a sample was taken, in microseconds of the monotonic clock, and what it saw."
  @type sample :: %{
          at_us: integer,
          stats: %{Batcher.shard() => map},
          lanes: %{Batcher.shard() => %{(lane :: term) => map}}
        }

  @typedoc """
  A shard between two samples: rates are per second, a mean is `nil` where nothing was committed; what is queued and for
  how long is that of the second sample.
  """
  @type shard_row :: %{
          shard: Batcher.shard(),
          writes_per_second: float,
          commits_per_second: float,
          writes_per_commit: float | nil,
          queued_items: non_neg_integer,
          oldest_wait_ms: float,
          commit_p99_ms: float | nil,
          refused_per_second: float
        }

  @typedoc "A lane between two samples; `lane` is the prefix, or the kind of a hot lane."
  @type lane_row :: %{
          shard: Batcher.shard(),
          lane: binary | :batch | :put_batch | :delete_batch,
          writes_per_second: float,
          queued_items: non_neg_integer,
          oldest_wait_ms: float
        }

  @type found :: %{seconds: float, shards: [shard_row], lanes: [lane_row]}

  @doc "Looks at all shards that are open."
  @spec sample() :: sample
  def sample do
    stats = Batcher.stats()

    asked =
      stats
      |> Enum.sort_by(fn {_shard, stats} -> -sum(stats, :writes_total) end)
      |> Enum.take(@asked_shards)

    lanes =
      for {shard, _stats} <- asked,
          lanes = Batcher.top_lanes(shard, @asked_lanes),
          into: %{},
          do: {shard, Map.new(lanes, &{&1.lane, &1})}

    %{at_us: System.monotonic_time(:microsecond), stats: stats, lanes: lanes}
  end

  @doc "Two samples so many milliseconds apart, and what happened in between."
  @spec watch(pos_integer) :: found
  def watch(interval_ms) do
    before = sample()
    Process.sleep(interval_ms)
    now = sample()
    %{seconds: seconds(before, now), shards: shards(before, now), lanes: lanes(before, now)}
  end

  @doc """
  The shards of the second sample, the one with the most writes per second first. Nothing is known yet of what one has
  done that was not open at the first sample: it may have counted before.
  """
  @spec shards(sample, sample) :: [shard_row]
  def shards(before, now) do
    seconds = seconds(before, now)

    now.stats
    |> Enum.map(fn {shard, stats} ->
      shard_row(shard, Map.get(before.stats, shard, stats), stats, seconds)
    end)
    |> Enum.sort_by(&{-&1.writes_per_second, &1.shard})
  end

  @doc "The busiest lanes, the one with the most writes per second first, of those that both samples tell enough of."
  @spec lanes(sample, sample) :: [lane_row]
  def lanes(before, now) do
    seconds = seconds(before, now)

    rows =
      for {shard, lanes} <- now.lanes,
          {name, lane} <- lanes,
          earlier = writes_before(before.lanes[shard], name) do
        %{
          shard: shard,
          lane: name,
          writes_per_second: since(lane.given.writes, earlier) / seconds,
          queued_items: lane.queued.items,
          oldest_wait_ms: ms(lane.oldest_write_age_us || 0)
        }
      end

    rows |> Enum.sort_by(&{-&1.writes_per_second, &1.shard, &1.lane}) |> Enum.take(@lanes)
  end

  # Nil: the shard was not asked, or had busier lanes enough.
  defp writes_before(nil, _name), do: nil
  defp writes_before(%{} = lanes, name) when is_map_key(lanes, name), do: lanes[name].given.writes
  defp writes_before(lanes, _name) when map_size(lanes) < @asked_lanes, do: 0
  defp writes_before(_lanes, _name), do: nil

  defp seconds(before, now), do: max(now.at_us - before.at_us, 1) / 1_000_000

  defp shard_row(shard, before, now, seconds) do
    commits = since(sum(now, :commits_total), sum(before, :commits_total))
    per_commit = distribution_since(now.writes_per_commit, before.writes_per_commit)
    commit_us = distribution_since(now.commit_us, before.commit_us)

    %{
      shard: shard,
      writes_per_second: since(sum(now, :writes_total), sum(before, :writes_total)) / seconds,
      commits_per_second: commits / seconds,
      writes_per_commit: mean(per_commit),
      queued_items: now.queued_items,
      oldest_wait_ms: ms(now.oldest_write_age_us),
      commit_p99_ms: ms(p99(commit_us)),
      refused_per_second: since(sum(now, :refused_total), sum(before, :refused_total)) / seconds
    }
  end

  defp sum(stats, name) do
    case Map.fetch!(stats, name) do
      number when is_number(number) -> number
      by_label -> by_label |> Map.values() |> Enum.sum()
    end
  end

  # Of a counter that was reset meanwhile, all that it has counted since.
  defp since(now, before) when now >= before, do: now - before
  defp since(now, _before), do: now

  defp ms(nil), do: nil
  defp ms(us), do: us / 1000

  # What a distribution has counted between two samples.
  defp distribution_since(now, before) do
    earlier =
      if before && before.count <= now.count, do: before, else: %{count: 0, sum: 0, buckets: []}

    counts = Map.new(earlier.buckets)

    %{
      count: now.count - earlier.count,
      sum: now.sum - earlier.sum,
      max: now.max,
      buckets: for({bound, count} <- now.buckets, do: {bound, count - Map.get(counts, bound, 0)})
    }
  end

  defp mean(%{count: 0}), do: nil
  defp mean(%{count: count, sum: sum}), do: sum / count

  # Within the bucket as if its values lay evenly, as Prometheus has it; never above the largest of all.
  defp p99(%{count: 0}), do: nil

  defp p99(%{count: count, max: max, buckets: buckets}) do
    rank = 0.99 * count

    Enum.reduce_while(buckets, {0, 0}, fn
      {:infinity, _count}, _below ->
        {:halt, max}

      {bound, upto}, _below when upto < rank ->
        {:cont, {bound, upto}}

      {bound, upto}, {low, below} ->
        {:halt, min(max, low + (bound - low) * (rank - below) / (upto - below))}
    end)
  end

  # As text

  @doc """
  A value of a row with so many decimals, flush right in so many characters: `-` if it is `nil`; of a number that is too
  large for them the largest that is not, of a shard its last digits.
  """
  @spec cell(shard_row | lane_row, atom, non_neg_integer, pos_integer) :: String.t()
  def cell(row, :shard, _decimals, width) do
    text = Integer.to_string(row.shard)

    if String.length(text) > width,
      do: "~" <> String.slice(text, 1 - width, width - 1),
      else: String.pad_leading(text, width)
  end

  def cell(row, name, decimals, width), do: row |> Map.fetch!(name) |> number(decimals, width)

  defp number(nil, _decimals, width), do: String.pad_leading("-", width)

  defp number(number, decimals, width) do
    most =
      if decimals == 0, do: 10 ** width - 1, else: 10 ** (width - decimals - 1) - 10 ** -decimals

    number
    |> min(most)
    |> Kernel./(1)
    |> :erlang.float_to_binary(decimals: decimals)
    |> String.pad_leading(width)
  end

  @doc "The shards together and the busiest lanes, in lines of at most #{@line_width} characters, which are always as many."
  @spec summary([shard_row], [lane_row]) :: [String.t()]
  def summary(shards, lanes) do
    total = fn name, width ->
      shards |> Enum.map(&Map.fetch!(&1, name)) |> Enum.sum() |> number(0, width) |> String.trim()
    end

    lines =
      for lane <- lanes do
        "  " <>
          String.pad_trailing(lane_name(lane.lane), @lane_width + 1) <>
          cell(lane, :shard, 0, 6) <>
          " " <>
          cell(lane, :writes_per_second, 0, 11) <>
          " " <>
          cell(lane, :queued_items, 0, 11) <>
          " " <>
          cell(lane, :oldest_wait_ms, 1, 13)
      end

    [
      String.slice(
        "#{length(shards)} shards: #{total.(:writes_per_second, 8)} writes/s, " <>
          "#{total.(:commits_per_second, 8)} commits/s, " <>
          "#{total.(:refused_per_second, 8)} refused/s, #{total.(:queued_items, 8)} queued",
        0,
        @line_width
      ),
      "  busiest lanes                 shard    writes/s       queue    oldest, ms"
      | lines ++ List.duplicate("", @lanes - length(lines))
    ]
  end

  @doc "A page of text, 80 columns wide."
  @spec page(found) :: String.t()
  def page(%{seconds: seconds, shards: shards, lanes: lanes}) do
    head = for {title, _name, _decimals, width} <- @columns, do: String.pad_leading(title, width)

    rows =
      for row <- shards do
        for {_title, name, decimals, width} <- @columns,
            do: cell(row, name, decimals, width)
      end

    summary = shards |> summary(lanes) |> Enum.reject(&(&1 == ""))

    Enum.join(
      summary ++
        ["", Enum.join(head, " ") | Enum.map(rows, &Enum.join(&1, " "))] ++
        ["", "in #{seconds |> number(1, 6) |> String.trim()} s"],
      "\n"
    )
  end

  # A prefix is whatever the host has chosen. observer_cli takes Latin-1 only, and of what is not in it much takes two
  # columns or none, or turns the direction of the line; two characters of Latin-1 look like a blank or like nothing.
  defp lane_name(kind) when is_atom(kind), do: ":#{kind}"

  defp lane_name(prefix) do
    shown = inspect(prefix, printable_limit: @lane_width, limit: @lane_width)
    name = Regex.replace(~r/[^\x20-\x7E\xA1-\xAC\xAE-\xFF]/u, shown, &escape/1)

    if String.length(name) > @lane_width,
      do: String.slice(name, 0, @lane_width - 3) <> "...",
      else: name
  end

  defp escape(<<char::utf8>>), do: "\\x{#{Integer.to_string(char, 16)}}"
end
