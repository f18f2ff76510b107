# The parser of Redis's append-only file.
# Invariant: what a test expects is written down here or was written by Redis, never derived by the parser.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.AofTest do
  use ExUnit.Case, async: true

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.{Aof, Inline}

  @sample Path.expand("fixtures/redis-7.0-sample.aof", __DIR__)

  setup do
    path = Path.join(System.tmp_dir!(), "aof-test-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm(path) end)
    %{path: path}
  end

  defp read(path, content, opts \\ []) do
    File.write!(path, content)
    read_file(path, opts)
  end

  defp read_file(path, opts \\ []) do
    {result, commands} =
      Aof.fold(
        path,
        [],
        fn {:command, _, _, _} = command, seen -> {:cont, [command | seen]} end,
        opts
      )

    {result, Enum.reverse(commands)}
  end

  defp array(args),
    do: ["*#{length(args)}\r\n" | Enum.map(args, &"$#{byte_size(&1)}\r\n#{&1}\r\n")]

  describe "what Redis writes" do
    test "the sample: every command, numbered, with the byte at which it begins" do
      {:ok, commands} = read_file(@sample)
      assert length(commands) == 5557

      assert [{:command, ["SELECT", "0"], 1, 0}, {:command, ["SET", "order:309", _], 2, 23} | _] =
               commands

      file = File.read!(@sample)

      for {{:command, args, index, offset}, number} <- Enum.with_index(commands, 1) do
        assert index == number
        bytes = IO.iodata_to_binary(array(args))
        assert binary_part(file, offset, byte_size(bytes)) == bytes
      end
    end

    test "the size of the chunks makes no difference" do
      whole = read_file(@sample)

      for chunk <- [1, 13, 1000, 10_000_000],
          do: assert(read_file(@sample, chunk: chunk) == whole)
    end

    test "zeros in front of a number make no difference", %{path: path} do
      for zeros <- ["", "0", "0000000000", String.duplicate("0", 19)], chunk <- [1, 65_536] do
        content = "*#{zeros}2\r\n$3\r\nDEL\r\n$#{zeros}1\r\nk\r\n"

        assert read(path, content, chunk: chunk) ==
                 {:ok, [{:command, ["DEL", "k"], 1, 0}]}
      end
    end

    test "arguments may hold anything, or nothing", %{path: path} do
      args = ["SET", "", "\r\n*1\r\n$3\r\n" <> :binary.copy(<<0, 255>>, 100_000)]
      assert {:ok, [{:command, ^args, 1, 0}]} = read(path, array(args))
    end

    test "annotations and empty lines are passed over, and not counted", %{path: path} do
      content = [
        "#TS:1700000000\r\n",
        array(["DEL", "a"]),
        "#TS:1700000001\r\n\r\n",
        array(["DEL", "b"]),
        "# end\n"
      ]

      assert {:ok, [{:command, ["DEL", "a"], 1, 16}, {:command, ["DEL", "b"], 2, 54}]} =
               read(path, content)
    end

    test "an empty file holds no commands", %{path: path} do
      assert read(path, "") == {:ok, []}
    end
  end

  describe "inline commands" do
    test "stand beside arrays, ended by LF or CRLF", %{path: path} do
      content = ["SET a 1\n", array(["SET", "b", "2"]), "  incr\tc \r\n"]

      assert {:ok,
              [{:command, ["SET", "a", "1"], 1, 0}, {:command, ["SET", "b", "2"], 2, 8}, last]} =
               read(path, content)

      assert last == {:command, ["incr", "c"], 3, 35}
    end

    test "quotes and escapes are Redis's" do
      for {line, args} <- [
            {~S(set "a b" 'c d'), ["set", "a b", "c d"]},
            {~S("\x00\xfF\n\r\t\b\a\\\"\q"), [<<0, 255, "\n\r\t\b\a\\\"q">>]},
            {~S("\xg1\x1"), ["xg1x1"]},
            {~S('it\'s \n'), [~S(it's \n)]},
            {~S(one"two"), ["onetwo"]},
            {~S("" ''), ["", ""]},
            {" \t ", []}
          ] do
        assert Inline.split(line) == {:ok, args}
      end
    end

    test "an open or misplaced quote and a NUL are errors at the command", %{path: path} do
      for bad <- [~S(SET "a), ~S(SET 'a), ~S(SET "a"b), ~S(SET 'a'b), "SET \"a\\", "SET a\0b"] do
        assert {{:error, "inline command 2: " <> _, 6}, [_]} = read(path, ["DEL a\n", bad, "\n"])
      end
    end
  end

  describe "a file that is cut off" do
    test "at any byte gives what is whole, and the byte where it ends", %{path: path} do
      commands = [
        array(["SET", "key", "value"]),
        "#TS:1\r\n",
        "DEL a b\r\n",
        array(["INCR", "n"])
      ]

      file = IO.iodata_to_binary(commands)
      # Where a command or an annotation ends.
      boundaries = commands |> Enum.scan(0, &(IO.iodata_length(&1) + &2)) |> then(&[0 | &1])
      counts = [0, 1, 1, 2, 3]

      for size <- 0..byte_size(file), chunk <- [1, 4096] do
        {result, seen} = read(path, binary_part(file, 0, size), chunk: chunk)
        passed = Enum.count(boundaries, &(&1 <= size))
        assert length(seen) == Enum.at(counts, passed - 1)

        if size in boundaries do
          assert result == :ok
        else
          assert {:error, message, ^size} = result
          assert message =~ ~r/truncated|cut off/
        end
      end
    end

    test "says which argument is missing how much", %{path: path} do
      {{:error, message, 25}, []} = read(path, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9\r\nv")

      assert message ==
               "the file is truncated: it ends inside command 1 (begins at byte 0): argument 3, 1 of 9 bytes"
    end
  end

  describe "a file that is broken" do
    test "is an error at the byte that shows it, after what came before", %{path: path} do
      before = IO.iodata_to_binary(array(["DEL", "a"]))

      for {bad, offset, words} <- [
            {"*x\r\n", 1, "number of arguments"},
            {"*0\r\n", 1, "number of arguments"},
            {"*-1\r\n", 1, "number of arguments"},
            {"*1048577\r\n", 1, "number of arguments"},
            {"*99999999999999999999999999999\r\n", 0, "no CRLF"},
            {"*1\n$4\r\nPING\r\n", 1, "CRLF"},
            {"*1\r\n+PING\r\n", 4, "must begin with"},
            {"*2\r\n$4\r\nPING\r\n*1\r\n", 14, "must begin with"},
            {"*1\r\n$-1\r\n", 5, "length"},
            {"*1\r\n$\r\n", 5, "length"},
            {"*1\r\n$536870913\r\n", 5, "536870912"},
            {"*1\r\n$4\r\nPINGxx", 12, "no CRLF follows"},
            {"*1\r\n$3\r\nPING\r\n", 11, "no CRLF follows"},
            {"$4\r\nPING\r\n", 0, "must begin with"},
            {<<0, 0, 0, 0>>, 0, "must begin with"},
            {"v\xFF\xFE\n", 0, "no command name"},
            {"#" <> String.duplicate("x", 70_000), 0, "longer than 65536"},
            {"SET a " <> String.duplicate("x", 70_000), 0, "longer than 65536"}
          ],
          chunk <- [1, 65_536] do
        assert {{:error, message, at}, [{:command, ["DEL", "a"], 1, 0}]} =
                 read(path, before <> bad, chunk: chunk)

        assert {bad, at} == {bad, byte_size(before) + offset}
        assert message =~ words
      end
    end

    test "with a snapshot in front says how to do without it", %{path: path} do
      for chunk <- [1, 65_536] do
        assert {{:error, message, 0}, []} = read(path, "REDIS0010\xFA\tredis-ver", chunk: chunk)
        assert message =~ "aof-use-rdb-preamble no"
      end
    end

    test "or absent, or a directory, is an error as well", %{path: path} do
      assert {{:error, "can't be opened: no such file" <> _, 0}, []} = read_file(path)
      assert {{:error, "can't be " <> _, 0}, []} = read_file(System.tmp_dir!())
    end
  end

  test "the reading ends when it is told to", %{path: path} do
    File.write!(path, ["DEL a\n", "DEL b\n", "DEL c\n"])

    assert Aof.fold(path, 0, fn
             _, 1 -> {:halt, 2}
             _, n -> {:cont, n + 1}
           end) == {:halted, 2}
  end

  test "what is kept of a command keeps no chunk of the file alive", %{path: path} do
    {:ok, commands} =
      read(path, for(n <- 1..100, do: array(["SET", "key #{n}", String.duplicate("v", 200)])))

    # OTP 27 gives the bits of a small binary; a chunk has thousands of bytes.
    for {:command, args, _, _} <- commands, arg <- args do
      assert :binary.referenced_byte_size(arg) <= 8 * byte_size(arg)
    end
  end
end
