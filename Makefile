PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Where the demo listens.
PORT    ?= 6726
UI_PORT ?= 3000

# Tests run side by side in this many processes.
WORKERS ?= auto

.DEFAULT_GOAL := help

help: ## Show what each target does
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; set PYTHON=/path/to/python3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed"; exit 1; }
	@echo "Installing into $(VENV), which takes a minute or two ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet 'uv>=0.5'
	@# Compiled once here: where Python may not or does not write bytecode (PYTHONDONTWRITEBYTECODE, a service whose user
	@# does not own this folder), every start of a program would compile thousands of modules, for seconds.
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q lakehouse
	@touch $@

install: $(VENV)/.installed ## Create .venv with the locked dependencies

demo: install ## Start gateway and Dagster UI, ingest a recording, read it back; ONCE=1 stops afterwards, PORT=6726 and UI_PORT=3000 can be changed
	@$(BIN)/python -m demo.run_demo --port $(PORT) --ui-port $(UI_PORT) $(if $(ONCE),--once)

engines: install ## Install the S3 server, Spark jars, Trino and browser that tests use besides Python packages
	@$(BIN)/python -m engines.install

# Tests that need one of the engines install it themselves; all of them first, and with progress, is kinder.
test: install $(if $(ARGS),,engines) ## Run every test, on SQLite and PostgreSQL (ARGS="-k name" selects, WORKERS=0 runs in one process)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

lint: install ## Check style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: install ## Bring the sources into the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: install ## Measure, and write bench/results.md
	@$(BIN)/python -m bench.run

clean: ## Remove the virtual environment and everything the demo made
	rm -rf $(VENV) .cache .lakehouse .pytest_cache .mypy_cache .ruff_cache

lock: install ## Resolve requirements.lock again from pyproject.toml
	@$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --no-annotate --universal --upgrade \
	  --python-version 3.11 --all-extras pyproject.toml requirements-build.in -o requirements.lock

.PHONY: help install demo engines test lint format bench clean lock
