# Diptych: the commands of the README. `make help` lists them.
#
#   PYTHON       interpreter for the environment (default: the first of 3.11, 3.12, 3.10 found)
#   VENV         where the environment goes (default: .venv)
#   PIP_FLAGS    more options for pip, such as an index with CPU-only wheels of PyTorch
#   WORKERS      processes that share the tests (default: 2, each with one thread)
#   PYTEST_FLAGS more options for pytest, such as -k resume
#   DEMO_FLAGS   more options for `diptych demo`
#   STUDY        folder of `make study` (default: study)

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV ?= .venv
BIN := $(VENV)/bin
PIP_FLAGS ?=
WORKERS ?= 2
PYTEST_FLAGS ?=
DEMO_FLAGS ?=
PINNED := pyproject.toml constraints.txt
IN_RANGE := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))

.PHONY: help demo test check docs format prepare mpi bench study clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-all prepare ## install, train both panels on small MNIST, sample, compare
	$(BIN)/diptych demo $(DEMO_FLAGS)

test: $(VENV)/.installed-dev prepare ## install and run every test, of both panels
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

check: $(VENV)/.installed-dev ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.mirror

# Not with --quiet: MkDocs counts the warnings that it shows, and --strict fails by their number.
docs: $(VENV)/.installed-docs ## build the documentation's site into site/; a broken link is an error
	DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict
	@echo "the site: site/index.html"

format: $(VENV)/.installed-dev ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

prepare: $(VENV)/.installed-all ## compile Jittor for this machine (once, about 4 minutes)
	$(BIN)/diptych doctor --prepare

mpi: $(VENV)/.installed-all prepare ## install OpenMPI on Debian (as root), for several Jittor processes
	@command -v mpirun >/dev/null && command -v mpicc >/dev/null || { \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends openmpi-bin libopenmpi-dev; }
	use_mpi=1 $(BIN)/diptych doctor --prepare >/dev/null

PEERS := torch,jittor,diffusers,diffusers-compiled
bench: $(VENV)/.installed-dev prepare ## time both panels against all peers, and loading against torch, in turns
	for size in mnist cifar10-size; do \
	    $(BIN)/python -m benchmarks.training --contenders $(PEERS) --preset $$size \
	        --out benchmarks/results/training-$$size; \
	    $(BIN)/python -m benchmarks.sampling --contenders $(PEERS),onnx,openvino --preset $$size \
	        --out benchmarks/results/sampling-$$size; \
	done
	$(BIN)/python -m benchmarks.data --out benchmarks/results/data
	$(BIN)/python docs/results.py

STUDY ?= study
study: $(VENV)/.installed-dev prepare ## train the zoo anew and renew every page made of it; days on two cores, resumes
	$(BIN)/python docs/study.py $(STUDY)

clean: ## remove the environment and the tools' caches
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make a second run quick; they are renewed when a dependency or a pin changes.
$(VENV)/.installed-all: $(PINNED) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[all,studio]'
	touch $@

$(VENV)/.installed-dev: $(PINNED) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[all,dev]'
	touch $(VENV)/.installed-all $@

$(VENV)/.installed-docs: $(PINNED) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[docs]'
	touch $@

$(BIN)/python:
	@for python in $(or $(PYTHON),python3.11 python3.12 python3.10 python3); do \
	    if "$$python" -c '$(IN_RANGE)' >/dev/null 2>&1; then \
	        echo "environment: $(VENV), from $$(command -v "$$python")"; \
	        exec "$$python" -m venv $(VENV); \
	    fi; \
	done; \
	echo "make: no usable Python among: $(or $(PYTHON),python3.11 python3.12 python3.10 python3)." >&2; \
	echo "  Diptych needs Python 3.10, 3.11 or 3.12 with venv (on Debian: sudo apt install" >&2; \
	echo "  python3-venv python3-dev). Name one: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.11" >&2; \
	exit 1
