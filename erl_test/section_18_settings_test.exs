# Where settings come from, and what is wrong with them: 18.1 to 18.3 of the contract.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.Section18SettingsTest do
  use Ferricstore.Raft.WARaftBackend.Batcher.Case, async: false

  import ExUnit.CaptureLog

  alias Ferricstore.Raft.WARaftBackend.Batcher.{Native, Options}
  alias Ferricstore.Raft.WARaftBackend.Batcher.Options.{Schema, Type}

  @put {"k", "v", 0}

  defmodule OneBackend do
    def __commit_batch_direct__(shard, list), do: {:ok, Enum.map(list, &{:one, shard, &1})}
    def __commit_put_batch_direct__(shard, list), do: __commit_batch_direct__(shard, list)
    def __commit_delete_batch_direct__(shard, list), do: __commit_batch_direct__(shard, list)
    def __commit_single_batch_direct__(_shard, command), do: {:ok, [{:single, command}]}
    def __commit_single_direct__(_shard, command), do: {:bare, command}
  end

  defmodule OtherBackend do
    def __commit_batch_direct__(shard, list), do: {:ok, Enum.map(list, &{:other, shard, &1})}
    def __commit_put_batch_direct__(shard, list), do: __commit_batch_direct__(shard, list)
    def __commit_delete_batch_direct__(shard, list), do: __commit_batch_direct__(shard, list)
  end

  defmodule OtherGate do
    def leave({pid, ref}), do: send(pid, {:left_by_other, ref})
  end

  # 18.1 Where a setting comes from

  test "18.1 an option goes before the environment of :ferricstore_batcher, and that before :ferricstore's",
       %{shard: shard} do
    put_env(:waraft_hot_batch_window_ms, 11)
    put_own_env(:hot_batch_window_ms, 22)
    attach_telemetry(shard)

    for {opts, window_ms, source} <- [
          {[hot_batch_window_ms: 33], 33, :option},
          {[], 22, :ferricstore_batcher}
        ] do
      start_batcher(shard, opts)
      assert Batcher.options(shard).hot_batch_window_ms == {window_ms, source}
      assert {:ok, _} = Batcher.write_put_batch(shard, [@put])
      assert_receive {:telemetry, _, _, %{kind: :put_batch, window_ms: ^window_ms}}
      stop_supervised!({Batcher, shard})
    end

    Application.delete_env(:ferricstore_batcher, :hot_batch_window_ms)
    start_batcher(shard)
    assert Batcher.options(shard).hot_batch_window_ms == {11, :ferricstore}
    assert {:ok, _} = Batcher.write_put_batch(shard, [@put])
    assert_receive {:telemetry, _, _, %{kind: :put_batch, window_ms: 11}}
    delete_env(:waraft_hot_batch_window_ms)
    assert Batcher.options(shard).hot_batch_window_ms == {1, :default}
  end

  test "18.1 the environment of :ferricstore_batcher is read when a batcher starts", context do
    %{shard: shard} = context
    start_batcher(shard)
    put_own_env(:pacing, :window)
    assert Batcher.options(shard).pacing == {:commit, :default}
    other = new_shard()
    start_batcher(other)
    assert Batcher.options(other).pacing == {:window, :ferricstore_batcher}
  end

  test "18.1 a bad value of the environment of :ferricstore_batcher is an error of the start",
       c do
    put_own_env(:pacing, :never)
    assert Batcher.start_link(c.shard) == {:error, {:invalid_option, :pacing, :never}}
    # What it would have been is of no account where the shard has its own.
    assert {:ok, _owner} = Batcher.start_link(c.shard, pacing: :auto)
    Batcher.stop(c.shard)
  end

  test "18.1 each shard has its own backend", %{shard: shard} do
    other = new_shard()
    start_batcher(shard, backend: OneBackend)
    start_batcher(other, backend: OtherBackend, pacing: :auto)

    for {shard, name} <- [{shard, :one}, {other, :other}] do
      assert Batcher.write(shard, "p", {:a}, 1) == {name, shard, {:a}}
      assert Batcher.write_put_batch(shard, [@put]) == {:ok, [{name, shard, @put}]}
      assert Batcher.write_delete_batch(shard, ["k"]) == {:ok, [{name, shard, "k"}]}

      assert Batcher.write_batch(shard, [{:a}, {:b}]) ==
               {:ok, for(c <- [{:a}, {:b}], do: {name, shard, c})}
    end

    # The function for a commit of one command as well.
    assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:single, {:a}}]}
    assert Batcher.write_batch(other, [{:a}]) == {:ok, [{:other, other, {:a}}]}
  end

  test "18.1 the backend of a shard stays its own when its batcher has ended", %{shard: shard} do
    start_alone(shard, backend: OneBackend)
    Batcher.stop(shard)
    assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:one, shard, {:a}}]}
    assert Batcher.write(shard, "p", {:a}, 1) == {:bare, {:a}}

    assert {:direct, {:ok, [{:one, _, @put}]}} =
             Batcher.write_put_batch_async(shard, [@put], {self(), make_ref()})
  end

  test "18.1 a shard that was never started has the backend of the environment", %{shard: shard} do
    put_own_env(:backend, OneBackend)
    assert Batcher.write_batch(shard, [{:a}]) == {:ok, [{:one, shard, {:a}}]}
    start_batcher(shard)
    assert Batcher.options(shard).backend == {OneBackend, :ferricstore_batcher}
    assert Batcher.write_delete_batch(shard, ["k"]) == {:ok, [{:one, shard, "k"}]}
  end

  test "18.1 each shard has its own call_timeout", %{shard: shard} do
    start_batcher(shard, call_timeout: 0)
    patient = new_shard()
    start_batcher(patient)
    for shard <- [shard, patient], do: backend(shard, :block)
    waits = call_async(fn -> Batcher.write(patient, "p", {:a}, 1) end)
    commit = next_commit(patient)
    assert {:timeout, _} = catch_exit(Batcher.write(shard, "p", {:a}, 1))
    wait_waiting(waits)
    release(commit)
    assert await(waits) == {:done, {:a}}
    release(next_commit(shard))
  end

  test "18.1 each shard has its own sync_gate", %{shard: shard} do
    start_batcher(shard, sync_gate: OtherGate)
    ref = make_ref()
    assert :ok = Batcher.write_put_batch_async(shard, [@put], {self(), :tag}, {self(), ref})
    assert_receive {:left_by_other, ^ref}
    assert {:ok, _} = await_reply(:tag)
  end

  test "18.1 generic_batch_window_ms is the window of the generic lane, :direct is none",
       context do
    %{shard: shard} = context
    put_env(:waraft_generic_batch_during_flush, false)
    start_batcher(shard, generic_batch_window_ms: 54_321)
    task = call_async(fn -> Batcher.write_batch(shard, [{:a}]) end)
    wait_queued(shard, :batch, 1)
    assert %{window_ms: 54_321} = queued_slot(shard, :batch)
    :ok = Batcher.configure(shard, generic_batch_window_ms: :direct)
    assert {:ok, _} = Batcher.write_batch(shard, [{:b}])
    assert %{list: [{:b}], pid: pid} = next_commit(shard)
    assert pid == self()
    Batcher.flush(shard)
    await(task)
    :ok = Batcher.configure(shard, generic_batch_window_ms: 0)
    assert {:ok, _} = Batcher.write_batch(shard, [{:c}])
    assert next_commit(shard).list == [{:a}]
    assert %{list: [{:c}], pid: pid} = next_commit(shard)
    assert pid != self()
  end

  # 18.2 The backend at the start

  for {what, module, missing} <- [
        {"can't be loaded", NoSuchBackend,
         [
           __commit_batch_direct__: 2,
           __commit_put_batch_direct__: 2,
           __commit_delete_batch_direct__: 2
         ]},
        {"lacks functions", Enum,
         [
           __commit_batch_direct__: 2,
           __commit_put_batch_direct__: 2,
           __commit_delete_batch_direct__: 2
         ]}
      ] do
    test "18.2 a backend that #{what} is found at the start", %{shard: shard} do
      error = {:error, {:backend_not_available, unquote(module), unquote(missing)}}
      assert Batcher.start_link(shard, backend: unquote(module)) == error
      put_own_env(:backend, unquote(module))
      assert Batcher.start_link(shard) == error
      Application.delete_env(:ferricstore_batcher, :backend)
      put_env(:waraft_backend_batcher_backend, unquote(module))
      assert Batcher.start_link(shard) == error
      assert Process.whereis(Batcher.name(shard)) == nil
      assert Batcher.options(shard) == nil
      assert Batcher.format_error(error) =~ inspect(unquote(module))
      assert Batcher.format_error(error) =~ "backend_check: :lazy"
    end
  end

  test "18.2 what is configured as backend and is no module is found at the start", c do
    put_env(:waraft_backend_batcher_backend, "no module")

    assert {:error, {:backend_not_available, "no module", [_, _, _]}} =
             Batcher.start_link(c.shard)

    assert Batcher.start_link(c.shard, backend: "no module") ==
             {:error, {:invalid_option, :backend, "no module"}}
  end

  test "18.2 a supervisor is told of a wrong backend", %{shard: shard} do
    supervisor =
      start_supervised!(%{
        id: :top,
        start: {Supervisor, :start_link, [[], [strategy: :one_for_one]]}
      })

    assert {:error, {{:backend_not_available, NoSuchBackend, _}, _child}} =
             Supervisor.start_child(supervisor, {Batcher, {shard, backend: NoSuchBackend}})
  end

  for pacing <- [:commit, :auto] do
    test "18.2 with backend_check: :lazy its first failure is logged, without arguments (#{pacing})",
         c do
      backend = Module.concat(__MODULE__, "Late#{System.unique_integer([:positive])}")
      start_batcher(c.shard, backend: backend, backend_check: :lazy, pacing: unquote(pacing))

      log =
        capture_log(fn ->
          for secret <- ["secret_1", "secret_2"] do
            assert {:error, {:backend_error, :error, :undef}} =
                     Batcher.write(c.shard, "p", {:put, secret, secret, 0}, 1)
          end
        end)

      assert [_before, logged] = String.split(log, "has no __commit_put_batch_direct__/2")
      assert log =~ "batcher #{c.shard}"
      assert log =~ inspect(backend)
      # The stack: who called it.
      assert logged =~ "Commit.outcome/"
      refute log =~ "secret"

      # It has been loaded meanwhile.
      {:module, _, _, _} =
        Module.create(
          backend,
          quote do
            def __commit_put_batch_direct__(_shard, list), do: {:ok, Enum.map(list, &{:late, &1})}
          end,
          Macro.Env.location(__ENV__)
        )

      assert {:late, _} = Batcher.write(c.shard, "p", {:put, "k", "v", 0}, 1)
    end
  end

  # 18.3 Options that are wrong

  test "18.3 two options that don't go together", %{shard: shard} do
    for {opts, key, value} <- [
          {[max_queue_items: 10, hot_batch_max: 11], {:hot_batch_max, :max_queue_items},
           {11, 10}},
          {[max_queue_items: 10, namespace_batch_max: 11],
           {:namespace_batch_max, :max_queue_items}, {11, 10}},
          {[call_timeout: 10, hot_batch_window_ms: 11], {:hot_batch_window_ms, :call_timeout},
           {11, 10}},
          {[call_timeout: 10, generic_batch_window_ms: 11],
           {:generic_batch_window_ms, :call_timeout}, {11, 10}}
        ] do
      assert {:error, {:invalid_option, ^key, ^value} = reason} = Batcher.start_link(shard, opts)
      message = Batcher.format_error(reason)

      for part <- ["11", "10", "must be at most"] ++ Enum.map(Tuple.to_list(key), &inspect/1),
          do: assert(message =~ part)

      # Alone, each of them is right: a default never stands in the way.
      for option <- opts do
        assert {:ok, _} = Batcher.start_link(shard, [option])
        Batcher.stop(shard)
      end
    end

    # No limit is not above another.
    assert start_batcher(shard, max_queue_items: 10, hot_batch_max: :infinity)
  end

  test "18.3 an unknown option that looks like a known one is logged once", %{shard: shard} do
    slip = :max_queue_item

    log =
      capture_log(fn ->
        for _ <- 1..2 do
          assert {:ok, _} = Batcher.start_link(shard, [{slip, 1}, {:data_dir, "/secret"}])
          Batcher.stop(shard)
        end
      end)

    assert [_, _] = String.split(log, ":max_queue_item is no option")
    assert log =~ "did you mean :max_queue_items?"
    refute log =~ "data_dir"
  end

  test "18.3 a key of the environment that looks like an option is logged", %{shard: shard} do
    put_own_env(:hot_batch_mx, 1)
    assert capture_log(fn -> start_batcher(shard) end) =~ "did you mean :hot_batch_max?"
  end

  test "18.3 so is one that looks like the bound on all shards, there or among the options", c do
    put_own_env(:max_total_queue_byte, 1)
    slip = [max_total_queue_byts: 1]
    log = capture_log(fn -> start_batcher(c.shard, slip) end)

    for key <- [":max_total_queue_byte is no", ":max_total_queue_byts is no"],
        do: assert(log =~ key)

    meant = "did you mean :max_total_queue_bytes, in the environment of :ferricstore_batcher?"
    assert [_, _, _] = String.split(log, meant)
    assert {:error, error} = Batcher.configure(c.shard, slip)
    assert Batcher.format_error(error) =~ "unknown option :max_total_queue_byts: " <> meant
  end

  test "18.3 the bound on all shards is no option of one", c do
    bound = [max_total_queue_bytes: 1_000_000]

    assert capture_log(fn -> start_batcher(c.shard, bound) end) =~
             ":max_total_queue_bytes is no option and was ignored: it belongs into the environment of :ferricstore_batcher"

    assert Native.numbers(c.shard).max_total_queue_bytes == 0
    assert {:error, error} = Batcher.configure(c.shard, bound)
    assert error == {:invalid_option, :max_total_queue_bytes, 1_000_000}

    for right <- [1_000_000, :infinity, nil] do
      assert Batcher.format_error({:invalid_option, :max_total_queue_bytes, right}) ==
               "unknown option :max_total_queue_bytes: it belongs into the environment of :ferricstore_batcher"
    end
  end

  test "18.3 of two options that are as near, that is meant which begins alike for longer" do
    for {key, name} <- [
          max_queue_bite: :max_queue_bytes,
          max_queue_ites: :max_queue_items,
          hot_batch_window: :hot_batch_window_ms,
          max_queue_total_bytes: :max_total_queue_bytes
        ],
        do: assert({key, Options.near(key)} == {key, name})
  end

  test "18.3 none of what a host passes looks like an option" do
    for key <-
          ~w(name timeout timeout_ms flush_items flush_bytes flush_delay_ms max_memory_entries max_memory_bytes
                  max_concurrency instance_ctx bootstrap data_dir shard_count log_module label_module retry_delay_ms
                  max_atomic_page_bytes wait_for_leader)a,
        do: assert({key, Options.near(key)} == {key, nil})
  end

  test "18.3 strict: true refuses unknown options", %{shard: shard} do
    for {opt, said} <- [
          {{:max_queue_item, 1}, "did you mean :max_queue_items?"},
          {{:data_dir, "x"}, "unknown option :data_dir"}
        ] do
      {key, value} = opt
      error = {:error, {:invalid_option, key, value}}
      assert Batcher.start_link(shard, [opt, strict: true]) == error
      assert Batcher.format_error(error) =~ said
    end

    assert Batcher.start_link(shard, [:flag, strict: true]) ==
             {:error, {:invalid_option, :flag, nil}}

    put_own_env(:strict, true)
    assert Batcher.start_link(shard, data_dir: "x") == {:error, {:invalid_option, :data_dir, "x"}}
    assert start_batcher(shard, max_queue_items: 1, strict: true)
  end

  test "18.3 what is wrong with a value, in words" do
    for {key, spec} <- Schema.table(), not Type.valid?(spec[:type], {:bad}) do
      message = Batcher.format_error({:error, {:invalid_option, key, {:bad}}})

      assert message ==
               "option #{inspect(key)} must be #{Type.describe(spec[:type])}, got: {:bad}"
    end

    assert Batcher.format_error({:invalid_option, :shard, 2 ** 64}) =~ "at most #{2 ** 64 - 1}"
    assert Batcher.format_error({:nif_not_loaded, {:load_failed, "x"}}) =~ "load_failed"
    assert Batcher.format_error({:error, :other}) == ":other"
    assert Batcher.format_error({:invalid_option, :shards, [:a]}) =~ "index once, got: [:a]"
    assert Batcher.format_error({:invalid_option, :max_total_queue_bytes, -1}) =~ "got: -1"
  end

  defp put_own_env(key, value) do
    Application.put_env(:ferricstore_batcher, key, value)
    on_exit(fn -> Application.delete_env(:ferricstore_batcher, key) end)
  end
end
