"""What tests of failover between real servers have in common: clusters whose nodes know each other, promotions,
what each node must have afterwards, and networks that are cut between two of them."""

import http.client
import json
import os
import re
import signal

import identity_file
import wal_files
from full_sync import versions
from nexus_test import Cluster, HttpError, NexusTestCase, wait_until
from proxy import Proxy

PROMOTE = "/replication/promote"
FOLLOW = "/replication/follow"
DIVERGED = "/replication/diverged"
ROLE = "NEXUS_REPLICATION_ROLE"
MASTER_ADDR = "NEXUS_REPLICATION_MASTER_ADDR"
QUICK = {"replication.heartbeat_ms": 200, "replication.missed_heartbeats_threshold": 5}
SYNC = {"replication.mode": "sync", "replication.sync_timeout_ms": 1000}
MODES = {"async": {}, "sync": SYNC}


def frames(node):
    """The bytes of all frames in a node's WAL files, by offset."""
    return {frame.offset: frame.raw for frame in wal_files.read_log(node.wal_dir)}


def leads(node):
    status = node.status()
    return status["role"] == "master" and status["state"] != "fenced"


def most_advanced(nodes):
    """The one with the highest wal_offset, as the guide has an operator choose it."""
    return max(nodes, key=lambda node: node.status()["wal_offset"])


def answer_of(node, method, path, body=None):
    """-> (status, its JSON), on a connection of its own: for threads."""
    status, _, content = node.client(timeout=60).request(method, path, body)
    return status, json.loads(content)


class FailoverCase(NexusTestCase):
    def failover_cluster(self, replicas=2, mode="async", peers=True, **settings):
        """A level cluster with a first write in it; peers: each node lists all others."""
        cluster = self.cluster(
            replicas, start=False, settings={**QUICK, **MODES[mode], **settings}
        )
        for node in cluster.nodes:
            self.configure(node, "")
        if peers:
            self.introduce(cluster.nodes)
        self.start_level(cluster)
        return cluster

    def configure(self, node, text):
        """Its configuration file; a node that runs reads it again."""
        path = os.path.join(node.directory, "nexus.conf")
        node.env["NEXUS_CONFIG"] = path
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        if node.is_running():
            os.kill(node.pid, signal.SIGHUP)

    def introduce(self, nodes):
        for node in nodes:
            others = [other.addr for other in nodes if other is not node]
            node.settings["replication.peers"] = ",".join(others)

    def start_level(self, cluster):
        cluster.start()
        self.wait_write(cluster.master, "first")
        cluster.wait_level()
        self.wait_known(cluster.master, cluster.replicas)

    def wait_known(self, master, replicas):
        """Until the replicas are known on the master's disk: it asks them when it is started again."""

        def known():
            text = identity_file.read(master)
            return all(replica.addr in text or replica.seen_addr in text for replica in replicas)

        for replica in replicas:
            replica.seen_addr = getattr(replica, "seen_addr", replica.addr)
        master.wait_until(known, what=f"{len(replicas)} replicas in {identity_file.path(master)}")

    # -- writes --

    def wait_write(self, master, key, value=b"v"):
        """Until it is answered 200 or 201: in sync mode the quorum may still be coming. -> its offset"""

        def wrote():
            try:
                return master.put(key, value)
            except HttpError as error:
                self.assertIn(error.status, (503, 504), error)
                return None

        return master.wait_until(wrote, what="a write that is answered 200")

    def write_many(self, master, prefix, count=5):
        """Puts, a delete, a batch, a key that is no text; -> {key: value} (None: deleted)."""
        written = {}
        for number in range(count):
            key = f"{prefix}{number}"
            self.wait_write(master, key, key.encode())
            written[key] = key.encode()
        gone = f"{prefix}0"
        master.delete(gone)
        written[gone] = None
        master.batch([{"put": {"key": f"{prefix}-batch{n}", "value": str(n)}} for n in range(3)])
        written.update({f"{prefix}-batch{n}": str(n).encode() for n in range(3)})
        master.put(f"{prefix}-\xff".encode("latin-1"), bytes(range(256)))
        written[f"{prefix}-\xff".encode("latin-1")] = bytes(range(256))
        return written

    def assert_has(self, node, written):
        for key, value in written.items():
            self.assertEqual(node.get(key), value, f"{key!r} on {node.name}")

    def assert_lacks(self, node, written):
        for key in written:
            self.assertIsNone(node.get(key), f"{key!r} on {node.name}")

    # -- changes of the master --

    def promote(self, node, query=""):
        answer = node.json("POST", PROMOTE + query, timeout=60)
        self.assertIs(answer["success"], True)
        return answer

    def ask(self, node, query=""):
        """A promotion whose answer may never come."""
        try:
            answer_of(node, "POST", PROMOTE + query)
        except (OSError, http.client.HTTPException):
            pass

    def not_promoted(self, node, code, query=""):
        """-> the problem document of the refusal"""
        role = node.status()["role"]
        problem = self.assert_problem(self.post(node, PROMOTE + query), 409, code)
        self.assertEqual(node.status()["role"], role)
        return problem

    def post(self, node, path, body=None):
        """-> the answer to the POST that isn't "try again in a moment"."""

        def answered():
            answer = node.request("POST", path, body, timeout=60)
            busy = answer[0] == 503 and json.loads(answer[2])["code"] == "role_change"
            return None if busy else answer

        return node.wait_until(answered, what=f"an answer to POST {path} but role_change")

    def follow(self, node, master, force=None):
        body = {"master_addr": master.replication_addr}
        if force is not None:
            body["force"] = force
        status, _, content = self.post(node, FOLLOW, json.dumps(body))
        self.assertEqual((status, json.loads(content).get("success")), (200, True), content)

    def wait_promotable(self, *replicas):
        """Each has found its master dead."""
        for replica in replicas:
            replica.wait_status(promotable=True)

    def wait_follows(self, node, master):
        """It is a replica of that master, has all that the master has now, and is read from."""
        status = master.status()
        node.wait_status(
            timeout=60,
            role="replica",
            connected=True,
            epoch=status["epoch"],
            wal_offset=lambda value: value >= status["wal_offset"],
        )
        node.wait_answer("/ready")
        node.wait_answer("/kv?limit=1")
        self.assertEqual(
            node.json("GET", "/replication/replica/stats")["master_id"], status["node_id"]
        )

    def wait_fenced(self, node, by=None, timeout=20):
        """It leads no longer and, when `by` is given, names that one's URL; -> its status."""
        status = node.wait_status(timeout, role="master", state="fenced")
        if by is not None:
            node.wait_until(
                lambda: self.fenced_problem(node).get("master") == f"http://{by.addr}",
                what=f"409 fenced that names http://{by.addr}, last {self.fenced_problem(node)}",
            )
        return status

    def fenced_problem(self, node):
        return self.assert_problem(node.request("PUT", "/kv/fenced", b"v"), 409, "fenced")

    # -- what is there in the end --

    def assert_same(self, leader, *others, whole=True):
        """All have the leader's keys, values, versions and log; whole: from the first entry on (a node that had a
        full sync has only what came after it)."""
        offset = leader.status()["wal_offset"]
        for node in (leader, *others):
            self.wait_reads(node, offset)
            self.assertEqual(node.status()["wal_offset"], offset, node.name)
        export, found, log = leader.export(), versions(leader), frames(leader)
        self.assertEqual(list(log), list(range(1, offset + 1)))
        for node in others:
            self.assertEqual(node.export(), export, node.name)
            self.assertEqual(versions(node), found, node.name)
            got = frames(node)
            if whole:
                self.assertEqual(list(got), list(log), node.name)
            self.assertEqual(got, {number: log[number] for number in got}, node.name)

    def wait_reads(self, node, offset):
        """Until reads of that node see the entry: in sync mode, once it has heard that it is confirmed."""
        node.wait_offset(offset, 60)
        headers = {"Nexus-Min-Offset": str(offset)}
        self.assertIn(node.request("GET", "/kv/first", None, headers, timeout=60)[0], (200, 404))

    def assert_diverged(self, node, first, last, written):
        """Exactly these offsets are listed as given up, with the keys; -> the one file."""
        answer = node.json("GET", DIVERGED)
        entries = answer["entries"]
        self.assertEqual([each["offset"] for each in entries], list(range(first, last + 1)))
        self.assertEqual({each["epoch"] for each in entries}, {1})
        keys = {key for each in entries for key in each["keys"]}
        self.assertEqual(keys, {key for key in written if isinstance(key, str)})
        (path,) = answer["files"]
        self.assertTrue(os.path.isfile(path), path)
        return path

    def import_file(self, master, path):
        with open(path, "rb") as file:
            return master.json("POST", "/import", file.read(), timeout=60)


class Cut(FailoverCase):
    """Networks that can be cut between one node and all others, in both directions: every address by which they
    know each other is a proxy's. The test itself asks the nodes directly."""

    def cut_cluster(self, replicas=2, mode="async", peers=True, **settings):
        """-> a level cluster; self.proxies are those between the master and the others."""
        cluster = Cluster(replicas, settings={**QUICK, **MODES[mode], **settings})
        for node in cluster.nodes:
            self.adopt(node)
        self.proxies = []
        for node in cluster.nodes:
            http, replication = self.proxy_to(node.http_port), self.proxy_to(node.replication_port)
            node.seen_addr = http.addr  # by nodes on the other side
            node.settings["http.advertised_addr"] = http.addr
            node.settings["replication.advertised_addr"] = replication.addr
            node.seen_replication_addr = replication.addr
        for replica in cluster.replicas:
            replica.settings["replication.master_addr"] = cluster.master.seen_replication_addr
        if peers:
            self.introduce_apart(cluster)
        self.start_level(cluster)
        return cluster

    def introduce_apart(self, cluster):
        """Replicas are on one side and know each other directly."""
        for node in cluster.nodes:
            list_ = [
                other.addr
                if node is not cluster.master and other is not cluster.master
                else other.seen_addr
                for other in cluster.nodes
                if other is not node
            ]
            node.settings["replication.peers"] = ",".join(list_)

    def proxy_to(self, port):
        proxy = Proxy(port)
        self.addCleanup(proxy.close)
        self.proxies.append(proxy)
        return proxy

    def cut(self):
        for proxy in self.proxies:
            proxy.pause()

    def heal(self):
        for proxy in self.proxies:
            proxy.resume()


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def wait_all(nodes, condition, what, timeout=20):
    wait_until(
        lambda: all(condition(node) for node in nodes),
        timeout,
        lambda: "\n".join(node.describe(what) for node in nodes),
    )
