#!/usr/bin/env python3
"""How long a promotion takes: from POST /replication/promote to its answer, and to the first write that the new
master accepts; in async mode, and in sync mode with replication.peers.

    bench/promotion.py [--rounds N] [--replicas N] [--build DIR] [--mode async|sync|both] [--settled]

In each round the master is killed (SIGKILL to all its processes) right before; with --settled only once its replica
has found it dead. In sync mode a write is accepted with Nexus-Durability: local; one that the quorum confirms needs
another replica that follows the new master, which is told so as soon as the promotion is answered: that is timed too.
After a round the former master is started again and follows. Needs the release build; what the disk takes for one
small fdatasync is printed beside, as a promotion waits for several.
"""
import argparse
import json
import os
import statistics
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(HERE)
SETTINGS = {"replication.heartbeat_ms": 200, "http.workers": 2}
LOCAL = "Nexus-Durability: local\r\n"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--build", default=os.path.join(SOURCE, "build"))
    parser.add_argument("--mode", choices=("async", "sync", "both"), default="both")
    parser.add_argument("--settled", action="store_true")
    return parser.parse_args()


def milliseconds_since(began):
    return (time.monotonic() - began) * 1000


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
            times.append(milliseconds_since(began))
    return statistics.median(times)


class Nodes:
    """A master and its replicas, whose roles change."""

    def __init__(self, nexus_test, mode, replicas):
        self.nexus_test = nexus_test
        self.mode = mode
        settings = {**SETTINGS, "replication.mode": mode}
        self.cluster = nexus_test.Cluster(replicas, settings=settings)
        self.nodes = self.cluster.nodes
        self.master = self.cluster.master
        if mode == "sync":
            for node in self.nodes:
                others = [other.addr for other in self.nodes if other is not node]
                node.settings["replication.peers"] = ",".join(others)

    def others(self):
        return [node for node in self.nodes if node is not self.master]

    def follow(self, node):
        node.json("POST", "/replication/follow", {"master_addr": self.master.replication_addr})

    def wait_level(self):
        offset = self.master.status()["wal_offset"]
        epoch = self.master.status()["epoch"]
        for node in self.others():
            node.wait_status(
                60,
                role="replica",
                state="streaming",
                epoch=epoch,
                wal_offset=lambda value: value >= offset,
            )

    def write(self, count):
        self.master.wait_until(
            lambda: self.master.request("PUT", "/kv/first", b"x")[0] in (200, 201),
            what="a confirmed write",
        )
        for number in range(count):
            self.master.put(f"key-{number}", b"x" * 100)

    def end(self):
        self.cluster.cleanup()


def put(load, connection, number, headers=""):
    connection.send([load.put(f"after-{number}", b"v", headers)])
    status, _, body = connection.answer()
    if status not in (200, 201):
        raise RuntimeError(f"the write after the promotion: {status} {body!r}")


def wait_confirmed(load, connection, number):
    while True:
        connection.send([load.put(f"confirmed-{number}", b"v")])
        status, _, body = connection.answer()
        if status in (200, 201):
            return
        if json.loads(body).get("code") != "quorum_unavailable":
            raise RuntimeError(f"{status} {body!r}")


def promote(connection):
    """One request on a connection that is there already."""
    connection.send([b"POST /replication/promote HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"])
    status, _, body = connection.answer()
    if status != 200:
        raise RuntimeError(f"the promotion: {status} {body!r}")


def run_round(load, nodes, number, settled, times):
    nodes.write(20)
    nodes.wait_level()
    former, new = nodes.master, nodes.others()[0]
    rest = [node for node in nodes.others() if node is not new]
    asking, writing = load.Connection(new.http_port), load.Connection(new.http_port)
    with asking, writing:
        former.kill_all()
        if settled:
            new.wait_status(master_alive=False)
        began = time.monotonic()
        promote(asking)
        times["promotion, to its answer"].append(milliseconds_since(began))
        put(load, writing, number, LOCAL if nodes.mode == "sync" else "")
        times["promotion, to the first accepted write"].append(milliseconds_since(began))
        nodes.master = new
        for node in rest:
            nodes.follow(node)
        if nodes.mode == "sync" and rest:
            wait_confirmed(load, writing, number)
            times["promotion, to the first confirmed write"].append(milliseconds_since(began))
    former.launch()
    # Fenced; or it follows already, where it had led over the very master that its configuration names.
    former.wait_status(60, leader=bool, state=lambda state: state != "starting")
    nodes.follow(former)
    nodes.wait_level()


def measure(nexus_test, load, mode, args):
    nodes = Nodes(nexus_test, mode, args.replicas)
    names = ["promotion, to its answer", "promotion, to the first accepted write"]
    if mode == "sync" and args.replicas > 1:
        names.append("promotion, to the first confirmed write")
    times = {name: [] for name in names}
    try:
        nodes.cluster.start()
        for number in range(args.rounds):
            run_round(load, nodes, number, args.settled, times)
    finally:
        nodes.end()
    print(f"{mode}, {args.replicas} replicas, {args.rounds} rounds:")
    for name, found in times.items():
        show(name, found)


def main():
    args = arguments()
    os.environ["NEXUS_BUILD_DIR"] = args.build
    os.environ["NEXUS_SOURCE_DIR"] = SOURCE
    sys.path.insert(0, os.path.join(SOURCE, "tests", "lib"))
    import load  # pylint: disable=import-outside-toplevel
    import nexus_test  # pylint: disable=import-outside-toplevel

    print(f"one fdatasync of 4 KiB: {time_of_fdatasync():.2f} ms")
    for mode in ("async", "sync") if args.mode == "both" else (args.mode,):
        measure(nexus_test, load, mode, args)


if __name__ == "__main__":
    main()
