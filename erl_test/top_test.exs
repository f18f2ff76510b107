# What is shown of the shards of a node, on a page of observer_cli and as text; top_task_test.exs has `mix batcher.top`.
# Invariant: observer_cli's settings are as before after each test, and no page is left open.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.TopTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{
    Json,
    ObserverCli,
    TestJson,
    TestTerminal,
    Top
  }

  if Code.ensure_loaded?(:observer_cli) do
    @observer_cli []
  else
    @observer_cli [skip: "observer_cli is not on the code path: run `make setup`"]
  end

  defp distribution(count, sum, max, buckets),
    do: %{count: count, sum: sum, max: max, buckets: buckets}

  defp sample(at_us, stats, lanes \\ %{}), do: %{at_us: at_us, stats: stats, lanes: lanes}

  defp lane(writes),
    do: %{given: %{writes: writes}, queued: %{items: 0}, oldest_write_age_us: nil}

  defp stats(writes, commit_us, more \\ %{}) do
    Map.merge(
      %{
        writes_total: %{namespace: writes, batch: 0},
        commits_total: %{{:window, :ok} => commit_us.count, {:commit, :error} => 0},
        refused_total: %{items: 0, bytes: 0},
        writes_per_commit:
          distribution(commit_us.count, writes, writes, [{:infinity, commit_us.count}]),
        commit_us: commit_us,
        queued_items: 0,
        oldest_write_age_us: 0
      },
      more
    )
  end

  describe "22.4 a sample" do
    test "asks the 16 shards that were given the most for their lanes", c do
      calm = c.shard
      busy = for _ <- 1..16, do: new_shard()

      for shard <- [calm | busy] do
        start_batcher(shard)
        for i <- 1..if(shard == calm, do: 1, else: 3), do: Batcher.write(shard, "p", {i}, 1)
      end

      %{stats: stats, lanes: lanes} = Top.sample()
      for shard <- [calm | busy], do: assert(is_map_key(stats, shard))
      assert Enum.sort(Map.keys(lanes)) == busy
      for shard <- busy, do: assert(%{"p" => %{given: %{writes: 3}}} = lanes[shard])
    end
  end

  describe "22.4 between two samples" do
    test "rates are those of the time between, and a mean is that of what ended then" do
      before = sample(0, %{1 => stats(1_000, distribution(10, 10_000, 9_000, [{:infinity, 10}]))})

      now =
        sample(2_000_000, %{
          1 =>
            stats(1_600, distribution(30, 20_000, 9_000, [{:infinity, 30}]), %{
              refused_total: %{items: 3, bytes: 1},
              queued_items: 7,
              oldest_write_age_us: 2_500
            })
        })

      assert [row] = Top.shards(before, now)

      assert %{
               shard: 1,
               writes_per_second: 300.0,
               commits_per_second: 10.0,
               writes_per_commit: 30.0,
               queued_items: 7,
               oldest_wait_ms: 2.5,
               refused_per_second: 2.0
             } = row
    end

    test "a percentile is that of the commits that ended between them, not of all" do
      shards = fn before, now ->
        Top.shards(sample(0, %{1 => stats(0, before)}), sample(1, %{1 => stats(0, now)}))
      end

      bounds = [1_000, 10_000, 100_000, :infinity]
      commits = &distribution(List.last(&1), 0, 180_000, Enum.zip(bounds, &1))
      before = commits.([0, 0, 1_000, 1_000])

      # Evenly within the bucket from 1 to 10 ms, in which 50 of 100 lie.
      assert [%{commit_p99_ms: 9.82}] = shards.(before, commits.([50, 100, 1_100, 1_100]))
      assert [%{commit_p99_ms: nil, writes_per_commit: nil}] = shards.(before, before)

      # Nothing took longer than the longest that was ever seen.
      assert [%{commit_p99_ms: 180.0}] = shards.(before, commits.([0, 0, 1_000, 1_001]))
      short = %{commits.([0, 0, 1_001, 1_001]) | max: 80_000}
      assert [%{commit_p99_ms: 80.0}] = shards.(before, short)
    end

    test "what was reset in between counts from then on, what was opened from the second sample on" do
      fresh = stats(5, distribution(1, 10, 10, [{:infinity, 1}]))
      before = sample(0, %{1 => stats(1_000, distribution(9, 10, 10, [{:infinity, 9}]))})

      assert [
               %{shard: 1, writes_per_second: 5.0, writes_per_commit: 5.0},
               %{shard: 2, writes_per_second: nothing, writes_per_commit: nil}
             ] = Top.shards(before, sample(1_000_000, %{1 => fresh, 2 => fresh}))

      assert nothing == 0
    end

    test "the busiest comes first, of shards and of lanes" do
      idle = stats(0, distribution(0, 0, 0, [{:infinity, 0}]))
      busy = stats(9, distribution(0, 0, 0, [{:infinity, 0}]))

      before =
        sample(0, %{1 => idle, 2 => idle}, %{1 => %{"a" => lane(100)}, 2 => %{batch: lane(0)}})

      now =
        sample(1_000_000, %{1 => idle, 2 => busy}, %{
          1 => %{"a" => lane(101)},
          2 => %{batch: lane(9)}
        })

      assert [%{shard: 2}, %{shard: 1}] = Top.shards(before, now)
      assert [%{lane: :batch, writes_per_second: 9.0}, %{lane: "a"}] = Top.lanes(before, now)
    end

    test "a lane is told of only if what it had been given before is known" do
      many = for i <- 1..20, into: %{}, do: {"#{i}", lane(100)}
      now = sample(1_000_000, %{}, %{1 => %{"new" => lane(7)}})

      # The first sample found all lanes of the shard, and this one was not there.
      assert [%{lane: "new", writes_per_second: 7.0}] =
               Top.lanes(sample(0, %{}, %{1 => %{}}), now)

      # It found as many as it had asked for.
      assert [] = Top.lanes(sample(0, %{}, %{1 => many}), now)
      # It had not asked that shard.
      assert [] = Top.lanes(sample(0, %{}, %{2 => %{}}), now)
    end

    test "text is flush right, so that it sorts as its numbers do, and never too wide" do
      numbers = [0, 0.04, 1, 9.9, 10, 99.9, 123.4, 99_999, 1.0e9]
      cells = Enum.map(numbers, &Top.cell(%{p99: &1}, :p99, 1, 7))
      assert Enum.all?(cells, &(String.length(&1) == 7))
      assert cells == Enum.sort(cells)
      assert List.last(cells) == "99999.9"
      assert Top.cell(%{p99: nil}, :p99, 1, 7) == "      -"
      assert Top.cell(%{queue: 12_345}, :queue, 0, 4) == "9999"
      assert Top.cell(%{shard: 12_345}, :shard, 0, 4) == "~345"
      assert Top.cell(%{shard: 2_345}, :shard, 0, 4) == "2345"
    end

    test "the first line adds up all shards" do
      row = fn n ->
        %{
          writes_per_second: 10.0 * n,
          commits_per_second: 1.0 * n,
          refused_per_second: 2.0 * n,
          queued_items: 3 * n
        }
      end

      assert [line | _] = Top.summary([row.(1), row.(2), row.(3)], [])
      assert line == "3 shards: 60 writes/s, 6 commits/s, 12 refused/s, 18 queued"
    end

    test "a page has 80 columns whatever there is to show, and every prefix can be shown" do
      huge = %{
        shard: 99_999_999,
        writes_per_second: 1.0e12,
        commits_per_second: 1.0e12,
        writes_per_commit: 1.0e12
      }

      huge =
        Map.merge(huge, %{
          queued_items: 10 ** 12,
          oldest_wait_ms: 1.0e12,
          commit_p99_ms: nil,
          refused_per_second: 1.0e12
        })

      lanes =
        for prefix <- [String.duplicate("long", 100), <<255, 0, 7>>, "\e[2J\n\t", "", :put_batch],
            do: %{
              shard: 10 ** 9,
              lane: prefix,
              writes_per_second: 1.0e12,
              queued_items: 10 ** 12,
              oldest_wait_ms: 1.0e12
            }

      page = Top.page(%{seconds: 1.0, shards: [huge], lanes: lanes})
      lines = String.split(page, "\n")
      assert Enum.all?(lines, &(String.length(&1) <= 80 and String.printable?(&1)))
      refute page =~ "\e"
      assert length(lines) == 12
    end

    test "what of a prefix a terminal could act on, or that takes no column or two of it, is escaped" do
      shown = fn prefix ->
        lane = %{
          shard: 1,
          lane: prefix,
          writes_per_second: 1.0,
          queued_items: 0,
          oldest_wait_ms: 0.0
        }

        [_, _, line | _] = Top.summary([], [lane])
        # What observer_cli makes of a line.
        assert byte_size(:erlang.iolist_to_binary(to_charlist(line))) == 75
        hd(Regex.run(~r/^  (.*?) +1 +1 +0 +0\.0$/, line, capture: :all_but_first))
      end

      for {prefix, name} <- [
            {"users", ~S("users")},
            {"größe", ~S("größe")},
            {"用户", ~S("\x{7528}\x{6237}")},
            {"\\x{7528}", ~S("\\x{7528}")},
            {"😀", ~S("\x{1F600}")},
            {"e\u0301", ~S("e\x{301}")},
            {"a\u2028b", ~S("a\x{2028}b")},
            {"a\u200Bb", ~S("a\x{200B}b")},
            {"\u202Eabc", ~S("\x{202E}abc")},
            {"\u00A0\u00AD", ~S("\x{A0}\x{AD}")},
            {"\u009B2J", "<<194, 155, 50, 74>>"},
            {<<255, 1>>, "<<255, 1>>"},
            {"\e[2J", ~S("\e[2J")},
            {String.duplicate("用", 30), ~S("\x{7528}\x{7528}\x{7528}...)},
            {"batch", ~S("batch")},
            {:batch, ":batch"}
          ],
          do: assert(shown.(prefix) == name)
    end
  end

  describe "22.4 JSON" do
    test "is read back as it was, and bytes that are no text as Elixir shows them" do
      value = %{a: [1, -2.5, 1.0e-9, nil, true, %{}], b: "q\"\\ü\n\u0001\u009b", c: :name, d: []}
      text = IO.iodata_to_binary(Json.encode(value))

      assert TestJson.decode!(text) == %{
               "a" => [1, -2.5, 1.0e-9, nil, true, %{}],
               "b" => "q\"\\ü\n\u0001\u009b",
               "c" => "name",
               "d" => []
             }

      assert String.printable?(text)

      # What turns or hides what follows it comes back, and does nothing to a terminal meanwhile.
      for char <- ["\u061C", "\u200B", "\u200D", "\u2028", "\u202E", "\u2066", "\uFEFF", "\u00AD"] do
        hidden = IO.iodata_to_binary(Json.encode("用" <> char <> "😀"))
        assert {TestJson.decode!(hidden), hidden =~ char} == {"用" <> char <> "😀", false}
      end

      assert TestJson.decode!(IO.iodata_to_binary(Json.encode(<<255, 1>>))) == "<<255, 1>>"

      if Code.ensure_loaded?(:json) do
        assert {decoded, :ok, ""} = apply(:json, :decode, [text, :ok, %{null: nil}])
        assert decoded == TestJson.decode!(text)
      end
    end
  end

  describe "22.5 the page of observer_cli" do
    @describetag @observer_cli

    setup do
      _ = Application.load(:observer_cli)
      before = Application.fetch_env(:observer_cli, :plugins)

      on_exit(fn ->
        case before do
          {:ok, plugins} -> Application.put_env(:observer_cli, :plugins, plugins)
          :error -> Application.delete_env(:observer_cli, :plugins)
        end
      end)
    end

    test "shows shards and lanes in 80 columns, sorts by a column, and ends with q", %{
      shard: shard
    } do
      start_batcher(shard)
      for i <- 1..3, do: Batcher.write(shard, "users", {:put, "k#{i}", "v", 0}, 1)
      {terminal, page} = open_page()
      shown = read_page("")
      assert shown =~ "Batcher(BA)"
      assert shown =~ "writes(w)"
      assert shown =~ ~r/^\|1 +\| *#{shard} \| +\d+ \| +\d+ \| +[\d.-]+ \| /m
      assert shown =~ ~s("users")
      assert Enum.all?(String.split(shown, "\n"), &(String.length(String.trim(&1)) <= 80))

      TestTerminal.type(terminal, "o")
      assert read_page("") =~ "oldest(o)"
      TestTerminal.type(terminal, "q")
      assert Task.await(page, 30_000) == :ok
    end

    test "shows namespaces of any characters", %{shard: shard} do
      start_batcher(shard)

      for prefix <- ["用户", "😀", "e\u0301", "\u202E", "\e[2J"],
          do: Batcher.write(shard, prefix, {:put, "k", "v", 0}, 1)

      {terminal, page} = open_page()
      shown = read_page("")
      TestTerminal.type(terminal, "q")
      assert Task.await(page, 30_000) == :ok

      for name <- [
            ~S("\x{7528}\x{6237}"),
            ~S("\x{1F600}"),
            ~S("e\x{301}"),
            ~S("\x{202E}"),
            ~S("\e[2J")
          ],
          do: assert(shown =~ name)
    end

    test "leaves the plugins of the host as they are, and stands among them once" do
      Application.put_env(:observer_cli, :plugins, [
        %{module: Other, title: ~c"Other", shortcut: ~c"O"}
      ])

      for _ <- 1..2, do: :ok = ObserverCli.register()

      assert [%{module: ObserverCli}, %{module: Other}] =
               Application.fetch_env!(:observer_cli, :plugins)
    end
  end

  defp open_page do
    terminal = TestTerminal.start()

    page =
      Task.async(fn ->
        Process.group_leader(self(), terminal)
        ObserverCli.start()
      end)

    {terminal, page}
  end

  # What is written until a whole page is there, without what only moves and colours.
  defp read_page(shown) do
    if shown =~ "refresh:" do
      Regex.replace(~r/\e\[[\d;]*[A-Za-z]/, shown, "")
    else
      assert_receive {:written, text}, 30_000
      read_page(shown <> text)
    end
  end
end
