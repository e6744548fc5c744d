"""What clients did and were answered, and what was done to the nodes, in the order of one clock.

One JSON line an event, as it ends: {"i", "c": client, "node", "f": kind, "k": key, "v": value, "t0", "t1", "res", ...}.
res is "ok" (2xx in time), "fail" (the server said that nothing was logged, or there was no connection) or "unknown"
(anything else: it may happen at any later time, or never). What is done to the nodes: {"f": "fault", "what", "t0"}."""

import dataclasses
import json
import threading
import time

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"

# Kinds of operations.
WRITE, CAS, DELETE, READ, PAIR, PAIR_READ, SET, STALE_READ = (
    "write", "cas", "delete", "read", "pair", "pair_read", "set", "stale_read"
)  # fmt: skip


@dataclasses.dataclass(slots=True)  # there are millions
class Op:
    client: str
    node: str
    kind: str
    key: str
    value: str | None = None  # written, or read; None: absent
    expected: str | None = None  # of a cas: the value whose version it names
    t0: float = 0.0
    t1: float = 0.0
    result: str = UNKNOWN
    code: str = ""
    offset: int = 0
    epoch: int = 0


class History:
    """Written by all threads; `path`: where its lines go."""

    def __init__(self, path):
        self.ops = []
        self.faults = []  # (time, kind), of those that clients may feel
        self.began = time.monotonic()
        self._lock = threading.Lock()
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115

    def now(self):
        return time.monotonic() - self.began

    def _line(self, event):
        self._file.write(json.dumps(event, separators=(",", ":")) + "\n")

    def add(self, op):
        with self._lock:
            self.ops.append(op)
            self._line(
                {"i": len(self.ops), "c": op.client, "node": op.node, "f": op.kind, "k": op.key, "v": op.value}
                | {"t0": round(op.t0, 6), "t1": round(op.t1, 6), "res": op.result, "code": op.code}
                | {"ep": op.epoch, "off": op.offset}
            )

    def fault(self, what, kind=None):
        """what: its line in the file. kind: the name of the fault that begins, which clients may feel; None: a note, as
        of what it was in detail and of its end."""
        with self._lock:
            at = self.now()
            if kind:
                self.faults.append((at, kind))
            self._line({"f": "fault", "what": what, "t0": round(at, 6)})
            self._file.flush()

    def count(self, result, *kinds):
        with self._lock:
            return sum(op.result == result and (not kinds or op.kind in kinds) for op in self.ops)

    def close(self):
        self._file.close()
