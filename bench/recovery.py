#!/usr/bin/env python3
"""How long a node is away after one of its processes is killed, and after all of them are.

    bench/recovery.py [--rounds N] [--data MIB] [--build DIR]

First SIGKILL to each kind of process of a node, N times, with a client that writes and one that reads without a pause:
the time from the kill to the next write, and to the next read, that is answered well. Then a node with so much data in
its state, and as much log behind the last merge as its memory holds, is killed whole (SIGKILL to all processes) and
started: the time to the first read that is answered, and what it said of its progress meanwhile. Needs the release
build. The rows restart-... of scripts/bench.sh measure the second beside Redis, PostgreSQL and etcd.
"""
import argparse
import http.client
import statistics
import threading
import time

import lib

KINDS = ("walwriter", "checkpointer", "http")
DEATHS = 3  # of one start: one that dies again and again is started later and later


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--data", type=int, default=1024, help="MiB")
    parser.add_argument("--build", default=lib.DEFAULT_BUILD)
    return parser.parse_args()


class Client:
    """Asks again and again, and notes when it was answered well."""

    def __init__(self, port, method):
        self.port = port
        self.method = method
        self.answered = []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        while not self.done.is_set():
            try:
                connection.request(self.method, "/kv/probe", b"v" if self.method == "PUT" else None)
                response = connection.getresponse()
                response.read()
                if response.status in (200, 201):
                    self.answered.append(time.monotonic())
                else:
                    self.done.wait(0.001)
            except (OSError, http.client.HTTPException):
                connection.close()
                self.done.wait(0.001)

    def wait_after(self, moment):
        """Seconds from then to the first answer that was asked for behind it: the second one that came."""
        while len([at for at in self.answered[-3:] if at > moment]) < 2:
            time.sleep(0.0005)
        return next(at for at in self.answered if at > moment) - moment, self.answered[-1] - moment

    def end(self):
        self.done.set()
        self.thread.join()


def show(name, times):
    times = sorted(1000 * time_ for time_ in times)
    print(f"  {name:<34} median {statistics.median(times):7.1f} ms   most {times[-1]:7.1f}   least {times[0]:7.1f}")


def children(nexus_test, rounds):
    node = nexus_test.Node("master", settings={"http.workers": 2})
    try:
        node.start()
        node.put("probe", b"v")
        clients = {"write": Client(node.http_port, "PUT"), "read": Client(node.http_port, "GET")}
        for kind in KINDS:
            times = {name: [] for name in clients}
            for number in range(rounds):
                if number % DEATHS == 0:
                    node.stop()
                    node.start()
                time.sleep(0.3)
                old = node.kill_child(kind, wait=False)
                killed = time.monotonic()
                for name, client in clients.items():
                    times[name].append(client.wait_after(killed)[1])
                node.wait_replaced(kind, old)
            for name, list_ in times.items():
                show(f"{kind} killed, next {name}", list_)
        for client in clients.values():
            client.end()
    finally:
        node.cleanup()


def whole(nexus_test, rounds, mib):
    from lib import restarts

    node = nexus_test.Node("master", settings={"state.checkpoint_interval": "1h"})
    try:
        node.start()
        restarts.fill(node, mib)
        times, said = [], set()
        for _ in range(rounds):
            restarts.fill(node, 64)  # behind the last merge
            times.append(restarts.restart(node, said=said))
        show(f"all killed with {mib} MiB, next read", times)
        print("  meanwhile it says:", *sorted(said)[:2], sep="\n    ")
    finally:
        node.cleanup()


def main():
    options = arguments()
    lib.use_build(options.build)
    import nexus_test

    children(nexus_test, options.rounds)
    whole(nexus_test, min(options.rounds, 10), options.data)


if __name__ == "__main__":
    main()
