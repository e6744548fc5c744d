# build: release
# serial: yes
# timeout: 300
"""What those cost who follow the log or wait for a key while nothing is written: no wake-ups and little memory; and
what a client costs that doesn't take what it is sent."""
import resource
import time
import unittest

import load
from changes import Follower
from nexus_test import NexusTestCase

MANY = 1000
WATCHED_S = 4
ONE_WORKER = {"http.workers": 1}


def status_of(pid, name):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    raise AssertionError(f"no {name} of {pid}")


def private_memory(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Private_"))


class ChangesIdle(NexusTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))

    def one_worker(self):
        """-> (node, its worker's pid)"""
        node = self.node(settings=ONE_WORKER)
        node.put("k", b"v")
        (worker,) = node.pids("http")
        return node, worker

    def follow(self, node, **options):
        follower = Follower(node.http_port, **options)
        self.addCleanup(follower.close)
        self.assertEqual(follower.status, 200, follower.body)
        return follower

    def wake_ups(self, node, worker):
        """In WATCHED_S seconds of nobody asking or writing."""
        node.drop_connections()
        time.sleep(1)
        before = status_of(worker, "voluntary_ctxt_switches")
        time.sleep(WATCHED_S)
        return status_of(worker, "voluntary_ctxt_switches") - before

    def test_1_followers_that_are_level(self):
        node, worker = self.one_worker()
        self.follow(node).close()
        before = private_memory(worker)
        followers = [self.follow(node) for _ in range(MANY)]
        # One timer for all: that they are told where they are once in 10 s may fall into the time.
        self.assertLess(self.wake_ups(node, worker), 10)
        self.assertLess((private_memory(worker) - before) // MANY, 4096)
        offset = node.put("k", b"w")
        for follower in followers:
            self.assertEqual(follower.change().offset, offset)

    def test_2_a_write_wakes_one_wait(self):
        node, worker = self.one_worker()
        before = private_memory(worker)
        clients = [load.Connection(node.http_port, timeout=60) for _ in range(MANY)]
        for number, client in enumerate(clients):
            self.addCleanup(client.sock.close)
            client.send(
                [
                    f"GET /kv/w{number}?wait=300 HTTP/1.1\r\nHost: localhost\r\n"
                    'If-None-Match: "0"\r\n\r\n'.encode()
                ]
            )
        node.get("k")  # they were taken
        self.assertLess(self.wake_ups(node, worker), 10)
        self.assertLess((private_memory(worker) - before) // MANY, 8192)
        wakes = lambda: status_of(worker, "voluntary_ctxt_switches")
        began = wakes()
        offset = node.put("w500", b"now")
        status, headers, body = clients[500].answer()
        self.assertEqual((status, headers["etag"], body), (200, f'"{offset}"', b"now"))
        # The others stay: nothing was sent to any of them.
        self.assertLess(wakes() - began, 20)
        for number, client in enumerate(clients):
            client.sock.setblocking(False)
            with self.assertRaises(BlockingIOError, msg=number):
                client.sock.recv(1)

    def test_3_memory_for_a_client_that_takes_nothing(self):
        node, worker = self.one_worker()
        stuck = [self.follow(node, receive=4096) for _ in range(20)]
        late = [self.follow(node, since=0, receive=4096) for _ in range(20)]
        self.assertEqual(len(stuck + late), 40)
        before = private_memory(worker)
        most = 0
        with load.Connection(node.http_port) as connection:
            for number in range(300):
                connection.send([load.put(f"k{number % 7}-{i}", b"x" * 10000) for i in range(10)])
                for _ in range(10):
                    self.assertIn(connection.answer()[0], (200, 201))
                most = max(most, private_memory(worker) - before)
        self.assertLess(most, 40 * (512 << 10))

    def test_4_memory_for_large_entries(self):
        """Not once for each that has yet to take it; and all get it, in their turn."""
        node, worker = self.one_worker()
        followers = [self.follow(node) for _ in range(20)]
        level = self.follow(node, prefix="end")
        before = private_memory(worker)
        value = b"x" * (7 << 20)
        offsets = [node.put("large", value) for _ in range(2)]
        offsets.append(node.put("end", b""))
        self.assertEqual(level.change().offset, offsets[-1])
        self.assertLess(private_memory(worker) - before, 120 << 20)
        for follower in followers:
            self.assertEqual([event.offset for event in follower.changes(3)], offsets)


if __name__ == "__main__":
    unittest.main()
