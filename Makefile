# Every target makes the environment that it needs, from LOCK: for a GPU each of them is
# `make TARGET LOCK=requirements-gpu.lock`, else it is made anew for a CPU. `make help` lists them.
PY ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
LOCK ?= requirements-cpu.lock
READY := $(VENV)/.ready-$(basename $(notdir $(LOCK)))
UV := $(BIN)/uv
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
TRL := var/envs/trl
LITELLM := var/envs/litellm
AUDIT := var/envs/audit
FUZZ ?= 150
WORKERS ?= 2
# The CPU build of torch comes from a folder of wheels where one is named, else from torch's own index.
TORCH := $(if $(findstring gpu,$(LOCK)),,$(if $(strip $(UV_FIND_LINKS)),,--torch-backend cpu))
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup serve demo test check fix unit engine test-clients bench-gateway bench-overload bench-estimators bench-gate bench-engine bench-learner bench-gpu bench-swaps bench-contention bench-durability fuzz audit lock lock-gpu clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY) ## make the environment from the lock (about half a minute)

$(READY): $(LOCK) pyproject.toml client/pyproject.toml
	@command -v $(PY) >/dev/null || { echo "Python 3.11 is needed: set PY=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PY) -m venv $(VENV)
	@rm -f $(VENV)/.ready*
	$(BIN)/pip install -q uv==0.13.9
	$(UV) pip sync -q $(TORCH) --python $(BIN)/python $(LOCK)
	$(UV) pip install -q --no-deps --no-build-isolation --python $(BIN)/python -e . -e ./client
	@touch $@

serve: setup ## run the server on the bundled model, or on MODEL=<hub id or path>
	$(if $(MODEL),TTRL_MODEL=$(MODEL)) $(BIN)/ttrl-server serve

demo: ## two tenants, live traffic, one adaptation each, and a table of what came of it; KEEP=1 goes on serving
	@start=$$(date +%s); $(MAKE) --no-print-directory setup; \
	DEMO_SETUP_S=$$(( $$(date +%s) - start )) $(BIN)/python -m demo.run

test: check unit engine ## everything that CI runs

check: setup ## format, lint, types, import contracts, Dockerfile
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

unit: setup ## all tests but those on a real vLLM
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal -m "not engine"

engine: setup ## the tests on a real vLLM
	$(BIN)/pytest -q -m engine

test-clients: setup ## clients from elsewhere against a live server, each in its environment (CLIENTS="name ..." for some)
	$(BIN)/python -m tests.third_party.run $(CLIENTS)

fix: setup ## format and mend what can be mended
	$(BIN)/ruff format -q .
	$(BIN)/ruff check -q --fix .

bench-gateway: setup $(LITELLM)/.ready ## what the gateway costs, against the engine alone, a bare relay and LiteLLM
	$(BIN)/python -m benchmarks.gateway $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m benchmarks.gateway_vllm)

$(LITELLM)/.ready: benchmarks/peers/litellm/requirements.txt $(READY)
	test -x $(LITELLM)/bin/python || $(UV) venv -q --python $(BIN)/python $(LITELLM)
	$(UV) pip sync -q --python $(LITELLM)/bin/python $<
	@touch $@

bench-overload: setup ## ten times the capacity, a tenant that floods, a thousand clients that vanish
	$(BIN)/python -m benchmarks.overload

bench-engine: setup ## sampling with an adapter on CPU, against the base model and vLLM as shipped
	$(BIN)/python -m benchmarks.engine

bench-learner: setup $(TRL)/.ready ## what learning costs, against TRL's GRPOTrainer in an environment of its own (an hour)
	$(BIN)/python -m benchmarks.learner

$(TRL)/.ready: benchmarks/peers/trl/requirements.txt $(READY)
	test -x $(TRL)/bin/python || $(UV) venv -q --python $(BIN)/python $(TRL)
	$(UV) pip sync -q $(TORCH) --python $(TRL)/bin/python $<
	@touch $@

bench-swaps: setup ## 500 swaps under streaming load, and more tenants than LoRA slots
	$(BIN)/python -m benchmarks.swaps

bench-contention: setup ## users' latency while a tenant adapts, against without
	$(BIN)/python -m benchmarks.contention

bench-gpu: setup ## time and memory of an update on a GPU; without one it only says so
	$(BIN)/python -m benchmarks.gpu

bench-durability: setup ## kill -9, databases that stop and a full disk under load: nothing acknowledged is lost (8 minutes)
	$(BIN)/python -m benchmarks.durability

fuzz: setup ## at least 100,000 made-up cases for the relay, the parsers, the spool and the whole API (an hour)
	TTRL_FUZZ=$(FUZZ) $(BIN)/pytest -q --timeout 7200 tests/fuzz

audit: setup $(AUDIT)/.ready ## known vulnerabilities of what both locks pin; asks a service on the network, and exits 2 without it
	.ci/audit/run $(AUDIT)/bin/pip-audit requirements-cpu.lock requirements-gpu.lock

$(AUDIT)/.ready: .ci/audit/requirements.txt $(READY)
	test -x $(AUDIT)/bin/python || $(UV) venv -q --python $(BIN)/python $(AUDIT)
	$(UV) pip sync -q --python $(AUDIT)/bin/python $<
	@touch $@

bench-estimators: setup ## learning from votes, arm against arm (an hour; can be stopped and gone on with)
	$(BIN)/python -m benchmarks.estimators
	$(BIN)/python -m benchmarks.corruption

bench-gate: setup ## the gate on updates of known effect, which bench-estimators leaves
	$(BIN)/python -m benchmarks.gate

lock: setup ## compile requirements-cpu.lock anew
	$(UV) pip compile -q $(TORCH) --python-version 3.11 --extra train --extra cpu --group dev --override overrides.txt \
	  --no-emit-index-url --no-emit-package ttrl-client --no-annotate --no-header pyproject.toml -o requirements-cpu.lock

lock-gpu: setup ## compile requirements-gpu.lock anew
	UV_FIND_LINKS= $(UV) pip compile -q --python-version 3.11 --extra train --extra gpu --group dev \
	  --no-emit-index-url --no-emit-package ttrl-client --no-annotate --no-header pyproject.toml -o requirements-gpu.lock

# What can be made again: never the server's own data in var (database, keys, adapters).
clean: ## remove what demo, benchmarks and checks left behind, not the environment or a server's data
	rm -rf var/demo var/demo.lock var/bench var/clients var/audit var/envs
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis
