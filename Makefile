# GNU make 3.81 or newer. Bare `make` explains the targets.
# Every recipe ends in `exec` of one process, so that a signal to make's child reaches the program itself.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
export STATE_DIR ?= .local

.DEFAULT_GOAL := help
.PHONY: help demo run test test-kafka fuzz simulate mutants check contracts bench bench-growth bench-reconcile chaos \
	lock clean

help: ## explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.local ## the main job by itself: payments of every kind end to end, faults included, then an audit
	@STOP_WITH_PID=$$PPID exec $(BIN)/python -m deploy.local.demo

run: $(VENV)/.local ## keep the whole stack up in the foreground (PORT=5004, STATE_DIR=.local)
	@STOP_WITH_PID=$$PPID exec $(BIN)/python -m deploy.local $(ARGS)

test: $(VENV)/.checks ## unit, integration and end-to-end tests on the embedded stack, with coverage
	@exec $(BIN)/python -m tests

test-kafka: $(VENV)/.checks ## integration and end-to-end tests on a real Apache Kafka (needs Java 17, Maven)
	@exec $(BIN)/python -m tests --apache-kafka

simulate: $(VENV)/.local ## seeds of chaos against what must always hold (SEEDS=10000, or SEED=17 step by step)
	@exec $(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000)) $(ARGS)

mutants: $(VENV)/.local ## take each guard away in turn, and show which seed notices (ARGS='--only lock --seeds 2000')
	@exec $(BIN)/python -m tests.simulation.mutants $(ARGS)

bench: $(VENV)/.bench ## measure the whole stack under rising load (bench.json and a picture in STATE_DIR)
	@STOP_WITH_PID=$$PPID exec $(BIN)/python -m tests.load.bench $(ARGS)

chaos: $(VENV)/.local ## kill parts of the whole stack under load, then account for every order (KILLS=30, SEED, BROKER)
	@STOP_WITH_PID=$$PPID exec $(BIN)/python -m tests.chaos $(ARGS)

bench-growth: $(VENV)/.local ## the cost of a payment with up to a million others stored, and every hot plan
	@STOP_WITH_PID=$$PPID exec $(BIN)/python -m tests.load.growth $(ARGS)

bench-reconcile: $(VENV)/.local ## time and memory of comparing up to 100,000 objects at Stripe with our rows
	@STOP_WITH_PID=$$PPID exec $(BIN)/python -m tests.load.reconciliation $(ARGS)

fuzz: $(VENV)/.checks ## ask every route of OpenAPI for what it may and may not take (EXAMPLES=500)
	@FUZZ_EXAMPLES=$${EXAMPLES:-500} exec $(BIN)/python -m pytest tests/integration/test_api_fuzz.py -q

check: $(VENV)/.checks ## lint, types, layering, lengths, OpenAPI, AsyncAPI, contracts
	@exec sh .ci/check

contracts: $(VENV)/.checks ## agree on the OpenAPI and AsyncAPI documents as they are now (deploy/contracts)
	@exec $(BIN)/python -m deploy.contracts --write

lock: $(VENV)/.checks ## write the lock files anew from pyproject.toml (needs the network)
	@exec sh .ci/lock

clean: ## remove the virtual environment and the local state
	@exec rm -rf $(VENV) $(STATE_DIR)

# One lock file per use, each complete by itself; a target installs only the one it needs.
$(VENV)/.local: deploy/locks/local.txt pyproject.toml
	@sh .ci/install local $(VENV)
	@touch $@

$(VENV)/.bench: deploy/locks/bench.txt pyproject.toml
	@sh .ci/install bench $(VENV)
	@touch $@

$(VENV)/.checks: deploy/locks/checks.txt pyproject.toml
	@sh .ci/install checks $(VENV)
	@touch $(VENV)/.local $@
