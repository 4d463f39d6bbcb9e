# Everything runs in .venv, made on first use from any Python >= 3.11; nothing outside is touched.
# Idle OpenMP threads sleep: spinning ones make two processes on two cores crawl.
export OMP_WAIT_POLICY ?= passive
# Unless bytecode is kept, each process compiles all that it imports, which takes longer than most
# tests. It is written where packages are installed, which is .venv.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .oldest
ARGS ?=

.PHONY: demo test oldest tutorials lint types floors dist docs environment clean
.NOTPARALLEL:

demo: $(VENV)/.runtime
	$(BIN)/scdiffaug demo --out demo

# Two at once, a core each, or their threads would wait for each other; neighbours in a file stay
# together, so that what they share is made once.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# The same with the oldest versions that pyproject.toml allows, which warn of each other.
oldest: $(OLDEST)/.test
	$(OLDEST)/bin/python -m pytest -W default $(ARGS)

# Two at once, a core each. SAVE=1 keeps what the cells put out.
tutorials: $(VENV)/.tutorials
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
	  $(BIN)/python -m pytest tutorials -n 2 --dist worksteal --durations=0 $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

floors: $(VENV)/.dev
	$(BIN)/lint-imports

# The wheel is built from the sdist, which shows that this is whole.
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) $(OLDEST) .virtualenv build demo dist docs/_build docs/generated .*_cache .coverage .hypothesis

# All extras at once, as CI needs them: one after the other they take twice as long.
environment: $(VENV)/.everything
	@touch $(VENV)/.runtime $(VENV)/.test $(VENV)/.tutorials $(VENV)/.dev $(VENV)/.docs

$(VENV)/.runtime: EXTRAS =
$(VENV)/.test: EXTRAS = [test]
$(VENV)/.tutorials: EXTRAS = [test,tutorials]
$(VENV)/.dev: EXTRAS = [dev]
$(VENV)/.docs: EXTRAS = [docs]
$(VENV)/.everything: EXTRAS = [test,tutorials,dev,docs]
# Bytecode is left to the first import: most of what is installed is never imported.
$(VENV)/.runtime $(VENV)/.test $(VENV)/.tutorials $(VENV)/.dev $(VENV)/.docs $(VENV)/.everything: $(VENV)/.created pyproject.toml constraints.txt
	$(BIN)/python -m pip install --no-compile -c constraints.txt -e '.$(EXTRAS)'
	@touch $@

$(OLDEST)/.test: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install --python $(OLDEST) --resolution lowest-direct -e '.[test]'
	@touch $@

# Debian's python3 may lack ensurepip, which venv needs; virtualenv brings its own pip, and
# `pip install --target` is allowed where the system's pip is marked externally managed.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'scdiffaug needs Python >= 3.11, which "$(PYTHON)" is not: name one with make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || { \
	  $(PYTHON) -m pip install --quiet --upgrade --target .virtualenv virtualenv && \
	  PYTHONPATH=.virtualenv $(PYTHON) -m virtualenv --quiet --clear $(VENV) && rm -rf .virtualenv; } || \
	  { echo '"$(PYTHON)" has neither a working venv nor pip: install python3-venv or python3-pip' >&2; exit 1; }
	@touch $@
