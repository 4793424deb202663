# Everything runs in a virtual environment of its own, with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# What `make demo` runs, in one place.
DEMO := $(BIN)/wordlight compare --config docs/demo.toml --out out/demo

# One thread a worker: two workers on two cores, and results that don't depend on the machine. Each
# worker gets half of the tests in their order, so that a file's share what they have trained or
# loaded, and takes over some of the other's at the end.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo demo-page viewer-picture cards figures docs release-check compare-all compare-many compare-models methods leaderboard findings studies style types tests test test-all test-lowest test-gpu bench lint format clean

help: ## say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-14s %s\n", $$1, $$2}'

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

# Every method at equal cost on the same images (but regeneration, whose cost is what it is). To try it
# on fewer images, beside what is there:
#     make compare-all IMAGES="-n 16 --calibration 8" MEASURED=out/few
METHODS := daam self-attention-refined relative-attention attention-chains gramcol goca head-selection open-vocabulary attention-x-gradient \
	saliency input-x-gradient integrated-gradients gradient-shap deeplift occlusion noise-difference information-decomposition \
	shapley kernel-shap uniform center random guidance-norm token-rank shuffled-word
IMAGES := -n 32 --calibration 16
MEASURED := out/methods

compare-all: install
	$(BIN)/wordlight compare $(IMAGES) --budget 240 $(METHODS:%=--method %) -o $(MEASURED)/all
	$(BIN)/wordlight compare $(IMAGES) --method regeneration --method shuffled-word \
		-o $(MEASURED)/regeneration

# All methods on two hundred images of `scenes` (some eighty minutes on one core), most on two hundred of
# `things-dit` (ninety, beside other work), the costly ones on forty, and forty of `things`:
# docs/leaderboard-MODEL.toml. What pages quote is of these. All comparisons go on where they were
# stopped. To try it on fewer images:
#     make findings IMAGES="-n 16 --calibration 8" MEASURED=out/few MANY="-n 24 --calibration 8" \
#         LEADERBOARD=out/few-leaderboard LAYERS="-n 16 --calibration 8" BOTH="-n 8 --calibration 8"
MANY :=
LEADERBOARD := out/leaderboard
LAYERS := -n 200 --calibration 24
BOTH := -n 8 --calibration 4

compare-many: install
	$(BIN)/wordlight compare --config docs/leaderboard-scenes.toml $(MANY) -o $(LEADERBOARD)/many

compare-models: install
	for model in things-dit things things-dit-costly; do \
		$(BIN)/wordlight compare --config docs/leaderboard-$$model.toml $(MANY) \
			-o $(LEADERBOARD)/$$model || exit 1; \
	done

methods: compare-many compare-all ## remake the pictures and numbers of docs/methods
	$(BIN)/wordlight study sanity -n 2 --steps 1 -o $(MEASURED)/sanity
	$(BIN)/python docs/make_methods.py $(LEADERBOARD)/many $(MEASURED)/all $(MEASURED)/regeneration \
		--sanity $(MEASURED)/sanity

leaderboard: compare-many compare-all compare-models ## remake the tables and the picture of docs/leaderboard.md
	$(BIN)/python docs/make_leaderboard.py $(LEADERBOARD)/many $(MEASURED)/all \
		$(MEASURED)/regeneration --models $(LEADERBOARD)/things-dit $(LEADERBOARD)/things \
		--costly $(LEADERBOARD)/things-dit-costly

# Beside the leaderboard, whose images and maps are used again, some ten minutes on one core, and some
# twenty-five for the given pictures.
findings: leaderboard ## remake the tables and figures of docs/findings.md
	$(BIN)/wordlight study layers $(LAYERS) --images $(LEADERBOARD)/many/samples \
		-o $(LEADERBOARD)/layers
	$(BIN)/wordlight study positions --run $(LEADERBOARD)/many \
		--method daam --method shapley --method integrated-gradients \
		-o $(LEADERBOARD)/positions
	$(BIN)/wordlight compare $(BOTH) --framework torch --framework flax --method daam \
		--method self-attention-refined --method occlusion --method input-x-gradient \
		--method guidance-norm --method shuffled-word --pairs all -o $(LEADERBOARD)/both
	for model in things-dit things; do for split in test look-alikes; do \
		$(BIN)/wordlight compare --config docs/given-pictures.toml --model $$model $(MANY) \
			--data rendered-things,test=$$split -o $(LEADERBOARD)/$$model-$$split || exit 1; \
	done; done
	$(BIN)/python docs/make_findings.py $(LEADERBOARD)/many --layers $(LEADERBOARD)/layers \
		--positions $(LEADERBOARD)/positions --frameworks $(LEADERBOARD)/both \
		--models $(LEADERBOARD)/things-dit $(LEADERBOARD)/things \
		--pictures $(LEADERBOARD)/things-dit-test $(LEADERBOARD)/things-dit-look-alikes \
		$(LEADERBOARD)/things-test $(LEADERBOARD)/things-look-alikes

# Some minutes on one core.
studies: install ## remake the tables of docs/studies.md
	$(BIN)/wordlight study influence -n 16 -o out/influence
	$(BIN)/wordlight study relations -n 16 -o out/relations
	$(BIN)/wordlight study entanglement -n 16 -o out/entanglement
	$(BIN)/wordlight study faithfulness -n 16 -o out/faithfulness
	$(BIN)/python docs/make_studies.py out/influence out/relations out/entanglement \
		out/faithfulness

demo-page: demo ## put the table and the picture of `make demo` into docs/demo.md
	$(BIN)/python docs/make_demo.py out/demo

# The start page's own command, and Chromium.
viewer-picture: install ## remake the first picture of the README
	$(BIN)/python docs/make_viewer_picture.py

# The curves are those of the training logs; the pictures are drawn.
cards: install ## remake the pictures of the models' cards
	for model in scenes things things-dit; do \
		$(BIN)/wordlight study following --model $$model -n 200 -o out/cards/$$model && \
		cp out/cards/$$model/sheet.png docs/images/$$model.png && \
		$(BIN)/python training/curves.py training/$$model --to docs/images/$$model-training.png \
			|| exit 1; \
	done

# Everything in docs/ that is measured or drawn: some hours on one core.
figures: demo-page viewer-picture methods findings studies cards docs ## remake every figure and table of docs/

lint: style types ## lint, format, types and import rules

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

format: install ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Types are checked beside the tests: alone they would leave one core idle for a minute.
test: style ## lint, and all tests but the slow ones
	@$(MAKE) --no-print-directory -j 2 types tests

test-all: style ## lint, and all tests
	@$(MAKE) --no-print-directory -j 2 types tests SELECTED='-m "not gpu"'

SELECTED :=
tests: install
	$(PYTEST) $(SELECTED)

# The lowest versions of what users install, but for torch: the index has older ones only as builds
# of gigabytes for graphics cards, so it is that of constraints.txt. Tests of each part that other
# packages answer to; what old packages warn of is no error.
LOWEST := out/lowest
LOWEST_TESTS := $(addprefix tests/, attribution/test_maps.py attribution/test_plotting.py \
	backends/test_arrays_file.py backends/flax/test_parity.py $(addprefix backends/torch/test_, \
	captum.py families.py primitives.py) $(addprefix comparisons/, app/test_jobs.py \
	cli/test_command_line.py datasets/test_datasets.py datasets/test_datasets_formats.py \
	results/test_files.py runs/test_ray.py stats/test_statistics.py \
	studies/test_studies_of_spacy_documents.py))
test-lowest: install ## tests of each part on the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear $(LOWEST)
	$(BIN)/python .ci/lowest_versions.py > $(LOWEST)/constraints.txt
	$(BIN)/python -m build --outdir $(LOWEST)/dist . > $(LOWEST)/build.log
	$(LOWEST)/bin/python -m pip --quiet --disable-pip-version-check install \
		-c $(LOWEST)/constraints.txt hypothesis peft pytest pytest-timeout \
		"$$(echo $(LOWEST)/dist/*.whl)[app,captum,coco,flax,hdf5,ray,spacy,torch]"
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -W default -p no:cacheprovider $(LOWEST_TESTS)

# $DEVICE is "cuda" where it isn't given; "cpu" tries the tests themselves.
DEVICE := cuda
test-gpu: install ## what only a GPU shows, on $DEVICE
	WORDLIGHT_DEVICE=$(DEVICE) $(BIN)/pytest -m gpu tests/backends/torch/test_gpu.py

# The notebooks are run for it: some minutes on one core.
docs: install ## build the site into out/site; a broken link ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open out/site/index.html"

release-check: install ## build sdist and wheel into out/dist, and say what is wrong with them
	rm -rf out/dist
	$(BIN)/python -m build --quiet --outdir out/dist .
	$(BIN)/twine check --strict out/dist/*
	$(BIN)/python .ci/check_release.py out/dist

bench: install ## what tracing and replays cost, and Flax against PyTorch
	$(BIN)/python benchmarks/bench_methods.py
	$(BIN)/python benchmarks/bench_tracing.py
	$(BIN)/python benchmarks/bench_replay.py
	$(BIN)/python benchmarks/bench_images.py
	$(BIN)/python benchmarks/bench_flax.py

clean: ## remove what was built; .venv and runs/ stay
	rm -rf build dist out src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache .cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
