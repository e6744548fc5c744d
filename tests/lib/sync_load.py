"""Writers of a sync master that remember what each write was answered, and the check of that against the
nodes' WAL files.

Each write has marks of its own: (key, value) of a put, (key, None) of a delete; no two writes share one. So
the WAL files say of each write whether it is there, and where.
"""

import dataclasses
import json
import random
import threading

from load import Connection, batch, delete, put
from wal_files import read_log

DONE, REFUSED, UNKNOWN = "done", "refused", "unknown"

# Codes of answers that promise that nothing was logged.
REFUSALS = {
    "quorum_unavailable",
    "role_change",
    "overloaded",
}


@dataclasses.dataclass
class Write:
    marks: list  # [(key, value or None)]
    outcome: str
    code: str = ""  # of a problem; "closed" without an answer
    offset: int = 0
    check: str = ""
    first_state: str = ""  # what `check` said at once


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Account:
    """What was written and answered, by all clients. Guarded by its lock."""

    def __init__(self):
        self.lock = threading.Lock()
        self.writes = []
        self.counts = {}  # of each outcome, and of each code
        self.faults = []  # answers that must never come
        self.acked = {}  # register -> highest number that was answered with success
        self.codes = {}

    def note(self, write, register=None, number=0):
        with self.lock:
            self.writes.append(write)
            for name in {write.outcome, write.code}:
                self.counts[name] = self.counts.get(name, 0) + 1
            if write.outcome == DONE and register is not None:
                self.acked[register] = max(number, self.acked.get(register, 0))

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    def count(self, *names):
        with self.lock:
            return sum(self.counts.get(name, 0) for name in names)

    def total(self):
        with self.lock:
            return len(self.writes)

    def of(self, outcome):
        with self.lock:
            return [write for write in self.writes if write.outcome == outcome]


class Writer:
    """One client: its writes are fresh keys mostly, then a register of its own, batches and deletes."""

    def __init__(self, port, account, number, total, seed):
        self.port = port
        self.account = account
        self.number = number
        self.total = total
        self.rng = random.Random(f"{seed}/{number}")
        self.mine = []  # keys that were written for sure and may be deleted
        self.thread = threading.Thread(target=self.run)

    def run(self):
        sequence = 0
        while sequence < self.total and not self.account.faults:
            try:
                with Connection(self.port) as connection:
                    while sequence < self.total and not self.account.faults:
                        sequence += 1
                        self.write(connection, sequence)
            except OSError:
                threading.Event().wait(0.05)  # the master is away: not a busy loop

    def write(self, connection, sequence):
        value = f"{self.number}-{sequence}"
        dice = self.rng.random()
        register = None
        if dice < 0.15:
            register = f"register-{self.number}"
            marks = [(register, value)]
            request = put(register, value.encode())
        elif dice < 0.25:
            marks = [(f"b{value}-{part}", f"{value}-{part}") for part in range(self.rng.randrange(2, 6))]
            request = batch(marks)
        elif dice < 0.32 and self.mine:
            key = self.mine.pop(self.rng.randrange(len(self.mine)))
            marks = [(key, None)]
            request = delete(key)
        else:
            marks = [(f"k{value}", value)]
            request = put(f"k{value}", value.encode())
        try:
            connection.send([request])
            answer = connection.answer()
        except OSError:
            self.account.note(Write(marks, UNKNOWN, "closed"))
            raise
        self.judge(connection, marks, answer, register, sequence)

    def judge(self, connection, marks, answer, register, sequence):
        status, headers, body = answer
        if status in (200, 201):
            if marks[0][0].startswith("k") and marks[0][1] is not None:
                self.mine.append(marks[0][0])
            write = Write(marks, DONE, offset=json.loads(body)["offset"])
            self.account.note(write, register, sequence)
            if headers.get("nexus-offset") != str(write.offset):
                self.account.fault(f"{marks}: Nexus-Offset {headers} beside {body!r}")
            return
        problem = json.loads(body)
        code = problem.get("code")
        if status == 503 and code in REFUSALS:
            self.account.note(Write(marks, REFUSED, code))
        elif status == 504 and code == "quorum_timeout":
            write = Write(marks, UNKNOWN, code, problem["offset"], problem["check"])
            self.account.note(write)
            self.ask(connection, write)
        elif status == 504 and code == "outcome_unknown":
            self.account.note(Write(marks, UNKNOWN, code))
        else:
            self.account.fault(f"{marks}: {status} {body!r}")

    def ask(self, connection, write):
        connection.send([get(write.check)])
        status, _, body = connection.answer()
        if status == 503:
            return  # the master was started again meanwhile
        write.first_state = json.loads(body).get("state", "")
        if status != 200 or write.first_state not in ("pending", "quorum"):
            self.account.fault(f"{write.check}: {status} {body!r}")


class Reader:
    """Reads the registers on one connection: a value never goes back, not even over a restart of the master,
    nor behind what was acknowledged before the read began."""

    def __init__(self, port, account, clients, seed):
        self.port = port
        self.account = account
        self.rng = random.Random(f"{seed}/reader")
        self.clients = clients
        self.seen = {}  # register -> number
        self.values = set()  # all that were read
        self.offset = 0
        self.reads = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.done.is_set():
            try:
                with Connection(self.port) as connection:
                    while not self.done.wait(0.002):
                        self.read(connection, f"register-{self.rng.randrange(self.clients)}")
            except OSError:
                self.done.wait(0.05)

    def read(self, connection, register):
        with self.account.lock:
            least = max(self.account.acked.get(register, 0), self.seen.get(register, 0))
        connection.send([get(f"/kv/{register}")])
        status, headers, body = connection.answer()
        if status == 503:
            return
        offset = int(headers.get("nexus-offset", "0"))
        number = int(body.split(b"-")[1]) if status == 200 else 0
        if status not in (200, 404) or number < least or offset < self.offset:
            self.account.fault(
                f"{register} was read as {status} {body!r} at offset {offset}; known were number {least} "
                f"and offset {self.offset}"
            )
        self.reads += 1
        self.seen[register] = number
        self.offset = offset
        if status == 200:
            self.values.add((register, body.decode()))


class Load:
    """`clients` writers of `total` writes between them, and a reader."""

    def __init__(self, port, total, clients, seed):
        self.account = Account()
        self.writers = [Writer(port, self.account, i, total // clients, seed) for i in range(clients)]
        self.reader = Reader(port, self.account, clients, seed)

    def start(self):
        for part in [*self.writers, self.reader]:
            part.thread.start()
        return self

    def is_running(self):
        return any(writer.thread.is_alive() for writer in self.writers)

    def join(self):
        for writer in self.writers:
            writer.thread.join()
        self.end_reader()

    def end_reader(self):
        self.reader.done.set()
        self.reader.thread.join()

    def abandon(self):
        """For a test that failed: the writers end with their next write."""
        self.account.fault("the test has ended")
        self.join()


# ---- the WAL files ----


class Log:
    """A node's log on disk: where each mark is, and what stands at each offset."""

    def __init__(self, node):
        self.name = node.name
        self.places = {}  # mark -> [offset]
        self.entries = {}  # offset -> (epoch, crc)
        self.first = None
        for frame in read_log(node.wal_dir):
            self.first = self.first or frame.offset
            self.entries[frame.offset] = (frame.epoch, frame.crc)
            for op in frame.entry().ops:
                mark = (op.key.decode(), None if op.kind == 2 else op.value.decode())
                self.places.setdefault(mark, []).append(frame.offset)


def faults_of_done(writes, master, replicas, quorum):
    """What is wrong about writes that were answered with success, given the nodes' logs."""
    faults = []
    for write in writes:
        entry = master.entries.get(write.offset)
        having = [log.name for log in replicas if entry and log.entries.get(write.offset) == entry]
        for mark in write.marks:
            if master.places.get(mark) != [write.offset]:
                faults.append(f"200 for {mark} at {write.offset}; master has {master.places.get(mark)}")
        if len(having) < quorum:
            faults.append(f"200 for {write.marks} at {write.offset} ({entry}): only on {having}")
    return faults


def faults_of_others(account, logs):
    """The same of those that were refused or are unknown."""
    faults = []
    for write in account.of(REFUSED):
        for mark in write.marks:
            where = {log.name: log.places[mark] for log in logs if mark in log.places}
            if where:
                faults.append(f"503 {write.code} for {mark}, which stands in {where}")
    for write in account.of(UNKNOWN):
        found = [[log.places.get(mark) for log in logs] for mark in write.marks]
        offsets = {tuple(places) for row in found for places in row if places}
        whole = {tuple(map(tuple, filter(None, row))) for row in found}
        if len(offsets) > 1 or any(len(places) > 1 for places in offsets) or len(whole) > 1:
            faults.append(f"unknown {write.marks} stands in different places: {found}")
        if write.offset and logs[0].places.get(write.marks[0]) != [write.offset]:
            faults.append(f"504 for {write.marks} at {write.offset}, but master has {found}")
    return faults
