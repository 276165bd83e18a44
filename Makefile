# Every target needs .venv, which `setup` makes from the pinned and hashed requirements.
PYTHON ?= python3
BIN := .venv/bin
VERSIONS ?= 14 15 16 17
# What older PostgreSQL versions have to carry: everything that goes through SQL.
CORE := tests/postgres \
	$(patsubst %,tests/worker/test_%.py,crowd failover large_messages listen_faults locks metrics mode relay rescue restricted_live signals worker) \
	$(patsubst %,tests/cli/test_%.py,dead_letters doctor doctor_ways prune reset status)
READY := .venv/.ready

# Tests start many interpreters: without it each would compile all sources again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-postgres-all check format chaos faults health bench bench-document bench-smoke bench-peers lock build container clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with everything that the other targets need

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python's venv module is missing (Debian: apt install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## see the main job on real servers
	@env -u DATABASE_URL -u TEMPORAL_ADDRESS $(BIN)/outbox demo

test: $(READY)  ## run the tests, in parallel and in random order, except the slow ones
	@$(BIN)/python -m pytest -m 'not slow'

test-all: $(READY)  ## run all tests
	@$(BIN)/python -m pytest

test-postgres-all: $(READY)  ## run the core of the suite on PostgreSQL 14 to 17, from npm; VERSIONS=14 for one of them
	$(BIN)/python -m tests.support.versions
	for version in $(VERSIONS); do OUTBOX_TEST_POSTGRES=$$version $(BIN)/python -m pytest $(CORE) || exit 1; done

check: $(READY)  ## lint, formatting, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## format, and repair what ruff can repair
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

chaos: $(READY)  ## kill processes and servers, the long form
	OUTBOX_CHAOS=long $(BIN)/python -m pytest -m chaos --numprocesses=1 --timeout=1200

faults: $(READY)  ## measure every fault of the wake-up sources, and what idling costs; writes docs/wakeups.md
	rm -rf .faults && mkdir .faults
	OUTBOX_CHAOS=long OUTBOX_MATRIX=$(CURDIR)/.faults $(BIN)/python -m pytest --numprocesses=1 --timeout=1200 \
		tests/chaos/test_wakeup_matrix.py tests/chaos/test_idle_cost.py
	$(BIN)/python -m tests.support.tools.fault_tables .faults

health: $(READY)  ## cause every fault that /livez and /readyz report; writes docs/operations.md
	rm -rf .health && mkdir .health
	OUTBOX_HEALTH=$(CURDIR)/.health $(BIN)/python -m pytest --numprocesses=1 tests/chaos/test_health.py
	$(BIN)/python -m tests.support.tools.health_table .health

bench: $(READY)  ## measure everything, on throwaway servers; writes docs/benchmarks.md
	rm -f docs/benchmarks/*.svg docs/benchmarks/*.png
	$(BIN)/outbox bench all --json bench/results --plots docs/benchmarks
	$(BIN)/python -m outbox_bench.cli.document

bench-document: $(READY)  ## write docs/benchmarks.md again from bench/results and bench/misses
	$(BIN)/python -m outbox_bench.cli.document

bench-smoke: $(READY)  ## run each benchmark briefly; fails on broken ones, not on slow ones
	$(BIN)/outbox bench all --brief

bench-peers: $(READY)  ## install the peers that the benchmark `peers` compares us with, into .bench
	$(BIN)/python -m outbox_bench.peers.cache .bench

lock: $(READY)  ## pin the dependencies of pyproject.toml again, and the peers of bench/outbox_bench/peers
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements/dev.txt
	$(BIN)/uv pip compile pyproject.toml --extra realtime --extra workflows --extra opentelemetry --group image --constraints requirements/dev.txt --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet \
		--output-file requirements/runtime.txt
	$(BIN)/uv pip compile bench/outbox_bench/peers/requirements.in --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --quiet --output-file bench/outbox_bench/peers/requirements.txt
	cd bench/outbox_bench/peers && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved

build: $(READY)  ## build the wheel and the source distribution into dist/
	$(BIN)/python -m build --no-isolation

container: build  ## build the container image with buildah and try it on real servers; needs root and Debian
	@$(BIN)/python -m tests.support.tools.container

clean:  ## remove what can be made again
	rm -rf .venv .bench .postgres .container dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
