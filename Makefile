# One command per job; plain `make` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CC     ?= gcc

WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
          -Wmissing-prototypes -Wwrite-strings -Wformat=2 -Wundef -Wvla -Werror
CFLAGS := -std=gnu11 -O2 -g0 -fno-plt -fstack-protector-strong -D_GNU_SOURCE -Inative $(WARN)
SAN    := -std=gnu11 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
          -fno-sanitize-recover=all -D_GNU_SOURCE -Inative $(WARN)
SOURCES := $(wildcard native/*.c)
HEADERS := $(wildcard native/*.h)

.PHONY: help demo test check format bench native sanitize fuzz packages clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: packages $(VENV)/.ready native ## install what is needed; one image as a container and as a vm, side by side
	$(BIN)/python tools/demo.py

test: $(VENV)/.ready native ## the whole test suite; says what it skipped and why (TESTS=path narrows it)
	$(BIN)/python -m pytest $(TESTS)

check: $(VENV)/.ready native sanitize ## format, lint, types, layers, sizes, C under every warning and sanitizers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/layers.py
	$(BIN)/python tools/sizes.py

format: $(VENV)/.ready ## format the Python code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready native ## side by side with docker, podman and runc (ROUNDS=n, ROWS=name,name)
	$(BIN)/python -m benchmarks $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ROWS),--rows $(ROWS))

native: build/proa-native build/probe ## the static program (monitor and init) and the tests' probe

sanitize: $(VENV)/.ready build/proa-native-sanitized build/probe ## the native program's tests on an address- and undefined-sanitized build
	PROA_NATIVE=$(CURDIR)/build/proa-native-sanitized $(BIN)/python -m pytest -q tests/native

fuzz: build/fuzz-plan ## a minute of random plans and frames against the decoders
	build/fuzz-plan -max_total_time=60 -max_len=4096

packages: ## install the Debian packages Proa and its demo need
	tools/install.sh

clean: ## remove what was built
	rm -rf build $(VENV)

build/proa-native: $(SOURCES) $(HEADERS) Makefile | build
	$(CC) $(CFLAGS) -static -s -o $@ $(SOURCES)

build/proa-native-sanitized: $(SOURCES) $(HEADERS) Makefile | build
	$(CC) $(SAN) -o $@ $(SOURCES)

build/probe: tests/native/probe.c Makefile | build
	$(CC) -std=gnu11 -Os -D_GNU_SOURCE -Wall -Wextra -Werror -static -s -o $@ $<

build/fuzz-plan: tests/native/fuzz_plan.c $(SOURCES) $(HEADERS) Makefile | build
	clang -std=gnu11 -O1 -g -D_GNU_SOURCE -Inative -fsanitize=fuzzer,address,undefined -o $@ \
		tests/native/fuzz_plan.c $(filter-out native/main.c,$(SOURCES))

build:
	mkdir -p $@

# The environment: Proa itself needs nothing but Python; the tools are for those who change it.
$(VENV)/.ready: pyproject.toml
	@echo "python environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
