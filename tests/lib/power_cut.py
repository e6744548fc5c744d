"""Rebuilds the directories that a power cut could have left, from a recorder's log.

The recorder (tests/preload/recorder.c) notes every write, sync and change of a name. `Disk` replays the
log up to a point and knows, for each file, what a sync has covered and what was still under way, and
for each directory, which changes of names its fsync has covered. `Disk.image` then writes one
directory tree: everything synced, and of the rest any part, writes torn at 512 bytes.

Files and directories are objects, and names lead to them: a directory that gets another name takes along
what is in it, and one that is made where another one was has nothing of that.
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
        self.certain = set()  # indexes in pending of writes that are durable by themselves

    def sync(self):
        for change in self.pending:
            apply_change(self.synced, change)
        self.pending = []
        self.certain = set()

    def sync_write(self, at, length):
        """The newest write of these bytes was an O_DSYNC one: it alone is durable."""
        for index in reversed(range(len(self.pending))):
            change = self.pending[index]
            if change[0] == "write" and change[1] == at and len(change[2]) == length:
                self.certain.add(index)
                return
        raise ValueError(f"no write of {length} bytes at {at} to sync")


class Dir:
    """Names that an fsync has covered, those that the processes see, and the changes between them."""

    def __init__(self):
        self.durable = {}  # name -> File, Dir, or the text of a symbolic link
        self.live = {}
        self.pending = []  # ("put", name, node), ("remove", name) or ("rename", old, new, node)

    def change(self, change):
        apply_name(self.live, change)
        self.pending.append(change)

    def sync(self):
        for change in self.pending:
            apply_name(self.durable, change)
        self.pending = []

    def left(self, rng):
        """The names that a power cut could leave: a journal keeps the order of one directory's changes,
        so some prefix of them is there."""
        names = dict(self.durable)
        for change in self.pending[:rng.randint(0, len(self.pending))]:
            apply_name(names, change)
        return names


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


def apply_name(names, change):
    if change[0] == "put":
        names[change[1]] = change[2]
    elif change[0] == "remove":
        names.pop(change[1], None)
    else:
        _, old, new, node = change
        names.pop(old, None)
        names[new] = node


class Disk:
    """The state of a recorded tree at one moment. The tree itself was made, empty, before the recorder
    began, and still stands, unless its inode is given."""

    def __init__(self, root, inode=None):
        self.root = root
        self.top = Dir()
        self.nodes = {os.stat(root).st_ino if inode is None else inode: self.top}  # inode -> File or Dir
        self.early = {}  # of these, files whose creation isn't recorded yet
        self.acks = []

    def find(self, path):
        """-> (the Dir that holds it, its name there)"""
        steps = path[len(self.root):].strip("/").split("/")
        node = self.top
        for step in steps[:-1]:
            node = node.live[step]
        return node, steps[-1]

    def put(self, path, node):
        parent, name = self.find(path)
        parent.change(("put", name, node))

    def rename(self, old, new):
        source, old_name = self.find(old)
        target, new_name = self.find(new)
        node = source.live.get(old_name)
        if node is None:
            target.change(("remove", new_name))  # what isn't recorded took its name
        elif source is target:
            source.change(("rename", old_name, new_name, node))
        else:
            target.change(("put", new_name, node))
            source.change(("remove", old_name))

    def file(self, inode):
        """A process may change a file that another one is about to record as created."""
        if inode not in self.nodes:
            self.nodes[inode] = self.early[inode] = File()
        return self.nodes[inode]

    def feed(self, rec):
        kind, inode, a, b, payload = rec
        if kind == WRITE:
            self.file(inode).pending.append(("write", a, payload))
        elif kind == ZERO:
            self.file(inode).pending.append(("write", a, bytes(b)))
        elif kind == TRUNCATE:
            self.file(inode).pending.append(("truncate", a))
        elif kind == SYNC and b > 0:
            self.nodes[inode].sync_write(a, b)
        elif kind == SYNC:
            self.nodes[inode].sync()
        elif kind in (CREATE, MKDIR):
            early = self.early.pop(inode, None) if kind == CREATE else None
            self.nodes[inode] = early or (File() if kind == CREATE else Dir())  # inodes are used again
            self.put(payload.decode(), self.nodes[inode])
        elif kind == SYMLINK:
            path, target = payload.decode().split("\0")
            self.put(path, target)
        elif kind == RENAME:
            self.rename(*payload.decode().split("\0"))
        elif kind == UNLINK:
            parent, name = self.find(payload.decode())
            parent.change(("remove", name))
        elif kind == ACK:
            self.acks.append(payload.decode())

    def image(self, target, rng):
        """Writes one tree that a power cut at this moment could have left."""
        style = rng.choice(["none", "all", "writes", "sectors"])
        self.write_dir(self.top, target, style, rng)
        return style

    def killed(self, target):
        """Writes the tree that SIGKILL of all processes at this moment leaves: all that was written."""
        self.write_dir(self.top, target, "all", None)
        return "killed"

    def write_dir(self, node, place, style, rng):
        """rng None: all names as the processes see them."""
        os.mkdir(place, 0o700)
        for name, child in sorted((node.live if rng is None else node.left(rng)).items()):
            path = os.path.join(place, name)
            if isinstance(child, Dir):
                self.write_dir(child, path, style, rng)
            elif isinstance(child, str):
                os.symlink(child, path)
            else:
                with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
                    out.write(self.torn(child, style, rng))

    @staticmethod
    def torn(file, style, rng):
        content = bytearray(file.synced)
        for index, change in enumerate(file.pending):
            certain = index in file.certain
            if not certain and (style == "none" or (style == "writes" and rng.random() < 0.5)):
                continue
            if certain or change[0] == "truncate" or style != "sectors":
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


def replayed(root, records, points):
    """For each of the points, ascending: (its number, the point, the Disk there). Behind the last one the rest is read
    too: no change may be of a file that nobody has created."""
    disk = Disk(root)
    fed = 0
    for number, point in enumerate(points):
        for record in records[fed:point]:
            disk.feed(record)
        fed = point
        yield number, point, disk
    for record in records[fed:]:
        disk.feed(record)
    assert not disk.early, f"changed, and never created: inodes {sorted(disk.early)}"


def crash_points(records, count, seed):
    """Random points in a log, later than the first acknowledgment, in ascending order."""
    rng = random.Random(seed)
    first = next(i for i, rec in enumerate(records) if rec[0] == ACK)
    return sorted(rng.sample(range(first + 1, len(records) + 1), count))


def name_points(records, root, first, wanted=lambda path: True):
    """The points right before and right after each change of a name and each fsync of a directory behind
    record `first`, in ascending order; wanted: of which paths."""
    dirs = {os.stat(root).st_ino: root}
    points = set()
    for index, (kind, inode, _, _, payload) in enumerate(records):
        path = dirs.get(inode) if kind == SYNC else None
        if CREATE <= kind <= SYMLINK:
            path = payload.decode().split("\0")[0]
        if kind == MKDIR:
            dirs[inode] = path
        elif kind == CREATE:
            dirs.pop(inode, None)  # inodes are used again
        if index > first and path is not None and wanted(path):
            points.update((index, index + 1))
    return sorted(points)


def describe(rec):
    """A record as a line, for a failure."""
    kind, inode, a, b, payload = rec
    names = {WRITE: "write", ZERO: "zero", TRUNCATE: "truncate", SYNC: "sync", CREATE: "create",
             MKDIR: "mkdir", RENAME: "rename", UNLINK: "unlink", SYMLINK: "symlink", ACK: "ack"}
    text = payload.decode() if kind >= CREATE else f"{len(payload)} bytes"
    return f"{names[kind]} inode {inode} {a} {b} {text!r}"
