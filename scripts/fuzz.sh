#!/usr/bin/env bash
# Fuzzes what reads the bytes of strangers and of disks (tests/fuzz):
#
#   scripts/fuzz.sh [--minutes N] [--target T] [--jobs N] [--engine libfuzzer|afl]     N minutes for each target (1)
#
# Prints executions, coverage and findings of each target. What is found on the way is kept in build-fuzz/corpus/T and
# goes on from there the next time; what breaks something is in build-fuzz/findings/T (exit status 1): mend it, and
# keep it in tests/fuzz/regressions/T.
#
#   scripts/fuzz.sh --smoke T      seeds, regressions and a moment more, in a build that is there (ctest does that)
set -euo pipefail
cd "$(dirname "$0")/.."

# Ten seconds for an input are a hang, on a busy machine too; half a gigabyte is too much, of which what ASan keeps to
# find uses after free is no part.
limits=(-timeout=10 -rss_limit_mb=512 -malloc_limit_mb=256 -max_len=60000)
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=64

# Where targets keep their files: in memory, if there is such a place; what one that was ended leaves goes with it.
memory=${TMPDIR:-/tmp}
[[ ! -w /dev/shm ]] || memory=/dev/shm
NEXUS_FUZZ_SCRATCH=$(mktemp -d "$memory/nx-fuzz.XXXXXX")
export NEXUS_FUZZ_SCRATCH
trap 'rm -rf "$NEXUS_FUZZ_SCRATCH"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

smoke()
{
    local target=$1 dir=$NEXUS_FUZZ_DIR scratch=$NEXUS_FUZZ_SCRATCH/new
    local inputs=("$dir/seeds/$target")
    local findings=$dir/../findings/$target
    mkdir -p "$scratch" "$findings"
    [[ ! -d tests/fuzz/regressions/$target ]] || inputs+=("tests/fuzz/regressions/$target")
    "$dir/fuzz_$target" "${limits[@]}" -verbosity=0 -print_final_stats=1 -max_total_time="${NEXUS_FUZZ_SECONDS:-2}" \
        -artifact_prefix="$findings/" "$scratch" "${inputs[@]}"
}

minutes=1 jobs=1 engine=libfuzzer only=
while [[ $# -gt 0 ]]; do
    case $1 in
    --smoke) smoke "$2" && exit 0 || exit 1 ;;
    --minutes) minutes=$2 ;;
    --target) only=$2 ;;
    --jobs) jobs=$2 ;;
    --engine) engine=$2 ;;
    *)
        echo "fuzz.sh: unknown option $1; see the beginning of scripts/fuzz.sh" >&2
        exit 2
        ;;
    esac
    shift 2
done

scripts/install-deps.sh build test fuzz >&2

case $engine in
libfuzzer) dir=build-fuzz options=(--preset fuzz) ;;
afl)
    dir=build-afl
    scripts/install-deps.sh afl >&2
    export AFL_USE_ASAN=1 AFL_QUIET=1 ASAN_OPTIONS=abort_on_error=1:symbolize=0:detect_leaks=0:quarantine_size_mb=64
    options=(--preset fuzz -B "$dir" -DCMAKE_C_COMPILER=afl-clang-fast)
    ;;
*)
    echo "fuzz.sh: --engine takes libfuzzer or afl" >&2
    exit 2
    ;;
esac
cmake "${options[@]}" >/dev/null
cmake --build "$dir" -j "$(nproc)" >/dev/null

# Runs one target for its time; says what came of it.
fuzz_libfuzzer()
{
    local target=$1
    local corpus=$dir/corpus/$target findings=$dir/findings/$target log=$dir/$target.log
    local inputs=("$corpus" "$dir/fuzz/seeds/$target")
    mkdir -p "$corpus" "$findings"
    [[ ! -d tests/fuzz/regressions/$target ]] || inputs+=("tests/fuzz/regressions/$target")
    local status=0
    "$dir/fuzz/fuzz_$target" "${limits[@]}" -max_total_time=$((minutes * 60)) -print_final_stats=1 \
        -artifact_prefix="$findings/" "${inputs[@]}" >"$log" 2>&1 || status=$?
    printf '%-10s %12s executions, %s, corpus %s, findings %s\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
        "$(grep -aoE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1)" "$(find "$corpus" -type f | wc -l)" \
        "$(find "$findings" -type f | wc -l)"
    return "$status"
}

fuzz_afl()
{
    local target=$1
    local out=$dir/out/$target
    mkdir -p "$out"
    local status=0
    AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 AFL_NO_AFFINITY=1 \
        afl-fuzz -m none -t 20000 -V $((minutes * 60)) -i "$dir/fuzz/seeds/$target" -o "$out" -- \
        "$dir/fuzz/fuzz_$target" >"$dir/$target.log" 2>&1 || status=$?
    local stats=$out/default/fuzzer_stats
    printf '%-10s %12s executions, %s edges, findings %s\n' "$target" "$(sed -n 's/^execs_done *: *//p' "$stats")" \
        "$(sed -n 's/^edges_found *: *//p' "$stats")" "$(sed -n 's/^saved_crashes *: *//p' "$stats")"
    [[ $status -eq 0 && $(sed -n 's/^saved_crashes *: *//p' "$stats") -eq 0 ]]
}

failed=0
running=0
for file in tests/fuzz/fuzz_*.c; do
    target=$(basename "${file#tests/fuzz/fuzz_}" .c)
    [[ -z $only || $only == "$target" ]] || continue
    if [[ $running -ge $jobs ]]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    if [[ $engine == afl ]]; then
        fuzz_afl "$target" &
    else
        fuzz_libfuzzer "$target" &
    fi
    running=$((running + 1))
done
while [[ $running -gt 0 ]]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit $failed
