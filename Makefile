# Two commands from a fresh clone: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-full check clean

demo: .venv/ready
	$(BIN)/fednf demo

test: check
	$(BIN)/pytest -n 2

test-slow: .venv/ready
	$(BIN)/pytest -n 2 -m slow

test-full: .venv/ready
	FEDNF_FULL=1 $(BIN)/pytest -n 2 -m "slow or not slow"

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyrefly check

clean:
	rm -rf .venv

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[sim,dev]"
	touch $@
