# The end of a VM, of an application or of a batcher, and new code, while many processes write: no crash,
# no hang, no thread left. `VM_FAULTS` is how often each (default 3). How batchers commit: see `Ways`.
defmodule Ferricstore.Raft.WARaftBackend.Batcher.VmTest do
  use ExUnit.Case, async: false

  alias Ferricstore.Raft.WARaftBackend.Batcher.{ChildVM, Native, VmFaults, VmLoad, Ways}

  @moduletag timeout: :infinity

  @times String.to_integer(System.get_env("VM_FAULTS", "3"))
  @hang_ms 5_000
  @sigabrt 6
  @sigsegv 11
  # Before OTP 26 a fun could run code of its module that was not loaded to its end (erlang/otp#6541): a VM without
  # the library ends in that way, too.
  @loads if System.otp_release() >= "26", do: 1, else: 4

  for {how, status} <- [init_stop: 0, halt: 0, abort: 128 + @sigabrt] do
    test "the VM ends under load: #{how}" do
      for n <- 1..@times do
        if rem(n, 10) == 0, do: IO.puts("\n#{unquote(how)}: #{n} of #{@times}")
        vm = play({:end_vm, n}, :end_vm, [unquote(how)])
        assert {vm.status, vm.lines} == {unquote(status), []}
        assert vm.values["faults"] == [[]]
        assert vm.down_ms < @hang_ms
      end
    end
  end

  test "batchers are killed, stopped and restarted every 50 ms" do
    vm = run(:restart, [@times * length(VmLoad.shards())])
    assert vm.values["threads"] == [0]
  end

  test "the application of the batchers is stopped and started" do
    vm = run(:stop_application, [@times])
    assert length(vm.values["stop_ms"]) == @times
    assert Enum.max(vm.values["stop_ms"]) < @hang_ms
    assert vm.values["threads"] == List.duplicate(0, @times + 1)
  end

  test "every module but that of the library is loaded anew" do
    modules = VmFaults.modules() -- [Native]
    assert length(modules) > 10
    vm = reload(modules, @loads)
    refute vm.values["stuck"]
    assert vm.values["threads"] == [0]
  end

  test "the library is not loaded anew, the old one goes on" do
    vm = run(:disturb_library, [[:load_file, :load_file, :purge, :go_on], @times])
    assert Enum.uniq(vm.values["load_file"]) == [{:error, :on_load_failure}]
    assert Enum.uniq(vm.values["purge"]) == [false]
    assert vm.values["threads"] == [0]
  end

  test "the module of the library is purged, which does nothing" do
    vm = run(:disturb_library, [[:purge, :go_on], @times])
    assert Enum.uniq(vm.values["purge"]) == [false]
    assert vm.values["threads"] == [0]
  end

  for steps <- [
        [:delete, :go_on],
        [:delete, :purge, :go_on],
        [:delete, :go_on, :load_file, :purge]
      ] do
    test "the module of the library is deleted, writes go on: #{Enum.join(steps, ", ")}" do
      vm = run_to_end(:disturb_library, [unquote(steps), @times])
      assert Enum.uniq(vm.values["delete"]) == [true]
      assert vm.values["threads"] == [0]
    end
  end

  test "the module of the library is lost, everybody is told; it is found, and works" do
    vm = play(:lose_library, :lose_library, [], 40_000)
    assert {vm.status, vm.lines} == {0, []}
    assert vm.values["deleted"] == [true]
    assert [[_ | _] = told] = vm.values["told"]
    assert :undef in told
    assert vm.values["replies"] == List.duplicate({:ok, [:ok]}, length(VmLoad.shards()))
    assert vm.values["threads"] == [0]
  end

  test "the module of the library is deleted and found again while committers rest: no write fails" do
    vm = ChildVM.run({VmFaults, :reload_at_rest, []}, 40_000)
    assert {vm.status, vm.lines} == {0, []}
    assert vm.values["deleted"] == [true]
    assert [{:module, _}] = vm.values["loaded"]
    assert Enum.uniq(vm.values["reply"]) == [{:ok, [:ok]}]
  end

  for steps <- [[], [:load]] do
    test "the module of the library is lost while a process commits its own write, #{inspect(steps)}" do
      vm = ChildVM.run({VmFaults, :lose_library_alone, [unquote(steps)]}, 40_000)
      assert {vm.status, vm.lines} == {0, []}
      assert vm.values["deleted"] == [true]
      assert vm.values["ended"] == [{:reply, :ok}]
    end
  end

  defp play(test, scenario, args, timeout_ms \\ 120_000) do
    way = Ways.of(test)
    vm = ChildVM.run({VmFaults, :play, [way, scenario, args]}, timeout_ms)
    # For whatever fails below.
    Map.put(vm, :way, way)
  end

  # In as many VMs at most, where that version of Erlang has no better.
  defp reload(modules, vms) do
    run(:reload, [modules, @times])
  rescue
    error in ExUnit.AssertionError ->
      if vms == 1 or error.left != {128 + @sigsegv, []}, do: reraise(error, __STACKTRACE__)

      IO.puts(
        "\nOTP #{System.otp_release()} crashed as it does where code is loaded (erlang/otp#6541): once more"
      )

      reload(modules, vms - 1)
  end

  # A VM that ends by itself, after a report, and whose committers all lived.
  defp run(scenario, args) do
    vm = run_to_end(scenario, args)
    assert vm.values["unsure"] == [0]
    vm
  end

  defp run_to_end(scenario, args) do
    vm = play({scenario, args}, scenario, args, 60_000 + @times * 5_000)
    assert {vm.status, vm.lines} == {0, []}
    assert vm.values["faults"] == [[]]
    assert [writes] = vm.values["writes"]
    assert writes > 0
    assert vm.down_ms < @hang_ms
    vm
  end
end
