"""What must hold in the end: the clients' history against the logs of all nodes, and against itself.

The log of the final master is the history of what is confirmed. In async mode a promotion may cut answered writes off:
those whose place belongs to a later epoch in the final history are counted as lost, any other is a fault."""

import bisect
import dataclasses
import itertools
import math
import os

import wal_files
from failover_rounds import Entry, Histories
from failover_rounds import History as Log
from history import CAS, DELETE, FAIL, OK, PAIR, PAIR_READ, READ, SET, STALE_READ, UNKNOWN, WRITE
from linearizable import REFUSED_CAS, search
from nexus_wire import DELETE as REMOVE
from nexus_wire import PUT, decode_entry

SHOWN = 10
PUTS = (WRITE, CAS, SET)


@dataclasses.dataclass
class Verdict:
    faults: list
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    lost: int = 0  # async mode, by a promotion that said so
    reads: int = 0


def marks(op):
    """[(key, value)] that a write leaves in the log."""
    if op.kind == PAIR:
        return [(f"{op.key}-x", op.value), (f"{op.key}-y", op.value)]
    return [(op.key, op.value)] if op.kind in PUTS else []


class Checker:
    def __init__(self, ops, entries, sync):
        self.ops = ops
        self.log = Log(entries)
        self.sync = sync
        self.verdict = Verdict([])

    def fault(self, text):
        self.verdict.faults.append(text)

    def run(self):
        self.check_writes()
        self.check_pairs()
        self.check_replica_reads()
        if self.sync:
            self.check_order()
            self.check_registers()
        return self.verdict

    def places(self, op):
        return [self.log.places.get(mark, []) for mark in marks(op)]

    # -- writes --

    def check_writes(self):
        for op in self.ops:
            if op.kind in (READ, PAIR_READ, STALE_READ):
                self.verdict.reads += op.result == OK
            elif op.result == OK:
                self.verdict.acknowledged += 1
                self.check_acknowledged(op)
            elif op.result == FAIL:
                self.verdict.refused += 1
                if any(self.places(op)):
                    self.fault(f"refused, and it stands at {self.places(op)}: {op}")
            else:
                self.verdict.unknown += 1
                self.check_unknown(op)

    def check_acknowledged(self, op):
        if op.kind == DELETE and self.log.at(op.key, op.offset)[0] is None:
            return  # by it, or there was nothing to delete
        places = self.places(op) or [[]]
        if all(place == [op.offset] for place in places) and self.log.epoch(op.offset) == op.epoch:
            return
        later = self.log.epoch(op.offset)
        if not self.sync and not any(places) and (later is None or later > op.epoch):
            self.verdict.lost += 1
        else:
            self.fault(f"acknowledged, and it stands at {places}, epoch {later}: {op}")

    def check_unknown(self, op):
        places = self.places(op)
        if any(place != places[0] or len(place) > 1 for place in places):
            self.fault(f"it stands more than once, or in part, at {places}: {op}")

    # -- reads --

    def check_pairs(self):
        for op in self.ops:
            if op.kind == PAIR_READ and op.result == OK and op.value:
                values = set(op.value.split(","))
                if len(values) != 1 or op.value.count(",") != 1:
                    self.fault(f"a torn pair: {op}")

    def check_replica_reads(self):
        """Whatever the node, a read is what some history had at its offset: this one, or (async) one that was cut off."""
        for op in self.ops:
            if op.kind != STALE_READ or op.result != OK or self.log.epoch(op.offset) is None:
                continue
            if self.log.epoch(op.offset) <= op.epoch and self.sync:
                value, _ = self.log.at(op.key, op.offset)
                if value != op.value:
                    self.fault(f"a read of offset {op.offset}, where the log has {value!r}: {op}")

    def check_order(self):
        """What was answered before another began stands before it."""
        writes = [op for op in self.ops if op.result == OK and op.kind in (*PUTS, PAIR)]
        ends = sorted(writes, key=lambda op: op.t1)
        highest, number = 0, 0
        for op in sorted(writes, key=lambda op: op.t0):
            while number < len(ends) and ends[number].t1 < op.t0:
                highest = max(highest, ends[number].offset)
                number += 1
            if op.offset <= highest:
                self.fault(f"it stands at or before {highest}, which was answered before it began: {op}")

    def check_registers(self):
        by_key = {}
        for op in self.ops:
            if op.kind in (WRITE, CAS, DELETE, READ):
                by_key.setdefault(op.key, []).append(op)
        bounds = Bounds(op for op in self.ops if op.result == OK and op.offset and op.kind in (*PUTS, PAIR, DELETE))
        for key, ops in sorted(by_key.items()):
            ops = [op for op in ops if op.result == OK or op.code == REFUSED_CAS] + self.resolved(key, ops, bounds)
            stuck = search(ops)
            if stuck is not None:
                self.fault(f"{key}: no order of its {len(ops)} operations explains {stuck}")

    def resolved(self, key, ops, bounds):
        """What the log says of a register's writes in doubt: those that stand there happened, each between what was
        answered of the entries before it and behind it. Else the search would try each of them at all later times."""
        found = []
        for op in ops:
            if op.result == UNKNOWN and op.kind in (WRITE, CAS) and any(self.places(op)):
                end = bounds.end(self.places(op)[0][0])
                if end <= op.t0:
                    self.fault(f"it stands before what was answered at {end}, before it began: {op}")
                else:
                    found.append(dataclasses.replace(op, t1=end, result=OK if end < math.inf else UNKNOWN))
        asked = sorted((op for op in ops if op.result == UNKNOWN and op.kind == DELETE), key=lambda op: op.t0)
        known = {op.offset for op in ops if op.result == OK and op.kind == DELETE}
        for offset in self.log.places.get((key, None), []):
            begin, end = bounds.begin(offset), bounds.end(offset)
            possible = [op for op in asked if op.t0 < end]
            if offset in known and not possible:
                continue  # else an answer that names it may be one that found nothing to delete any more
            if not possible:
                self.fault(f"{key}: a deletion at {offset} that nobody asked for before {end}")
                continue
            if offset not in known:
                asked.remove(possible[0])  # it deleted once
            begin = max(begin, possible[0].t0)
            found.append(dataclasses.replace(possible[0], t0=begin, t1=end, result=OK if end < math.inf else UNKNOWN))
        return found


class Bounds:
    """When an entry was made, as far as the answers about others tell."""

    def __init__(self, answered):
        answered = sorted(answered, key=lambda op: op.offset)
        self.offsets = [op.offset for op in answered]
        self.begins = list(itertools.accumulate((op.t0 for op in answered), max))
        self.ends = list(itertools.accumulate((op.t1 for op in reversed(answered)), min))[::-1]

    def begin(self, offset):
        """Not before what stands before it had begun."""
        at = bisect.bisect_left(self.offsets, offset)
        return self.begins[at - 1] if at else 0.0

    def end(self, offset):
        """Before anything behind it was answered."""
        at = bisect.bisect_right(self.offsets, offset)
        return self.ends[at] if at < len(self.ends) else math.inf


class Deleting(Entry):
    """An entry whose deletes count: (key, None)."""

    def __init__(self, frame):
        super().__init__(frame)
        ops = decode_entry(frame.raw).ops
        self.changes = [(op.key.decode(), op.value.decode() if op.kind == PUT else None) for op in ops if op.kind in (PUT, REMOVE)]


class Logs(Histories):
    """All entries that stood in any node's log, read as they come: a segment is read again only while it is the last."""

    def __init__(self):
        super().__init__()
        self.progress = {}  # name of a node -> (its WAL directory, last segment, last entry)

    def collect(self, node):
        root = os.path.realpath(node.wal_dir)
        known, newest, last = self.progress.get(node.name, (None, 0, None))
        if known != root:
            newest, last = 0, None
        for first, path in wal_files.list_segments(root):
            if first >= newest:
                newest = first
                last = self.read(node, path) or last
        self.progress[node.name] = (root, newest, last)
        return last

    def read(self, node, path):
        entry = None
        with open(path, "rb") as file:
            data = file.read()
        at = wal_files.HEADER_SIZE
        while (frame := wal_files.frame_at(data, at, path)) is not None:
            place = (frame.offset, frame.crc)
            entry = self.entries.get(place)
            if entry is None:
                entry = self.entries[place] = Deleting(frame)
            known = self.crcs.setdefault((frame.epoch, frame.offset), frame.crc)
            if known != frame.crc:
                self.faults.append(f"{node.name}: entry {frame.offset} of epoch {frame.epoch} is not as elsewhere")
            at = frame.end
        return entry

    def final(self, node):
        """The history of a node's last entry, from the first entry on."""
        last = self.collect(node)
        entries = self.behind(last) if last else []
        if [entry.offset for entry in entries] != list(range(1, len(entries) + 1)):
            self.faults.append(f"{node.name}: its log has a gap")
        return entries


def around(ops, text, count=20):
    """The lines of a history around an operation that a fault names."""
    for number, op in enumerate(ops):
        if str(op) in text:
            return [str(each) for each in ops[max(0, number - count) : number + count]]
    return []
