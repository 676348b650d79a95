# make demo    copies found in real footage, from nothing, with a measured uAP (VIDEOS=folder uses your own)
# make test    the test suite                make check   lint, types and tests
PYTHON ?= python3
BIN := .venv/bin
DEMO_OUTPUT ?= demo
VIDEOS ?=

.PHONY: demo test lint check clean
.DELETE_ON_ERROR:

demo: .venv/demo-ready
	$(BIN)/python -m benchmarks.demo --output $(DEMO_OUTPUT) $(if $(VIDEOS),--videos "$(VIDEOS)")

test: .venv/ready
	$(BIN)/python -m pytest -q

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

# Engines of the demo run and are built without torch, which takes gigabytes; tests need it.
.venv/demo-ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "python3 -m venv failed: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,demo]'
	touch $@

.venv/ready: .venv/demo-ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,dali,train,demo,dev,tensorrt-rtx]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
