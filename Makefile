# One word for each thing a developer does. Every target that needs tools runs scripts/setup first, which does
# nothing and says nothing where they are there already.

# Elixir wants UTF-8, whatever the machine says.
export LANG := C.UTF-8
export LC_ALL := C.UTF-8

ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup build demo test torture soak sanitize bench bench-instructions test-matrix lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing: Elixir, Erlang, Dialyzer, PropEr, Ra, Prometheus (Debian, as root)
	@scripts/setup

build: setup ## compile the shared library and the BEAM side
	mix compile

demo: setup ## run the demo, its options in ARGS="..." (ARGS="--help" lists them)
	mix batcher.demo $(ARGS)

test: setup ## run the tests of the Rust side, its benchmarks once each, its threads in every order, then those of the BEAM side
	cargo test --workspace --locked
	RUSTFLAGS="--cfg loom" cargo test -p batcher_shell --test loom --release --locked --target-dir target/loom
	mix test

torture: setup ## kill the nodes of a cluster under load, TORTURE_KILLS=20 times
	TORTURE_KILLS=$${TORTURE_KILLS:-20} mix test erl_test/torture_test.exs

soak: setup ## look for leaks in millions of writes, print what is held
	SOAK_PRINT=1 SOAK_WRITES=$${SOAK_WRITES:-10000000} SOAK_NAMESPACES=$${SOAK_NAMESPACES:-900000} \
	SOAK_CYCLES=$${SOAK_CYCLES:-10000} SOAK_TIMEOUTS=$${SOAK_TIMEOUTS:-100000} \
	SOAK_REFUSALS=$${SOAK_REFUSALS:-1000000} mix test erl_test/soak_test.exs

sanitize: setup ## run fuzzing and the contract's tests with the library under AddressSanitizer, of what is committed
	@scripts/sanitize

test-matrix: ## run the tests of the BEAM side on other versions of Erlang and Elixir, in chroots of Debian's (as root)
	@scripts/matrix

bench: setup ## measure against peers and goals, options in ARGS="..."; writes bench/REPORT.md
	mix batcher.bench $(ARGS)

bench-instructions: setup ## count the instructions of the engine's operations, with valgrind
	@scripts/bench-instructions

lint: setup ## check formatting, long files, warnings (Rust, Elixir), circles of modules, what dependencies bring in, and types (Dialyzer)
	cargo fmt --all --check
	! git ls-files '*.rs' '*.ex' '*.exs' | xargs wc -l | awk '$$1 >= 400 && $$2 != "total"' | grep .
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTFLAGS="--cfg loom" cargo clippy -p batcher_shell --all-targets --locked --target-dir target/loom -- -D warnings
	scripts/acyclic
	scripts/deny
	mix format --check-formatted
	mix compile --all-warnings --warnings-as-errors
	MIX_ENV=test mix compile --all-warnings --warnings-as-errors
	mix xref graph --format cycles --label compile-connected --fail-above 0
	scripts/dialyzer

clean: ## remove what was built, Dialyzer's cache too; what setup fetched stays
	rm -rf _build priv/native target
