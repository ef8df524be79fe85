# Every target sets up .venv by itself and reuses it while it is current (scripts/setup_env.py).
#   make test PYTHON=/path/to/python3.11      another Python
#   make reproduce PRESET=smoke OUT=out/try   another preset, another folder
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup reproduce results smoke benchmarks test nightly types sync readme docs docs-check release clean distclean
SHELL := /bin/sh

PRESET ?=
OUT ?= out/digits$(if $(PRESET),-$(PRESET))
ARGS ?=

BIN := .venv/bin
# processes run side by side, each on one thread: two busy threads on two shared cores are slower than one
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export PYTHON

help:
	@echo "make reproduce   the main job: the semi-supervised table on the embedded data set, in $(OUT)"
	@echo "make results     table and figures of $(OUT) into results/digits, for the repository"
	@echo "make smoke       the same path in about a minute, with numbers that mean nothing, in out/digits-smoke"
	@echo "make test        notebooks and modules in sync, then every test (what CI runs)"
	@echo "make nightly     more of the same: 20 kills of each kind, ten times as many random inputs, drawn anew"
	@echo "make benchmarks  speed beside other libraries (ARGS='--only parzen': one row), and docs/performance.md"
	@echo "make types       the type checker over the package"
	@echo "make release     build and check the distribution, and say what publishing would do (DO=1 does it)"
	@echo "make readme      README.md from nbs/index.ipynb"
	@echo "make docs        the documentation site in _docs/ (make docs-check: in a browser)"
	@echo "make sync        clean the notebooks, export the modules, and say what had drifted"
	@echo "make clean       remove what builds leave behind (make distclean: .venv too)"

# the first Python 3 of any age: setup_env.py finds a recent one, or says what is missing
setup:
	@py="$${PYTHON:-python3}"; command -v "$$py" >/dev/null 2>&1 || \
	  { echo "setup: no $$py found. Install Python 3.10 or later," \
	         "or name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }; \
	  "$$py" scripts/setup_env.py

reproduce: setup
	@echo "reproduce: digits$(if $(PRESET), (preset $(PRESET))) in $(OUT)." \
	      "What is finished there is kept: this can be stopped and run again"
	@$(BIN)/scoreguidance reproduce digits $(if $(PRESET),-p preset $(PRESET)) -p out "$(OUT)"

# what the repository keeps of a run: table and figures
results: setup
	@$(BIN)/scoreguidance table "$(OUT)" --into results/digits

smoke:
	@$(MAKE) --no-print-directory reproduce PRESET=smoke

sync: setup
	@echo "sync: notebooks clean, modules exported, README built?"
	@$(BIN)/python scripts/sync.py

test: sync
	@echo "test: everything in tests/, each notebook as one test"
	@$(BIN)/python -m pytest -n 2 --dist loadscope tests $(ARGS)

nightly: setup
	@echo "nightly: faults and properties at length"
	@FAULTS=20 HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest tests/test_faults.py tests/test_properties.py $(ARGS)

benchmarks: setup
	@$(BIN)/python benchmarks/run.py $(ARGS)

types: setup
	@$(BIN)/python -m mypy scoreguidance

release: setup
	@$(BIN)/python scripts/release.py $(if $(DO),--do)

readme: setup
	@$(BIN)/python scripts/readme.py

docs: setup
	@$(BIN)/python scripts/docs.py

docs-check: docs
	@$(BIN)/python scripts/check_docs.py

clean:
	rm -rf build dist _docs _proc *.egg-info .pytest_cache .ruff_cache .hypothesis .mypy_cache .venv.lock
	find nbs scoreguidance tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
	find nbs -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
