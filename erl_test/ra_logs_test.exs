# The logs of the Ra backend on one node: how many there are, and that what is in them is found again.

defmodule Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra.LogsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.RaCase, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher
  alias Ferricstore.Raft.WARaftBackend.Batcher.Backend.Ra

  test "each of the first shards has a log, of eight at most, and is found there again", %{
    dir: dir
  } do
    assert :ok = Ra.start(data_dir: dir, shards: 10)
    assert logs(dir) == for(log <- ["" | Enum.map(1..7, &"+#{&1}")], do: "#{node()}#{log}")
    for shard <- 0..9, do: assert(put(shard, "k", "#{shard}") == {:ok, [:ok]})
    assert wals(dir) == 8
    assert :ok = Ra.stop()

    # Fewer at first, and then the others: it is the directory that says how many logs there are.
    assert :ok = Ra.start(data_dir: dir, shards: [9])
    assert :ok = Ra.start(data_dir: dir, shards: 10, logs: 8)
    for shard <- 0..9, do: assert(Ra.fetch(shard, "k") == {:ok, {"#{shard}", 0}})
    assert wals(dir) == 8
  end

  test "data from when all shards had one log stays there, as do shards that come later", %{
    dir: dir
  } do
    assert :ok = Ra.start(data_dir: dir, shards: 2, logs: 1)
    for shard <- 0..1, do: assert(put(shard, "k", "v") == {:ok, [:ok]})
    assert :ok = Ra.stop()

    for more <- 1..2 do
      assert :ok = Ra.start(data_dir: dir, shards: 2 + more)
      for shard <- 0..1, do: assert(Ra.fetch(shard, "k") == {:ok, {"v", 0}})
      assert put(1 + more, "k", "v") == {:ok, [:ok]}
    end

    assert logs(dir) == ["#{node()}"]
  end

  test "another number of logs than the data has is an error, running or not", %{dir: dir} do
    assert :ok = Ra.start(data_dir: dir, shards: 4, logs: 2)
    assert put(3, "k", "v") == {:ok, [:ok]}

    for _running_and_not <- 1..2 do
      assert {:error, {:invalid_option, :logs, 4, text}} =
               error = Ra.start(data_dir: dir, logs: 4)

      assert text =~ "#{dir} has 2 logs"
      assert Batcher.format_error(error) == text
      assert :ok = Ra.stop()
    end

    assert :ok = Ra.start(data_dir: dir, shards: 4)
    assert Ra.fetch(3, "k") == {:ok, {"v", 0}}
    assert logs(dir) == ["#{node()}", "#{node()}+1"]
  end

  test "more logs than shards: the others wait for shards to come", %{dir: dir} do
    assert :ok = Ra.start(data_dir: dir, logs: 3)
    assert length(logs(dir)) == 3
    assert :ok = Ra.start(data_dir: dir, shards: 3)
    for shard <- 0..2, do: assert(put(shard, "k", "v") == {:ok, [:ok]})
    assert :ok = Ra.stop()
    assert :ok = Ra.start(data_dir: dir, shards: 3)
    for shard <- 0..2, do: assert(Ra.fetch(shard, "k") == {:ok, {"v", 0}})
  end

  test "a log's directory that can't be made is an error, and nothing is there then", %{dir: dir} do
    file = Path.join(dir, "#{node()}+1")
    File.write!(file, "")
    assert {:error, {:data_dir, ^file, posix, _text}} = Ra.start(data_dir: dir, shards: 2)
    assert posix in [:eexist, :enotdir]
    assert Ra.shards() == []
    File.rm!(file)
    assert logs(dir) == []
  end

  test "a start that is broken off has said how many logs there will be", %{dir: dir} do
    File.mkdir!(Path.join(dir, "#{node()}+2"))
    assert {:error, {:invalid_option, :logs, 2, _text}} = Ra.start(data_dir: dir, logs: 2)
    assert :ok = Ra.start(data_dir: dir)
    assert logs(dir) == ["#{node()}", "#{node()}+1", "#{node()}+2"]
  end

  defp put(shard, key, value), do: Ra.__commit_put_batch_direct__(shard, [{key, value, 0}])

  defp logs(dir), do: dir |> File.ls!() |> Enum.sort()

  # How many logs on disk have entries.
  defp wals(dir), do: length(Path.wildcard(Path.join(dir, "*/*.wal")))
end
