#!/usr/bin/env bash
# What the tests need beside Python: Chromium (the page), Mosquitto and its clients (a broker and clients not ours), Java
# and Maven (real Kafka: its jars come from Maven Central), a C compiler (the compiled modules).
# Installs what is missing by apt when it may; otherwise says what is missing.
set -euo pipefail

missing=()
command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 ||
    command -v google-chrome >/dev/null 2>&1 || missing+=(chromium)
PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v mosquitto >/dev/null 2>&1 || missing+=(mosquitto)
{ command -v mosquitto_pub && command -v mosquitto_sub; } >/dev/null 2>&1 || missing+=(mosquitto-clients)
command -v "${CC:-cc}" >/dev/null 2>&1 || missing+=(gcc libc6-dev)
command -v java >/dev/null 2>&1 || missing+=(default-jre-headless)
command -v mvn >/dev/null 2>&1 || missing+=(maven)
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null 2>&1 || ! "${as_root[@]}" true 2>/dev/null; then
    echo "system       missing for the tests: ${missing[*]}. Install them with your package manager" >&2
    echo "             (Debian, Ubuntu: sudo apt-get install ${missing[*]})." >&2
    [ -z "${CI:-}" ] || exit 1
    exit 0
fi
echo "system       installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
# Debian starts a broker on 1883 when it installs one; the tests start their own, and so does `make run`.
if command -v systemctl >/dev/null 2>&1; then
    "${as_root[@]}" systemctl disable --now mosquitto >/dev/null 2>&1 || true
fi
