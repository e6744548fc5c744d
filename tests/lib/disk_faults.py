"""Faults of a node's system calls, while it runs: rules for tests/preload/faults.c, which says what can be asked for.

    node = self.node("master", start=False)
    faults = Faults(node)
    node.start()
    faults.set("fdatasync /wal/ EIO count=1")
    ...
    faults.wait_touched()
    faults.clear()
"""

import os
import struct
import tempfile

_RULES = 32  # as there
_COUNTER = struct.Struct("=QQ")  # calls that matched, calls that were touched


class Faults:
    """The faults of one node, which must not have been started yet. Release builds only."""

    def __init__(self, node, *rules, directory=None):
        """directory: for the file of rules, by default the node's own; a full or lost one is no place for it"""
        self.node = node
        self.path = os.path.join(directory or node.directory, f"faults-{node.http_port}")
        node.preload = [*node.preload, "libfaults.so"]
        node.env["NX_FAULTS"] = self.path
        self.set(*rules)

    def set(self, *rules):
        """In place of all others, in force with the next call of each process; counted from 0."""
        handle, name = tempfile.mkstemp(dir=os.path.dirname(self.path))
        with os.fdopen(handle, "wb") as file:
            file.write(bytes(_RULES * _COUNTER.size))
        os.rename(name, self.path + ".count")
        with open(self.path + ".new", "w", encoding="ascii") as file:
            file.write("".join(f"{rule}\n" for rule in rules))
        os.rename(self.path + ".new", self.path)

    def clear(self):
        self.set()

    def touched(self, rule=0):
        """How many calls a rule has touched, by its number."""
        with open(self.path + ".count", "rb") as file:
            data = file.read()
        return _COUNTER.unpack_from(data, rule * _COUNTER.size)[1]

    def wait_touched(self, rule=0, count=1, timeout=20):
        self.node.wait_until(lambda: self.touched(rule) >= count, timeout, f"{count} faults of rule {rule}")
