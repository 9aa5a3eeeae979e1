# `make demo` and `make test` need Python 3.11 or later and make; they set up all else in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1
ZENSICAL_VERSION := 0.0.73
# A subset of what passes there: what decides answers, and the most of it per minute.
ON_POSTGRES := tests/conformance tests/integration/test_documents_examples.py \
    tests/integration/test_incremental_equals_full.py tests/integration/test_graph.py \
    tests/integration/test_guards.py tests/integration/test_why.py tests/integration/test_overrides.py \
    tests/integration/test_limits.py tests/integration/test_previous_ids.py
# `debian`: the system's server in place of the wheel's.
POSTGRES := wheel
# The UI has no login. Said here too, because DAGSTER_WEBSERVER_HOST would change Dagster's default.
LOOPBACK := --host 127.0.0.1

export DAGSTER_HOME ?= $(CURDIR)/dagster_home
# One telemetry-free, colour-free environment for every tool that is started from here.
export DBT_SEND_ANONYMOUS_USAGE_STATS := false

.PHONY: help demo demo-ui dev settle test test-postgres test-long check format docs audit bench screenshots clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; this is " + sys.version.split()[0] + " (set PYTHON=...)" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --frozen --compile-bytecode --quiet
	@touch $(READY)

demo: $(READY) ## simulate a shop, stitch it, let late logins arrive, stitch again
	@$(BIN)/stitch demo $(if $(WAREHOUSE),--warehouse $(WAREHOUSE))

dev: $(READY) ## the Dagster UI with its daemon, on http://localhost:3000
	@mkdir -p data/landing
	$(BIN)/dagster dev -w workspace.yaml $(LOOPBACK)

# A project of its own: what this environment says about another one must not count there.
demo-ui: $(READY) ## the Dagster UI on the data that `make demo` left
	@test -f data/demo/stitch.toml || { echo "run 'make demo' first"; exit 1; }
	unset STITCH_LANDING_DIR STITCH_DUCKDB_PATH STITCH_REPORT_DIR STITCH_START_DATE STITCH_PROJECT_FILE STITCH_ENV_FILE \
	    STITCH_OVERRIDES_FILE STITCH_FORGOTTEN_FILE STITCH_PUBLISHED_DIR STITCH_KEY_PREFIX STITCH_WAREHOUSE STITCH_WAREHOUSE_SCHEMA; cd data/demo && \
	DAGSTER_HOME=$(CURDIR)/data/demo/dagster_home $(CURDIR)/$(BIN)/dagster dev $(LOOPBACK)

settle: $(READY) ## what sensors would do, without a daemon, until nothing is left to do
	@$(BIN)/stitch settle

check: $(READY) ## format, lint, types, SQL
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@# Python would warn of semaphores that sqlfluff's processes leave.
	PYTHONWARNINGS=ignore:resource_tracker $(BIN)/sqlfluff lint --processes 0 --disable-progress-bar dbt_project/models
	$(BIN)/python dbt_project/check_macros.py

format: $(READY) ## put code into the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(READY) check ## everything that CI checks, but for the slow tests
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25

test-postgres: $(READY) ## tests of behaviour on PostgreSQL, on a server that it starts itself
	ENGINE=postgres POSTGRES=$(POSTGRES) $(BIN)/pytest -n 2 --dist loadfile --durations=10 -m "not long" $(ON_POSTGRES)

test-long: $(READY) ## kills, daemons beside each other, random histories: two hours and more
	$(BIN)/pytest -m long

# Apart from .venv, because it wants another version of a library than dbt does.
docs: $(READY) ## build the docs site into data/site; a broken link is an error
	$(BIN)/uv tool run --quiet --from zensical==$(ZENSICAL_VERSION) zensical build --strict --clean

# Not part of .ci/run: it needs the advisory service. --strict, because a package that it cannot look up is no pass.
audit: $(READY) ## look up the locked dependencies in PyPI's list of known vulnerabilities
	$(BIN)/uv export --frozen --quiet --all-groups --no-emit-project --format requirements-txt -o $(VENV)/requirements.txt
	$(BIN)/uv tool run --quiet --from pip-audit==$(PIP_AUDIT_VERSION) pip-audit --strict --disable-pip --require-hashes \
	    --progress-spinner off --requirement $(VENV)/requirements.txt

bench: $(READY) ## every benchmark but the largest; results in benchmarks/results, chart in docs/images (hours)
	UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --frozen --group bench --quiet
	$(BIN)/python benchmarks/run.py

screenshots: $(READY) ## take the pictures in docs/images anew; needs Debian's chromium
	$(BIN)/python docs/take_screenshots.py

clean: ## remove what the other targets made, data included
	rm -rf $(VENV) data dbt_project/target .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find dagster_home -mindepth 1 ! -name dagster.yaml -delete
