# Headrace: everything a developer or a newcomer runs. `make` alone lists it.
# Only python3 (>= 3.11, with venv) has to be there; the rest is brought in by the targets that need it.

PYTHON_FILES := broker bridge devices tests scripts
DASHBOARD := bridge/dashboard
DASHBOARD_SOURCES := $(wildcard docs/samples/*) $(shell find $(DASHBOARD) \( -name node_modules -o -name dist \) -prune -o -type f ! -name '*.py' -print 2>/dev/null)
BENCH ?= all
BROKERS ?= 1
KAFKA_PORT ?= 9092
KAFKA_DIRECTORY ?= build/kafka
# Tests side by side, one more than there are cores: many wait for something most of the time (tests/conftest.py has
# their order). A worker with nothing left takes over what another has not come to.
WORKERS := $(shell cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((cores < 4 ? cores + 1 : 4)))
PARALLEL := -n $(WORKERS) --dist worksteal
COMPILED_TOO := tests/integration/http tests/integration/test_replay_over_mqtt.py tests/integration/test_egress.py tests/integration/test_kill_*.py
KAFKA := .venv/bin/python -m scripts.kafka --port $(KAFKA_PORT) --directory $(KAFKA_DIRECTORY)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-parts test-compiled check compiled bench chaos fuzz dashboard fmt lint types system picture kafka-up kafka-down kafka-clean

help: ## list the targets
	@echo "Headrace. Start here: make run"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

setup: .venv/.stamp dashboard ## make .venv with the console script `headrace`, and build the page

run: .venv/.stamp ## environment, dashboard, then `headrace demo`: the server with a simulated fleet
	@scripts/environment.sh --say
	@$(MAKE) --no-print-directory dashboard
	@scripts/compiled.sh --beside
	@exec .venv/bin/headrace demo

test: system .venv/.stamp-dev ## everything CI runs: system parts, page, lint, types, all tests, unit and conformance compiled too (less than 20 min on 2 cores)
	@scripts/compiled.sh --beside
	@REQUIRE_DASHBOARD=1 $(MAKE) --no-print-directory -j 2 lint types test-parts
	@scripts/pytest.sh tests $(PARALLEL)
	@scripts/compiled.sh --test
	@HEADRACE_COMPILED=1 scripts/pytest.sh tests/unit tests/conformance $(COMPILED_TOO) $(PARALLEL)

# One behind the other: each may install something into .venv.
test-parts: dashboard ## the page's own tests, then what other tests need: Kafka's jars, clients in Go and JavaScript
	@scripts/dashboard.sh test
	@$(KAFKA) fetch || [ -z "$$CI" ] # outside CI, tests that need it say why they are skipped
	@.venv/bin/python -m scripts.interoperability || [ -z "$$CI" ]

test-compiled: system .venv/.stamp-dev ## all tests on the compiled modules
	@scripts/compiled.sh
	@HEADRACE_COMPILED=1 scripts/pytest.sh tests $(PARALLEL)

compiled: .venv/.stamp ## compile the hot modules by mypyc into build/compiled/ (needs a C compiler; a minute or two)
	@scripts/compiled.sh

check: .venv/.stamp-dev ## what to run before each commit: lint, types, unit tests, page budget (about a minute)
	@$(MAKE) --no-print-directory lint types
	@scripts/pytest.sh tests/unit -m "not slow" -n logical
	@if [ -f $(DASHBOARD)/dist/index.html ]; then scripts/dashboard.sh budget; \
	else echo "dashboard    not built, so its budget was not checked (make dashboard)"; fi

bench: .venv/.stamp-dev ## the load generator beside Mosquitto, all of it; BENCH="mqtt --rounds 1" passes arguments on
	@.venv/bin/headrace bench $(BENCH)

chaos: .venv/.stamp-dev ## random faults of Kafka, network and server, all checked; DURATION=1200 (seconds), SEED=7
	@.venv/bin/python -m tests.kafka.chaos $(if $(DURATION),--duration $(DURATION)) $(if $(SEED),--seed $(SEED)) \
	$(if $(filter command environment,$(firstword $(origin BROKERS))),--brokers $(BROKERS))

fuzz: .venv/.stamp-dev ## ten minutes of bytes that are nearly right at engine and listeners; DURATION=600 (seconds), SEED=7
	@HEADRACE_COMPILED=$${HEADRACE_COMPILED:-0} .venv/bin/python -m tests.fuzz $(if $(DURATION),--duration $(DURATION)) $(if $(SEED),--seed $(SEED))

dashboard: $(DASHBOARD)/dist/.stamp ## build the web page (Node from the machine, else from PyPI)
	@scripts/dashboard.sh say

fmt: .venv/.stamp-dev ## format and fix what can be fixed by itself
	@.venv/bin/ruff check --fix --quiet $(PYTHON_FILES) || true
	@.venv/bin/ruff format $(PYTHON_FILES)

lint: .venv/.stamp-dev ## ruff: rules and format
	@.venv/bin/ruff check $(PYTHON_FILES)
	@.venv/bin/ruff format --check --quiet $(PYTHON_FILES) || { echo "error: not formatted: make fmt"; exit 1; }

types: .venv/.stamp-dev ## mypy --strict over broker, bridge and devices
	@.venv/bin/mypy

system: ## install what tests need beside Python: Chromium, Mosquitto and its clients, Java, Maven (apt)
	@scripts/install_system_parts.sh

picture: .venv/.stamp-dev dashboard ## docs/images/dashboard.png, of the real page with the demo's fleet
	@.venv/bin/python scripts/dashboard_picture.py

kafka-up: .venv/.stamp ## real Kafka on 127.0.0.1:9092 that stays up; BROKERS=3 for three, KAFKA_PORT=19092 for others
	@$(KAFKA) up --brokers $(BROKERS)

kafka-down: .venv/.stamp ## stop it; topics and records stay for the next kafka-up
	@$(KAFKA) down

kafka-clean: .venv/.stamp ## remove its topics and records
	@$(KAFKA) clean

.venv/.stamp: pyproject.toml scripts/environment.sh
	@scripts/environment.sh

.venv/.stamp-dev: .venv/.stamp
	@scripts/environment.sh --dev

$(DASHBOARD)/dist/.stamp: $(DASHBOARD_SOURCES) scripts/dashboard.sh | .venv/.stamp
	@scripts/dashboard.sh build
