# make demo    copies found in real footage, from nothing, with a measured uAP (VIDEOS=folder uses your own)
# make test    the test suite                make check   lint, types and tests
# make test-long  the tests that `make test` leaves out, in a few minutes more
# make test-gpu   the tests that need a GPU; fails where there is none
# make faults     kills, full disks and damaged files, a thousand times; an hour
# make docs       the documentation with the reference of the Python API, as a site in site/
# make gpu-lines  the lines of the GPU code that the test suite did not run
PYTHON ?= python3
BIN := .venv/bin
DEMO_OUTPUT ?= demo
VIDEOS ?=

.PHONY: demo test test-long test-gpu faults docs gpu-lines lint check clean
.DELETE_ON_ERROR:

demo: .venv/demo-ready
	$(BIN)/python -m benchmarks.demo --output $(DEMO_OUTPUT) $(if $(VIDEOS),--videos "$(VIDEOS)")

# Two processes, each with whole files: most tests use one core. `gpu-lines` counts lines in one process.
# In the order of the folders: the dear files come first, and the many small ones keep both processes busy to the end.
PYTEST = $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
test: .venv/ready
	$(PYTEST) -m "not gpu and not long"

test-long: .venv/ready
	$(PYTEST) -m "not gpu and long"

# What `make test-long` does once, with other seeds: FAULTS times as often. Its counts are in the lines that start with "faults:".
FAULTS ?= 20
faults: .venv/ready
	FAULTS=$(FAULTS) $(BIN)/python -m pytest -q -rP tests/faults

# Asked first, with nothing installed: what follows takes gigabytes.
test-gpu:
	@$(PYTHON) tests/gpu/device.py
	@$(MAKE) --no-print-directory .venv-gpu/ready
	.venv-gpu/bin/python -m pytest -m gpu tests/gpu

# The notice is of Material's own end of life, in 2027.
docs: .venv/docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

gpu-lines: .venv/ready
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

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

.venv/docs-ready: .venv/demo-ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,demo,docs]'
	touch $@

# PyCUDA comes as source and is built without a driver (about a minute).
.venv/ready: .venv/demo-ready tests/stub_driver/build.py
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cluster,cpu,dali,train,demo,dev,tensorrt-rtx]'
	$(BIN)/python -m tests.stub_driver.build
	touch $@

# An environment of its own: faiss-gpu excludes faiss-cpu. OpenVINO computes what the GPU is compared with.
.venv-gpu/ready: setup.cfg pyproject.toml constraints.txt
	test -x .venv-gpu/bin/python || $(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[gpu,dev]' openvino
	touch $@

clean:
	rm -rf .venv .venv-gpu build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage*
