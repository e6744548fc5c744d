"""etcd from Debian, as it is: one node, or a cluster of three."""
import base64
import http.client
import json
import os
import time

from . import processes

KEY = base64.b64encode(b"probe").decode()
VALUE = base64.b64encode(b"x").decode()


class EtcdNode(processes.Server):
    def __init__(self, cluster, number):
        from nexus_test import free_port

        self.cluster = cluster
        self.name = f"n{number}"
        self.port, self.peer_port = free_port(), free_port()
        self.directory = os.path.join(cluster.directory, f"etcd-{self.port}")
        os.makedirs(self.directory, exist_ok=True)

    @property
    def addr(self):
        return f"127.0.0.1:{self.port}"

    def launch(self):
        url, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        others = ",".join(f"{node.name}=http://127.0.0.1:{node.peer_port}" for node in self.cluster.nodes)
        command = ["etcd", "--name", self.name, "--data-dir", os.path.join(self.directory, "data"),
                   "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer,
                   "--initial-advertise-peer-urls", peer, "--initial-cluster", others,
                   "--quota-backend-bytes", str(8 << 30), "--logger", "zap", "--log-level", "error"]
        super().__init__(command, self.directory, os.path.join(self.directory, "log"))

    def post(self, path, body, timeout=10.0):
        """Through its JSON gateway; -> the status and the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def wait_serving(self, timeout=120):
        """Until a linearizable read is answered."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                if self.post("/v3/kv/range", {"key": KEY})[0] == 200:
                    return
            except (OSError, ValueError, http.client.HTTPException):
                pass
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError("etcd does not serve")
            time.sleep(0.005)

    def put(self, timeout):
        """Whether a write was taken."""
        try:
            return self.post("/v3/kv/put", {"key": KEY, "value": VALUE}, timeout)[0] == 200
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def status(self):
        return self.post("/v3/maintenance/status", {})[1]


class Etcd:
    """A cluster; asked as a server, it is its leader."""

    def __init__(self, bench, directory, size=1):
        self.bench = bench
        self.directory = directory
        self.nodes = [EtcdNode(self, number) for number in range(size)]
        try:
            for node in self.nodes:
                node.launch()
        except BaseException:
            self.end()
            raise
        self.setup = f"{size} node{'s' if size > 1 else ''}, defaults but --quota-backend-bytes 8589934592"

    def wait_serving(self):
        for node in self.nodes:
            node.wait_serving()
        return self

    @property
    def leader(self):
        for node in self.nodes:
            if node.is_running():
                status = node.status()
                if status["leader"] == status["header"]["member_id"]:
                    return node
        raise RuntimeError("etcd has no leader")

    @property
    def follower(self):
        leader = self.leader
        return next(node for node in self.nodes if node is not leader)

    @property
    def addr(self):
        return self.leader.addr

    def pids(self):
        return [pid for node in self.nodes for pid in node.pids()]

    def end(self):
        for node in self.nodes:
            node.end()

    def kill(self):
        for node in self.nodes:
            node.kill()
