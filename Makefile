# Environments of the programs: .venv/gateway without torch, .venv/bentos with torch, .venv/gpu with NVML only.
PYTHON ?= python3.11
GATEWAY := .venv/gateway/bin/python
BENTOS := .venv/bentos/bin/python

# Environments of the running programs, and stamps of the tools for checks and tests installed into them. Each is made
# once, and made from scratch when its lock changes.
GATEWAY_ENV := .venv/gateway/.made
BENTOS_ENV := .venv/bentos/.made
GPU_ENV := .venv/gpu/.made
PEERS_ENV := .venv/peers/.made
GATEWAY_TEST_ENV := .venv/gateway/.made-test
BENTOS_TEST_ENV := .venv/bentos/.made-test
CLIENTS_ENV := .venv/clients/.made

PIP_INSTALL := -m pip install --quiet --quiet --disable-pip-version-check
# The lock names every package, so pip has nothing to resolve; `pip check` proves that nothing is missing.
FROM_LOCK := $(PIP_INSTALL) --no-deps --requirement

# Three targets at a time, for environments and tests, which often wait. A make that is started by another shares its
# jobs.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += --jobs=3
endif

# Runs targets in parallel; prints the output of each when it ends.
IN_PARALLEL := $(MAKE) --no-print-directory --keep-going --output-sync=target

# Makes the environment in the folder of the stamp $@ from the lock $<. torch comes first and by its public version, so
# that pip takes the build for this machine, with its dependencies.
define new_environment
	@echo "==> $(@D): making the environment"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) --upgrade --constraint requirements/gateway-test.txt pip
	@if grep -q '^torch==' $<; then \
		echo "==> $(@D): installing torch, the largest package"; \
		$(@D)/bin/python $(PIP_INSTALL) --constraint $< torch; \
	fi
	@echo "==> $(@D): installing $$(grep -c '^[a-z].*==' $<) packages"
	@$(@D)/bin/python $(FROM_LOCK) $<
	@$(@D)/bin/python -m pip --disable-pip-version-check check
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(GATEWAY_ENV) $(BENTOS_ENV) $(GPU_ENV) ## Start the stack, answer three questions, stop
	@$(GATEWAY) -m demo

.PHONY: up
up: $(GATEWAY_ENV) $(BENTOS_ENV) $(GPU_ENV) ## Start the stack and keep it running until Ctrl-C
	@$(GATEWAY) -m torchless.cli up

.PHONY: test
test: $(GATEWAY_TEST_ENV) $(BENTOS_TEST_ENV) $(GPU_ENV) $(CLIENTS_ENV) ## Run every test, in every environment
	@echo "==> running test-bentos, test-integration, test-unit, test-e2e and test-clients; each prints when it ends"
	@failed=0; \
	$(IN_PARALLEL) test-bentos test-integration test-unit test-e2e test-clients || failed=1; \
	$(MAKE) --no-print-directory test-resilience || failed=1; \
	exit $$failed

.PHONY: test-bentos
test-bentos: $(BENTOS_TEST_ENV) ## Run the tests that need torch
	@echo "==> test-bentos: tests that need torch, in .venv/bentos"
	@$(BENTOS) -m pytest -m "torch and not gpu"

.PHONY: test-unit
test-unit: $(GATEWAY_TEST_ENV) ## Run the unit and architecture tests that need no torch
	@echo "==> test-unit: unit and architecture tests that need no torch, in .venv/gateway"
	@$(GATEWAY) -m pytest -m "not torch and not gpu" tests/unit tests/architecture

.PHONY: test-integration
test-integration: $(GATEWAY_TEST_ENV) $(BENTOS_ENV) $(GPU_ENV) ## Run the integration tests that need no torch
	@echo "==> test-integration: integration tests that need no torch, in .venv/gateway"
	@$(GATEWAY) -m pytest -m "not torch and not gpu" tests/integration

.PHONY: test-e2e
test-e2e: $(GATEWAY_TEST_ENV) $(BENTOS_ENV) $(GPU_ENV) ## Run the tests of the whole stack
	@echo "==> test-e2e: the whole stack, in .venv/gateway"
	@$(GATEWAY) -m pytest -m "not torch and not gpu" tests/e2e

.PHONY: test-clients
test-clients: $(GATEWAY_ENV) $(BENTOS_ENV) $(GPU_ENV) $(CLIENTS_ENV) ## Run third-party API clients against the stack
	@echo "==> test-clients: third-party API clients against the stack, in .venv/clients"
	@.venv/clients/bin/python -m pytest tests/compat

.PHONY: test-resilience
test-resilience: $(GATEWAY_TEST_ENV) $(BENTOS_ENV) ## Break the stack under load; measures time, so run it alone
	@echo "==> test-resilience: faults under load, in .venv/gateway"
	@$(GATEWAY) -m pytest -m "not torch and not gpu" tests/resilience

.PHONY: lint
lint: $(GATEWAY_TEST_ENV) $(BENTOS_TEST_ENV) ## Check style, types, imports between packages, and the stubs
	@$(IN_PARALLEL) lint-gateway lint-bentos

.PHONY: lint-gateway
lint-gateway:
	$(GATEWAY) -m ruff check .
	$(GATEWAY) -m ruff format --check .
	.venv/gateway/bin/lint-imports
	$(GATEWAY) -m torchless.contracts.generate --check
	$(GATEWAY) -m torchless.clients.sync.generate --check
	$(GATEWAY) -m mypy torchless gateway demo docs requirements benchmarks --exclude benchmarks/gpu_check

.PHONY: lint-bentos
lint-bentos:
	$(BENTOS) -m mypy bentos benchmarks/gpu_check

.PHONY: lock
lock: $(GATEWAY_TEST_ENV) ## Write the lock files from pyproject.toml, keeping versions that still fit
	$(GATEWAY) -m requirements.lock

.PHONY: stubs
stubs: $(GATEWAY_TEST_ENV) ## Generate the gRPC stubs from the protos
	$(GATEWAY) -m torchless.contracts.generate
	$(GATEWAY) -m torchless.clients.sync.generate

.PHONY: docs
docs: $(GATEWAY_TEST_ENV) ## Generate docs/configuration.md and the error table
	$(GATEWAY) -m docs.configuration_tables
	$(GATEWAY) -m docs.error_policy_table
	$(GATEWAY) -m docs.metrics_tables
	$(GATEWAY) -m docs.headline
	$(GATEWAY) -m docs.request_fields

.PHONY: bench
bench: $(GATEWAY_ENV) $(BENTOS_ENV) $(GPU_ENV) $(PEERS_ENV) ## Measure the speed of the stack, direct calls and infinity
	$(GATEWAY) -m benchmarks

.PHONY: quality
quality: $(GATEWAY_ENV) $(BENTOS_ENV) $(GPU_ENV) ## Measure how much reranking improves retrieval; COLLECTION=folder for the data
	$(GATEWAY) -m benchmarks.quality $(if $(COLLECTION),--collection "$(COLLECTION)")

# For a machine with its own PyTorch: `make gpu-check GPU_PYTHON=python3`.
GPU_PYTHON ?= $(BENTOS)
.PHONY: gpu-check
gpu-check: $(if $(filter $(BENTOS),$(GPU_PYTHON)),$(BENTOS_TEST_ENV)) ## Check a machine with a GPU: fidelity, throughput, tests; six minutes
	@$(GPU_PYTHON) -m benchmarks.gpu_check $(GPU_CHECK_OPTIONS)

.PHONY: chaos
chaos: $(GATEWAY_TEST_ENV) $(BENTOS_ENV) ## Run the fault tests: break the stack in twelve ways under load
	@TORCHLESS_CHAOS=full $(GATEWAY) -m pytest tests/resilience

.PHONY: soak
soak: $(GATEWAY_TEST_ENV) ## Run ten minutes at 80% load and check that memory does not grow
	@TORCHLESS_CHAOS=full TORCHLESS_CHAOS_SOAK_S=600 $(GATEWAY) -m pytest tests/resilience/test_soak.py

.PHONY: clean
clean: ## Remove the environments, caches and the state of the stack
	rm -rf .venv .torchless .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info

$(GATEWAY_ENV): requirements/gateway.txt
	$(new_environment)
	@echo "==> .venv/gateway: installing torchless itself"
	@$(GATEWAY) $(PIP_INSTALL) --no-deps --editable .
	@touch $@

$(BENTOS_ENV): bentos/embedding/requirements.txt
	$(new_environment)
	@touch $@

$(GPU_ENV): bentos/gpu/requirements.txt
	$(new_environment)
	@touch $@

$(PEERS_ENV): requirements/peers.txt
	$(new_environment)
	@touch $@

$(CLIENTS_ENV): requirements/clients.txt
	$(new_environment)
	@touch $@

$(GATEWAY_TEST_ENV): requirements/gateway-test.txt $(GATEWAY_ENV)
	@echo "==> .venv/gateway: adding the tools for checks and tests"
	@$(GATEWAY) $(FROM_LOCK) $<
	@$(GATEWAY) -m pip --disable-pip-version-check check
	@touch $@

$(BENTOS_TEST_ENV): requirements/bentos-test.txt $(BENTOS_ENV)
	@echo "==> .venv/bentos: adding the tools for checks and tests"
	@$(BENTOS) $(FROM_LOCK) $<
	@$(BENTOS) -m pip --disable-pip-version-check check
	@touch $@
