# What it needs: make, Python 3.11 or 3.12 (PYTHON=... names another than python3) and a package index.
PYTHON ?= python3
BIN := .venv/bin
PINNED = $(shell sed -n 's/^\($(1)==[^ ]*\).*/\1/p' locks/cpu.txt)
# What takes longest begins first, and the rest runs side by side with it: see tests/conftest.py.
WORKERS ?= 2
TESTS = -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=10 tests/e2e tests/contract tests/unit
RESOLVE = $(BIN)/uv pip compile -q pyproject.toml --custom-compile-command 'make lock'
COMPILE = $(RESOLVE) --universal --python-version 3.11
# For the image alone: the current vLLM needs packages that have no wheels for every platform.
COMPILE_SERVE = $(RESOLVE) --python-version 3.12 --python-platform x86_64-manylinux_2_39

# Python keeps the bytecode of what it imports, whatever the shell asks for. The tests start hundreds of processes, and
# each would compile vLLM, Ray or DeepSpeed anew: that was a third of their CPU time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install clients demo test test-all check format lock options docs clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install: .venv/.stamp ## make .venv: real vLLM, Ray and verl on the CPU, and the developers' tools

clients: .venv-clients/.stamp ## make .venv-clients: inspect_ai, lm-evaluation-harness and the core of tmas

demo: install ## a tiny trained policy plays all roles on vLLM: TMAS next to two baselines, in a few minutes
	@$(BIN)/tmas demo

test: check ## check, then every test but the slow ones and those that need a GPU
	@$(BIN)/pytest $(TESTS) -m "not slow and not gpu"

test-all: check ## check, then every test (those that need what is not here skip)
	@$(BIN)/pytest $(TESTS)

check: install ## lint, formatting and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright

format: install ## mend formatting and what the linter can mend
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

lock: $(BIN)/uv ## resolve locks/cpu.txt, gpu.txt, serve.txt and clients.txt again (ARGS=--upgrade for newer versions)
	$(COMPILE) --extra cpu --group dev --override locks/cpu-overrides.txt -o locks/cpu.txt $(ARGS)
	$(COMPILE) --extra gpu -o locks/gpu.txt $(ARGS)
	$(COMPILE_SERVE) --extra serve -o locks/serve.txt $(ARGS)
	$(COMPILE) --extra clients -o locks/clients.txt $(ARGS)

options: install ## write docs/options.md from the settings classes
	@$(BIN)/tmas options --markdown > docs/options.md

docs: install ## build the documentation site: build/site/index.html (warnings are errors)
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs build/site

clean: ## remove .venv and caches (not runs/)
	rm -rf .venv .venv-clients .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip takes torch first: it finds a CPU build where its own settings offer one, and PyPI's CUDA build, which serves as well, elsewhere.
# The lock is complete, so uv resolves nothing.
.venv/.stamp: pyproject.toml locks/cpu.txt packages/vllm-alias/pyproject.toml | $(BIN)/uv
	$(BIN)/pip install -q --disable-pip-version-check $(call PINNED,torch)
	$(BIN)/uv pip install -q --no-deps -r locks/cpu.txt
	$(BIN)/uv pip install -q --no-deps -e . ./packages/vllm-alias
	@touch $@

.venv-clients/.stamp: pyproject.toml locks/clients.txt | $(BIN)/uv
	$(BIN)/uv venv -q --allow-existing --python $(PYTHON) .venv-clients
	$(BIN)/uv pip install -q --python .venv-clients/bin/python --no-deps -r locks/clients.txt
	$(BIN)/uv pip install -q --python .venv-clients/bin/python --no-deps -e .
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo 'tmas needs Python 3.11 or 3.12: make PYTHON=python3.12 ...'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check $(call PINNED,uv)
