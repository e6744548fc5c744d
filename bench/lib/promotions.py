"""The time that a promotion takes: shared by bench/promotion.py and the row."""
import json
import time

import load
import nexus_test

SETTINGS = {"replication.heartbeat_ms": 200, "http.workers": 2}
LOCAL = "Nexus-Durability: local\r\n"
ANSWER, ACCEPTED, CONFIRMED = (f"promotion, to {what}" for what in
                               ("its answer", "the first accepted write", "the first confirmed write"))


def milliseconds_since(began):
    return (time.monotonic() - began) * 1000


class Nodes:
    """A master and its replicas, whose roles change."""

    def __init__(self, mode, replicas):
        self.mode = mode
        self.cluster = nexus_test.Cluster(replicas, settings={**SETTINGS, "replication.mode": mode})
        self.nodes = self.cluster.nodes
        self.master = self.cluster.master
        if mode == "sync":
            for node in self.nodes:
                others = [other.addr for other in self.nodes if other is not node]
                node.settings["replication.peers"] = ",".join(others)

    def pids(self):
        return [process.pid for node in self.nodes for process in node.all_processes()]

    def others(self):
        return [node for node in self.nodes if node is not self.master]

    def follow(self, node):
        node.json("POST", "/replication/follow", {"master_addr": self.master.replication_addr})

    def wait_level(self):
        status = self.master.status()
        for node in self.others():
            node.wait_status(
                60,
                role="replica",
                state="streaming",
                epoch=status["epoch"],
                wal_offset=lambda value: value >= status["wal_offset"],
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


def _put(connection, number, headers=""):
    connection.send([load.put(f"after-{number}", b"v", headers)])
    status, _, body = connection.answer()
    if status not in (200, 201):
        raise RuntimeError(f"the write after the promotion: {status} {body!r}")


def _wait_confirmed(connection, number):
    while True:
        connection.send([load.put(f"confirmed-{number}", b"v")])
        status, _, body = connection.answer()
        if status in (200, 201):
            return
        if json.loads(body).get("code") != "quorum_unavailable":
            raise RuntimeError(f"{status} {body!r}")


def _promote(connection):
    """One request on a connection that is there already."""
    connection.send([b"POST /replication/promote HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"])
    status, _, body = connection.answer()
    if status != 200:
        raise RuntimeError(f"the promotion: {status} {body!r}")


def run_round(nodes, number, settled=False):
    """The master is killed, and a replica promoted; then the former master follows. -> milliseconds by what was
    reached."""
    nodes.write(20)
    nodes.wait_level()
    former, new = nodes.master, nodes.others()[0]
    rest = [node for node in nodes.others() if node is not new]
    asking, writing = load.Connection(new.http_port), load.Connection(new.http_port)
    times = {}
    with asking, writing:
        former.kill_all()
        if settled:
            new.wait_status(master_alive=False)
        began = time.monotonic()
        _promote(asking)
        times[ANSWER] = milliseconds_since(began)
        _put(writing, number, LOCAL if nodes.mode == "sync" else "")
        times[ACCEPTED] = milliseconds_since(began)
        nodes.master = new
        for node in rest:
            nodes.follow(node)
        if nodes.mode == "sync" and rest:
            _wait_confirmed(writing, number)
            times[CONFIRMED] = milliseconds_since(began)
    former.launch()
    # Fenced; or it follows already, where it had led over the very master that its configuration names.
    former.wait_status(60, leader=bool, state=lambda state: state != "starting")
    nodes.follow(former)
    nodes.wait_level()
    return times
