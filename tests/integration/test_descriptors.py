# timeout: 240
"""No descriptor is lost: what clients, peers, reloads, snapshots, deaths and full syncs open is closed again, in every
process, in the clear and with TLS. (No sanitizer counts them.)"""

import os
import shutil
import signal
import socket
import tempfile
import unittest
from collections import Counter

import certificates
import nexus_wire as wire
from certificates import Authority
from full_sync import SMALL, FullSyncCase
from nexus_test import HOST, wait_until

ROUNDS = 8
DEATHS = 3  # in so many of the rounds: who dies often is started again after a while only
LASTING = {"walwriter", "checkpointer", "http", "walsender", "walreceiver"}
SLACK = 1  # a file that a process has open at one moment and not at another


def opened(pid):
    """Where its descriptors lead."""
    directory = f"/proc/{pid}/fd"
    paths = []
    for name in os.listdir(directory):
        try:
            paths.append(os.readlink(os.path.join(directory, name)))
        except FileNotFoundError:
            pass
    return sorted(paths)


def census(node):
    """{process: where its descriptors lead}, of those that stay"""
    found = {"postmaster": opened(node.pid)}
    numbers = Counter()
    for row in node.processes():
        if row["pid"] > 0 and row["kind"] in LASTING:
            numbers[row["kind"]] += 1
            try:
                found[f"{row['kind']} {numbers[row['kind']]}"] = opened(row["pid"])
            except FileNotFoundError:
                pass  # it has just ended
    return found


def cut_off(port, *data):
    """A connection for each, which ends with it."""
    for sent in data:
        with socket.create_connection((HOST, port)) as sock:
            sock.sendall(sent)


def strangers(node):
    cut_off(node.http_port, b"", b"GET /kv/a HT", b"GET /changes HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x00", b"\0" * 100)
    cut_off(node.replication_port, b"", b"\0" * 100, b"\x16\x03\x01\x00", wire.build_hello()[:20], wire.build_hello())


def clients(node):
    client = node.client()
    for method, path, body in (
        ("PUT", "/kv/k", b"v"), ("GET", "/kv/k", None), ("GET", "/kv/none", None), ("DELETE", "/kv/k", None),
        ("POST", "/batch", b'{"ops": [{"put": {"key": "b", "value": "1"}}]}'), ("POST", "/batch", b"{"),
        ("POST", "/import", b'{"key": "a", "value": "1"}\n'), ("GET", "/export", None), ("GET", "/kv?prefix=a", None),
        ("GET", "/metrics", None), ("GET", "/replication/replicas", None), ("POST", "/nowhere", b"x"),
        ("GET", "/kv/none?wait=0.01", None),
    ):
        client.request(method, path, body)
    client.close()


def snapshot(node):
    made = node.json("POST", "/replication/snapshot?wait=1", expect=(200, 201))["id"]
    path = f"/replication/snapshot/{made}"
    assert node.request("GET", path + "/file")[0] == 200
    node.json("DELETE", path)


class Descriptors(FullSyncCase):
    settings = {}
    authority = None

    def nodes(self):
        """A master and its replica, which knows it as a peer too."""
        master = self.node("master", start=False, settings={**SMALL, **self.settings})
        peers = {"replication.master_addr": master.replication_addr, "replication.peers": master.addr}
        replica = self.node("replica", start=False, settings={**SMALL, **peers, **self.settings})
        for node in (master, replica):
            node.ca = self.authority and self.authority.cert
        master.start()
        master.import_lines(b'{"key": "k%d", "value": "v"}\n' % number for number in range(100))
        master.export()  # merges: who has nothing gets a full sync
        return master, replica

    def full_sync(self, replica):
        replica.stop()
        shutil.rmtree(replica.data_dir)
        replica.start("/ready")

    def deaths(self, master, replica):
        for node, kind in (
            (replica, "walreceiver"), (master, "walsender"), (master, "http"), (replica, "checkpointer")
        ):
            node.wait_replaced(kind, node.kill_child(kind))
            replica.wait_offset(master.put("k", kind))

    def round(self, master, replica, deaths):
        for node in (master, replica):
            strangers(node)
            clients(node)
            node.process.send_signal(signal.SIGHUP)
        snapshot(master)
        self.assertEqual(replica.request("POST", "/replication/promote?dry_run=1")[0], 200)
        if deaths:
            self.deaths(master, replica)
        self.assert_level(master, replica)

    def assert_as_before(self, node, before):
        def more():
            now = census(node)
            missing = {name: "gone" for name in before if name not in now}
            grown = [name for name in before if len(now.get(name, [])) > len(before[name]) + SLACK]
            return missing | {name: Counter(now[name]) - Counter(before[name]) for name in grown}

        wait_until(lambda: not more(), 30, lambda: node.describe(f"the end of descriptors: {more()}"))

    def test_as_many_as_before(self):
        master, replica = self.nodes()
        replica.start("/ready")
        self.round(master, replica, True)  # what is opened once and kept
        self.full_sync(replica)
        self.round(master, replica, True)
        before = {node: census(node) for node in (master, replica)}
        for number in range(ROUNDS):
            self.round(master, replica, number < DEATHS)
        for node in (master, replica):
            self.assert_as_before(node, before[node])
        for _ in range(DEATHS):
            self.full_sync(replica)
        self.assert_as_before(master, before[master])


class Tls(Descriptors):
    """The same with certificates on everything."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="nexus-descriptors-")
        cls.authority = Authority(cls.directory)
        pair = cls.authority.sign("node")
        cls.settings = {**certificates.http(pair), **certificates.replication(pair, cls.authority)}

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.directory)


if __name__ == "__main__":
    unittest.main()
