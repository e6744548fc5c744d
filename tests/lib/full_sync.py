"""What tests of full syncs between real servers have in common."""

import glob
import os
import re
import urllib.parse
import zlib

import load
import nexus_wire as wire
from nexus_test import NexusTestCase, wait_until
from proxy import Proxy

SMALL = {
    "wal.segment_size": "64KiB",
    "wal.shm_size": "32MiB",
    "state.checkpoint_interval": "1s",
    "snapshot.chunk_size": "16KiB",
    "replication.heartbeat_ms": 500,
    "http.workers": 1,
}


def put_many(node, pairs, window=64):
    """Writes (key, value) pairs, many in flight; -> the offset of the last one."""
    pairs = list(pairs)
    offset = 0
    with load.Connection(node.http_port) as connection:
        for at in range(0, len(pairs), window):
            part = pairs[at : at + window]
            connection.send([load.put(key, value) for key, value in part])
            for _ in part:
                status, headers, body = connection.answer()
                if status not in (200, 201):
                    raise AssertionError(f"{status} {body!r}")
                offset = int(headers["nexus-offset"])
    return offset


def random_pairs(prefix, count, size):
    """Values that can't be compressed."""
    return [(f"{prefix}{number:05d}", os.urandom(size)) for number in range(count)]


def versions(node):
    """Key (or its base64) -> offset and expiry of all keys."""
    found, cursor = {}, ""
    while cursor is not None:
        page = node.json("GET", "/kv?keys_only=1&limit=10000" + (cursor and "&cursor=" + cursor))
        for item in page["items"]:
            key = item.get("key", item.get("key_base64"))
            found[key] = (item["offset"], item.get("expires_at"))
        cursor = page["next"] and urllib.parse.quote(page["next"], safe="")
    return found


def archives(node):
    """Paths of a node's snapshots."""
    return sorted(glob.glob(os.path.join(node.data_dir, "snapshots", "*.tar.zst")))


def pins(node):
    return glob.glob(os.path.join(node.data_dir, "snapshots", "*.pin"))


def leftovers(node):
    """What a replica must have removed once a full sync is over: all data-N but the current one, and
    whatever lies in snapshots/."""
    current = os.readlink(os.path.join(node.data_dir, "current"))
    names = [name for name in os.listdir(node.data_dir) if re.fullmatch("data-[0-9]+", name)]
    directory = os.path.join(node.data_dir, "snapshots")
    inside = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted([name for name in names if name != current] + inside)


def running(node, kind):
    """Pids of a kind of process, by their titles."""
    found = []
    for pid in child_pids(node.pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if file.read().startswith(f"nexus: {kind}".encode()):
                    found.append(pid)
        except OSError:
            pass  # it has ended
    return found


def child_pids(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


class FullSyncCase(NexusTestCase):
    def assert_level(self, master, replica, timeout=60):
        """The replica has all that the master has, versions and expiries too."""
        offset = master.status()["wal_offset"]
        replica.wait_offset(offset, timeout)
        self.assertEqual(replica.status()["wal_offset"], offset)
        replica.wait_answer("/ready")  # the switch may come between two looks
        self.assertEqual(master.export(), replica.export())
        self.assertEqual(versions(master), versions(replica))
        return offset

    def assert_tidy(self, replica):
        wait_until(
            lambda: not leftovers(replica),
            10,
            lambda: replica.describe(f"the removal of {leftovers(replica)}"),
        )

    def master(self, pairs=(), **settings):
        """A master whose state is in LMDB: who has nothing gets a full sync."""
        node = self.node("master", settings={**SMALL, **settings})
        if pairs:
            put_many(node, pairs)
            node.export()  # merges
            self.assertGreater(node.status()["checkpoint_offset"], 0)
        return node

    def replica(self, master_addr, name="replica", launch=True, **settings):
        node = self.node(
            "replica",
            start=False,
            name=name,
            settings={**SMALL, "replication.master_addr": master_addr, **settings},
        )
        return node.launch() if launch else node

    def proxy(self, node, **options):
        proxy = Proxy(node.replication_port, **options)
        self.addCleanup(proxy.close)
        return proxy

    def row(self, master):
        """The one replica of the master, or None."""
        rows = master.replicas()
        return rows[0] if len(rows) == 1 else None

    def wait_row(self, master, timeout=20, **fields):
        def matches():
            row = self.row(master)
            return row if row and all(row[name] == value for name, value in fields.items()) else None

        return master.wait_until(matches, timeout, f"a replica with {fields}")

    def peer(self, master, **options):
        port = None if "sock" in options else master.replication_port
        peer = wire.RawPeer(port, timeout=20, **options)
        self.addCleanup(peer.close)
        return peer


class Received:
    """A transfer as a peer gets it."""

    def __init__(self, peer, first=0):
        self.pings = 0
        self.chunks = []
        self.meta = self.complete = None
        self.peer = peer
        self.first = first

    def run(self, count=None):
        """Up to SnapshotComplete, or that many chunks."""
        while self.complete is None and (count is None or len(self.chunks) < count):
            message = self.peer.recv()
            if message is None:
                raise AssertionError("closed in the middle of the transfer")
            if message.type == wire.PING:
                self.pings += 1
                self.peer.send(wire.build_pong(message.timestamp))
                self.peer.send(wire.build_ping())
            elif message.type == wire.SNAPSHOT_META and self.meta is None:
                self.meta = message
            elif message.type == wire.SNAPSHOT_CHUNK and self.meta is not None:
                self._take_chunk(message)
            elif message.type == wire.SNAPSHOT_COMPLETE and self.meta is not None:
                self.complete = message
            elif message.type != wire.PONG:
                raise AssertionError(f"{message.name} {str(message.fields)[:300]}")
        return self

    def _take_chunk(self, message):
        wanted = (self.meta.snapshot_id, self.first + len(self.chunks), zlib.crc32(message.data))
        got = (message.snapshot_id, message.chunk_index, message.checksum)
        if got != wanted:
            raise AssertionError(f"chunk {got}, expected {wanted}")
        self.chunks.append(message.data)

    @property
    def archive(self):
        return b"".join(self.chunks)
