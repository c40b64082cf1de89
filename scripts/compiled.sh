#!/usr/bin/env bash
# Compiles the hot modules by mypyc into build/compiled/, from where they are loaded (broker/compiled.py).
# --beside: in the background and with the lowest priority, for `make run`, whose first minute is not to wait for it, and
# for `make test`, which has other things to do first. Who asks again meanwhile waits for it.
# --test: as `make test` wants it, with failure where there is no compiler and CI is set.
set -euo pipefail
cd "$(dirname "$0")/.."

if .venv/bin/python -m scripts.compile_modules --check; then
    exit 0
fi
if ! command -v "${CC:-cc}" >/dev/null 2>&1; then
    echo "compiled     no C compiler, so everything runs as plain Python (Debian, Ubuntu: sudo apt-get install gcc)"
    [ "${1:-}" != "--test" ] || [ -z "${CI:-}" ]
    exit
fi

compile() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --group compile
    .venv/bin/python -m scripts.compile_modules
}

mkdir -p build
if [ "${1:-}" = "--beside" ]; then
    echo "compiled     compiling the hot modules beside (build/compiled.log); from the next start on they are faster"
    (trap '' INT; nice -n 19 "$0" >/dev/null 2>&1 || true) &
else
    echo "compiled     compiling the hot modules, once for these sources (a minute or two)"
    : >build/compiled.log
    compile >>build/compiled.log 2>&1 || { # appended: another, for which this one waits, may write to it too
        tail -n 20 build/compiled.log >&2
        echo "error: the modules could not be compiled (build/compiled.log); everything runs without them" >&2
        exit 1
    }
    tail -n 1 build/compiled.log
fi
