# Two commands on a fresh machine: `make demo` and `make test`.
# The package is installed editable, so an edit of the source needs no reinstall; an edit of pyproject.toml, of the pins
# or of this file does, and gets one at the next call.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PINS := .ci/constraints.txt
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow coverage lint format types notebooks dev clean distclean

help: ## show this list
	@echo "make TARGET [PYTHON=python3] [VENV=.venv] [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed-test ## set up and run `otgan demo` (ARGS are passed on)
	$(BIN)/otgan demo $(ARGS)

test: $(VENV)/.installed-test ## set up and run the default test suite (ARGS are passed to pytest)
	$(BIN)/pytest $(ARGS)

slow: $(VENV)/.installed-test ## run the slow tests, which the default suite leaves out
	$(BIN)/pytest -m slow $(ARGS)

coverage: $(VENV)/.installed-test ## run the default test suite and report the lines it misses
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered $(ARGS)

lint: $(VENV)/.installed-dev ## check style and formatting, change nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## apply the safe style fixes and the formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev ## type-check the package as a user installs it, from its wheel
	VENV=$(VENV) .ci/types

notebooks: $(VENV)/.installed-dev ## execute the notebooks at small size, writing nothing back
	@$(if $(NOTEBOOKS),,echo "no notebooks to execute")
	@set -e; for notebook in $(NOTEBOOKS); do \
	  echo "executing $$notebook"; \
	  OTGAN_NOTEBOOK_SMALL=1 MPLBACKEND=agg $(BIN)/jupyter-execute --timeout=900 --kernel_name=python3 "$$notebook"; \
	done

dev: $(VENV)/.installed-dev ## set up for development, everything included

clean: ## delete what builds, tests and tools left, keep the environment
	rm -rf build dist otgan.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find otgan kernels tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and delete the environment too
	rm -rf $(VENV)

# --- set-up: one stamp per set of extras, so that a second run installs nothing ---

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "make: no Python interpreter '$(PYTHON)'; name one of version 3.10 or later: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: otgan needs Python 3.10 or later, '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1); name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' cannot make virtual environments; install its venv package (Debian, Ubuntu: python3-venv) or name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"

# .installed-test is the library and what its tests need, .installed-dev everything (so it settles both).
$(VENV)/.installed-%: pyproject.toml $(PINS) Makefile | $(BIN)/python
	$(BIN)/python -m pip install -c $(PINS) -e ".[$*]"
	@touch $@ $(VENV)/.installed-test
