.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
# Each Python process would compile its modules again: a third of the CPU time of its start.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
BUF := $(BIN)/buf
PROTOS := $(sort $(wildcard protos/modelregistry/v1/*.proto protos/modelregistry/*/v1/*.proto))

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | sort | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

# ---- install -----------------------------------------------------------------

# Print each step and the seconds since the first one: the first installation takes minutes.
say = @printf '%s\n' "[$$(( $$(date +%s) - $(MADE) )) s] $(1)"
MADE := $(shell date +%s)
# Print a line for each downloaded package.
PIP_INSTALL = $(BIN)/pip install --disable-pip-version-check --progress-bar off --no-input
DOWNLOADS = | awk '/^ +Downloading / { print "    " $$2, $$3, $$4; fflush() }'

.venv/.run: requirements.lock pyproject.toml client/pyproject.toml
	$(call say,Creating .venv)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(call say,Installing the dependencies: about 80 MB of downloads at first)
	@$(PIP_INSTALL) --require-hashes -r requirements.lock $(DOWNLOADS)
	$(call say,Installing the product)
	@$(PIP_INSTALL) --quiet --no-deps --editable ./client --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.run
	$(call say,Installing the dependencies of tests and linters)
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock $(DOWNLOADS)
	@touch $@

.PHONY: install
install: .venv/.run ## Create .venv with .venv/bin/model-registry and .venv/bin/mreg

.PHONY: install-dev
install-dev: .venv/.dev ## The same with the dependencies of tests, linters and code generation

.venv/.bench: requirements-bench.lock .venv/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	touch $@

# The oldest supported gRPC tools have wheels for these Pythons.
STUBS_PYTHON = $(shell for python in $(PYTHON) python3.13 python3.12 python3.11 python3.10; do \
	"$$python" -c 'import sys, venv; sys.exit(sys.version_info >= (3, 14))' 2>/dev/null && echo "$$python" && break; done)

.build/stubs/.done: requirements-stubs.lock
	$(call say,Creating the environment of the oldest supported gRPC tools)
	@[ -n "$(STUBS_PYTHON)" ] || { echo "To generate the stubs, install Python 3.10, 3.11, 3.12 or 3.13 with venv."; exit 1; }
	@rm -rf .build/stubs && $(STUBS_PYTHON) -m venv .build/stubs
	@.build/stubs/bin/pip install --disable-pip-version-check --quiet --no-input --require-hashes -r requirements-stubs.lock
	@touch $@

.venv/.docs: requirements-docs.lock .venv/.run
	$(call say,Installing what the documentation needs)
	@$(PIP_INSTALL) --require-hashes -r requirements-docs.lock $(DOWNLOADS)
	@touch $@

# The client is installed from its folder, so its dependencies are locked, but not itself.
UV_COMPILE = uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-package modelreg \
	--custom-compile-command "make lock"

.PHONY: lock
lock: ## Regenerate the lock files from pyproject.toml and client/pyproject.toml (needs uv)
	$(UV_COMPILE) --extra embedded --extra otel -o requirements.lock pyproject.toml
	$(UV_COMPILE) --extra embedded --extra otel --group dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(UV_COMPILE) --group bench -c requirements-dev.lock -o requirements-bench.lock
	$(UV_COMPILE) --group docs -c requirements-dev.lock -o requirements-docs.lock
	$(UV_COMPILE) --group client/pyproject.toml:stubs -o requirements-stubs.lock

# ---- run and test --------------------------------------------------------------

.PHONY: run
run: install ## Install everything and run the whole product with embedded defaults
	$(BIN)/model-registry up

# Files, folders and ids of tests, or an expression for pytest's -k: T=tests/unit, T="upload and not s3".
T ?= $(TESTS)
SELECTED = $(if $(wildcard $(firstword $(subst ::, ,$(T)))),$(T),$(if $(T),-k "$(T)"))
# Several workers, over which tests/parallel.py distributes the tests. Without `env`, each would rewrite the assertions of
# its plugins again where the variable is set: they are loaded before conftest.py.
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n auto --dist loadgroup --no-loadscope-reorder

.PHONY: test
test: install-dev ## Install everything and run the tests (T=... selects some: a path, or an expression)
	$(PYTEST) $(SELECTED)

.PHONY: test-unit
test-unit: install-dev ## Run the tests that need no server, in less than a minute
	$(PYTEST) tests/unit tests/contracts/test_local_artifact_store.py

.PHONY: bench
bench: .venv/.bench ## Measure the performance relative to bare equivalents (a quarter of an hour)
	$(BIN)/python -m benchmarks

.PHONY: bench-quick
bench-quick: .venv/.bench ## A shorter benchmark, in under four minutes
	$(BIN)/python -m benchmarks --quick

# ---- code generation -----------------------------------------------------------

# protos/google comes from the wheel whose stubs ours import.
define copy_googleapis_into
	mkdir -p $(1)/google/{api,rpc}
	cp $$($(BIN)/python -c 'import google.api as m; print(m.__path__[0])')/{annotations,field_behavior,http,httpbody}.proto $(1)/google/api/
	cp $$($(BIN)/python -c 'import google.rpc as m; print(m.__path__[0])')/{error_details,status}.proto $(1)/google/rpc/
endef

# The plugin of the types writes no code that runs, so it may be newer.
PROTOC = .build/stubs/bin/python -m grpc_tools.protoc --plugin=$(CURDIR)/$(BIN)/protoc-gen-mypy_grpc --proto_path=protos

# Writes into the folder $(1): modelregistry/, which the client's distribution contains, with stubs, types and the service
# config of gRPC clients, and gateway_files/, which the server's contains, with the descriptor set that Envoy loads and the
# OpenAPI document. No RPC names the messages of google.rpc, but without them Envoy cannot write an error's details as JSON.
# Writes the reference pages of the documentation into the folder $(2), and the synchronous client into the folder $(3).
define generate_into
	rm -rf $(1) && mkdir -p $(1)/{modelregistry,gateway_files} .build
	$(PROTOC) --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) \
		--include_source_info --descriptor_set_out=.build/commented.binpb $(PROTOS)
	$(PROTOC) --include_imports \
		--descriptor_set_out=$(1)/gateway_files/descriptor.binpb $(PROTOS) google/rpc/{error_details,status}.proto
	$(BIN)/python gateway/openapi.py .build/commented.binpb gateway/{compat,typed}_api.yaml gateway/examples.json >$(1)/gateway_files/openapi.json
	$(BIN)/python gateway/service_config.py .build/commented.binpb >$(1)/modelregistry/service_config.json
	cp client/stubs_init.py $(1)/modelregistry/__init__.py
	touch $(1)/modelregistry/{py.typed,{,compat/,geti/}v1/__init__.py,{compat,geti}/__init__.py}
	mkdir -p $(2)
	$(BIN)/python -m docs.generators.errors .build/commented.binpb >$(2)/errors.md
	$(BIN)/python -m docs.generators.api .build/commented.binpb >$(2)/api.md
	$(BIN)/python -m docs.generators.settings >$(2)/settings.md
	$(BIN)/python -m docs.generators.command_line >$(2)/command-line.md
	$(BIN)/python -m docs.generators.mreg >$(2)/mreg.md
	$(BIN)/python client/generate_sync.py $(3)
endef

.PHONY: generate
generate: install-dev .build/stubs/.done ## Generate stubs, the synchronous client, Envoy's descriptor set and the reference pages
	$(call copy_googleapis_into,protos)
	$(call generate_into,generated,docs/reference,client/modelreg/_sync)

.PHONY: check-generate
check-generate: install-dev .build/stubs/.done ## Fail when a generated file is out of date
	rm -rf .build/client
	$(call generate_into,.build/generated,.build/reference,.build/client/modelreg/_sync)
	diff -r --exclude=__pycache__ .build/generated generated
	diff -r --exclude=__pycache__ --exclude=__init__.py --exclude=runtime.py .build/client/modelreg/_sync client/modelreg/_sync
	for page in errors api settings command-line mreg; do diff .build/reference/$$page.md docs/reference/$$page.md; done
	$(call copy_googleapis_into,.build/googleapis)
	diff -r .build/googleapis/google protos/google

.PHONY: breaking
breaking: install-dev ## Fail when protos/ breaks clients of the last release (tag v*)
	rm -rf .build/breaking && mkdir -p .build/breaking
	@if ! release=$$(git describe --tags --abbrev=0 --match='v*' HEAD 2>/dev/null); then \
		echo "There is no release to compare with."; \
		exit; \
	fi; \
	echo "Comparing with $$release"; \
	git archive "$$release" buf.yaml protos | tar -x -C .build/breaking; \
	$(BUF) breaking --against .build/breaking

# ---- documentation --------------------------------------------------------------

.PHONY: docs
docs: .venv/.docs ## Build the documentation as a site in .build/docs; every warning is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -d .build/doctrees docs .build/docs
	@echo "The documentation is in .build/docs/index.html."

# ---- lint ----------------------------------------------------------------------

.PHONY: lint
lint: install-dev ## Check formatting, types, protos, the import rules and the words
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version=3.10 client/modelreg
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_vocabulary.py
	$(BIN)/python .ci/check_paths.py
	$(BUF) format --diff --exit-code --path protos/modelregistry
	$(BUF) lint
	@if [ -n "$${API_LINTER_BINARY:-}" ]; then \
		echo "$$API_LINTER_BINARY"; \
		cd protos && "$$API_LINTER_BINARY" --config ../.api-linter.yaml --set-exit-status -I . $(PROTOS:protos/%=%); \
	else \
		echo "Without api-linter, as API_LINTER_BINARY is not set."; \
	fi

.PHONY: format
format: install-dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BUF) format --write --path protos/modelregistry
