# make book [PRESET=quick] [IMAGES=folder] [SEED=0]   the whole book, into runs/PRESET/html
# make test                                            lint, types, and the tests that every change must pass
# make test-thorough                                   larger samples, kills at many moments, the book made in every way
# make serve [PRESET=quick] [RUN=folder below runs/]    read the book at http://localhost:8000
# make pdf [PRESET=quick]                              the book that was made last as one file, runs/PRESET/book.pdf
# make lab                                             JupyterLab, to run the notebooks and the explorer live
# make soak                                            the tests of faults in their long form: hours
# make oldest                                          the tests of the kernels with the oldest supported packages
# make audit                                           known vulnerabilities in the locked packages; needs the internet
# make bench                                           speed against floors and peers: the table, and results.json
# make lock                                            renew requirements.lock from pyproject.toml
# make clean                                           remove what the commands above made, results included

PYTHON ?= python3
VENV ?= .venv
PRESET ?= quick
SEED ?= 0
RUN ?= $(PRESET)
PORT ?= 8000
BIN := $(VENV)/bin
IMAGES_OPTION := $(if $(IMAGES),--images "$(IMAGES)")

.PHONY: book run test test-thorough soak oldest audit lint bench serve pdf lab lock clean
.DEFAULT_GOAL := book

# The environment: made once, and again whenever the lock or the project file changes.
$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; $(PYTHON) is older. Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

book: $(VENV)/installed
	$(BIN)/rfviz book --preset $(PRESET) --seed $(SEED) $(IMAGES_OPTION)

run: $(VENV)/installed
	$(BIN)/rfviz run --preset $(PRESET) --seed $(SEED) $(IMAGES_OPTION)

# One thread in each of the two processes and in all that they start: threads that wait for each other's cores are slow.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint tests/axe/node_modules
	$(PYTEST) -m "not thorough"

test-thorough: tests/axe/node_modules
	$(PYTEST) -m thorough

soak: $(VENV)/installed
	RFVIZ_SOAK=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults

# All packages at the lower bounds of pyproject.toml; what only serves the tests is as in the lock.
oldest:
	$(PYTHON) -m venv --clear .oldest
	$(PYTHON) tests/lower_bounds.py > .oldest/requirements.txt
	.oldest/bin/python -m pip install --quiet --requirement .oldest/requirements.txt
	PYTHONPATH=. OMP_NUM_THREADS=1 .oldest/bin/python -m pytest -p no:cacheprovider $$($(PYTHON) tests/lower_bounds.py --tests)

audit:
	$(PYTHON) -m venv --clear .audit
	.audit/bin/python -m pip install --quiet pip-audit
	.audit/bin/pip-audit --no-deps --disable-pip --requirement requirements.lock

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers auto

# The accessibility checker of the browser tests, which are skipped where it is not.
tests/axe/node_modules: tests/axe/package-lock.json
	@if command -v npm > /dev/null; then npm ci --silent --no-fund --no-audit --prefix tests/axe && touch $@; \
	  else echo "npm is not here: the tests of accessibility will be skipped"; fi

# The peers that the kernels are measured against; they stay out of the lock of the project.
$(VENV)/peers: $(VENV)/installed requirements-bench.lock
	$(BIN)/python -m pip install --quiet --requirement requirements-bench.lock
	@touch $@

bench: $(VENV)/peers
	$(BIN)/python -m benchmarks

serve: $(VENV)/installed
	@test -f runs/$(RUN)/html/index.html || \
	  { echo "There is no book in runs/$(RUN)/html yet. Make it with: make book PRESET=$(PRESET)"; exit 1; }
	@$(BIN)/python -c "import socket; socket.create_server(('127.0.0.1', $(PORT))).close()" 2> /dev/null || \
	  { echo "Port $(PORT) could not be opened. Try: make serve PORT=8001"; exit 1; }
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory runs/$(RUN)/html

pdf: $(VENV)/installed
	$(BIN)/rfviz build --preset $(PRESET) --seed $(SEED) $(IMAGES_OPTION) --pdf

lab: $(VENV)/installed
	$(BIN)/jupyter lab --notebook-dir notebooks

# The local part of a version (torch 2.13.0+cpu) names a build, not a release, and what a CUDA build of torch brings
# along is pinned by torch itself: neither belongs in the lock.
lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet '.[dev]'
	{ echo "# Every package of the project, at the version it is tested with. Renewed by 'make lock'."; \
	  .lock/bin/python -m pip freeze --exclude rfviz --exclude pip --exclude setuptools | grep -v -i -E '^(nvidia|cuda|triton)' | sed 's/+.*//'; } > requirements.lock
	.lock/bin/python -m pip install --quiet '.[dev,bench]' --constraint requirements.lock
	{ echo "# What 'make bench' needs besides requirements.lock. Renewed by 'make lock'."; \
	  .lock/bin/python -m pip freeze --exclude rfviz --exclude pip --exclude setuptools | grep -v -i -E '^(nvidia|cuda|triton)' | sed 's/+.*//' \
	  | grep -v -x -F -f requirements.lock; } > requirements-bench.lock
	rm -rf .lock

clean:
	rm -rf $(VENV) .oldest .audit tests/axe/node_modules runs _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
