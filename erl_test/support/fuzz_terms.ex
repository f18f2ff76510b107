defmodule Ferricstore.Raft.WARaftBackend.Batcher.FuzzTerms do
  @moduledoc false
  # Terms of all types, those among them that a shared library most likely stumbles over.
  #
  # Invariant: what is generated depends on the seed of `:rand` alone, but for pids and references.

  import Bitwise

  @big 100_000_000
  @deep 100_000
  @kinds 30

  @doc "A binary of 100 MB, whose parts are used; made anew now and then, so that the old one can go."
  def renew_big, do: Process.put(:big, :binary.copy(<<0>>, @big))

  @doc "A term of any type. `known` are terms that mean something to the callee."
  def term(known), do: term(known, 3)

  defp term(known, depth) do
    if known != [] and :rand.uniform(3) == 1,
      do: Enum.random(known),
      else: of(:rand.uniform(@kinds), known, depth)
  end

  defp of(1, _, _), do: :rand.uniform(10) - 5
  defp of(2, _, _), do: Enum.random([0, -1, 1, 0xFFFF_FFFF, 0x1_0000_0000, 0x7FFF_FFFF_FFFF_FFFF])

  defp of(3, _, _),
    do: Enum.random([0xFFFF_FFFF_FFFF_FFFF, 1 <<< 64, -(1 <<< 63), 1 <<< 59, 1 <<< 10_000])

  defp of(4, _, _), do: :rand.uniform() * 1.0e300

  defp of(5, _, _),
    do: Enum.random([nil, true, :ok, :batch, :put_batch, :delete_batch, :infinity, :"", :ünï])

  defp of(6, _, _),
    do:
      Enum.random(["", "key", <<0>>, <<255, 254>>, :binary.copy("x", 64), :binary.copy("y", 65)])

  defp of(7, _, _), do: part_of_big()
  defp of(8, _, _), do: Enum.random([<<1::1>>, <<5::9>>, <<"text", 3::3>>])
  defp of(9, _, _), do: bits_of_big()
  defp of(10, _, _), do: self()
  defp of(11, _, _), do: remote_pid()
  defp of(12, _, _), do: remote_reference()
  defp of(13, _, _), do: make_ref()
  defp of(14, _, _), do: Enum.random([&is_list/1, &String.length/1, fn -> :fun end])
  defp of(15, known, depth), do: fn -> {known, depth} end
  defp of(16, _, _), do: :erlang.list_to_port(~c"#Port<0.0>")
  defp of(17, _, _), do: [1 | 2]
  defp of(18, _, _), do: nested(@deep, [], &[&1])
  defp of(19, _, _), do: nested(@deep, {}, &{&1})
  defp of(20, _, _), do: nested(10_000, %{}, &%{1 => &1})
  defp of(21, _, _), do: Enum.to_list(1..:rand.uniform(5_000))
  defp of(22, _, _), do: [{"a", "b", 0} | :tail]
  defp of(23, _, _), do: {dead(), make_ref()}
  defp of(24, _, _), do: [:alias | :erlang.alias([:reply])]
  defp of(25, _, _), do: Map.new(1..50, &{&1, &1})
  defp of(26, known, depth), do: {of(10, known, depth), term(known, 0)}
  defp of(27, known, depth), do: some(known, depth)
  defp of(28, known, depth), do: List.to_tuple(some(known, depth))
  defp of(29, known, depth), do: Map.new(some(known, depth), &{&1, term(known, 0)})
  defp of(30, known, depth), do: command(:rand.uniform(7), known, depth)

  defp command(1, known, depth),
    do: {:put, term(known, depth - 1), term(known, 0), term(known, 0)}

  defp command(2, known, depth), do: {:delete, term(known, depth - 1)}
  defp command(3, known, depth), do: {:put_batch, term(known, depth - 1)}
  defp command(4, known, depth), do: {:delete_batch, some(known, depth)}
  defp command(5, known, depth), do: {:batch, some(known, depth)}
  defp command(6, _known, _depth), do: nested(10_000, {:set, 1}, &{:batch, [&1]})
  defp command(7, known, depth), do: [{"key", term(known, depth - 1), 0}]

  defp some(_known, 0), do: []
  defp some(known, depth), do: for(_ <- 1..:rand.uniform(6), do: term(known, depth - 1))

  defp nested(0, inner, _wrap), do: inner
  defp nested(times, inner, wrap), do: nested(times - 1, wrap.(inner), wrap)

  defp part_of_big, do: binary_part(big(), :rand.uniform(@big) - 1, 1)

  defp bits_of_big do
    <<_::3, bits::bitstring-size(77), _::bitstring>> = big()
    bits
  end

  defp big, do: Process.get(:big) || (renew_big() && Process.get(:big))

  defp dead do
    {pid, monitor} = spawn_monitor(fn -> :ok end)
    receive do: ({:DOWN, ^monitor, :process, _pid, _reason} -> pid)
  end

  @node "elsewhere@nowhere"

  @doc "A pid of a node that there is not."
  def remote_pid, do: external(<<88, node_name()::binary, 77::32, 0::32, 1::32>>)

  @doc "A reference of a node that there is not."
  def remote_reference,
    do: external(<<90, 3::16, node_name()::binary, 1::32, 5::32, 6::32, 7::32>>)

  defp node_name, do: <<119, byte_size(@node), @node>>
  defp external(term), do: :erlang.binary_to_term(<<131, term::binary>>)
end
