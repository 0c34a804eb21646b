# The words to type. What each does stands in scripts/; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
ARGS ?=

.PHONY: help install demo demo-cluster cluster cluster-stop lab test test-faults test-light lint docs lock \
	dataset clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Debian packages (as root), .venv with pinned dependencies, this checkout
	@scripts/install

demo: install ## watch, learn, approve, enforce: the whole loop on a real small application
	@$(BIN)/portforge demo $(ARGS)

cluster: install ## a real Kubernetes of three nodes on this machine (root; 12 minutes the first time)
	@scripts/cluster up

cluster-stop: install ## stop it and leave nothing but the cached binaries and images
	@scripts/cluster down

demo-cluster: install ## the whole loop on a real cluster: its own, or the one of KUBECONFIG
	@scripts/cluster demo $(ARGS)

lab: install ## JupyterLab on notebooks/ with the shipped capture (or PORTFORGE_CAPTURE); NOTEBOOK=02 opens that one
	@scripts/lab "$(or $(NOTEBOOK),01)" $(ARGS)

test: install ## lint, types, generated docs, unit, kernel, notebook and cluster tests (all but test-faults)
	@scripts/check
	@scripts/cluster build
	@$(BIN)/pytest -m "not faults" $(ARGS)

test-faults: install ## stop parts of a real cluster under load, upgrade, iptables: 20 minutes, a quiet machine
	@scripts/cluster build
	@$(BIN)/pytest -m faults tests/cluster $(ARGS)

test-light: install ## unit tests only: no root, no kernel, seconds
	@$(BIN)/pytest portforge recorder tests/unit $(ARGS)

lint: install ## ruff, mypy and the check of generated docs
	@scripts/check

docs: install ## write the generated parts of docs/ again
	@scripts/docs

lock: install ## pin the dependencies again (ARGS=--upgrade takes the newest)
	@scripts/lock $(ARGS)

dataset: install ## record datasets/shop again from the demo's application (root; ARGS="--seconds 60")
	@$(BIN)/portforge demo --dataset datasets/shop $(ARGS)

clean: ## remove caches, build results and .venv
	@rm -rf .venv build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
