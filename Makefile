# Two commands do everything: `make run` and `make test`. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MESSAGES := $(shell find protos/joulegate -name '*.proto' ! -name '*_service.proto')
SERVICES := $(shell find protos/joulegate -name '*_service.proto')

.DEFAULT_GOAL := help

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## Build .venv with the program .venv/bin/joulegate

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

install-dev: $(VENV)/.installed-dev

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml tests/npm/package-lock.json
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	if command -v npm >/dev/null; then cd tests/npm && npm ci --silent --no-audit --no-fund; fi
	touch $@ $(VENV)/.installed

run: install ## Start Envoy and the four services on loopback
	$(BIN)/joulegate up

lock: ## Resolve the dependencies anew, with hashes
	$(BIN)/uv pip compile pyproject.toml --extra envoy --extra build --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -U -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra envoy --extra build --group dev --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -U -o requirements-dev.lock

gen: install-dev ## Write gen/ from protos/
	rm -rf gen/joulegate && mkdir -p gen/joulegate && touch gen/joulegate/py.typed
	$(BIN)/python -m grpc_tools.protoc -I protos --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--python_out=gen --mypy_out=quiet:gen $(MESSAGES) $(SERVICES)
	$(BIN)/python -m grpc_tools.protoc -I protos --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--grpc_python_out=gen --mypy_grpc_out=quiet,only_async:gen $(SERVICES)
	$(BIN)/buf build -o gen/joulegate/joulegate.binpb

gen-check: gen ## Fail when gen/ is not what protos/ say
	@test -z "$$(git status --porcelain gen)" || { git status --short gen; echo 'gen/ is stale: run make gen and commit it'; exit 1; }

docs: install-dev ## Write docs/configuration.md and docs/providers.md from the code
	$(BIN)/python -m services.reference docs

format: install-dev ## Format Python and protobuf
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/buf format -w

lint: install-dev gen-check ## Everything that reads the code without running it
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	if git rev-parse --verify --quiet main >/dev/null; then $(BIN)/buf breaking --against '.git#branch=main'; fi

unit: install-dev ## The tests that start no process
	$(BIN)/pytest tests/unit tests/contract tests/properties tests/adapters

test: lint ## All that CI runs
	$(BIN)/pytest -n auto --dist loadgroup

.PHONY: help install install-dev run lock gen gen-check docs format lint unit test
