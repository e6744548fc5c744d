"""A cluster whose nodes are recorded into one log, and what a power cut of any of them, at one instant, leaves.

The recorders of all nodes append to the same file (tests/preload/recorder.c), and so do the clients with each
answer that they get: a write is noted before it is made, a sync once it has returned, an answer once it is
here. So each point of the file is an instant of the whole cluster: what a node had sent to another by then,
or a client had heard, stands before it.

A Recording is such a log with what the nodes were; it can be kept, and read again from where it was kept. An
Instant is a point of it with a generator of its own for each node, made from (seed, recording, point, node):
the same seed cuts the same images out of the same log.
"""

import json
import os
import random
import shutil

import power_cut

PREFIX = "power-"  # of a phase's mark in the log; the other marks are "key offset"


class Disks:
    """The disks of all nodes at one moment of the log."""

    def __init__(self, roots):
        """roots: [(path, inode)]"""
        self.disks = [power_cut.Disk(path, inode) for path, inode in roots]
        self.owners = {inode: disk for (_, inode), disk in zip(roots, self.disks)}
        self.acked = {}  # key -> offset
        self.phase = None

    def disk_of(self, path):
        return next(disk for disk in self.disks if path.startswith(disk.root + "/"))

    def feed(self, rec):
        kind, inode, _, _, payload = rec
        if kind == power_cut.ACK:
            self.note(payload.decode())
            return
        if kind >= power_cut.CREATE:
            disk = self.disk_of(payload.decode().split("\0")[0])
            if kind in (power_cut.CREATE, power_cut.MKDIR):
                self.owners[inode] = disk  # inodes are used again, by any node
        else:
            disk = self.owners[inode]
        disk.feed(rec)

    def note(self, text):
        if text.startswith(PREFIX):
            self.phase = text[len(PREFIX):]
        else:
            key, offset = text.split()
            self.acked[key] = int(offset)


class Recording:
    """A log, the roots that it is of, and what the test wants to know of the run."""

    def __init__(self, directory, facts):
        """directory: has the log in `record`; facts: {"name", "roots", ...}, plain values"""
        self.directory = directory
        self.facts = facts
        self.name = facts["name"]
        self.path = os.path.join(directory, "record")
        self._log_fd = None
        self._records = None

    @classmethod
    def begin(cls, directory, name, nodes):
        """Has these nodes, which have never been started, recorded into directory/record."""
        recording = cls(directory, {"name": name, "roots": []})
        for node in nodes:
            os.mkdir(node.data_dir, 0o700)
            root = os.path.realpath(node.data_dir)
            recording.facts["roots"].append([root, os.stat(root).st_ino])
            node.preload = ["librecorder.so"]
            node.env.update({"NX_RECORD_DIR": root, "NX_RECORD_LOG": recording.path})
        recording._log_fd = os.open(recording.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return recording

    def ack(self, key, offset):
        power_cut.append_ack(self._log_fd, f"{key} {offset}")

    def mark(self, phase):
        power_cut.append_ack(self._log_fd, PREFIX + phase)

    def end(self, **facts):
        os.close(self._log_fd)
        self.facts.update(facts)

    def keep(self, directory):
        """Copies what is needed to cut the same images again."""
        target = os.path.join(directory, self.name)
        if not os.path.exists(target):
            os.makedirs(target)
            shutil.copy(self.path, os.path.join(target, "record"))
            with open(os.path.join(target, "facts.json"), "w", encoding="utf-8") as file:
                json.dump(self.facts, file)
        return target

    @classmethod
    def read(cls, directory):
        """One that was kept."""
        with open(os.path.join(directory, "facts.json"), encoding="utf-8") as file:
            return cls(directory, json.load(file))

    @property
    def records(self):
        if self._records is None:
            self._records = power_cut.read_log(self.path)
        return self._records

    def phases(self):
        """name -> where in the log it begins"""
        found = {}
        for index, (kind, _, _, _, payload) in enumerate(self.records):
            if kind == power_cut.ACK and payload.decode().startswith(PREFIX):
                found[payload.decode()[len(PREFIX):]] = index
        return found

    def points(self, count, seed):
        """Instants, in order: half of them anywhere, half right before or behind a sync or a change of a name,
        where what is durable changes; each phase has its share."""
        rng = random.Random(f"{seed}/{self.name}")
        begins = sorted(self.phases().values())
        ends = [*begins[1:], len(self.records)]
        first = next(i for i, rec in enumerate(self.records) if rec[0] == power_cut.ACK and
                     not rec[4].decode().startswith(PREFIX))
        spans = [(max(begin, first) + 1, end) for begin, end in zip(begins, ends) if end > max(begin, first) + 1]
        points = []
        for number in range(count):
            begin, end = spans[number % len(spans)]
            point = rng.randint(begin, end)
            if rng.random() < 0.5:
                point = self.next_turn(point, end) + rng.randint(0, 1)
            points.append(min(point, len(self.records)))
        return sorted(points)

    def next_turn(self, point, end):
        for index in range(point, end):
            if self.records[index][0] in (power_cut.SYNC, power_cut.RENAME, power_cut.UNLINK):
                return index
        return point

    def instants(self, count, seed):
        """Yields an Instant for each of the points; it is of use until the next is asked for."""
        disks = Disks(self.facts["roots"])
        fed = 0
        for point in self.points(count, seed):
            for rec in self.records[fed:point]:
                disks.feed(rec)
            fed = point
            yield Instant(self, seed, point, disks)


class Instant:
    """A point of a recording."""

    def __init__(self, recording, seed, point, disks):
        self.recording = recording
        self.seed = seed
        self.point = point
        self.disks = disks
        self.phase = disks.phase
        self.acked = dict(disks.acked)
        self.dice = self.rng("kind")
        self.last = power_cut.describe(recording.records[point - 1])

    def rng(self, what):
        return random.Random(f"{self.seed}/{self.recording.name}/{self.point}/{what}")

    def cut(self, node, directory):
        """What the power cut leaves of a node, by number, as directory/data. -> its style"""
        return self.disks.disks[node].image(os.path.join(directory, "data"), self.rng(node))

    def synced(self, node, directory):
        """Nothing but what a sync has covered."""
        disk = self.disks.disks[node]
        disk.write_dir(disk.top, os.path.join(directory, "data"), "none", Durable())

    def written(self, node, directory):
        """All that was written."""
        self.disks.disks[node].killed(os.path.join(directory, "data"))

    def __str__(self):
        return (f"NEXUS_POWER_SEED={self.seed}, recording {self.recording.name}, point {self.point}, phase "
                f"{self.phase}, behind {self.last[:200]}")


class Durable:
    """In place of a generator of random numbers: of the changes of names not one has survived."""

    @staticmethod
    def randint(least, _):
        return least
