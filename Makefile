# Every target makes the environment that it needs. `make help` lists them.
PY ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
LOCK ?= requirements-cpu.lock
UV := $(BIN)/uv
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
TORCH := $(if $(strip $(UV_FIND_LINKS)),,--torch-backend cpu)
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup serve demo test check fix lock lock-gpu clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.ready ## make the environment from the lock (about half a minute)

$(VENV)/.ready: $(LOCK) pyproject.toml client/pyproject.toml
	@command -v $(PY) >/dev/null || { echo "Python 3.11 is needed: set PY=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/pip install -q uv==0.13.9
	$(UV) pip sync -q $(TORCH) --python $(BIN)/python $(LOCK)
	$(UV) pip install -q --no-deps --no-build-isolation --python $(BIN)/python -e . -e ./client
	@touch $@

lock: ## compile requirements-cpu.lock anew
	$(UV) pip compile -q $(TORCH) --python-version 3.11 --extra train --extra cpu --group dev --override overrides.txt \
	  --no-emit-index-url --no-emit-package ttrl-client --no-annotate --no-header pyproject.toml -o requirements-cpu.lock

lock-gpu: ## compile requirements-gpu.lock anew
	UV_FIND_LINKS= $(UV) pip compile -q --python-version 3.11 --extra train --extra gpu --group dev \
	  --no-emit-index-url --no-emit-package ttrl-client --no-annotate --no-header pyproject.toml -o requirements-gpu.lock
