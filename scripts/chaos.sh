#!/usr/bin/env bash
# Three nodes under load to which bad things happen in a seeded order, and a check of all that was answered
# (tests/chaos/chaos.py, whose options it takes):
#
#   scripts/chaos.sh --minutes 30 --seed 7 [--build release] [--mode sync|async] [--only "kill master"] [--json FILE]
#
# Builds what it needs: the build with sanitizers, or with --build release that one. Exit status 0: all is
# well; 1: a promise was broken: the seed is printed, history, logs and data are kept; 2: the run itself failed.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=asan
options=()
while [[ $# -gt 0 ]]; do
    if [[ $1 == --build ]]; then
        preset=${2-}
        shift
    else
        options+=("$1")
    fi
    [[ $# -eq 0 ]] || shift
done
case $preset in
asan) dir=build-asan sanitize=asan targets=(nexus-server) ;;
release) dir=build sanitize='' targets=(nexus-server faults wallclock) ;; # disks and clocks too
*)
    echo "chaos.sh: --build takes asan or release" >&2
    exit 2
    ;;
esac

scripts/install-deps.sh build test >&2
log=$(mktemp "${TMPDIR:-/tmp}/nexus-chaos-build.XXXXXX")
trap 'rm -f "$log"' EXIT
if ! { cmake --preset "$preset" -DNEXUS_BUILD_TESTS=ON &&
    cmake --build --preset "$preset" --target "${targets[@]}"; } >"$log" 2>&1; then
    tail -n 50 "$log" >&2
    echo "chaos.sh: the $preset build failed" >&2
    exit 2
fi
rm -f "$log"
NEXUS_BUILD_DIR=$PWD/$dir NEXUS_SOURCE_DIR=$PWD NEXUS_SANITIZE=$sanitize exec python3 -B tests/chaos/chaos.py "${options[@]}"
