# Every target works from a fresh clone: set-up is made first, once.
#
#   make setup     .venv with the locked packages, the Triton runtime, the generated stubs
#   make demo      from raw events to a served recommendation; DATA=<file> MAPPING=<name> ITEMS=<file>: a real shop
#   make up        start the stack on this machine; make status, make down; RUNTIME=container by Docker Compose
#   make check     what the stack needs of this machine, and the remedy for what is missing
#   make test      every test; TESTS=<paths or options> for some
#   make lint      ruff, mypy, buf
#   make bench     latency and memory of the running stack (started if need be)
#   make lock      newest versions into requirements.lock
#   make clean     remove what set-up and tests made; the shop's data in var/ stays

SHELL := /bin/bash
PYTHON ?= $(shell [ -x .venv/bin/python ] && echo .venv/bin/python || deploy/find_python.sh)
VENV_PYTHON := .venv/bin/python
DATA ?=
MAPPING ?=
ITEMS ?=
TESTS ?=
RUNTIME ?= embedded
BUF := tests/node/node_modules/@bufbuild/buf-linux-x64/bin/buf

.PHONY: setup demo up down status check test lint format bench proto lock clean

setup:
	@python="$(PYTHON)"; [ -n "$$python" ] || { echo "No Python: sudo apt-get install python3 python3-venv" >&2; exit 1; }; \
	"$$python" deploy/setup.py

demo: setup
	@$(VENV_PYTHON) -m demo run $(if $(DATA),--data "$(DATA)") $(if $(MAPPING),--mapping "$(MAPPING)") $(if $(ITEMS),--items "$(ITEMS)")

up: setup
	@$(VENV_PYTHON) -m deploy.$(RUNTIME) up

down: setup
	@$(VENV_PYTHON) -m deploy.$(RUNTIME) down

status: setup
	@$(VENV_PYTHON) -m deploy.embedded status

check: setup
	@$(VENV_PYTHON) -m deploy.embedded check

test: setup
	$(VENV_PYTHON) -m pytest $(TESTS)

lint: setup $(BUF)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy
	$(BUF) lint

format: setup
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

$(BUF): tests/node/package-lock.json
	@command -v npm > /dev/null || { echo "npm is missing, buf needs it: sudo apt-get install nodejs npm" >&2; exit 1; }
	cd tests/node && npm ci --no-fund --no-audit && touch ../../$(BUF)

bench: setup
	@$(VENV_PYTHON) -m benchmarks.latency
	@$(VENV_PYTHON) -m benchmarks.footprint

proto: setup

lock: setup
	$(VENV_PYTHON) -m deploy.lock

clean:
	@if [ -x $(VENV_PYTHON) ] && [ -e .venv/stamps/packages ]; then $(VENV_PYTHON) -m deploy.embedded down; fi
	rm -rf .venv .venv-peer .venv-peers .triton .triton.new tests/node/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find proto -name '*_pb2*' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
