# Everything runs in a virtual environment of its own, with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# What `make demo` runs, in one place.
DEMO := $(BIN)/wordlight compare --model scenes --out out/demo

# One thread a worker: two workers on two cores, and results that don't depend on the machine. A
# file's tests stay together, since they share what they have trained or loaded.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install demo methods test test-all bench lint format clean

help: ## say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

install: $(STAMP) ## set up .venv with the tested versions

# torch comes first and alone: pinned like this, its CPU build is found; what depends on it would
# otherwise bring a build of gigabytes for graphics cards.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(PIP) install "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	@$(PIP) install -e ".[dev]" -c constraints.txt
	@touch $@

demo: install ## compare the methods on the embedded model, into out/demo
	$(DEMO)

# Every method at equal cost on the same images (but regeneration, whose cost is what it is), and the
# sanity study. About an hour on two cores; the comparisons go on where they were stopped.
METHODS := daam self-attention-refined head-selection open-vocabulary attention-x-gradient \
	saliency input-x-gradient integrated-gradients gradient-shap occlusion noise-difference \
	shapley kernel-shap uniform center random guidance-norm shuffled-word
IMAGES := -n 48 --calibration 24

methods: install ## remake the pictures and numbers of docs/methods
	$(BIN)/wordlight compare $(IMAGES) --budget 240 $(METHODS:%=--method %) -o out/methods
	$(BIN)/wordlight compare $(IMAGES) --method regeneration --method shuffled-word -o out/regeneration
	$(BIN)/wordlight study sanity -n 2 --steps 1 -o out/sanity
	$(BIN)/python docs/make_methods.py out/methods out/regeneration --sanity out/sanity

lint: install ## lint, format, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint ## lint, and all tests but the slow ones
	$(PYTEST)

test-all: lint ## lint, and all tests
	$(PYTEST) -m "slow or not slow"

bench: install ## what tracing costs, and Flax against PyTorch
	$(BIN)/python benchmarks/bench_tracing.py
	$(BIN)/python benchmarks/bench_flax.py

clean: ## remove what was built; .venv and runs/ stay
	rm -rf build dist out src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
