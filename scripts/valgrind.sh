#!/usr/bin/env bash
# Runs the unit tests, and real servers that replicate, sync and fail over, under valgrind: memory that is misused or
# lost.
#
#   scripts/valgrind.sh [TEST...]      of unit tests, e.g. scripts/valgrind.sh state wire; all, and servers, otherwise
#
# Not a part of scripts/test.sh, whose sanitizers find most of it sooner. Exit status 1: something was found.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-deps.sh build test valgrind
work_dir=$(mktemp -d "${TMPDIR:-/tmp}/nexus-valgrind.XXXXXX")
trap 'rm -rf "$work_dir"' EXIT
if ! { cmake -S . -B build-valgrind -G Ninja -DCMAKE_BUILD_TYPE=Debug -DNEXUS_BUILD_TESTS=ON &&
    cmake --build build-valgrind -j "$(nproc)" --target unit-tests nexus-server; } >"$work_dir/build.log" 2>&1; then
    tail -n 50 "$work_dir/build.log" >&2
    exit 1
fi

tests=("$@")
if [[ ${#tests[@]} -eq 0 ]]; then
    mapfile -t tests < <(find tests/unit -name 'test_*.c' -printf '%f\n' | sed -E 's/^test_(.*)\.c$/\1/' | sort)
fi

# One test, in one process each: a fork's copy of everything would count as lost.
run()
{
    local log=$work_dir/$1.log
    if CK_FORK=no CK_VERBOSITY=silent CK_DEFAULT_TIMEOUT=0 valgrind --quiet --leak-check=full \
        --errors-for-leak-kinds=definite --error-exitcode=99 --log-file="$log" \
        "build-valgrind/tests/test_$1" >"$log.out" 2>&1; then
        echo "ok $1"
        return 0
    fi
    echo "FAILED $1"
    tail -n 40 "$log" "$log.out"
    return 1
}
export -f run
export work_dir
# shellcheck disable=SC2016 # the inner shell's
printf '%s\n' "${tests[@]}" | xargs -P "$(nproc)" -I '{}' bash -c 'run "$1"' - '{}'
[[ $# -eq 0 ]] || exit 0

# Each server's processes report as they end (tests/lib/nexus_test.py). What kills or crashes them, or counts their
# milliseconds, is left to the sanitizers. All of it takes about an hour and a half.
export NEXUS_VALGRIND=1 NEXUS_BUILD_DIR=$PWD/build-valgrind NEXUS_SOURCE_DIR=$PWD NEXUS_SANITIZE=valgrind
export PYTHONPATH=$PWD/tests/lib
failed=0
while read -r file names; do
    log=$work_dir/$file.log
    # shellcheck disable=SC2086 # several names
    if python3 -B "tests/integration/test_$file.py" $names </dev/null >"$log" 2>&1; then
        echo "ok $file $names"
    else
        echo "FAILED $file"
        tail -n 60 "$log"
        failed=1
    fi
done <<'TESTS'
descriptors
replication Streaming.test_01_writes_appear_on_the_replica Streaming.test_05_a_replica_far_behind_is_streamed_from_wal_files Streaming.test_07_a_fast_stop_loses_nothing Refusals Ipv6
full_sync Needed.test_01_a_replica_that_was_away_too_long
failover
http_table
http_hostile
access
tls Http Replication.test_01_streaming_full_sync_and_deaths Replication.test_02_sync_writes_are_confirmed Replication.test_03_who_is_not_of_the_cluster_is_refused Replication.test_04_a_master_that_is_not_who_it_should_be Replication.test_05_one_side_without_tls Replication.test_07_another_certificate_by_a_reload Replication.test_09_a_stranger_in_a_dead_master_s_place_is_no_life Failover Mirror Documentation
snapshot_http Making Failing Deleting Files Transfers
promote
sync
restore
diverged
wait
wire_hostile HostileMasters HostileReplicas
sync_hostile
snapshot_transfers
checkpoint
claims
changes
expiry
expiry_http
promote_http
health
consistency
log_ends
config_cli
curl
nexus_ctl
guide
guide_troubleshooting
snapshot_hostile
snapshot_bombs
sync_attacks
failover_mistakes
failover_rounds
TESTS
[[ $failed -eq 0 ]]
