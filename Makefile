# Everything lives in .venv; a stamp file says what was installed, so that a second run installs
# nothing unless pyproject.toml or the constraints changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
SOURCES := pyproject.toml $(CONSTRAINTS)

# Four processes on two cores: tests of killed drivers and of Ray wait for others.
PYTEST := $(BIN)/pytest -n 4 --dist worksteal

.PHONY: sweep test check fast smoke stress oldest integrations reproduce findings docs lint clean

sweep: $(VENV)/installed
	$(BIN)/harness sweep --study depth_vs_position

test: $(VENV)/installed-test
	$(PYTEST)

# What can be said in three minutes, side by side: lint, types, every test that is not marked slow or
# gpu, and a sweep. The tests print what they leave out.
check: $(VENV)/installed-dev
	$(MAKE) -j3 --output-sync lint fast smoke

fast: $(VENV)/installed-test
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow and not gpu and not integration"

smoke: $(VENV)/installed
	out=$$(mktemp -d) && $(BIN)/harness sweep --study depth_vs_position --smoke --workers 2 \
		--out "$$out" && rm -r "$$out"

# Tens of thousands of generated inputs, kills and pauses, thousands of trials in one process: hours.
stress: $(VENV)/installed-test
	$(BIN)/python tests/stress.py

# `make check` with the oldest releases that pyproject.toml allows, in an environment of its own. Without
# types: the older the libraries, the less their annotations say.
oldest: .venv-oldest.txt
	$(MAKE) fast smoke VENV=.venv-oldest CONSTRAINTS=.venv-oldest.txt

.venv-oldest.txt: pyproject.toml tests/support/oldest.py
	$(PYTHON) tests/support/oldest.py pyproject.toml > $@

# Real libraries that CI has not, in an environment of their own, and every hf:NAME on three backbones.
# Without the constraints, which know nothing of those libraries, and contradict what they need.
integrations:
	$(MAKE) .venv-integrations/installed-test VENV=.venv-integrations
	.venv-integrations/bin/pip install --quiet --disable-pip-version-check -e '.[test,mlflow,wandb,geo,slurm,hub]'
	.venv-integrations/bin/pytest -n 2 --dist worksteal -m integration

# Every study on the embedded benchmark, and reports/gallery anew. Hours; goes on when given again.
reproduce: $(VENV)/installed
	$(BIN)/python -m harness.reports.reproduce

# What README.md, FINDINGS.md and the gallery's recommendations say was measured, from reports/archives
# and the tables that ship; nothing is trained.
findings: $(VENV)/installed
	$(BIN)/python -m harness.findings
	$(BIN)/python -m harness.findings.tables
	$(BIN)/python -m harness.findings.recommended

# The docs site, in site/: a broken link, or anything that a page would load from elsewhere, ends it.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(SOURCES) | $(BIN)/python
	@echo "Installing (once; torch is large)..."
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-test
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test,dev]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) .venv-integrations .venv-oldest .venv-oldest.txt runs site
