"""Rebuilds the directories that a power cut could have left, from a recorder's log.

The recorder (tests/preload/recorder.c) notes every write, sync and change of a name. `Disk` replays the
log up to a point and knows, for each file, what a sync has covered and what was still under way, and
for each directory, which changes of names its fsync has covered. `Disk.image` then writes one
directory tree: everything synced, and of the rest any part, writes torn at 512 bytes.
"""
import os
import random
import struct

HEAD = struct.Struct("<IIQQQ")
WRITE, ZERO, TRUNCATE, SYNC, CREATE, MKDIR, RENAME, UNLINK, SYMLINK = range(1, 10)
ACK = 100  # appended by the test itself: a client has its answer
SECTOR = 512


def append_ack(log_fd, text):
    """Notes in the log, in order with everything else, that a client has an answer."""
    payload = text.encode()
    os.write(log_fd, HEAD.pack(ACK, len(payload), 0, 0, 0) + payload)


def read_log(path):
    """All records: (type, inode, a, b, payload)."""
    records = []
    with open(path, "rb") as log:
        while True:
            head = log.read(HEAD.size)
            if len(head) < HEAD.size:
                return records
            kind, length, inode, a, b = HEAD.unpack(head)
            records.append((kind, inode, a, b, log.read(length)))


class File:
    """Bytes that a sync has covered, and the changes since."""

    def __init__(self):
        self.synced = bytearray()
        self.pending = []  # ("write", at, bytes) or ("truncate", length)

    def sync(self):
        for change in self.pending:
            apply_change(self.synced, change)
        self.pending = []


def apply_change(content, change):
    if change[0] == "truncate":
        length = change[1]
        if length < len(content):
            del content[length:]
        else:
            content.extend(bytes(length - len(content)))
        return
    _, at, data = change
    if at > len(content):
        content.extend(bytes(at - len(content)))
    content[at:at + len(data)] = data


class Disk:
    """The state of a recorded tree at one moment."""

    def __init__(self, root):
        self.root = root
        self.files = {}      # inode -> File
        self.names = {}      # path -> ("file", inode) | ("dir", inode) | ("link", target); durable ones
        self.live = {}       # the same, as the processes saw it
        self.pending = {}    # directory path -> [change of name, ...] not yet synced
        self.dir_inode = {}  # inode -> path
        self.acks = []
        self.top_synced()

    def top_synced(self):
        self.live[self.root] = self.names[self.root] = ("dir", 0)

    def rename_change(self, old, new):
        entry = self.live.pop(old, None)
        if entry is not None:
            self.live[new] = entry
        self.note(os.path.dirname(new), ("rename", old, new, entry))

    def note(self, directory, change):
        self.pending.setdefault(directory, []).append(change)

    def add(self, path, entry):
        self.live[path] = entry
        self.note(os.path.dirname(path), ("add", path, entry))

    def file(self, inode):
        return self.files.setdefault(inode, File())

    def feed(self, rec):
        kind, inode, a, b, payload = rec
        if kind == WRITE:
            self.file(inode).pending.append(("write", a, payload))
        elif kind == ZERO:
            self.file(inode).pending.append(("write", a, bytes(b)))
        elif kind == TRUNCATE:
            self.file(inode).pending.append(("truncate", a))
        elif kind == SYNC:
            self.sync(inode)
        elif kind == CREATE:
            self.files[inode] = File()  # inodes are used again
            self.add(payload.decode(), ("file", inode))
        elif kind == MKDIR:
            self.dir_inode[inode] = payload.decode()
            self.add(payload.decode(), ("dir", inode))
        elif kind == SYMLINK:
            path, target = payload.decode().split("\0")
            self.add(path, ("link", target))
        elif kind == RENAME:
            self.rename_change(*payload.decode().split("\0"))
        elif kind == UNLINK:
            path = payload.decode()
            self.live.pop(path, None)
            self.note(os.path.dirname(path), ("remove", path))
        elif kind == ACK:
            self.acks.append(payload.decode())

    def sync(self, inode):
        path = self.dir_inode.get(inode)
        if path is None and inode not in self.files:
            path = self.root  # the data directory itself, made before the recorder
        if path is None:
            self.file(inode).sync()
            return
        for change in self.pending.pop(path, []):
            apply_name(self.names, change)

    def image(self, target, rng):
        """Writes one tree that a power cut at this moment could have left."""
        names = dict(self.names)
        for changes in self.pending.values():
            # A journal keeps the order of one directory's changes: some prefix of them is there.
            for change in changes[:rng.randint(0, len(changes))]:
                apply_name(names, change)
        style = rng.choice(["none", "all", "writes", "sectors"])
        for path in sorted(names):
            place = target + path[len(self.root):]
            kind, value = names[path]
            if not os.path.isdir(os.path.dirname(place)) and path != self.root:
                continue  # its directory was lost
            if kind == "dir":
                os.makedirs(place, mode=0o700, exist_ok=True)
            elif kind == "link":
                os.symlink(value, place)
            else:
                with open(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
                    out.write(self.torn(self.file(value), style, rng))
        return style

    @staticmethod
    def torn(file, style, rng):
        content = bytearray(file.synced)
        for change in file.pending:
            if style == "none" or (style == "writes" and rng.random() < 0.5):
                continue
            if change[0] == "truncate" or style != "sectors":
                apply_change(content, change)
                continue
            _, at, data = change
            start = at
            while start < at + len(data):
                end = min(at + len(data), (start // SECTOR + 1) * SECTOR)
                if rng.random() < 0.5:
                    apply_change(content, ("write", start, data[start - at:end - at]))
                start = end
        return content


def apply_name(names, change):
    if change[0] == "add":
        names[change[1]] = change[2]
    elif change[0] == "remove":
        names.pop(change[1], None)
    else:
        _, old, new, entry = change
        names.pop(old, None)
        if entry is not None:
            names[new] = entry


def crash_points(records, count, seed):
    """Random points in a log, later than the first acknowledgment, in ascending order."""
    rng = random.Random(seed)
    first = next(i for i, rec in enumerate(records) if rec[0] == ACK)
    return sorted(rng.sample(range(first + 1, len(records) + 1), count))
