"""Replicas with data of their own, to be attacked with full syncs that must change nothing."""

import glob
import json
import os
import re
import tempfile
import threading
import uuid

import nexus_wire as wire
from nexus_test import NexusTestCase, Node, free_port, wait_until
from snapshots import SnapshotMaster, Transfer, build_snapshot

VICTIMS = 12  # at work at once: each waits most of the time, before it tries again
OTHER_ID = "0a0a0a0a-0000-4000-8000-000000000001"
OUTSIDE = os.path.join(tempfile.gettempdir(), f"nexus-escape-{os.getpid()}")  # must never be there

# What the snapshots that attack hold unless a case says otherwise.
NEW_OFFSET = 1000
RECORDS = [(b"new%03d" % number, b"evil %d" % number, 100 + number) for number in range(30)]
PER_FILE = 10  # so that there are kv/000000 to kv/000002

OLD_COUNT = 20  # entries that a victim begins with
ABOUT = "(?i)snapshot|full sync|chunk"  # what the line in the log must speak of
LASTING = ("walwriter", "checkpointer", "http", "walreceiver")
SETTINGS = {
    "wal.segment_size": "1MiB",
    "wal.shm_size": "32MiB",
    "http.workers": 1,
    "replication.heartbeat_ms": 1000,
    "replication.connect_timeout_ms": 20000,
}


def disk_use(path):
    """Bytes that a tree takes on disk."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


class Victim:
    """A replica, the raw master that it follows, and what it must still have after each attack."""

    def __init__(self, name, **settings):
        self.master = SnapshotMaster(free_port())
        self.log = wire.LogBuilder()
        self.state = {}  # key -> (value, offset)
        self.replica = Node(
            "replica",
            name=name,
            settings={**SETTINGS, "replication.master_addr": self.master.addr, **settings},
        )

    @property
    def snapshots_dir(self):
        return os.path.join(self.replica.data_dir, "snapshots")

    def start(self):
        self.replica.launch()
        peer, _ = self.master.hello()
        self.master.greet(peer, current_wal_offset=OLD_COUNT)
        for number in range(1, OLD_COUNT + 1):
            peer.send(self.put(b"old%02d" % number, b"value %d" % number))
        self.end_session(peer)
        self.replica.wait_answer("/health")
        self.pids = self.lasting()
        self.before = self.files()
        return self

    def put(self, key, value):
        """The next entry of the sound history."""
        frame = self.log.append(wire.put_op(key, value))
        self.state[key.decode()] = (value.decode(), self.log.offset)
        return frame

    def end_session(self, peer):
        """Closes once the replica has all of the log."""
        while peer.recv_type(wire.WAL_ACK).offset < self.log.offset:
            pass
        peer.close()

    def session(self, count=1):
        """A sound session of one more entry: nothing keeps the replica from going on."""
        peer, hello = self.master.hello()
        self.check_hello(hello)
        self.master.greet(peer, current_wal_offset=self.log.offset + 1)
        peer.send(self.put(b"round", b"%d" % (self.log.offset + 1)))
        self.end_session(peer)

    def check_hello(self, hello):
        position = (hello.last_wal_offset, hello.last_epoch, hello.last_crc)
        if position != (self.log.offset, 1, self.log.crc):
            raise AssertionError(f"the replica stands at {position}, not at {self.log.offset}")

    def lasting(self):
        """Processes that an attack must not end."""
        return {
            (row["kind"], row["pid"]) for row in self.replica.processes() if row["kind"] in LASTING
        }

    def files(self):
        """Names of what a full sync makes: data-N and all that lies in snapshots/."""
        names = glob.glob(os.path.join(self.replica.data_dir, "data-*"))
        for directory, _, files in os.walk(self.snapshots_dir):
            names += [os.path.join(directory, name) for name in files]
        return {os.path.relpath(name, self.replica.data_dir) for name in names}

    def endure(
        self, transfer, frames=None, codes=(6, 7), welcome=None, about=ABOUT, resumable=False
    ):
        """Sends a full sync that must be refused and change nothing; -> (the Error or None, the line
        of the log). resumable: what came of it may stay, to be gone on with."""
        peer, hello = self.master.hello()
        self.check_hello(hello)
        mark = self.replica.log_mark()
        self.master.announce(peer, transfer, **(welcome or {}))
        self.master.send(peer, transfer.frames() if frames is None else frames)
        error = self.master.refusal(peer, 30)
        if error is not None and error.code not in codes:
            raise AssertionError(f"Error {error.code} {error.message!r}, expected one of {codes}")
        line = self.wait_line(mark, about)
        self.check()
        if not resumable:
            self.check_files()
        return error, line

    def loud_lines(self, mark):
        return re.findall(r"^\S+ (?:WARN|ERROR) .*$", self.replica.log()[mark:], re.MULTILINE)

    def wait_line(self, mark, about):
        """The one line that says what was wrong."""
        lines = wait_until(
            lambda: self.loud_lines(mark), 5, lambda: self.replica.describe("a line in the log")
        )
        if len(lines) > 1 or not re.search(about, lines[0]):
            raise AssertionError(f"not one line with {about}:\n" + "\n".join(lines))
        return lines[0]

    def check(self):
        """All is as before."""
        if not self.replica.is_running():
            raise AssertionError("the server has ended")
        status = self.replica.status()
        if status["wal_offset"] != self.log.offset or status["last_crc"] != self.log.crc:
            raise AssertionError(f"the replica stands at {status['wal_offset']}")
        code, headers, body = self.replica.request("GET", "/kv?limit=10000")
        if code != 200 or int(headers["Nexus-Offset"]) != self.log.offset:
            raise AssertionError(f"GET /kv: {code} at {headers['Nexus-Offset']}: {body[:300]!r}")
        items = json.loads(body)["items"]
        found = {item["key"]: (item["value"], item["offset"]) for item in items}
        if found != self.state:
            raise AssertionError(f"the old data are {found}")
        if self.lasting() != self.pids:
            raise AssertionError(f"processes {self.lasting()} instead of {self.pids}")

    def check_files(self):
        """Nothing is left of a full sync."""
        wait_until(
            lambda: self.files() == self.before,
            5,
            lambda: f"the removal of {sorted(self.files() - self.before)}",
        )

    def cleanup(self):
        try:
            self.replica.cleanup()
        finally:
            self.master.close()


def sent(victim, arguments):
    """A Transfer of a snapshot made with these arguments, of this victim's cluster."""
    snapshot_id = str(uuid.uuid4())
    merged = {
        "records": RECORDS,
        "per_file": PER_FILE,
        "snapshot_id": snapshot_id,
        "cluster_id": victim.master.cluster_id,
        "wal_offset": NEW_OFFSET,
        "wal_crc32": 7,
        **arguments,
    }
    return Transfer(build_snapshot(**merged), snapshot_id, NEW_OFFSET, chunk_size=4096)


def counted(records):
    """An edit of the manifest: so many records."""
    return lambda manifest: manifest.update(records=records)


def replace_last_kv(make):
    """Another Member in the place of kv/000002; make gets the right one."""
    return {"edit_files": lambda files: files[:2] + [make(files[2])] + files[3:]}


def attack_all(cases, attack, victims, make_victim):
    """Calls attack(victim, case) for each of cases, {name: case}, with all victims at work at once:
    {name: what went wrong}. A victim whose attack went wrong is replaced in the list."""
    waiting = list(cases.items())
    failures = {}
    lock = threading.Lock()

    def next_case():
        with lock:
            return waiting.pop(0) if waiting else None

    def work(index):
        while (item := next_case()) is not None:
            name, case = item
            victim = victims[index]
            mark = victim.replica.log_mark()
            try:
                attack(victim, case)
                victim.session()
                victim.check_files()
            except Exception as error:  # pylint: disable=broad-except
                log = victim.replica.log()[mark:]
                failures[name] = f"{type(error).__name__}: {error}\n  its log meanwhile:\n{log}"
                victims[index] = replace(victim)

    def replace(victim):
        try:
            victim.cleanup()
        except AssertionError:
            pass  # the failure is told already
        return make_victim()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(victims))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


class Watch:
    """The most memory that any process of a node has, and the most disk that its directory takes,
    while in `with`."""

    def __init__(self, node, pause=0.005):
        self.node = node
        self.pause = pause
        self.memory = {}  # title -> bytes, VmHWM without what is shared
        self.disk = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    @property
    def most(self):
        return max(self.memory.values())

    def _run(self):
        while True:
            for process in self.node.all_processes():
                self._note(process)
            self.disk = max(self.disk, disk_use(self.node.data_dir))
            if self._stop.wait(self.pause):
                return

    def _note(self, process):
        fields = {}
        try:
            with open(f"/proc/{process.pid}/status", encoding="ascii", errors="replace") as file:
                for line in file:
                    if line.startswith(("VmHWM:", "RssShmem:", "RssFile:")):
                        fields[line.split(":")[0]] = int(line.split()[1]) << 10
        except OSError:
            return
        if "VmHWM" in fields:
            title = re.sub(r"[0-9a-f-]{36}|[0-9]+", "#", process.title)
            used = fields["VmHWM"] - fields["RssShmem"] - fields["RssFile"]
            self.memory[title] = max(self.memory.get(title, 0), used)


class Attacks(NexusTestCase):
    """Many replicas that are attacked at once, the same ones in all tests of the class."""

    @classmethod
    def setUpClass(cls):
        cls.number = 0
        cls.victims = []
        cls.addClassCleanup(cls.end)
        for _ in range(VICTIMS):
            cls.victims.append(cls.make_victim())

    @classmethod
    def make_victim(cls):
        cls.number += 1
        victim = Victim(f"victim{cls.number}")
        try:
            return victim.start()
        except BaseException:
            victim.cleanup()
            raise

    @classmethod
    def end(cls):
        faults = []
        for victim in cls.victims:
            try:
                victim.cleanup()
            except AssertionError as error:
                faults.append(str(error))
        if faults:
            raise AssertionError("\n".join(faults))

    def attack(self, cases, attack):
        failures = attack_all(cases, attack, self.victims, self.make_victim)
        for name in cases:
            with self.subTest(name):
                if name in failures:
                    self.fail(failures[name])
        self.assertFalse(os.path.lexists(OUTSIDE), OUTSIDE)
