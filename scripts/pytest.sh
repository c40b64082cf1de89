#!/usr/bin/env bash
# pytest with its arguments. Where CI is set a skipped test fails the run: what is missing has to be installed.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
export HEADRACE_COMPILED="${HEADRACE_COMPILED:-0}" # the plain modules are the reference; 1 takes the compiled ones
# Containers often set it; each of some hundred servers that the tests start would then compile all modules again.
unset PYTHONDONTWRITEBYTECODE
.venv/bin/python -m pytest --quiet --junitxml=build/pytest.xml "$@"
[ -z "${CI:-}" ] || .venv/bin/python scripts/nothing_skipped.py build/pytest.xml
