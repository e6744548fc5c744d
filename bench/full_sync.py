#!/usr/bin/env python3
"""How long a full sync takes, beside pg_basebackup of as much data, both in turn on this machine.

    bench/full_sync.py [--keys N] [--value BYTES] [--rounds N] [--build DIR] [--no-postgres]

A master is filled with N keys whose values are half random and half constant; then a new replica is started
again and again, and timed from its start until it has all of it and streams. PostgreSQL gets a table of as many
rows of the same values, and pg_basebackup (plain format, WAL streamed, fast checkpoint) copies it from the same
machine. Times are taken A B A B ..., and what counts is the ratio of their medians. Needs the release build, and
the package postgresql of Debian 12 for the other side (scripts/install-deps.sh bench). The row full-sync of
scripts/bench.sh measures the same beside Redis too.
"""
import argparse
import resource
import statistics
import sys

import lib


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--build", default=lib.DEFAULT_BUILD)
    parser.add_argument("--no-postgres", action="store_true")
    return parser.parse_args()


def show_log(replica):
    for line in replica.log().splitlines():
        if "full sync" in line:
            print("   ", line[11:], file=sys.stderr)


def measure(bench, servers, args):
    from lib import full_syncs

    master = servers.nexus(server__log_level="info")
    full_syncs.fill(master, args.keys, args.value)
    full_syncs.bring_into_state(master)
    idle, peaks = full_syncs.memory_of(master), {}
    offset = master.status()["wal_offset"]
    postgres = None if args.no_postgres else servers.postgres(fill=args.keys, value=args.value)
    if postgres is not None:
        print("bytes in PostgreSQL:", postgres.sql("select pg_database_size('postgres')")[0][0])

    def ours():
        with bench.servers() as more:
            replica = more.new_replica(master, server__log_level="info")
            seconds = full_syncs.full_sync(master, replica, offset, peaks)
            show_log(replica)
            full_syncs.forget_snapshot(master)
            return {"figures": {"seconds": seconds}}

    sides = {"full sync": ours, "pg_basebackup": postgres and postgres_copy(bench, postgres)}
    from lib import pairs

    results = pairs.in_turn(bench, sides)
    for name in results:
        print(f"{name}: median {pairs.median(results, name, 'seconds'):.2f} s")
    if postgres is not None:
        own = pairs.median(results, "full sync", "seconds")
        theirs = [statistics.median(pairs.figures(results, "pg_basebackup", name)) for name in ("seconds", "serving_s")]
        print(f"ratio of medians: {own / theirs[0]:.2f}, to a standby that serves {own / theirs[1]:.2f}")
    print("own memory, MiB: at most", {k: round(v, 1) for k, v in sorted(peaks.items())},
          "idle", {k: round(v, 1) for k, v in sorted(idle.items())})


def postgres_copy(bench, postgres):
    from lib import replication

    return replication.postgres_full_sync(bench, postgres)


def main():
    args = arguments()
    lib.use_build(args.build)
    from lib import session

    with session.Bench(pairs=args.rounds) as bench, bench.servers() as servers:
        measure(bench, servers, args)
    print("children's cpu:", round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, 1), "s")


if __name__ == "__main__":
    main()
