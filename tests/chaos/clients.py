"""The clients: each looks for the master by itself, has little patience, and notes what it did and was answered.

    sets       fresh keys: what is lost, and what comes back
    registers  a few keys that all write and read: what is stale, or in another order
    pairs      two keys written as one: what is torn
    replicas   reads of one node: what goes back
"""

import json
import random
import threading
import traceback

from history import CAS, DELETE, FAIL, OK, PAIR, PAIR_READ, READ, SET, STALE_READ, UNKNOWN, WRITE, Op
from load import Connection, batch, put

REGISTERS, PAIRS = 12, 4
PATIENCE = 0.5  # seconds for an answer
PAUSE = 0.004

# Answers by which nothing was logged (docs/http.md).
REFUSALS = {
    (403, "read_only_replica"), (409, "fenced"), (412, "precondition_failed"), (503, "not_synced"),
    (503, "overloaded"), (503, "quorum_unavailable"), (503, "role_change"), (503, "replication_stopped"),
    (507, "disk_full"), (507, "map_full"), (404, "key_not_found"), (504, "min_offset_timeout"),
}  # fmt: skip
UNSURE = {(504, "outcome_unknown"), (504, "quorum_timeout"), (500, "internal")}


def request(method, path, headers=""):
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()


class Client:
    """One thread. Its operations follow from its own seed; what it is answered doesn't."""

    def __init__(self, nodes, log, name, seed):
        self.nodes = nodes
        self.log = log
        self.name = name
        self.rng = random.Random(f"{seed}/{name}")
        self.sequence = 0
        self.versions = {}  # register -> (value, version) as read last
        self.generations = {}  # of registers whose deletion is in doubt: another key from then on
        self.odd = []  # answers that must never come
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            self.work()
        except Exception:  # noqa: BLE001
            self.odd.append(f"{self.name} broke: {traceback.format_exc()}")

    def work(self):
        while not self.done.is_set():
            node = self.choose()
            if node is None:
                self.done.wait(0.03)
                continue
            try:
                with Connection(node.http_port, timeout=PATIENCE) as connection:
                    while not self.done.wait(PAUSE) and self.step(node, connection):
                        pass
            except OSError:
                self.done.wait(0.01)

    def choose(self):
        """One of those that say that they take writes; now and then any, as a client with an old address does."""
        if self.rng.random() < 0.1:
            return self.rng.choice(self.nodes)
        found = []
        for node in self.nodes:
            try:
                with Connection(node.http_port, timeout=PATIENCE) as connection:
                    connection.send([request("GET", "/primary")])
                    if connection.answer()[0] == 200:
                        found.append(node)
            except OSError:
                pass
        return self.rng.choice(found) if found else None

    def value(self):
        self.sequence += 1
        return f"{self.name}-{self.sequence}"

    def register(self):
        number = self.rng.randrange(REGISTERS)
        return f"r{number}.{self.generations.get(number, 0)}"

    def step(self, node, connection):
        """-> whether this node is to be asked again"""
        raise NotImplementedError

    def ask(self, node, connection, op, data):
        """Sends it and notes the answer -> (op, headers, body) or None: no answer. OSError: the connection is over."""
        op.node, op.t0 = node.name, self.log.now()
        try:
            connection.send([data])
            status, headers, body = connection.answer()
        except OSError:
            op.t1, op.code = self.log.now(), "closed"
            self.log.add(op)
            raise
        op.t1 = self.log.now()
        self.judge(op, status, headers, body)
        self.read_value(op, headers, body)
        self.log.add(op)
        return headers, body

    def read_value(self, op, headers, body):
        if op.result != OK:
            return
        if op.kind == PAIR_READ:
            op.value = ",".join(item["value"] for item in json.loads(body)["items"])
        elif op.kind in (READ, STALE_READ):
            op.value = body.decode() if "etag" in headers else None

    def judge(self, op, status, headers, body):
        op.offset, op.epoch = int(headers.get("nexus-offset", 0)), int(headers.get("nexus-epoch", 0))
        if status in (200, 201):
            op.result = OK
        elif status == 404 and op.kind in (READ, STALE_READ):
            op.result = OK
        else:
            op.code = json.loads(body).get("code", "") if body else str(status)
            op.result = FAIL if (status, op.code) in REFUSALS else UNKNOWN
            if op.result == UNKNOWN and (status, op.code) not in UNSURE:
                self.odd.append(f"{op}: {status} {body[:200]!r}")


def names_another(op):
    return op.code in ("read_only_replica", "fenced")


class Writer(Client):
    """Sets, registers and pairs on whoever is master."""

    def step(self, node, connection):
        dice = self.rng.random()
        if dice < 0.3:
            op = self.put(node, connection, SET, f"s-{self.value()}")
        elif dice < 0.5:
            op = self.put(node, connection, WRITE, self.register())
        elif dice < 0.6:
            op = self.compare(node, connection)
        elif dice < 0.65:
            op = self.delete(node, connection)
        elif dice < 0.85:
            op = self.read(node, connection)
        elif dice < 0.92:
            op = self.pair(node, connection)
        else:
            op = self.read_pair(node, connection)
        return not names_another(op)

    def put(self, node, connection, kind, key):
        op = Op(self.name, "", kind, key, self.value())
        self.ask(node, connection, op, put(key, op.value.encode()))
        return op

    def compare(self, node, connection):
        key = self.register()
        value, version = self.versions.get(key, (None, 0))
        if version == 0:
            return self.read(node, connection)
        op = Op(self.name, "", CAS, key, self.value(), expected=value)
        self.ask(node, connection, op, put(key, op.value.encode(), f'If-Match: "{version}"\r\n'))
        return op

    def delete(self, node, connection):
        key = self.register()
        op = Op(self.name, "", DELETE, key)
        try:
            self.ask(node, connection, op, request("DELETE", f"/kv/{key}"))
        finally:
            if op.result == UNKNOWN:  # nothing would ever tell whether it was done
                number = int(key[1:].split(".")[0])
                self.generations[number] = self.generations.get(number, 0) + 1
        return op

    def read(self, node, connection):
        key = self.register()
        op = Op(self.name, "", READ, key)
        headers, _ = self.ask(node, connection, op, request("GET", f"/kv/{key}", "Nexus-Read: linearizable\r\n"))
        if op.value is not None:
            self.versions[key] = (op.value, int(headers["etag"].strip('"')))
        return op

    def pair(self, node, connection):
        number = self.rng.randrange(PAIRS)
        op = Op(self.name, "", PAIR, f"p{number}", self.value())
        self.ask(node, connection, op, batch([(f"p{number}-x", op.value), (f"p{number}-y", op.value)]))
        return op

    def read_pair(self, node, connection):
        number = self.rng.randrange(PAIRS)
        op = Op(self.name, "", PAIR_READ, f"p{number}")
        self.ask(node, connection, op, request("GET", f"/kv?prefix=p{number}-"))
        return op


class Reader(Client):
    """Reads one node's registers and pairs, whatever its role."""

    def __init__(self, nodes, log, name, seed):
        super().__init__(nodes, log, name, seed)
        self.at = self.rng.choice(nodes)

    def choose(self):
        self.at = self.rng.choice(self.nodes) if self.rng.random() < 0.02 else self.at
        return self.at

    def step(self, node, connection):
        if self.rng.random() < 0.3:
            return bool(Writer.read_pair(self, node, connection))
        op = Op(self.name, "", STALE_READ, self.register())
        self.ask(node, connection, op, request("GET", f"/kv/{op.key}"))
        return True


class Clients:
    def __init__(self, nodes, log, seed, writers=6, readers=3):
        self.all = [Writer(nodes, log, f"w{n}", seed) for n in range(writers)]
        self.all += [Reader(nodes, log, f"q{n}", seed) for n in range(readers)]

    def start(self):
        for client in self.all:
            client.thread.start()
        return self

    def end(self):
        for client in self.all:
            client.done.set()
        for client in self.all:
            client.thread.join()

    def odd(self):
        return [text for client in self.all for text in client.odd]
