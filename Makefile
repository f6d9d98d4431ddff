# All commands run in the virtual environment .venv.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test quick lint clean check-wheel

demo: $(VENV)/.installed
	$(BIN)/python demo.py

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# Style, types and the tests that build no network; takes less than a minute.
quick: lint
	$(BIN)/python -m pytest -m "not model"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo; \
	  echo "$(PYTHON) cannot create virtual environments. On Debian and Ubuntu, install the missing package:"; \
	  echo "    sudo apt-get install $(PYTHON)-venv"; exit 1; }

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs/demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Tests the wheel in an empty environment, without extras and without the repository.
check-wheel:
	scripts/check_wheel.sh $(PYTHON)
