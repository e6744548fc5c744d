"""Three nodes that can be cut off from each other, clients that look for the master by themselves and remember each
answer, and the check of that against the logs of all nodes.

What holds in sync mode, whoever leads: there is one history of what is confirmed. So each answered write stands in the
log of whoever is master, at its (epoch, offset); none that was refused does; and each read of any master, a fenced or
cut off one too, is what that history says at the read's offset.
"""

import bisect
import dataclasses
import json
import random
import threading

from load import Connection, batch, put
from nexus_test import HOST, Client, Node, wait_until
from nexus_wire import PUT, decode_entry
from proxy import Proxy
from sync_load import DONE, REFUSED, UNKNOWN
from wal_files import LogReader

OWN_KEYS, SHARED_KEYS = 10, 10

# Answers that promise that nothing was logged.
REFUSALS = {
    (403, "read_only_replica"),
    (409, "fenced"),
    (503, "not_synced"),
    (503, "overloaded"),
    (503, "quorum_unavailable"),
    (503, "role_change"),
}
UNSURE = {(504, "outcome_unknown"), (504, "quorum_timeout")}
ELSEWHERE = {"fenced", "read_only_replica"}  # the master is another node


# ---- the nodes ----


class Way:
    """The way to a node: its HTTP and its replication address."""

    def __init__(self, target):
        self.http = Proxy(target.http_port)
        self.replication = Proxy(target.replication_port)
        self.proxies = (self.http, self.replication)


class Mesh:
    """A master and two replicas by their configuration. Each goes its own way to each other one, so that one of them
    can be cut off; whatever address a node is told of another goes by a way too. Clients reach all of them directly."""

    def __init__(self, settings):
        self.nodes = [
            Node("replica" if number else "master", f"node{number}", settings=settings)
            for number in range(3)
        ]
        self.fronts = {node: Way(node) for node in self.nodes}  # what it says of itself
        self.ways = {
            (one, other): Way(other) for one in self.nodes for other in self.others(one)
        }
        for node in self.nodes:
            self._configure(node)

    def _configure(self, node):
        peers = [self.ways[node, other].http.addr for other in self.others(node)]
        node.settings["replication.peers"] = ",".join(peers)
        node.settings["http.advertised_addr"] = self.fronts[node].http.addr
        node.settings["replication.advertised_addr"] = self.fronts[node].replication.addr
        if node.role == "replica":
            node.settings["replication.master_addr"] = self.address(node, self.nodes[0])

    def others(self, node):
        return [other for other in self.nodes if other is not node]

    def address(self, node, master):
        """Where `node` reaches the replication of `master`."""
        return self.ways[node, master].replication.addr

    def _proxies_of(self, node):
        ways = [self.fronts[node], *(way for pair, way in self.ways.items() if node in pair)]
        return [proxy for way in ways for proxy in way.proxies]

    def cut_off(self, node):
        """Nothing goes between it and the others any more, in either direction."""
        for proxy in self._proxies_of(node):
            proxy.pause()

    def hold(self, node, master):
        """What the master's replication sends to this node is on the way, until one of them is healed."""
        self.ways[node, master].replication.pause()

    def heal(self, node, drop):
        """drop: what was under way is lost, and its connections; else it goes on where it was held."""
        for proxy in self._proxies_of(node):
            if drop:
                proxy.cut()
            proxy.resume()

    def close(self):
        for way in [*self.fronts.values(), *self.ways.values()]:
            for proxy in way.proxies:
                proxy.close()


# ---- the clients ----


@dataclasses.dataclass
class Write:
    marks: list  # [(key, value)]; no two writes share one
    outcome: str
    code: str = ""  # of a problem; "closed" without an answer
    offset: int = 0
    epoch: int = 0


@dataclasses.dataclass
class Read:
    node: str
    key: str
    value: str | None
    version: int
    offset: int
    epoch: int


class Account:
    """What was written, read and answered, by all clients. Guarded by its lock."""

    def __init__(self):
        self.lock = threading.Lock()
        self.writes = {DONE: [], REFUSED: [], UNKNOWN: []}
        self.reads = []
        self.codes = {}  # of problems, with their numbers
        self.faults = []  # answers that must never come
        self.highest = 0  # offset that was confirmed to anybody
        self.nodes = {}  # name -> writes that it confirmed

    def note(self, write, node):
        with self.lock:
            self.writes[write.outcome].append(write)
            if write.code:
                self.codes[write.code] = self.codes.get(write.code, 0) + 1
            if write.outcome == DONE:
                self.highest = max(self.highest, write.offset)
                self.nodes[node] = self.nodes.get(node, 0) + 1

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    def of(self, outcome):
        with self.lock:
            return list(self.writes[outcome])

    def count(self, outcome):
        with self.lock:
            return len(self.writes[outcome])

    def confirmed_by(self, node):
        with self.lock:
            return self.nodes.get(node.name, 0)

    def floor(self):
        """What is asked for from now on comes behind this."""
        with self.lock:
            return self.highest


class Caller:
    """One client: writes of one or several keys, its own and shared ones, and reads."""

    def __init__(self, mesh, account, number, seed):
        self.mesh = mesh
        self.account = account
        self.number = number
        self.rng = random.Random(f"{seed}/{number}")
        self.sequence = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.done.is_set():
            node = self.find_master()
            if node is None:
                self.done.wait(0.02)
                continue
            try:
                with Connection(node.http_port) as connection:
                    while not self.done.wait(0.002) and self.step(node, connection):
                        pass
            except OSError:
                self.done.wait(0.01)

    def find_master(self):
        """One of those that say that they take writes; a master that was cut off says so too."""
        found = []
        for node in self.mesh.nodes:
            try:
                with Connection(node.http_port) as connection:
                    connection.send([get("/primary")])
                    if connection.answer()[0] == 200:
                        found.append(node)
            except OSError:
                pass
        return self.rng.choice(found) if found else None

    def step(self, node, connection):
        """-> whether this node is to be asked again"""
        if self.rng.random() < 0.3:
            return self.read(node, connection)
        return self.write(node, connection)

    def key(self):
        if self.rng.random() < 0.5:
            return f"shared-{self.rng.randrange(SHARED_KEYS)}"
        return f"own-{self.number}-{self.rng.randrange(OWN_KEYS)}"

    def write(self, node, connection):
        self.sequence += 1
        value = f"{self.number}-{self.sequence}"
        count = self.rng.randrange(2, 5) if self.rng.random() < 0.1 else 1
        marks = [(key, value) for key in {self.key() for _ in range(count)}]
        floor = self.account.floor()
        request = put(marks[0][0], value.encode()) if len(marks) == 1 else batch(marks)
        try:
            connection.send([request])
            answer = connection.answer()
        except OSError:
            self.account.note(Write(marks, UNKNOWN, "closed"), node.name)
            raise
        return self.judge(node, marks, floor, answer)

    def judge(self, node, marks, floor, answer):
        status, headers, body = answer
        said = json.loads(body)
        code = said.get("code", "")
        if status in (200, 201):
            write = Write(marks, DONE, "", said["offset"], int(headers["nexus-epoch"]))
            self.account.note(write, node.name)
            if write.offset <= floor:
                self.account.fault(f"{node.name}: {write} though {floor} was confirmed before")
        elif (status, code) in REFUSALS:
            self.account.note(Write(marks, REFUSED, code), node.name)
        elif (status, code) in UNSURE:
            self.account.note(Write(marks, UNKNOWN, code), node.name)
        else:
            self.account.fault(f"{node.name}: {marks}: {status} {body!r}")
        return code not in ELSEWHERE and (not code or self.rng.random() < 0.5)

    def read(self, node, connection):
        key = self.key()
        linearizable = self.rng.random() < 0.3
        floor = self.account.floor() if linearizable else 0
        connection.send([get(f"/kv/{key}", "Nexus-Read: linearizable\r\n" if linearizable else "")])
        status, headers, body = connection.answer()
        if status not in (200, 404):
            code = json.loads(body).get("code")
            if (status, code) not in REFUSALS:
                self.account.fault(f"{node.name}: GET {key}: {status} {body!r}")
            return code not in ELSEWHERE
        if "nexus-offset" not in headers or "nexus-epoch" not in headers:
            self.account.fault(f"{node.name}: GET {key}: {status} with {headers}")
            return True
        value = body.decode() if status == 200 else None
        version = int(headers.get("etag", '"0"').strip('"')) if status == 200 else 0
        offset, epoch = int(headers["nexus-offset"]), int(headers["nexus-epoch"])
        read = Read(node.name, key, value, version, offset, epoch)
        with self.account.lock:
            self.account.reads.append(read)
        if offset < floor:
            self.account.fault(f"{read}, linearizable, though {floor} was confirmed before")
        return True


def get(path, headers=""):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()


class Callers:
    def __init__(self, mesh, clients, seed):
        self.account = Account()
        self.callers = [Caller(mesh, self.account, number, seed) for number in range(clients)]

    def start(self):
        for caller in self.callers:
            caller.thread.start()
        return self

    def end(self):
        for caller in self.callers:
            caller.done.set()
        for caller in self.callers:
            caller.thread.join()

    def wait_more(self, outcome, count, describe):
        """Until so many more writes had this outcome, or there is a fault."""
        account = self.account
        wanted = account.count(outcome) + count
        wait_until(
            lambda: account.count(outcome) >= wanted or account.faults,
            60,
            lambda: describe(f"{count} more writes {outcome}: {account.codes}"),
        )

    def wait_confirmed_by(self, node, count):
        wanted = self.account.confirmed_by(node) + count
        node.wait_until(
            lambda: self.account.confirmed_by(node) >= wanted or self.account.faults,
            60,
            f"{count} more writes that it confirms; all were {self.account.codes}",
        )


# ---- the logs ----


class Entry:
    """A log entry that stood in some node's log."""

    def __init__(self, frame):
        self.offset = frame.offset
        self.epoch = frame.epoch
        self.prev_crc = frame.prev_crc
        self.crc = frame.crc
        self.changes = []  # [(key, value)]: nothing else is written but what begins an epoch
        for op in decode_entry(frame.raw).ops:
            if op.kind == PUT:
                self.changes.append((op.key.decode(), op.value.decode()))


class Histories:
    """Every entry that was seen in any log: what a node has given up, or holds in a snapshot only, is still
    known, so that the history of any entry can be told from the first one on."""

    def __init__(self):
        self.entries = {}  # (offset, crc) -> Entry
        self.crcs = {}  # (epoch, offset) -> crc: one master wrote it, so it is the same everywhere
        self.faults = []

    def collect(self, node):
        """Reads a node's log; returns its last entry, or None."""
        last = None
        for frame in LogReader(node.wal_dir):
            place = (frame.offset, frame.crc)
            last = self.entries.get(place)
            if last is None:
                last = self.entries[place] = Entry(frame)
            known = self.crcs.setdefault((frame.epoch, frame.offset), frame.crc)
            if known != frame.crc:
                self.faults.append(
                    f"{node.name} has entry {frame.offset} of epoch {frame.epoch} with CRC "
                    f"{frame.crc:08x}, elsewhere it is {known:08x}"
                )
        return last

    def behind(self, last):
        """The entries up to this one, from the first on."""
        history = []
        entry = last
        while entry is not None and entry.offset > 0:
            history.append(entry)
            before = self.entries.get((entry.offset - 1, entry.prev_crc))
            if before is None and entry.offset > 1:
                self.faults.append(f"what came before entry {entry.offset} was in no log")
            if before is not None and before.epoch > entry.epoch:
                self.faults.append(f"entry {entry.offset} has a lower epoch than the one before")
            entry = before
        return history[::-1]


class History:
    """One history: what was written where, and what each key was at each offset."""

    def __init__(self, entries):
        self.entries = entries
        self.places = {}  # mark -> [offset]
        self.offsets = {}  # key -> [offset], beside
        self.values = {}  # key -> [value]
        for entry in entries:
            for key, value in entry.changes:
                self.places.setdefault((key, value), []).append(entry.offset)
                self.offsets.setdefault(key, []).append(entry.offset)
                self.values.setdefault(key, []).append(value)

    def at(self, key, offset):
        """-> (value, version) of a key at an offset"""
        at = bisect.bisect_right(self.offsets.get(key, []), offset)
        return (self.values[key][at - 1], self.offsets[key][at - 1]) if at else (None, 0)

    def epoch(self, offset):
        return self.entries[offset - 1].epoch if 0 < offset <= len(self.entries) else None

    def state(self):
        last = {key: values[-1] for key, values in self.values.items()}
        return {key: value for key, value in last.items() if value is not None}

    def faults_of_done(self, writes):
        faults = []
        for write in writes:
            for mark in write.marks:
                if self.places.get(mark) != [write.offset]:
                    faults.append(f"{write} stands at {self.places.get(mark)}")
            if self.epoch(write.offset) != write.epoch:
                faults.append(f"{write}, where an entry of epoch {self.epoch(write.offset)} stands")
        return faults

    def faults_of_refused(self, writes):
        return [
            f"{write} stands at {self.places[mark]}"
            for write in writes
            for mark in write.marks
            if mark in self.places
        ]

    def faults_of_unknown(self, writes):
        """Each stands once and whole, or not at all."""
        found = [(write, [self.places.get(mark) for mark in write.marks]) for write in writes]
        return [
            f"{write} stands at {places}"
            for write, places in found
            if any(place != places[0] for place in places) or len(places[0] or [0]) > 1
        ]

    def faults_of_reads(self, reads):
        """A history of one line leaves no room for a read that goes back."""
        faults = []
        for read in reads:
            epoch = self.epoch(read.offset)
            if read.offset > 0 and (epoch is None or epoch > read.epoch):
                faults.append(f"{read}, where the history has epoch {epoch}")
            elif (read.value, read.version) != self.at(read.key, read.offset):
                faults.append(f"{read}, where the history has {self.at(read.key, read.offset)}")
        return faults


# ---- asking nodes to change ----


def ask(node, path, body=None, expect=(200,)):
    """A POST on a connection of its own -> (status, answer)"""
    client = Client(node.http_port, HOST, timeout=60)
    try:
        text = None if body is None else json.dumps(body)
        status, _, content = client.request("POST", path, text)
    finally:
        client.close()
    answer = json.loads(content)
    if status not in expect:
        raise AssertionError(node.describe(f"POST {path}: {status} {answer}"))
    return status, answer
