# Everything runs in an environment of the project's own, .venv.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/.installed
	$(BIN)/python demo.py

test: .venv/.installed-dev
	$(BIN)/python -m pytest

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Debian's own Python leaves the module that makes environments to a package of its own.
.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  $$([ "$$(id -u)" = 0 ] || echo sudo) sh -c 'apt-get update -q && apt-get install -qy python3.11-venv' \
	  && $(PYTHON) -m venv .venv; }

.venv/.installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs/demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
