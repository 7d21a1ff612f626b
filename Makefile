# Each target sets up what it needs. The environment is made once, and again only when
# pyproject.toml or constraints.txt changes.
PYTHON ?= python3
HARDWARE := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
BIN := .venv/bin

.PHONY: demo test lint

demo: .venv/installed
	$(BIN)/lafite-bench run elpv --preset quick --seeds 2 -m lafite -m uniad -m patchcore

test: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lafite-bench needs Python 3.11 or later; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$(HARDWARE),demo,dev]'
	touch $@
