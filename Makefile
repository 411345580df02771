# Two commands do everything on a machine with Python 3.11 or newer, make and nothing else:
#   make demo    the whole pipeline on this machine, checked at the end
#   make test    every test; what needs a program that is missing here is skipped, and says so
# `make bench` measures everything, beside other programs where they are installed, and writes docs/bench/: a quarter of an hour.
PYTHON ?= python3
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# Build isolation would fetch a build backend that no lock names.
INSTALL_PROJECT := $(PIP) install --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt lock bench clean

help:
	@echo 'make demo | test | check | fmt | lock | bench | clean'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dicomrx needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# The stamps are what `make` compares: a changed lock or pyproject.toml installs again.
$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --requirement requirements.lock
	$(INSTALL_PROJECT)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --requirement requirements-dev.lock
	$(INSTALL_PROJECT)
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/dicomrx demo

# A file's tests stay in one worker, so that two never fight over what they time; in their order, which begins with those that wait most.
# Tests start a thousand programs of ours: each would compile itself again where no bytecode may be kept.
test: $(VENV)/.installed-dev
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fmt: $(VENV)/.installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/all.py $(ARGS)

# Names, versions and hashes only: no index, no local wheels and nothing else of the machine that makes them.
# Pins stay unless `make lock UPGRADE=--upgrade`. pip-tools would pin pip itself, so it lives apart.
COMPILE = env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_INDEX_URL PIP_CONFIG_FILE=/dev/null CUSTOM_COMPILE_COMMAND='make lock' \
	$(VENV)-lock/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host --build-deps-for=wheel --build-deps-for=editable $(UPGRADE)

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install -qq 'pip-tools==7.6.2'
	$(COMPILE) --output-file=requirements.lock pyproject.toml
	$(COMPILE) --extra=dev --constraint=requirements.lock --output-file=requirements-dev.lock pyproject.toml
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(VENV)-lock $(VENV)-bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests bench examples docker -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
