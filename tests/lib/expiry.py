"""Many keys that expire, read and counted while they do: shared by tests and bench.

Everything runs on one machine, so that the readers' clock is the nodes' log clock, as long as nobody sets it.
"""
import json
import random
import threading
import time

import wal_files
from load import Connection

DELETE = 2
EXPIRED = 2  # flag of a delete


def now_ms():
    return time.time() * 1000


def put_lines(moments):
    """NDJSON of keys by their moment of expiry (Unix ms)."""
    return "".join(f'{{"key":"{key}","value":"v-{key}","expires_at":{moment}}}\n'
                   for key, moment in moments.items()).encode()


def spread(count, first_ms, last_ms, prefix="e"):
    """`count` keys whose moments lie evenly between the two, in random order."""
    moments = [first_ms + (last_ms - first_ms) * number // max(count - 1, 1) for number in range(count)]
    random.Random(count).shuffle(moments)
    return {f"{prefix}{number:07d}": moment for number, moment in enumerate(moments)}


def store(node, moments, lines=50000):
    """Imports them, in a few requests."""
    keys = list(moments)
    for at in range(0, len(keys), lines):
        part = {key: moments[key] for key in keys[at : at + lines]}
        status, _, body = node.request("POST", "/import", put_lines(part), timeout=120)
        assert status == 200, body


class Readers:
    """Reads random keys of a node all the time, and judges each answer by the key's moment: None may be there
    after it, none be gone before it. late_ms is how late a replica may be, whose clock follows the stamps."""

    def __init__(self, nodes, moments, window=16):
        self.moments = moments
        self.keys = list(moments)
        self.window = window
        self.stop = threading.Event()
        self.reads = 0
        self.early = []  # (node, key, ms before its moment)
        self.latest_ms = {node.name: 0.0 for node in nodes}  # served so long after its moment
        self.failures = []
        self.threads = [threading.Thread(target=self._run, args=(node, seed), daemon=True)
                        for seed, node in enumerate(nodes)]
        for thread in self.threads:
            thread.start()

    def _run(self, node, seed):
        try:
            rng = random.Random(seed)
            with Connection(node.http_port) as connection:
                while not self.stop.is_set():
                    self._round(node, connection, [rng.choice(self.keys) for _ in range(self.window)])
        except Exception as error:  # shown by end()
            self.failures.append(f"{node.name}: {error!r}")

    def _round(self, node, connection, keys):
        asked = now_ms()
        connection.send([f"GET /kv/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for key in keys])
        answers = [connection.answer() for _ in keys]
        answered = now_ms()
        for key, (status, _, _) in zip(keys, answers):
            moment = self.moments[key]
            if status == 200 and asked > moment:
                self.latest_ms[node.name] = max(self.latest_ms[node.name], asked - moment)
            elif status == 404 and answered < moment:
                self.early.append((node.name, key, moment - answered))
            elif status not in (200, 404):
                self.failures.append(f"{node.name}: {key} got {status}")
        self.reads += len(keys)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert not self.failures, self.failures[:5]


def deletions(node):
    """Of a log at rest: (key, offset, stamp in us) of each deletion by expiry, in order."""
    found = []
    for frame in wal_files.read_log(node.wal_dir):
        entry = frame.entry()
        found += [(op.key.decode(), entry.offset, entry.timestamp)
                  for op in entry.ops if op.kind == DELETE and op.flags & EXPIRED]
    return found


def wait_deleted(node, moments):
    """Waits until the log has as many deletions as there are keys: they come after the moment from which on a key
    is not shown any more."""
    node.wait_until(lambda: len(deletions(node)) >= len(moments), what="all deletions")


def check_deletions(found, moments):
    """Each of the keys was deleted once, and none before its moment."""
    counts = {}
    for key, offset, stamp in found:
        assert key in moments, f"entry {offset} deletes {key}"
        assert stamp >= moments[key] * 1000, f"entry {offset} of {stamp} us deletes {key}, due at {moments[key]} ms"
        counts[key] = counts.get(key, 0) + 1
    twice = [key for key, count in counts.items() if count > 1]
    assert not twice, f"deleted twice: {twice[:5]}"
    missing = [key for key in moments if key not in counts]
    assert not missing, f"{len(missing)} were not deleted: {missing[:5]}"


def exported(node):
    """{key: line} of an export."""
    status, _, body = node.request("GET", "/export", timeout=120)
    assert status == 200, body
    return {line["key"]: line for line in map(json.loads, body.splitlines())}
