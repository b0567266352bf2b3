# Telltale. `make run` shows it at work, `make test` proves it. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export TELLTALE_DATA ?= ../shared/data
export ORT_DYLIB_PATH ?= $(CURDIR)/target/onnxruntime/libonnxruntime.so
# ONNX Runtime would look up its vendor's server, from tests and from Python too.
export ORT_DISABLE_TELEMETRY := 1
# Two paths in one: the project's own tools first, whatever the machine has after them.
export PATH := $(CURDIR)/target/tools/bin:$(CURDIR)/target/venv/bin:$(PATH)

CARGO := cargo
BIN := target/release
SEED ?= 1

.PHONY: help setup setup-tests build build-all run serve test soak bench eval train train-torch fuzz lint check-path check-features check-models proto-baseline clean

help: ## Lists the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: ## ONNX Runtime, checked by digest, into target/onnxruntime
	@training/setup_ort.sh

build: ## Builds the binaries
	@$(CARGO) build --release --locked -p telltale-service -p telltale-proxy

# One set of units for programs and tests, so that no check compiles a dependency a second time.
build-all: setup
	@$(CARGO) build --release --locked --workspace --lib --bins --tests

run: setup build ## Shows an attack being caught: fourteen simulated days, then a live minute
	@$(BIN)/telltale demo --seed $(SEED)

serve: setup build ## The same, and stays up
	@$(BIN)/telltale demo --seed $(SEED) --stay

setup-tests: setup ## Everything that the tests need
	@tests/setup.sh
	@training/setup_python.sh

test: setup-tests ## Every suite
	@tests/run.sh

lint: setup-tests ## Formatting, lints, documentation, contract, licences
	@tests/lint.sh

soak: setup-tests build-all ## The same suites and the checks of features and models at full size
	@tests/soak.sh

bench: setup-tests build-all ## One table of measured figures: target/bench/summary.json
	@tests/bench.sh

eval: setup build ## Detection on held-apart simulated traffic: target/eval/summary.json
	@$(BIN)/telltale eval --out target/eval/summary.json

train: setup setup-tests build ## Regenerates the shipped models in models/default
	@training/train.sh

train-torch: ## Rebuilds the autoencoder of the tests with PyTorch, which is downloaded: gigabytes
	@training/setup_python.sh requirements-torch.txt venv-torch
	@target/venv-torch/bin/python training/build_autoencoder.py

fuzz: ## Feeds random bytes to every parser for a while
	@tests/fuzz.sh

check-path: setup-tests build-all ## What the main job requires, each figure beside its bar
	@python3 tests/check_path.py

check-features: setup-tests build-all ## What state in Redis requires, each figure beside its bar
	@python3 tests/check_features.py

check-models: setup-tests build-all ## What the models' issue requires, each figure beside its bar
	@python3 tests/check_models.py

proto-baseline: setup-tests ## Accepts the contract as it stands as the one to stay compatible with
	@cd proto && buf build -o baseline.binpb

clean: ## Removes what was built; the journal and the data directory are elsewhere
	@$(CARGO) clean
