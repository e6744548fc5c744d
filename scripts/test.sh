#!/usr/bin/env bash
# Builds Nexus with warnings as errors and runs all of its tests; installs what that needs.
#
#   scripts/test.sh [ctest arguments]      e.g. scripts/test.sh -R unit/wire
#
# Four builds: build-asan (AddressSanitizer and UBSan: everything that can run there), build
# (release: tests that preload libraries or measure, label release), build-fuzz (each fuzz target for a
# moment) and build-tsan (unit tests labelled tsan). A report of a sanitizer fails the run, whichever process of a test wrote it.
#
#   NEXUS_TEST_JOBS    tests at a time (twice the processors and one: they mostly wait)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

cores=$(nproc)
jobs=${NEXUS_TEST_JOBS:-$((2 * cores + 1))}
failures=()
ran=0

# Builds a preset; an old build folder of another generator or place is configured afresh.
build()
{
    local preset=$1 dir=$2 fresh=() tests=ON
    [[ $preset != fuzz ]] || tests=OFF
    if [[ -f $dir/CMakeCache.txt ]] &&
        ! { grep -qx 'CMAKE_GENERATOR:INTERNAL=Ninja' "$dir/CMakeCache.txt" &&
            grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$dir/CMakeCache.txt"; }; then
        fresh=(--fresh)
    fi
    if ! { cmake "${fresh[@]}" --preset "$preset" -DNEXUS_BUILD_TESTS=$tests &&
        cmake --build --preset "$preset" -j "$cores"; } >"$run_dir/build.log" 2>&1; then
        grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking)|^-- ' "$run_dir/build.log" | tail -n 100
        echo "test.sh: the $preset build failed" >&2
        failures+=("build of $preset")
        return 1
    fi
}

# Runs ctest in a build folder, and looks for what sanitizers wrote meanwhile.
run_tests()
{
    local name=$1 dir=$2 report passed
    shift 2
    mkdir -p "$run_dir/$name"
    echo "test.sh: tests of the $name build"
    local options="log_path=$run_dir/$name/report:exitcode=99:print_stacktrace=1"
    ASAN_OPTIONS="$options:detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=0" \
        UBSAN_OPTIONS="$options" TSAN_OPTIONS="$options" LSAN_OPTIONS="print_suppressions=0" \
        "${fixed_layout[@]}" ctest --test-dir "$dir" --output-on-failure -j "$jobs" "$@" \
        2>&1 | tee "$run_dir/$name.log" |
        grep --line-buffered -vE '^(Internal ctest|Test project|Label Time|Total Test| +Start |$)|sec\*proc'
    if [[ ${PIPESTATUS[0]} -ne 0 ]]; then
        failures+=("tests of $name")
    fi
    passed=$(sed -nE 's/^[0-9]+% tests passed, [0-9]+ tests failed out of ([0-9]+)$/\1/p' \
        "$run_dir/$name.log")
    ran=$((ran + ${passed:-0}))
    for report in "$run_dir/$name"/report.*; do
        [[ -e $report ]] || continue
        # The tracer of the leak check lost a thread that ended: no finding.
        grep -qvE '^==[0-9]+==Unable to get registers from thread' "$report" || continue
        echo "--- a sanitizer's report, ${report##*/} ---"
        head -n 80 "$report"
        failures+=("sanitizer report in $name")
    done
}

# A whole run uses all failpoints and planted bugs.
check_points()
{
    local unused
    unused=$(sed -nE 's/^NX_(POINT|PLANT)\((\w+),.*/\2/p' src/common/failpoints.def |
        grep -vxFf <(sort -u "$NEXUS_FAILPOINT_USED"))
    if [[ -n $unused ]]; then
        echo "test.sh: failpoints that no test has used: ${unused//$'\n'/ }"
        failures+=("unused failpoints")
    fi
}

finish()
{
    if [[ ${#failures[@]} -gt 0 ]]; then
        echo "test.sh: FAILED after $SECONDS s ($ran tests run):"
        printf '  %s\n' "${failures[@]}" | sort | uniq -c
        exit 1
    fi
    if [[ $ran -eq 0 ]]; then
        echo "test.sh: FAILED: no test was run"
        exit 1
    fi
    echo "test.sh: all $ran tests passed in $SECONDS s"
    exit 0
}

scripts/install-deps.sh build test fuzz || exit 1

run_dir=$(mktemp -d "${TMPDIR:-/tmp}/nexus-test.XXXXXX") || exit 2
trap 'rm -rf "$run_dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# No core files, and no randomised addresses where the kernel spreads them wider than the shadow
# memory of these sanitizers allows.
ulimit -c 0
fixed_layout=()
random_bits=$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)
if [[ $random_bits -gt 28 ]] && setarch -R true 2>/dev/null; then
    fixed_layout=(setarch -R)
fi

export NEXUS_FAILPOINT_USED=$run_dir/points
: >"$NEXUS_FAILPOINT_USED"
build asan build-asan && run_tests asan build-asan "$@"
[[ $# -gt 0 ]] || check_points
build fuzz build-fuzz && run_tests fuzz build-fuzz "$@"
build tsan build-tsan && run_tests tsan build-tsan -L '^tsan$' "$@"
build release build && run_tests release build -L '^release$' "$@"
finish
