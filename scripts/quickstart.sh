#!/usr/bin/env bash
# Nexus in a minute: builds it, starts a master and a replica on this machine, imports this machine's own
# package catalogue into the master and reads it back from both. Safe to run again.
#
#     scripts/quickstart.sh         build, start, import, show
#     scripts/quickstart.sh stop    stop both nodes and remove ./quickstart
set -Eeuo pipefail
cd "$(dirname "$0")/.."

master_http=127.0.0.1:15474
replica_http=127.0.0.1:25474
ctl=scripts/nexus-ctl

# The two nodes are what this script says, whatever is set for other ones.
for variable in ${!NEXUS_@}; do
    unset "$variable"
done

usage() {
    echo "usage: scripts/quickstart.sh [stop]"
}

say() {
    printf '\n== %s\n' "$*"
}

ask() {
    curl -q -fsS --noproxy '*' "$@"
}

# Nothing is removed of a node that may still run.
stop_node() {
    local status=0
    [ -d "quickstart/$1" ] || return 0
    "$ctl" status -s -D "quickstart/$1" >/dev/null 2>&1 || status=$?
    case $status in
    0) "$ctl" stop -D "quickstart/$1" ;;
    3 | 4) ;; # it doesn't run, or never did
    *)
        echo "It can't be told whether the $1 runs; nothing is removed." >&2
        exit 1
        ;;
    esac
}

stop_all() {
    if [ ! -d quickstart ]; then
        echo "There is no ./quickstart: nothing to stop."
        return
    fi
    stop_node replica
    stop_node master
    rm -rf quickstart
    echo "Both nodes are stopped and ./quickstart is removed."
}

case "$#:${1:-}" in
0:) ;;
1:stop)
    stop_all
    exit 0
    ;;
1:-h | 1:--help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 1
    ;;
esac

# Where something fails once a node was started, say how to clean up.
started=no
trap '[ "$started" = no ] || echo "quickstart.sh: stopped half-way; scripts/quickstart.sh stop ends what runs." >&2' ERR

# start_node NAME HTTP REPLICATION [SETTING ...]: starts it unless it runs already.
start_node() {
    local name=$1 http=$2 replication=$3
    shift 3
    mkdir -p "quickstart/$name"
    chmod 0700 "quickstart/$name"
    if "$ctl" status -s -D "quickstart/$name" >/dev/null 2>&1; then
        echo "the $name runs already"
        return
    fi
    {
        echo "# Written by scripts/quickstart.sh"
        echo "[http]"
        echo "bind_addr = $http"
        echo "[replication]"
        echo "bind_addr = $replication"
        printf '%s\n' "$@"
    } >"quickstart/$name/nexus.conf"
    started=yes
    "$ctl" start -D "quickstart/$name"
}

# One JSON line a package of dpkg's catalogue: its name, and its stanza as the value.
catalogue() {
    jq -R -s -c 'split("\n\n")[] | select(startswith("Package: "))
        | {key: (split("\n")[0] | ltrimstr("Package: ")), value: .}' /var/lib/dpkg/status
}

# Waits until the replica has what the master has.
wait_for_replica() {
    local goal
    goal=$(ask "http://$master_http/replication/status" | jq .wal_offset)
    ask -o /dev/null -H "Nexus-Min-Offset: $goal" "http://$replica_http/kv/bash"
}

say "Installing what the build needs"
scripts/install-deps.sh build run

say "Building build/nexus-server"
build() {
    # --fresh: a build folder may be of another place or generator.
    cmake --fresh -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release && cmake --build build --target nexus-server
}
log=$(mktemp "${TMPDIR:-/tmp}/nexus-build.XXXXXX")
if ! build >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "The build failed; all of its output is in $log." >&2
    exit 1
fi
rm -f "$log"
build/nexus-server --version

say "Starting a master (HTTP $master_http) and a replica of it (HTTP $replica_http)"
start_node master "$master_http" 127.0.0.1:15475 "role = master"
start_node replica "$replica_http" 127.0.0.1:25475 "role = replica" "master_addr = 127.0.0.1:15475"

say "Importing this machine's package catalogue into the master"
catalogue | ask --data-binary @- "http://$master_http/import"
wait_for_replica

say "The same key, read from the master and from the replica"
for node in "$master_http" "$replica_http"; do
    echo "\$ curl http://$node/kv/bash | head -n 4"
    ask "http://$node/kv/bash" | sed -n 1,4p
done

say "How the two are"
echo "\$ curl http://$master_http/replication/status | jq '.running and .replica_count > 0'"
ask "http://$master_http/replication/status" | jq '.running and .replica_count > 0'
echo "\$ curl http://$replica_http/replication/status | jq '.connected and .lag < 1000'"
ask "http://$replica_http/replication/status" | jq '.connected and .lag < 1000'
ask "http://$master_http/replication/replicas" |
    jq -r '.replicas[] | "replica \(.id): acknowledged \(.last_ack_offset), lag \(.lag), healthy \(.healthy)"'

cat <<END

Both nodes run. Try:
    curl -X PUT --data 'world' http://$master_http/kv/hello
    curl http://$replica_http/kv/hello
    $PWD/build/nexus-ctl status -D $PWD/quickstart/replica
Logs: $PWD/quickstart/master/nexus.log, $PWD/quickstart/replica/nexus.log
Stop and clean up: $PWD/scripts/quickstart.sh stop
END
