# Every target works as the only command on a machine with Python 3.11 or newer.
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CERT, ...) are passed through as they stand.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
DEMO_DIR ?= var
ONCE ?=
SEED ?=
MINUTES ?=
DB ?= postgresql

export OMP_NUM_THREADS ?= 1

.PHONY: demo run test test-services check check-deploy bench chaos schema format clean

# One stamp for each set of requirements: a second run installs nothing.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-stamp: requirements.txt requirements-ml.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-ml.txt
	@touch $@

$(VENV)/.dev-stamp: requirements-dev.txt requirements-s3.txt requirements-sentry.txt $(VENV)/.run-stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.run-stamp
	@IMAGEHUB_VAR="$(abspath $(DEMO_DIR))" exec $(BIN)/python manage.py demo --port $(PORT) $(if $(filter 1 yes true,$(ONCE)),--once)

run: $(VENV)/.run-stamp
	@$(BIN)/python manage.py migrate --verbosity 0
	@PORT=$(PORT) exec $(BIN)/python manage.py supervise

test: $(VENV)/.dev-stamp
	env -u DATABASE_URL -u REDIS_URL $(BIN)/python -m pytest $(ARGS)

# DATABASE_URL and REDIS_URL name the services; the defaults are those of a local machine.
test-services: export DATABASE_URL ?= postgres://postgres@127.0.0.1:5432/postgres
test-services: export REDIS_URL ?= redis://127.0.0.1:6379/0
test-services: $(VENV)/.dev-stamp
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev-stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file $(VENV)/openapi.yaml
	diff -u docs/openapi.yaml $(VENV)/openapi.yaml
	@$(BIN)/mypy . > $(VENV)/mypy.txt; echo "mypy: $$(tail -n 1 $(VENV)/mypy.txt)"

# What deploy/ ships, by the tools that read it in earnest. ARGS=--all fails where one of them is missing.
$(VENV)/.deploy-stamp: requirements-deploy.txt $(VENV)/.run-stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-deploy.txt
	@touch $@

check-deploy: $(VENV)/.deploy-stamp
	$(BIN)/python -m deploy.lint $(ARGS)

schema: $(VENV)/.run-stamp
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

bench: $(VENV)/.dev-stamp
	$(BIN)/python -m bench $(ARGS)

# Kills, stops, freezes and fills up an instance of its own; DB=sqlite|postgresql, SEED= repeats what was drawn.
chaos: $(VENV)/.dev-stamp
	$(BIN)/python -m bench.chaos --database $(DB) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

format: $(VENV)/.dev-stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
