#!/usr/bin/env bash
# Makes .venv with Headrace and what it needs; with --dev also what tests, lint and the load generator need.
# --say prints what is there and changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() {
    local packages
    packages=$(find .venv/lib -maxdepth 3 -name '*.dist-info' | wc -l | tr -d ' ')
    echo "environment  .venv, ${packages} packages"
}

fail() {
    echo "error: $1" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    local found
    found=$(python3 --version 2>/dev/null || true)
    fail "Headrace needs Python 3.11 or newer; found ${found:-no python3}. Install it (Debian, Ubuntu: sudo apt-get install \
python3.11 python3.11-venv), or name one: make setup PYTHON=/path/to/python3.11"
}

if [ "${1:-}" = "--say" ]; then
    say
    exit 0
fi

if ! .venv/bin/python -c 'import pip' >/dev/null 2>&1; then
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module. Install it (Debian, Ubuntu: sudo apt-get install python3-venv), then run this again."
    "$python" -m venv --clear .venv
fi
# `--group` came with pip 25.1; the pip inside a new environment is as old as its Python.
.venv/bin/python -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' ||
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
if [ "${1:-}" = "--dev" ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]' --group dev ||
        fail "the development packages could not be installed; what pip said is above."
    touch .venv/.stamp-dev
else
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable . ||
        fail "the packages of pyproject.toml could not be installed; what pip said is above."
    touch .venv/.stamp
fi
say
