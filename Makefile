# Two commands on a fresh machine: `make demo` and `make test`. Both install what they need.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help setup setup-moe models demo test check check-chart test-cluster test-keda images proto clean

PYTHON ?= python3
# uv is used where it stands; else it is put into a folder of its own, without touching the system's Python.
UV := $(shell command -v uv 2>/dev/null || echo .cache/uv/bin/uv)

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.cache/uv/bin/uv:
	@echo "uv not found: installing it into .cache/uv"
	@$(PYTHON) -m venv .cache/uv
	@.cache/uv/bin/python -m pip install --quiet 'uv>=0.7'

setup: $(filter .cache/%,$(UV)) ## Install everything the other targets need (they call it)
	@$(UV) sync --quiet --frozen --inexact

# torch and transformers: PyPI's torch for Linux brings CUDA, 3.0 GB to download and 5.6 GB on disk.
setup-moe: setup ## Also install what the mixture-of-experts library needs (`check` calls it)
	@$(UV) sync --quiet --frozen --inexact --group moe

models: setup ## Fetch, convert and verify the detection models
	@$(UV) run --no-sync python -m skyscraper.models

demo: setup ## The main job on a real broker: a day of eight street cameras in, table rows out
	@$(UV) run --no-sync skyscraper demo

check: setup-moe ## Lint, types, import rules, protos, unit tests: under two minutes
	@$(UV) run --no-sync ruff check .
	@$(UV) run --no-sync ruff format --check .
	@$(UV) run --no-sync mypy
	@$(UV) run --no-sync lint-imports
	@$(UV) run --no-sync buf lint proto
	@$(UV) run --no-sync python tools/write_reference.py --check
	@$(UV) run --no-sync pytest -q -n auto tests/unit

check-chart: setup ## The Helm chart: schema, lint, unit tests, alerts, what the services say to it (installs helm)
	@tools/kubernetes/install.sh chart
	@$(UV) run --no-sync python tools/write_chart.py --check
	@$(UV) run --no-sync python tools/write_dashboards.py --check
	@$(UV) run --no-sync pytest -q tests/chart

images: setup ## Build the images of all services (docker, podman or buildah)
	@deploy/images/build.sh

test-cluster: setup models ## The whole chart on a real Kubernetes of two nodes; builds it the first time (root, apt and Go)
	@tools/kubernetes/install.sh cluster
	@UV="$(UV)" tools/kubernetes/test_images.sh
	@SPOT_IMAGES="inference.tar models.tar pause.tar" tools/kubernetes/cluster.sh \
	  $(UV) run --no-sync pytest -q -x -s tests/cluster/test_chart_on_kubernetes.py

test-keda: setup models ## The burst pool scaled by a real KEDA in that cluster; builds it too (not part of any other)
	@tools/kubernetes/install.sh keda
	@UV="$(UV)" tools/kubernetes/test_images.sh
	@UV="$(UV)" tools/kubernetes/test_images.sh keda
	@SPOT_IMAGES="inference.tar models.tar pause.tar keda.tar" tools/kubernetes/cluster.sh \
	  $(UV) run --no-sync pytest -q -x -s tests/cluster/test_scaling_by_keda.py

test: setup models check check-chart ## Everything, against a real broker
	@$(UV) run --no-sync pytest -n auto --dist loadfile --no-loadscope-reorder tests/chaos tests/integration tests/docs

proto: setup ## Generate the Python code of proto/ again
	@$(UV) run --no-sync python -m grpc_tools.protoc -I proto \
	  --python_out=libs/skyscraper/src --mypy_out=libs/skyscraper/src proto/skyscraper/*/*.proto
	@$(UV) run --no-sync python -m grpc_tools.protoc -I proto \
	  --grpc_python_out=libs/skyscraper/src --mypy_grpc_out=libs/skyscraper/src \
	  proto/skyscraper/v1/burst.proto proto/skyscraper/keda/externalscaler.proto

clean: ## Remove the virtual environment and build products (downloads stay in the user's cache)
	@rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache out
