#!/usr/bin/env python3
"""Followers of /changes that are killed and resumed under a steady load: each must see every entry exactly once.

    bench/changes.py [--kills N] [--clients N] [--replicas N] [--build DIR]

Clients put small values as fast as they are answered (wrk). A follower, a curl on the master and one on each replica, appends
what comes to a file; it is killed (SIGKILL) at random moments and resumed with the id of the last whole event in its file.
Then the files are compared with the log: every offset once, in order. Printed: writes a second, and what the followers saw.
Needs the release build, curl and wrk.
"""
import argparse
import os
import random
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(HERE)
TAIL = 1 << 20  # bytes of a file's end in which the last whole event is looked for


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--build", default=os.path.join(SOURCE, "build"))
    return parser.parse_args()


OPTIONS = arguments()
os.environ.setdefault("NEXUS_BUILD_DIR", OPTIONS.build)
os.environ.setdefault("NEXUS_SOURCE_DIR", SOURCE)
sys.path.insert(0, os.path.join(SOURCE, "tests", "lib"))

from nexus_test import Cluster  # noqa: E402


PUTS = """
local number = 0
function request()
    number = number + 1
    return wrk.format("PUT", "/kv/k" .. (number % 50000), nil, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
end
"""


def start_writers(node, directory):
    script = os.path.join(directory, "puts.lua")
    with open(script, "w", encoding="ascii") as file:
        file.write(PUTS)
    return subprocess.Popen(
        ["wrk", "-t", "1", "-c", str(OPTIONS.clients), "-d", "600s", "-s", script, f"http://{node.addr}"],
        stdout=subprocess.DEVNULL,
    )


class Follower:
    """A curl that appends to a file; what it was in the middle of when it was killed is cut off."""

    def __init__(self, node, directory):
        self.name = node.name
        self.url = f"http://{node.addr}/changes"
        self.path = os.path.join(directory, node.name)
        self.last_id = "0@1"
        self.kills = 0
        open(self.path, "wb").close()
        self.resume()

    def resume(self):
        file = open(self.path, "ab")
        self.process = subprocess.Popen(
            ["curl", "-sSN", "-H", f"Last-Event-ID: {self.last_id}", self.url], stdout=file
        )
        file.close()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.kills += 1
        self.look()

    def look(self):
        """Finds the last whole event, and cuts off what follows it."""
        with open(self.path, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            at = max(0, size - TAIL)
            file.seek(at)
            tail = file.read()
            end = tail.rfind(b"\n\n") + 2
            if end >= 2:
                last = tail.rfind(b"id: ", 0, end)
                self.last_id = tail[last + 4 : tail.index(b"\n", last)].decode()
                file.truncate(at + end)
            elif at == 0:
                file.truncate(0)

    def offsets(self):
        """Of all events that are no progress, in order."""
        found = []
        progress = False
        with open(self.path, "rb") as file:
            for line in file:
                if line.startswith(b"event: progress"):
                    progress = True
                elif line.startswith(b"id: "):
                    if not progress:
                        found.append(int(line[4:].split(b"@")[0]))
                    progress = False
        return found


def check(follower, last):
    offsets = follower.offsets()
    if offsets != list(range(1, last + 1)):
        wrong = next((i for i, offset in enumerate(offsets) if offset != i + 1), len(offsets))
        sys.exit(f"{follower.name}: of {last} entries, event {wrong} has offset {offsets[wrong : wrong + 1]}")
    print(f"  {follower.name:<10} killed {follower.kills} times, saw all {last} entries once, in order")


def at_rest(node):
    before = node.status()["wal_offset"]
    time.sleep(0.2)
    return node.status()["wal_offset"] == before


def run(cluster, directory):
    followers = [Follower(node, directory) for node in cluster.nodes]
    writers = start_writers(cluster.master, directory)
    began = time.monotonic()
    rng = random.Random(1)
    while min(follower.kills for follower in followers) < OPTIONS.kills:
        time.sleep(rng.uniform(0.02, 0.2))
        for follower in followers:
            follower.kill()
            follower.resume()
    seconds = time.monotonic() - began
    writers.kill()
    writers.wait()
    cluster.master.wait_until(lambda: at_rest(cluster.master), what="the end of the writes")
    last = cluster.master.status()["wal_offset"]
    print(f"{last / seconds:.0f} writes/s for {seconds:.0f} s, {OPTIONS.kills} kills a follower:")
    cluster.wait_level()
    ended = time.monotonic()
    while any(int(follower.last_id.split("@")[0]) < last for follower in followers):
        time.sleep(0.02)
        for follower in followers:
            follower_at_end(follower, last)
    print(f"  level {time.monotonic() - ended:.1f} s after the last write")
    for follower in followers:
        follower.kill()
        check(follower, last)


def follower_at_end(follower, last):
    """Looks how far it is without disturbing it."""
    with open(follower.path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        tail = file.read()
    at = tail.rfind(f"id: {last}@".encode())
    if at >= 0 and tail.find(b"\n\n", at) >= 0:
        follower.last_id = f"{last}@"


def main():
    settings = {"http.workers": 2, "replication.max_log_size": 10000000}
    with tempfile.TemporaryDirectory() as directory, Cluster(OPTIONS.replicas, settings=settings) as cluster:
        run(cluster.start(), directory)


if __name__ == "__main__":
    main()
