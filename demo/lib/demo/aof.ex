defmodule Ferricstore.Raft.WARaftBackend.Batcher.Demo.Aof do
  @moduledoc """
  Reads the text form of Redis's append-only file: RESP arrays of bulk strings, inline commands, and the annotation
  lines (`#TS:...`) of Redis 7, which are skipped.

  One invariant: at most one chunk and one command are in memory, whatever the size of the file, and no argument
  keeps a chunk alive. A file is never guessed at: what is not a whole command ends the reading with the byte at
  which that became clear.

  The limits are Redis's own: 1 048 576 arguments in a command, 512 MiB in an argument, 64 KiB in an inline command.
  """

  alias Ferricstore.Raft.WARaftBackend.Batcher.Demo.Inline

  @chunk 65_536
  @max_args 1_048_576
  @max_bulk 512 * 1024 * 1024
  @max_inline 65_536
  # A header is one sign, up to seven or nine digits and CRLF: anything longer is no header.
  @max_header 24
  # Digits of a number that is taken without looking closer.
  @whole_digits 7
  # One read of a large argument: what a broken length can make us allocate beyond what the file holds.
  @max_read 1_048_576

  @typedoc "One command: its arguments, its number from 1, and the byte at which it begins."
  @type command :: {:command, [binary(), ...], pos_integer(), non_neg_integer()}

  @typedoc "What is wrong, and the byte at which it is."
  @type failure :: {:error, String.t(), non_neg_integer()}

  @doc """
  Calls `fun` with each command of the file in turn and an accumulator, like `Enum.reduce_while/3`.

  Returns `{:ok, acc}` at the end of the file, `{:halted, acc}` when `fun` returned `{:halt, acc}`, and
  `{{:error, message, byte_offset}, acc}` when the file can't be opened, ends inside a command or is no such file;
  `fun` has seen every command before that byte then. `chunk: bytes` sets how much is read at once.
  """
  @spec fold(Path.t(), acc, (command(), acc -> {:cont, acc} | {:halt, acc}), keyword()) ::
          {:ok | :halted | failure(), acc}
        when acc: term()
  def fold(path, acc, fun, opts \\ []) when is_function(fun, 2) do
    case :file.open(path, [:read, :raw, :binary]) do
      {:ok, io} ->
        reader = %{io: io, buffer: "", offset: 0, chunk: Keyword.get(opts, :chunk, @chunk)}

        try do
          each(reader, 1, acc, fun)
        after
          :file.close(io)
        end

      {:error, reason} ->
        {{:error, "can't be opened: #{:file.format_error(reason)}", 0}, acc}
    end
  end

  defp each(reader, index, acc, fun) do
    case next(reader, index) do
      {:ok, args, at, reader} ->
        case fun.({:command, args, index, at}, acc) do
          {:cont, acc} -> each(reader, index + 1, acc, fun)
          {:halt, acc} -> {:halted, acc}
        end

      :end_of_file ->
        {:ok, acc}

      {:error, _message, _offset} = failure ->
        {failure, acc}
    end
  end

  # The parser throws what is wrong from wherever it finds it. One `try` per command, not per file, so that the
  # accumulator of the commands before it is still at hand.
  defp next(reader, index) do
    command(reader, index)
  catch
    {:broken, message, offset} -> {:error, message, offset}
  end

  defp command(%{buffer: ""} = reader, index) do
    case fill(reader) do
      :end_of_file -> :end_of_file
      reader -> command(reader, index)
    end
  end

  defp command(%{buffer: <<?*, _::binary>>} = reader, index), do: array(reader, index)

  defp command(%{buffer: <<?#, _::binary>>} = reader, index) do
    {_annotation, reader} = text_line(reader, "the annotation line before command #{index}")
    command(reader, index)
  end

  # Five bytes tell a snapshot from a command; only the first command of a file needs them.
  defp command(%{offset: 0, buffer: <<?R, _::binary>> = buffer} = reader, index)
       when byte_size(buffer) < 5 do
    case fill(reader) do
      :end_of_file -> inline(reader, index)
      reader -> command(reader, index)
    end
  end

  defp command(%{offset: 0, buffer: <<"REDIS", _::binary>>}, _index) do
    broken(
      "the file begins with an RDB snapshot (\"REDIS\"), and only the text form can be replayed; " <>
        "set `aof-use-rdb-preamble no` in Redis, run BGREWRITEAOF, and pass the new file",
      0
    )
  end

  defp command(%{buffer: <<byte, _::binary>>} = reader, index)
       when byte in ?a..?z or byte in ?A..?Z or byte in [?_, ?", ?', ?\s, ?\t, ?\r, ?\n],
       do: inline(reader, index)

  defp command(%{buffer: buffer, offset: at}, index) do
    broken(
      "command #{index} must begin with \"*\" or be an inline command, found #{excerpt(buffer)}",
      at
    )
  end

  # Inline commands

  defp inline(%{offset: at} = reader, index) do
    {line, reader} = text_line(reader, "inline command #{index}")

    case Inline.split(line) do
      {:ok, []} ->
        command(reader, index)

      {:ok, [name | _] = args} ->
        # A stream that has lost its step looks like inline commands; real ones have a name.
        if name?(name),
          do: {:ok, args, at, reader},
          else:
            broken("command #{index} is no array, and #{excerpt(name)} is no command name", at)

      {:error, message} ->
        broken("inline command #{index}: #{message}", at)
    end
  end

  defp name?(name), do: name =~ ~r/\A[A-Za-z_][A-Za-z0-9_.|:-]*\z/

  defp text_line(%{offset: at} = reader, what) do
    case line(reader, @max_inline) do
      {:ok, line, reader} ->
        {String.trim_trailing(line, "\r"), reader}

      :too_long ->
        broken("#{what} is longer than #{@max_inline} bytes", at)

      {:cut_off, size} ->
        broken(
          "#{what} (begins at byte #{at}) is cut off: no line end before the file's end",
          size
        )
    end
  end

  # Arrays

  # Nearly every command is whole and in the buffer. Whatever else it may be is found out slowly, and put into words.
  defp array(%{buffer: <<?*, rest::binary>> = buffer, offset: at} = reader, index) do
    case whole_count(rest, 0, 0) do
      {args, rest} ->
        {:ok, args, at,
         %{reader | buffer: rest, offset: at + byte_size(buffer) - byte_size(rest)}}

      :not_whole ->
        slow_array(reader, index)
    end
  end

  defp whole_count(<<digit, rest::binary>>, count, digits)
       when digit in ?0..?9 and digits < @whole_digits,
       do: whole_count(rest, count * 10 + digit - ?0, digits + 1)

  defp whole_count(<<"\r\n", rest::binary>>, count, digits)
       when digits > 0 and count in 1..@max_args,
       do: whole_args(rest, count, [])

  defp whole_count(_other, _count, _digits), do: :not_whole

  defp whole_args(rest, 0, args), do: {Enum.reverse(args), rest}
  defp whole_args(<<?$, rest::binary>>, count, args), do: whole_arg(rest, 0, 0, count, args)
  defp whole_args(_other, _count, _args), do: :not_whole

  defp whole_arg(<<digit, rest::binary>>, size, digits, count, args)
       when digit in ?0..?9 and digits < @whole_digits,
       do: whole_arg(rest, size * 10 + digit - ?0, digits + 1, count, args)

  defp whole_arg(<<"\r\n", rest::binary>>, size, digits, count, args)
       when digits > 0 and size <= byte_size(rest) do
    case :erlang.split_binary(rest, size) do
      # Copied, as in `bulk/3`.
      {arg, <<"\r\n", rest::binary>>} ->
        whole_args(rest, count - 1, [:binary.copy(arg) | args])

      _other ->
        :not_whole
    end
  end

  defp whole_arg(_other, _size, _digits, _count, _args), do: :not_whole

  defp slow_array(%{offset: at} = reader, index) do
    where = "command #{index} (begins at byte #{at})"
    {count, reader} = header(reader, ?*, 1, @max_args, where, "the number of arguments")
    arguments(reader, count, 1, [], where, at)
  end

  defp arguments(reader, count, number, args, _where, at) when number > count do
    {:ok, Enum.reverse(args), at, reader}
  end

  defp arguments(reader, count, number, args, where, at) do
    what = {number, where}
    {size, reader} = header(reader, ?$, 0, @max_bulk, what, "the length")
    {arg, reader} = bulk(reader, size, what)
    arguments(reader, count, number + 1, [arg | args], where, at)
  end

  # `what` is put into words only when something is wrong: once per broken file, not once per argument.
  defp words({number, where}), do: "#{where}: argument #{number}"
  defp words(where), do: where

  defp header(%{offset: at} = reader, sign, min, max, what, meaning) do
    case line(reader, @max_header) do
      {:ok, <<^sign, digits::binary>>, reader} ->
        {header_number(digits, min, max, what, meaning, at), reader}

      {:ok, line, _reader} ->
        not_a_header(line, sign, what, at)

      :too_long ->
        not_a_header(reader.buffer, sign, what, at)

      {:cut_off, size} ->
        cut_off(words(what), size)
    end
  end

  defp header_number(digits, min, max, what, meaning, at) do
    with size when size > 0 <- byte_size(digits) - 1,
         {number, "\r"} <- :erlang.split_binary(digits, size),
         {:ok, number} when number >= min and number <= max <- decimal(number, 0) do
      number
    else
      _bad ->
        broken(
          "#{words(what)}: #{meaning} must be a number from #{min} to #{max}, ended by CRLF, found " <>
            excerpt(digits <> "\n"),
          at + 1
        )
    end
  end

  # Digits only, so neither "+3" nor "-1"; at most @max_header of them.
  defp decimal(<<>>, number), do: {:ok, number}

  defp decimal(<<digit, rest::binary>>, number) when digit in ?0..?9,
    do: decimal(rest, number * 10 + digit - ?0)

  defp decimal(_other, _number), do: :error

  @spec not_a_header(binary(), byte(), term(), non_neg_integer()) :: no_return()
  defp not_a_header(<<sign, _::binary>> = line, sign, what, at) do
    broken("#{words(what)}: no CRLF after #{excerpt(line)}", at)
  end

  defp not_a_header(line, sign, what, at) do
    broken("#{words(what)} must begin with #{inspect(<<sign>>)}, found #{excerpt(line)}", at)
  end

  defp bulk(%{buffer: buffer, offset: at} = reader, size, what)
       when byte_size(buffer) >= size + 2 do
    case :erlang.split_binary(buffer, size) do
      {arg, <<"\r\n", rest::binary>>} ->
        # Copied, since a part of the chunk would keep all of it alive as long as the argument is.
        {:binary.copy(arg), %{reader | buffer: rest, offset: at + size + 2}}

      {_arg, other} ->
        no_line_end(other, size, what, at)
    end
  end

  defp bulk(%{buffer: buffer, offset: at} = reader, size, what) do
    case gather(reader, size + 2 - byte_size(buffer), [buffer]) do
      {:ok, parts} ->
        case parts |> IO.iodata_to_binary() |> :erlang.split_binary(size) do
          {arg, "\r\n"} ->
            {arg, %{reader | buffer: "", offset: at + size + 2}}

          {_arg, other} ->
            no_line_end(other, size, what, at)
        end

      {:cut_off, parts} ->
        held = IO.iodata_length(parts)
        cut_off("#{words(what)}, #{min(held, size)} of #{size} bytes", at + held)
    end
  end

  defp gather(_reader, 0, parts), do: {:ok, Enum.reverse(parts)}

  defp gather(reader, missing, parts) do
    case read(reader, min(missing, @max_read)) do
      :eof -> {:cut_off, parts}
      data -> gather(reader, missing - byte_size(data), [data | parts])
    end
  end

  @spec no_line_end(binary(), non_neg_integer(), term(), non_neg_integer()) :: no_return()
  defp no_line_end(found, size, what, at) do
    broken(
      "#{words(what)} is announced with #{size} bytes, and no CRLF follows them, found #{excerpt(found)}",
      at + size
    )
  end

  # Reading

  # Up to the line feed, without it; a line of `limit` bytes or more is `:too_long`.
  defp line(%{buffer: buffer, offset: at} = reader, limit) do
    case :binary.match(buffer, "\n", scope: {0, min(limit, byte_size(buffer))}) do
      {size, 1} ->
        {line, <<?\n, rest::binary>>} = :erlang.split_binary(buffer, size)
        {:ok, line, %{reader | buffer: rest, offset: at + size + 1}}

      :nomatch when byte_size(buffer) >= limit ->
        :too_long

      :nomatch ->
        case fill(reader) do
          :end_of_file -> {:cut_off, at + byte_size(buffer)}
          reader -> line(reader, limit)
        end
    end
  end

  defp fill(%{buffer: buffer, chunk: chunk} = reader) do
    case read(reader, chunk) do
      :eof -> :end_of_file
      data -> %{reader | buffer: buffer <> data}
    end
  end

  defp read(%{io: io, buffer: buffer, offset: at}, size) do
    case :file.read(io, size) do
      {:ok, data} ->
        data

      :eof ->
        :eof

      {:error, reason} ->
        broken("can't be read: #{:file.format_error(reason)}", at + byte_size(buffer))
    end
  end

  @spec cut_off(String.t(), non_neg_integer()) :: no_return()
  defp cut_off(what, size), do: broken("the file is truncated: it ends inside #{what}", size)

  @spec broken(String.t(), non_neg_integer()) :: no_return()
  defp broken(message, offset), do: throw({:broken, message, offset})

  defp excerpt(bytes) when byte_size(bytes) > 16, do: excerpt(binary_part(bytes, 0, 16)) <> "..."
  defp excerpt(bytes), do: inspect(bytes, binaries: :as_strings)
end
