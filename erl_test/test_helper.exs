# Before the tests: what they share. Invariant: no test depends on what another one left behind.

Ferricstore.Raft.WARaftBackend.Batcher.Case.prepare()
# `mix test --include slow` also runs those that wait for the 30 s of the contract.
# An event may take its time on a busy machine: only one that never comes fails a test.
# What batchers say in the log of failures that are meant is shown where a test fails.
ExUnit.start(
  exclude: [:slow],
  assert_receive_timeout: 5_000,
  capture_log: true,
  formatters: [ExUnit.CLIFormatter, Ferricstore.Raft.WARaftBackend.Batcher.FailuresLast]
)
