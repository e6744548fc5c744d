#!/bin/sh
# Installs the Debian packages that Nexus is built, run, tested or checked with, when they are missing.
#
#   scripts/install-deps.sh [build] [run] [test] [fuzz] [afl] [valgrind] [lint] [bench]      without a group: build
#
# run: what nexus-ctl and the quick start call; the tests need it too.
#
# As root, or through sudo. Does nothing, without any network, when all of them are there.
set -eu

build_packages='gcc libc6-dev cmake ninja-build pkg-config
    libevent-dev liblmdb-dev libdeflate-dev libjson-c-dev libinih-dev uuid-dev libbsd-dev
    libhttp-parser-dev libarchive-dev libzstd-dev libssl-dev libxxhash-dev'
run_packages='curl jq util-linux procps'
test_packages="check iproute2 nftables openssl python3 valgrind zstd $run_packages"
fuzz_packages='clang'
afl_packages='afl++'
valgrind_packages='valgrind'
lint_packages='clang clang-format clang-tidy cppcheck shellcheck pyflakes3'
bench_packages='redis-server redis-tools etcd-server etcd-client postgresql postgresql-contrib
    python3 python3-matplotlib wrk'

fail()
{
    echo "install-deps: $*" >&2
    exit 1
}

is_installed()
{
    case $(dpkg-query -W -f='${Status}' "$1" 2>/dev/null) in
    *' installed') return 0 ;;
    *) return 1 ;;
    esac
}

# Runs a command as root with its output in $log, which is shown when it fails.
as_root()
{
    if [ "$(id -u)" -eq 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null && return 0
    else
        # shellcheck disable=SC2024 # the log is this user's
        sudo env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 && return 0
    fi
    cat "$log" >&2
    fail "failed: $*"
}

wanted=
for group in "${@:-build}"; do
    case $group in
    build) wanted="$wanted $build_packages" ;;
    run) wanted="$wanted $run_packages" ;;
    test) wanted="$wanted $test_packages" ;;
    fuzz) wanted="$wanted $fuzz_packages" ;;
    afl) wanted="$wanted $afl_packages" ;;
    valgrind) wanted="$wanted $valgrind_packages" ;;
    lint) wanted="$wanted $lint_packages" ;;
    bench) wanted="$wanted $bench_packages" ;;
    *) fail "unknown group '$group': expected build, run, test, fuzz, afl, valgrind, lint or bench" ;;
    esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086 # a list of words
    fail "this is not a Debian system; install what these packages hold by other means:" $wanted
fi

missing=
for package in $wanted; do
    is_installed "$package" || missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo "install-deps: ${*:-build}: nothing is missing"
    exit 0
fi
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    fail "these packages are missing; install them as root: apt-get install$missing"
fi

echo "install-deps: ${*:-build}: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Another apt-get may be at work on a machine that has just started.
# shellcheck disable=SC2086 # a list of words
{
    as_root apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update
    as_root apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        install --no-install-recommends $missing
}
