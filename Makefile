# Everything runs in .venv, which is made on first use and kept up to date. Needs only Python 3.10 or
# later (with venv and its C headers) and a C++17 compiler; cmake and ninja come from PyPI.
PYTHON ?= python3
PYTEST_ARGS ?=
RACE_ARGS ?=
# Processes that share the tests; each may need a few GiB.
PYTEST_WORKERS ?= 2
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DELETE_ON_ERROR:

venv := .venv
bin := $(venv)/bin
python := $(bin)/python
path := PATH="$(CURDIR)/$(bin):$$PATH"
pytest := $(python) -m pytest $(PYTEST_ARGS)

# pip builds the wheel in build/wheel, so that a second build compiles only what has changed.
export SKBUILD_BUILD_DIR := build/wheel
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# NumPy's and PyTorch's own threads only get in each other's way in tests.
export OMP_NUM_THREADS ?= 1
ifneq ($(shell command -v ccache),)
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif

core_sources := $(shell find csrc cmake -type f) CMakeLists.txt CMakePresets.json
python_sources := $(shell find python/lepton_rt -type f \( -name '*.py' -o -name '*.pyi' -o -name py.typed \))

.PHONY: help demo test check lint format build install race clean distclean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(venv)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or later is needed: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(venv)
	touch $@

# The build tools first, so that the package itself can be built without an isolated environment.
$(venv)/tools: $(venv)/made constraints.txt
	$(python) -m pip install -q -c constraints.txt scikit-build-core pybind11 cmake ninja
	touch $@

$(venv)/installed: $(venv)/tools pyproject.toml constraints.txt $(core_sources) $(python_sources)
	$(path) $(python) -m pip install -q --no-build-isolation -c constraints.txt '.[dev]'
	touch $@

install: $(venv)/installed ## Install the package and all it is developed with into .venv

demo: $(venv)/installed ## Train, quantise and compare a small network (lepton-rt demo)
	$(bin)/lepton-rt demo

test: $(venv)/installed ## The test suite, then lint (about ten minutes)
	@$(pytest) -n $(PYTEST_WORKERS); tests=$$?; $(MAKE) --no-print-directory lint && exit $$tests

lint: $(venv)/installed ## ruff, mypy --strict, clang-format
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	find csrc -name '*.cc' -o -name '*.h' | xargs $(bin)/clang-format --dry-run --Werror

format: $(venv)/installed ## Format Python and C++
	$(python) -m ruff check --fix .
	$(python) -m ruff format .
	find csrc -name '*.cc' -o -name '*.h' | xargs $(bin)/clang-format -i

build: $(venv)/installed ## Build the extension beside the Python sources, warnings as errors
	$(path) cmake --preset dev -DPython_EXECUTABLE=$(CURDIR)/$(python)
	$(path) cmake --build build/dev

# Runtimes that do not install here are reported as absent.
$(venv)/race: $(venv)/installed
	$(path) $(python) -m pip install -q --no-build-isolation -c constraints.txt '.[race]' || \
	  echo "not every runtime could be installed; the race runs with those that are here"
	touch $@

race: $(venv)/race ## Race lepton_rt and other runtimes (RACE_ARGS="--networks lenet …")
	PYTHONPATH=benchmarks $(python) -m race $(RACE_ARGS)

include checks.mk

clean: ## Remove what was built
	rm -rf build dist python/lepton_rt/*.so lepton_demo
	rm -f $(venv)/installed
	find . -name __pycache__ -not -path './$(venv)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove .venv and caches, too
	rm -rf $(venv) .pytest_cache .mypy_cache .ruff_cache .hypothesis
