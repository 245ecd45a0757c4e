# Every target sets up what it needs; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_OUTPUT := demo-output
PEERS := .venv-bench
AIRFLOW := .venv-airflow
AIRFLOW_VERSION := 3.3.2

# nothing of a developer's own Ray may leak into tests or the demo
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help setup demo test test-with-ray test-without-ray test-slow test-airflow check fix format-check lint types \
	docs lock bench bench-gpu bench-profile bench-scale object-store image clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' \
		| while IFS='|' read -r name text; do printf '  \033[1m%-14s\033[0m %s\n' "$$name" "$$text"; done

setup: $(READY)  ## create .venv with the locked dependencies and embatch itself

$(READY): requirements.lock requirements-torch.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-torch.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(READY)  ## embed the demo corpus, verify the output, search it (about a minute)
	rm -rf $(DEMO_OUTPUT)
	$(BIN)/embatch run jobs/demo/job.yaml --output $(DEMO_OUTPUT)
	$(BIN)/embatch verify $(DEMO_OUTPUT)
	$(BIN)/python -m jobs.demo.neighbours $(DEMO_OUTPUT)

test: $(READY)  ## run the tests; those that start a Ray, which mostly wait, beside all others
	$(MAKE) --no-print-directory --jobs=2 --keep-going test-with-ray test-without-ray

test-with-ray: $(READY)
	$(BIN)/pytest -q -m "ray and not slow and not gpu"

test-without-ray: $(READY)
	$(BIN)/pytest -q -m "not ray and not slow and not gpu"

test-slow: $(READY)  ## run the tests that take minutes
	$(BIN)/pytest -q -m slow

test-airflow: $(READY) $(AIRFLOW)/.ready  ## run the DAG in a real Airflow, in an environment of its own (minutes)
	$(BIN)/pytest -q tests/schedulers/test_airflow.py

# in here embatch is its DAG alone, without what it depends on; the command it runs is that of .venv
$(AIRFLOW)/.ready: $(READY)
	$(PYTHON) -m venv $(AIRFLOW)
	$(AIRFLOW)/bin/pip install --quiet --disable-pip-version-check "apache-airflow==$(AIRFLOW_VERSION)"
	$(AIRFLOW)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

check: format-check lint types test  ## format, lint, types, tests: what has to hold before a commit

format-check: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

fix: $(READY)  ## format, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## write the job file's schema and reference page from the configuration
	$(BIN)/embatch config schema > jobs/schema/job-v1.schema.json
	$(BIN)/python -m jobs.reference > docs/job-file.md

bench: $(READY) $(PEERS)/.ready  ## embatch beside its peers, a quarter of an hour; ARGS="--quick" for a short one
	PYTHONPATH=tests $(BIN)/python -m benchmarks.speed $(ARGS)

# on top of .venv, so that torch is there once; a peer that does not install is reported as such by the run
$(PEERS)/.ready: tests/benchmarks/requirements.txt $(READY)
	$(BIN)/python -m venv $(PEERS)
	below=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
	own=$$($(PEERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
	echo "import site; site.addsitedir('$$below')" > "$$own/below.pth"
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r $< || grep -v '^#' $< | while read -r peer; do \
		$(PEERS)/bin/pip install --quiet --disable-pip-version-check "$$peer" || echo "without $$peer"; done
	touch $@

bench-gpu: $(READY)  ## one GPU beside its peers, under nine minutes; ARGS="--quick" for a short one
	PYTHONPATH=tests $(BIN)/python -m benchmarks.gpu $(ARGS)

bench-profile: $(READY)  ## where the time of the packed forward goes, MiniLM on one core
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/profiling.py

bench-scale: $(READY)  ## plan and resume of 100,000 units; 100,000 and 1,000,000 rows through read and commit
	$(BIN)/python tests/benchmarks/scale.py units 100000
	$(BIN)/python tests/benchmarks/scale.py rows 100000 1000000
	$(BIN)/python tests/benchmarks/scale.py rows 1000000 --replicas 8 --delay 200

object-store: $(READY)  ## a local S3 for development on loopback; ARGS="--port 9001 my-bucket"
	$(BIN)/python infra/object-store/serve.py $(ARGS)

TARGET ?= cpu
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

image:  ## build embatch:VERSION-cpu, or with TARGET=gpu the one for NVIDIA GPUs (needs Docker)
	docker build -f infra/images/Dockerfile --target $(TARGET) -t embatch:$(VERSION)-$(TARGET) .

lock:  ## resolve requirements.lock and infra/images/requirements.lock again (needs uv on the PATH)
	echo "torch==2.13.0 ; sys_platform == 'never'" > .lock-override
	uv pip compile pyproject.toml --extra demo --extra test --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-strip-markers --override .lock-override --python-version 3.11 -o requirements.lock
	uv pip compile pyproject.toml infra/images/requirements.in --extra cluster --constraint requirements.lock \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-strip-markers --override .lock-override \
		--python-version 3.11 -o infra/images/requirements.lock
	rm .lock-override

clean:  ## remove the environment, caches and the demo's output
	rm -rf $(VENV) $(PEERS) $(AIRFLOW) $(DEMO_OUTPUT) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
