# One command per job; plain `make` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help demo docs test check format bench native native-arm64 native-amd64 sanitize packages test-packages peer-packages clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: packages native ## install what is needed; one image as a container and as a vm, side by side
	PYTHONPATH=src $(PYTHON) tools/demo.py

docs: packages $(VENV)/.ready native ## the concept pages' numbers and figures, measured anew (KEEP=1: as kept)
	PYTHONPATH=src:. $(BIN)/python -m tools.docs $(if $(KEEP),--keep)

test: test-packages $(VENV)/.ready native ## the whole test suite; says what it skipped and why (TESTS=path narrows it)
	$(BIN)/python -m pytest $(TESTS)

check: $(VENV)/.ready native ## format, lint, types, layers, sizes, C under every warning and sanitizers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/layers.py
	$(BIN)/python tools/sizes.py
	@$(MAKE) --no-print-directory sanitize

format: $(VENV)/.ready ## format the Python code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: peer-packages $(VENV)/.ready native ## side by side with docker, podman and runc (ROUNDS=n, ROWS=name,name)
	$(BIN)/python -m benchmarks $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ROWS),--rows $(ROWS))

native: build/probe ## the static program (monitor and init) and the tests' probe
	@$(MAKE) --no-print-directory -C native all

native-arm64 native-amd64: ## the other processor's init, for its vms (takes its cross compiler)
	@$(MAKE) --no-print-directory -C native $@

sanitize: $(VENV)/.ready ## the native program's tests on an address- and undefined-sanitized build
	@$(MAKE) --no-print-directory -C native sanitize
	PROA_NATIVE=$(CURDIR)/build/proa-native-asan $(BIN)/python -m pytest -q tests/native

build/probe: tests/native/probe.c
	@mkdir -p build
	$(CC) -std=gnu11 -Os -D_GNU_SOURCE -Wall -Wextra -Werror -static -s -o $@ $<

packages: ## install the Debian packages Proa and its demo need
	tools/install.sh

test-packages:
	@tools/install.sh tests
	@tools/newer.sh

peer-packages:
	@tools/install.sh tests peers

clean: ## remove what was built
	rm -rf build $(VENV)

# The environment: Proa itself needs nothing but Python; the tools are for those who change it.
$(VENV)/.ready: pyproject.toml
	@echo "python environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
