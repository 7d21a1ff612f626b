# Each target sets up what it needs. The environment is made once, and again only when
# pyproject.toml or constraints.txt changes.
PYTHON ?= python3
HARDWARE := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
BIN := .venv/bin
COMMA := ,
# What was compiled is kept, wherever a shell says otherwise: each process would compile for seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all lint browser

demo: .venv/ready
	$(BIN)/lafite-bench run elpv --preset quick --seeds 2 -m lafite -m uniad -m patchcore
	$(BIN)/lafite-bench report --format html

# Two files at a time, as tests that start processes wait for them half of the time. A process of
# pytest that dies names its test; one started in its place would be waited for without end.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: .venv/installed
	$(PYTEST)

# What `test` leaves out by its marker (pyproject.toml says what each means) comes after it.
test-all: test
	$(PYTEST) -m "slow or cluster or browser"

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# For the tests that open the HTML report: the system's Chromium, else one from its packages, else
# Playwright's own. Never an error: without any they are skipped.
browser: .venv/installed
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		timeout 300 sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq -y --no-install-recommends chromium' >/dev/null && exit 0; \
	fi; \
	timeout 300 $(BIN)/python -m playwright install chromium || \
		echo "no Chromium could be installed: tests that open the HTML report are skipped"

# uv installs in a third of pip's time, and pip serves without it. It is given pip's own settings, from
# its files, then from variables: of two lines for one setting the last holds.
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV_OF_PIP := s/^.*\.extra.index.url=/UV_INDEX=/p; s/^.*\.index.url=/UV_DEFAULT_INDEX=/p; \
	s/^.*\.find.links=/UV_FIND_LINKS=/p; s/^.*\.cert=/SSL_CERT_FILE=/p

define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lafite-bench needs Python 3.11 or later; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install -q uv || true
	@echo "installing .[$(1)]"; \
	eval env VIRTUAL_ENV=.venv $$($(PIP) config list | sort -r | sed -n '$(UV_OF_PIP)') \
		$(BIN)/uv pip install -q --index-strategy unsafe-best-match -c constraints.txt -e "'.[$(1)]'" || \
	$(PIP) install -q -c constraints.txt -e '.[$(1)]'
	touch $@
endef

# What the demo needs, and what development needs beside it.
.venv/ready: pyproject.toml constraints.txt
	$(call install,$(HARDWARE)$(COMMA)demo)

.venv/installed: pyproject.toml constraints.txt
	$(call install,$(HARDWARE)$(COMMA)demo$(COMMA)dev)
