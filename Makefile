# make demo    a whole study on the built-in phantom, ends with a verdict and a report
# make test    everything that continuous integration runs: checks, then all tests
# make check   lint, format, types, and the order of the rooms
# make bench   the speed and memory claims, measured on this machine
# make clean   caches, build leftovers and the demo's output (make distclean: the virtual environment too)
#
# PYTHON=python3.12        the interpreter to build .venv with; otherwise the first of python3, python3.13, … that is new enough
# PYTEST_FLAGS="-m 'not slow'"   handed to pytest

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
PYTEST_FLAGS ?=
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.PHONY: help demo test check lint format-check types layers format bench clean distclean

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

# --- installation: done once, again only when what is to be installed has changed ------------------------------------

$(BIN)/python:
	@found=""; \
	for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	  if [ -n "$(PYTHON)" ]; then echo "PYTHON=$(PYTHON) does not run or is older than 3.11" >&2; exit 1; fi; \
	done; \
	if [ -z "$$found" ]; then echo "mrtransfer needs Python 3.11 or newer; none was found. Install one, or say make PYTHON=/path/to/python" >&2; exit 1; fi; \
	echo "creating $(VENV) with $$("$$found" -V)"; \
	"$$found" -m venv $(VENV) || { rm -rf $(VENV); echo "could not create $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing mrtransfer into $(VENV): some minutes the first time, PyTorch is the large part'
	$(BIN)/python -m pip install --editable . --constraint constraints.txt
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

# --- what a newcomer runs -------------------------------------------------------------------------------------------

demo: $(INSTALLED)
	$(BIN)/mrtransfer demo

# --- what a developer runs ------------------------------------------------------------------------------------------

# One thread per test process: the processes share the cores already.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto $(PYTEST_FLAGS)

check: lint format-check types layers

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .

format-check: $(INSTALLED_DEV)
	$(BIN)/ruff format --check .

types: $(INSTALLED_DEV)
	$(BIN)/mypy

layers: $(INSTALLED_DEV)
	$(BIN)/lint-imports

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED_DEV)
	$(BIN)/python -m bench

clean:
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV)
