#!/usr/bin/env python3
"""What expiring keys cost the writes beside them: the latency of small writes while many keys expire, against the same
while none does, in turn on one node.

    bench/expiry.py [--keys N] [--seconds S] [--windows N] [--clients N] [--replicas N] [--build DIR]

The keys' moments are spread over S seconds in all, cut into as many windows; between two of them nothing expires. So
each window in which keys expire stands beside one in which none does. Needs the release build. Printed: latency
of both, their ratio, and how many keys were deleted in how many entries.
"""
import argparse
import os
import random
import selectors
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(HERE)
VALUE = b"x" * 100


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--keys", type=int, default=1000000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--replicas", type=int, default=0)
    parser.add_argument("--build", default=os.path.join(SOURCE, "build"))
    return parser.parse_args()


OPTIONS = arguments()
os.environ.setdefault("NEXUS_BUILD_DIR", OPTIONS.build)
os.environ.setdefault("NEXUS_SOURCE_DIR", SOURCE)
sys.path.insert(0, os.path.join(SOURCE, "tests", "lib"))

import expiry  # noqa: E402
from load import Connection, put  # noqa: E402
from nexus_test import Cluster  # noqa: E402


class Windows:
    """Times in which keys expire, each followed by one in which none does."""

    def __init__(self, began_ms, count, length_ms):
        self.began_ms = began_ms
        self.length_ms = length_ms
        self.count = count

    def moment(self, share):
        """Of the keys' whole time, 0 to 1, to a moment in a window."""
        at = share * self.count * self.length_ms
        window = min(int(at // self.length_ms), self.count - 1)
        return int(self.began_ms + 2 * window * self.length_ms + (at - window * self.length_ms))

    def expiring(self, ms):
        """Whether keys expire then; None: outside of all windows, or near an edge."""
        at = (ms - self.began_ms) / self.length_ms
        if at < 0 or at >= 2 * self.count or not 0.05 < at % 1 < 0.9:
            return None
        return int(at) % 2 == 0

    @property
    def end_ms(self):
        return self.began_ms + 2 * self.count * self.length_ms


def write_until(node, end_ms, windows):
    """Latencies in us by whether keys expired meanwhile. Each client has one write under way."""
    found = {True: [], False: []}
    selector = selectors.DefaultSelector()
    random_of = random.Random(1)

    def send(connection):
        connection.sent = time.perf_counter()
        connection.send([put(f"w{random_of.randrange(100000):06d}", VALUE)])

    for _ in range(OPTIONS.clients):
        connection = Connection(node.http_port)
        selector.register(connection.sock, selectors.EVENT_READ, connection)
        send(connection)
    while (now := expiry.now_ms()) < end_ms:
        for key, _ in selector.select(1):
            connection = key.data
            status, _, _ = connection.answer()
            assert status in (200, 201), status
            expiring = windows.expiring(now)
            if expiring is not None:
                found[expiring].append((time.perf_counter() - connection.sent) * 1e6)
            send(connection)
    return found


def show(name, values):
    values = sorted(values)
    at = lambda share: values[min(int(share * len(values)), len(values) - 1)]
    print(f"  {name:<16} {len(values):>9} writes   p50 {at(0.5):7.0f} us   p99 {at(0.99):7.0f} us   "
          f"p99.9 {at(0.999):7.0f} us")
    return statistics.median(values), at(0.99)


def run():
    settings = {"http.workers": 1, "replication.max_log_size": 2 * OPTIONS.keys + 100000}
    with Cluster(OPTIONS.replicas, settings=settings) as cluster:
        cluster.start()
        lead = 4000 + OPTIONS.keys // 30
        windows = Windows(expiry.now_ms() + lead, OPTIONS.windows, 1000 * OPTIONS.seconds / OPTIONS.windows)
        moments = {f"e{number:07d}": windows.moment(random.Random(number).random()) for number in range(OPTIONS.keys)}
        expiry.store(cluster.master, moments)
        assert expiry.now_ms() < windows.began_ms, "the import took longer than it was given"
        found = write_until(cluster.master, windows.end_ms, windows)
        print(f"{OPTIONS.keys} keys in {OPTIONS.windows} windows of {windows.length_ms / 1000:g} s, "
              f"{OPTIONS.clients} clients, {OPTIONS.replicas} replicas:")
        calm, calm_99 = show("none expires", found[False])
        busy, busy_99 = show("keys expire", found[True])
        print(f"  ratio            p50 {busy / calm:.2f}   p99 {busy_99 / calm_99:.2f}")
        if OPTIONS.replicas:
            cluster.wait_level()
        for node in reversed(cluster.nodes):
            node.stop()
        gone = expiry.deletions(cluster.master)
        expiry.check_deletions(gone, moments)
        print(f"  {len(gone)} keys deleted in {len({offset for _, offset, _ in gone})} entries, the latest "
              f"{max(stamp / 1000 - moments[key] for key, _, stamp in gone):.0f} ms after its moment")


if __name__ == "__main__":
    run()
