#!/usr/bin/env bash
# Measures Nexus beside Redis, PostgreSQL and etcd from Debian, with equal durability, in turn on this machine, and writes
# bench/results/ and bench/README.md. Installs what that needs and builds the release preset.
#
#   scripts/bench.sh [--only ROW[,ROW]] [--pairs N] [--quick] [--list] [--report-only]      --help tells the rest
#
# A whole run takes some hours, for which nothing else should run here; --quick, which only shows that all works, takes
# minutes and writes to build/bench-quick. Services that the packages have started are left alone: all servers have ports
# and directories of their own, and are ended with it. Exit status 1: a row has failed.
set -euo pipefail
cd "$(dirname "$0")/.."

python=/usr/bin/python3 # Debian's, which has Debian's matplotlib
build=yes
for option; do
    case $option in
    --list | --report-only | --help | -h) build='' ;;
    --build | --build=*) build='' ;; # what is there
    esac
done

if [[ -n $build ]]; then
    [[ ! -x $python ]] || "$python" -B bench/bench.py --check "$@" # before all that takes its time
    scripts/install-deps.sh build run bench >&2
    log=$(mktemp "${TMPDIR:-/tmp}/nexus-bench-build.XXXXXX")
    trap 'rm -f "$log"' EXIT
    if ! { cmake --preset release &&
        cmake --build --preset release --target nexus-server nexus-bench nexus-bench-limits; } >"$log" 2>&1; then
        tail -n 50 "$log" >&2
        echo "bench.sh: the release build failed" >&2
        exit 2
    fi
    rm -f "$log"
fi
exec "$python" -B bench/bench.py "$@"
