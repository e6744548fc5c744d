# timeout: 300
"""GET /kv/{key}?wait=S: answered when the key has another version, by whatever wrote it, and by nothing else."""

import socket
import threading
import time
import unittest

import load
from failover import FailoverCase
from nexus_test import NexusTestCase, key_path
from sync_nodes import SHORT, SyncTestCase


class Wait(threading.Thread):
    """One waiting read on a connection of its own; answer: (status, headers, body)."""

    def __init__(self, node, key, version, seconds=100, headers=None):
        super().__init__(daemon=True)
        self.client = node.client(timeout=seconds + 30)
        self.path = f"{key_path(key)}?wait={seconds}"
        self.headers = {"If-None-Match": f'"{version}"', **(headers or {})}
        self.answer = None
        self.start()

    def run(self):
        self.answer = self.client.request("GET", self.path, None, self.headers)

    def wait(self):
        self.join(60)
        assert self.answer is not None, "no answer"
        return self.answer


class WaitCase(NexusTestCase):
    def parked(self, node, count):
        """Until so many reads have reached the node: the counter of its requests is not told, so that its
        connections are: each waits on one of its own."""
        sockets = lambda: len(
            [line for line in connections(node.http_port) if line.endswith("established")]
        )
        node.wait_until(lambda: sockets() >= count, what=f"{count} connections")

    def assert_woken(self, wait, offset, value):
        status, headers, body = wait.wait()
        self.assertEqual((status, headers["ETag"], body), (200, f'"{offset}"', value))


def connections(port):
    """Of 127.0.0.1:port, as the server has them."""
    found = []
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in list(file)[1:]:
            fields = line.split()
            if int(fields[1].split(":")[1], 16) == port:
                found.append(f"{fields[2]} {'established' if fields[3] == '01' else fields[3]}")
    return found


class Waits(WaitCase):
    def test_01_whatever_writes_the_key(self):
        node = self.node()
        version = node.put("k", b"0")
        writes = {
            "put": lambda value: node.put("k", value),
            "batch": lambda value: node.batch(
                [
                    {"put": {"key": "other", "value": "x"}},
                    {"put": {"key": "k", "value": value.decode()}},
                ]
            )["offset"],
            "import": lambda value: node.import_lines(
                b'{"key": "a", "value": "1"}\n{"key": "k", "value": "%s"}\n' % value
            )["offset"],
        }
        for name, write in writes.items():
            with self.subTest(name):
                waits = [Wait(node, "k", version) for _ in range(3)]
                self.parked(node, 3)
                version = write(name.encode())
                for wait in waits:
                    self.assert_woken(wait, version, name.encode())
        wait = Wait(node, "k", version)
        node.delete("k")
        self.assertEqual(wait.wait()[0], 404)

    def test_02_keys_of_all_kinds(self):
        node = self.node()
        keys = [b"\x00\xff", b"a/b?c", b"x" * 511, "\u20ac".encode()]
        waits = [Wait(node, key, 0) for key in keys]
        self.parked(node, len(keys))
        large = b"v" * (3 << 20)
        for key, wait in zip(keys, waits):
            self.assert_woken(wait, node.put(key, large), large)

    def test_03_the_end_of_the_wait(self):
        node = self.node()
        version = node.put("k", b"v")
        began = time.monotonic()
        waits = [Wait(node, "k", version, 1), Wait(node, "none", 0, 1)]
        local = Wait(node, "k", version, 1, {"Nexus-Read": "local"})
        self.assertEqual([wait.wait()[0] for wait in waits], [304, 404])
        self.assertEqual(local.wait()[0], 304)
        self.assertGreaterEqual(time.monotonic() - began, 1)

    def test_04_another_version_is_answered_at_once(self):
        node = self.node()
        old = node.put("k", b"1")
        new = node.put("k", b"2")
        self.assert_woken(Wait(node, "k", old), new, b"2")
        self.assert_woken(Wait(node, "k", 0), new, b"2")

    def test_05_no_write_is_missed(self):
        """Readers go from version to version while the key is written as fast as can be, and others too."""
        node = self.node()
        key, last = "counter", 1500
        failures = []

        def read(client):
            version, value = 0, b""
            while value != b"%d" % last:
                status, headers, value = client.request(
                    "GET", f"/kv/{key}?wait=60", None, {"If-None-Match": str(version)}
                )
                if status != 200 or int(headers["ETag"].strip('"')) <= version:
                    failures.append((status, headers.items(), version))
                    return
                version = int(headers["ETag"].strip('"'))

        readers = [
            threading.Thread(target=read, args=(node.client(timeout=90),), daemon=True)
            for _ in range(6)
        ]
        for reader in readers:
            reader.start()
        others = load.Writers(node.http_port, 4000, clients=2).start()
        for number in range(1, last + 1):
            node.put(key, b"%d" % number)
        self.assertEqual(others.join(), [])
        for reader in readers:
            reader.join(60)
            self.assertFalse(reader.is_alive())
        self.assertEqual(failures, [])

    def test_06_clients_that_go(self):
        node = self.node()
        version = node.put("k", b"1")
        ask = b'GET /kv/k?wait=100 HTTP/1.1\r\nHost: x\r\nIf-None-Match: "%d"\r\n\r\n'
        clients = [load.Connection(node.http_port) for _ in range(20)]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.send([ask % version])
        self.parked(node, 20)
        half, *gone = clients
        for client in gone:
            client.sock.close()
        half.sock.shutdown(socket.SHUT_WR)
        offset = node.put("k", b"2")
        status, headers, body = half.answer()
        self.assertEqual((status, headers["etag"], body), (200, f'"{offset}"', b"2"))
        self.assertEqual(node.put("k", b"3"), offset + 1)

    def test_065_one_behind_another_on_a_connection(self):
        node = self.node()
        version = node.put("k", b"1")
        ask = b'GET /kv/k?wait=100 HTTP/1.1\r\nHost: x\r\nIf-None-Match: "%d"\r\n\r\n'
        with load.Connection(node.http_port) as client:
            client.send([ask % version, ask % (version + 1)])
            self.parked(node, 1)
            node.put("k", b"2")
            self.assertEqual(client.answer()[2], b"2")
            node.put("k", b"3")
            self.assertEqual(client.answer()[2], b"3")

    def test_07_on_a_replica(self):
        master, replica = self.pair()
        replica.wait_offset(master.put("k", b"1"))
        waits = [Wait(replica, "k", 1), Wait(replica, "k", 1, headers={"Nexus-Read": "local"})]
        self.parked(replica, 2)
        offset = master.put("k", b"2")
        for wait in waits:
            self.assert_woken(wait, offset, b"2")


class AcrossRoles(WaitCase, FailoverCase):
    def test_a_promotion(self):
        cluster = self.failover_cluster(1, peers=False)
        old, new = cluster.master, cluster.replica
        wait = Wait(new, "k", 0)
        old.kill9()
        self.wait_promotable(new)
        self.promote(new)
        offset = self.wait_write(new, "k", b"1")
        self.assert_woken(wait, offset, b"1")


class Sync(WaitCase, SyncTestCase):
    def test_an_unconfirmed_write_wakes_nobody(self):
        cluster = self.sync_cluster(1, **SHORT)
        master = cluster.master
        walwriter = self.pause(cluster.replica)
        waits = [Wait(master, "k", 0), Wait(master, "k", 0, 1)]
        local = Wait(master, "k", 0, headers={"Nexus-Read": "local"})
        self.parked(master, 3)
        self.assert_problem(master.request("PUT", "/kv/k", b"1"), 504, "quorum_timeout")
        self.assertEqual(local.wait()[0], 200)
        self.assertEqual(waits[1].wait()[0], 404)
        self.assertIsNone(waits[0].answer)
        self.resume(walwriter)
        self.assertEqual(waits[0].wait()[0], 200)


if __name__ == "__main__":
    unittest.main()
