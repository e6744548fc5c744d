#!/usr/bin/env bash
# Runs the unit tests under valgrind: memory that is misused or lost, descriptors that are left open.
#
#   scripts/valgrind.sh [TEST...]      e.g. scripts/valgrind.sh state wire; all of them otherwise
#
# Not a part of scripts/test.sh, whose sanitizers find most of it sooner. Exit status 1: something was found.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-deps.sh build test valgrind
work_dir=$(mktemp -d "${TMPDIR:-/tmp}/nexus-valgrind.XXXXXX")
trap 'rm -rf "$work_dir"' EXIT
if ! { cmake -S . -B build-valgrind -G Ninja -DCMAKE_BUILD_TYPE=Debug -DNEXUS_BUILD_TESTS=ON &&
    cmake --build build-valgrind -j "$(nproc)" --target unit-tests; } >"$work_dir/build.log" 2>&1; then
    tail -n 50 "$work_dir/build.log" >&2
    exit 1
fi

tests=("$@")
if [[ ${#tests[@]} -eq 0 ]]; then
    mapfile -t tests < <(find tests/unit -name 'test_*.c' -printf '%f\n' | sed -E 's/^test_(.*)\.c$/\1/' | sort)
fi

# Whether descriptors were open at the end that the test had opened itself; doorbells live as long as their process.
left_open()
{
    awk '/Open (AF_[A-Z0-9]+ socket|file descriptor)/ { open = 1; next }
        /inherited from parent|nx_latch_create_doorbells/ { open = 0 }
        /^==[0-9]+== *$/ { if (open) { found = 1 }; open = 0 }
        END { exit !found }' "$1"
}

# One test, in one process each: a fork's copy of everything would count as lost.
run()
{
    local log=$work_dir/$1.log
    if CK_FORK=no CK_VERBOSITY=silent CK_DEFAULT_TIMEOUT=0 valgrind --quiet --leak-check=full \
        --errors-for-leak-kinds=definite --track-fds=yes --error-exitcode=99 --log-file="$log" \
        --suppressions=tests/valgrind.supp "build-valgrind/tests/test_$1" >"$log.out" 2>&1 &&
        ! left_open "$log"; then
        echo "ok $1"
        return 0
    fi
    echo "FAILED $1"
    tail -n 40 "$log" "$log.out"
    return 1
}
export -f run left_open
export work_dir
# shellcheck disable=SC2016 # the inner shell's
printf '%s\n' "${tests[@]}" | xargs -P "$(nproc)" -I '{}' bash -c 'run "$1"' - '{}'
