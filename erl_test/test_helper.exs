# Before the tests: what they share. Invariant: no test depends on what another one left behind.

Ferricstore.Raft.WARaftBackend.Batcher.Case.prepare()
# Those that wait for 30 s of the contract's: `mix test --include slow`.
ExUnit.start(exclude: [:slow])
