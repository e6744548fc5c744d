#!/usr/bin/env python3
"""How long a promotion takes: from POST /replication/promote to its answer, and to the first write that the new
master accepts; in async mode, and in sync mode with replication.peers.

    bench/promotion.py [--rounds N] [--replicas N] [--build DIR] [--mode async|sync|both] [--settled]

In each round the master is killed (SIGKILL to all its processes) right before; with --settled only once its replica
has found it dead. In sync mode a write is accepted with Nexus-Durability: local; one that the quorum confirms needs
another replica that follows the new master, which is told so as soon as the promotion is answered: that is timed too.
After a round the former master is started again and follows. Needs the release build; what the disk takes for one
small fdatasync is printed beside, as a promotion waits for several. The row promotion of scripts/bench.sh measures
it beside Redis, PostgreSQL and etcd.
"""
import argparse
import os
import statistics
import tempfile
import time

import lib


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--build", default=lib.DEFAULT_BUILD)
    parser.add_argument("--mode", choices=("async", "sync", "both"), default="both")
    parser.add_argument("--settled", action="store_true")
    return parser.parse_args()


def show(name, times):
    times = sorted(times)
    at = lambda share: times[min(int(share * len(times)), len(times) - 1)]
    print(f"  {name:<42} median {statistics.median(times):6.1f} ms   90 % {at(0.9):6.1f}   "
          f"99 % {at(0.99):6.1f}   most {times[-1]:6.1f}   least {times[0]:6.1f}")


def time_of_fdatasync():
    """Milliseconds for 4 KiB more of a file, at the median, where the nodes' directories are."""
    times = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            file.flush()
            began = time.monotonic()
            os.fdatasync(file.fileno())
            times.append((time.monotonic() - began) * 1000)
    return statistics.median(times)


def measure(mode, args):
    from lib import promotions

    nodes = promotions.Nodes(mode, args.replicas)
    times = {}
    try:
        nodes.cluster.start()
        for number in range(args.rounds):
            for name, milliseconds in promotions.run_round(nodes, number, args.settled).items():
                times.setdefault(name, []).append(milliseconds)
    finally:
        nodes.end()
    print(f"{mode}, {args.replicas} replicas, {args.rounds} rounds:")
    for name, found in times.items():
        show(name, found)


def main():
    args = arguments()
    lib.use_build(args.build)
    print(f"one fdatasync of 4 KiB: {time_of_fdatasync():.2f} ms")
    for mode in ("async", "sync") if args.mode == "both" else (args.mode,):
        measure(mode, args)


if __name__ == "__main__":
    main()
