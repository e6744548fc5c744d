"""Connections are shared out among the http workers, and a worker that is stuck keeps nobody waiting."""
import http.client
import os
import signal
import unittest

from nexus_test import NexusTestCase

MANY = 100
LEAST = 25  # of MANY: whoever is busy for a moment has fewer
SETTINGS = {"http.workers": 2}


def sockets_of(pid):
    """Descriptors that are sockets."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            count += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            pass  # closed meanwhile
    return count


class Accept(NexusTestCase):
    def start(self):
        node = self.node(settings=SETTINGS)
        workers = [child.pid for child in node.children() if child.title.startswith("nexus: http")]
        self.assertEqual(len(workers), SETTINGS["http.workers"])
        return node, workers

    def connect(self, node, count):
        """So many connections, each of which was answered on."""
        for _ in range(count):
            client = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20)
            self.addCleanup(client.close)
            client.request("GET", "/health")
            answer = client.getresponse()
            answer.read()
            self.assertEqual(answer.status, 200)

    def test_each_worker_has_its_share(self):
        node, workers = self.start()
        before = [sockets_of(pid) for pid in workers]
        self.connect(node, MANY)
        shares = [sockets_of(pid) - had for pid, had in zip(workers, before)]
        for share in shares:
            self.assertGreaterEqual(share, LEAST, shares)

    def test_a_worker_that_is_stuck_keeps_nobody_waiting(self):
        node, workers = self.start()
        self.connect(node, 4)
        os.kill(workers[0], signal.SIGSTOP)
        try:
            before = sockets_of(workers[1])
            self.connect(node, MANY)
            self.assertEqual(sockets_of(workers[1]) - before, MANY)
        finally:
            os.kill(workers[0], signal.SIGCONT)


if __name__ == "__main__":
    unittest.main()
