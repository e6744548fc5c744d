# timeout: 300
"""Damage to each kind of bytes that a data directory holds, while the server is down: it starts and has all that was
acknowledged, or it (or the read) is refused with a line that names the place and what to do; never anything wrong.

NEXUS_CORRUPTIONS: damages in all (a few of each class by default). NEXUS_SEED repeats a run."""

import glob
import http.client
import json
import os
import random
import re
import shutil
import struct
import unittest

import nexus_wire as wire
import wal_files
from changes import Follower
from full_sync import put_many
from nexus_test import HttpError, NexusTestCase, key_path

COUNT = int(os.environ.get("NEXUS_CORRUPTIONS", "0"))
PER_CLASS = 2  # by default
PAGE = 4096
BRANCH, LEAF, OVERFLOW = 1, 2, 4
SETTINGS = {
    "wal.segment_size": "64KiB",
    "wal.shm_size": "32MiB",
    "http.workers": 1,
    "state.map_size": "16MiB",
    "state.checkpoint_interval": "1h",
}
# A refusal leads further: to a replica, a snapshot, a full sync, or to what is to be put right.
REMEDY = re.compile(r"(?i)replica|snapshot|restore|full sync|remove|release|version|nexus\.id|put .* back|follow|again")
BROKEN = re.compile(r"AddressSanitizer|runtime error:|stack smashing")


def values():
    """Small, middle, and of several pages."""
    pairs = [(f"small{n:03}", f"value {n}".encode()) for n in range(150)]
    pairs += [(f"middle{n:02}", bytes([n]) * 1500) for n in range(20)]
    return pairs + [(f"large{n}", bytes([65 + n]) * 20000) for n in range(5)]


def pages(path, flag):
    """Numbers of LMDB's pages of a kind."""
    found = []
    with open(path, "rb") as file:
        data = file.read()
    for number in range(2, len(data) // PAGE):
        own, _, flags = struct.unpack_from("<QHH", data, number * PAGE)
        if own == number and flags & flag:
            found.append(number)
    return found


class Damage:
    """How a file is damaged: a place and a way."""

    WAYS = ("bit", "byte", "sector")

    def __init__(self, rng, path, first, end):
        self.path = path
        self.at = rng.randrange(first, max(end, first + 1))
        self.way = rng.choice(self.WAYS)
        self.rng = rng

    def do(self):
        with open(self.path, "r+b") as file:
            file.seek(self.at)
            old = file.read(512 if self.way == "sector" else 1)
            if self.way == "sector":
                new = bytes(len(old))
            elif self.way == "bit":
                new = bytes([old[0] ^ 1 << self.rng.randrange(8)])
            else:
                new = bytes([old[0] ^ self.rng.randrange(1, 256)])
            file.seek(self.at)
            file.write(new)
        return new != old

    def __str__(self):
        return f"{self.way} at {self.at} of {self.path}"


class Shape(Damage):
    """The file as a whole."""

    WAYS = ("cut", "longer", "gone", "empty")

    def do(self):
        size = os.path.getsize(self.path)
        if self.way == "gone":
            os.unlink(self.path)
        elif self.way == "longer":
            with open(self.path, "ab") as file:
                file.write(b"\xa5" * self.rng.randrange(1, 5000))
        else:
            os.truncate(self.path, 0 if self.way == "empty" else self.rng.randrange(size))
        return True


class Corruption(NexusTestCase):
    @classmethod
    def setUpClass(cls):
        cls.seed = os.environ.get("NEXUS_SEED", "7")

    def prepare(self):
        """A directory that has all kinds: merged and unmerged data, several segments, a snapshot."""
        node = self.node("master", crashable=True, settings=SETTINGS)  # a cut file is a bus error to who maps it
        pairs = values()
        put_many(node, pairs[: len(pairs) // 2])
        node.export()
        node.json("POST", "/replication/snapshot?wait=1", timeout=60)
        put_many(node, pairs[len(pairs) // 2 :])
        node.export()  # merges
        put_many(node, [("tail%d" % n, b"t" * 300) for n in range(20)])
        node.kill_all()
        self.expected = dict(pairs) | {f"tail{n}": b"t" * 300 for n in range(20)}
        self.pristine = node.directory + "-pristine"
        shutil.copytree(node.data_dir, self.pristine, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
        self.addCleanup(shutil.rmtree, self.pristine, True)
        return node

    def reset(self, node):
        shutil.rmtree(node.data_dir)
        shutil.copytree(self.pristine, node.data_dir, symlinks=True)
        with open(node.log_path, "w", encoding="utf-8"):
            pass

    # -- the classes of bytes --

    def classes(self, node, rng):
        """name -> a function that makes a Damage."""
        segments = [path for _, path in wal_files.list_segments(node.wal_dir)]
        frames = wal_files.read_log(node.wal_dir)
        state = os.path.join(node.data_dir, "current", "state", "data.mdb")
        kinds = {kind: pages(state, kind) for kind in (BRANCH, LEAF, OVERFLOW)}
        small = ["nexus.id", "current/identity", "current/wal/durable"]

        def frame(first, last):
            def make():
                each = rng.choice(frames)
                end = len(each.raw)
                return Damage(rng, each.path, each.at + first % end, each.at + (last if last > 0 else end + last))

            return make

        def page(kind, first, end):
            def make():
                number = rng.choice(kinds[kind])
                return Damage(rng, state, number * PAGE + first, number * PAGE + end)

            return make

        found = {
            "segment header": lambda: Damage(rng, rng.choice(segments), 0, wal_files.HEADER_SIZE),
            "frame header": frame(0, wal_files.ENTRY_HEAD),
            "frame payload": frame(wal_files.ENTRY_HEAD, -4),
            "frame CRC": frame(-4, 0),
            "segment": lambda: Shape(rng, rng.choice(segments), 0, 1),
            "LMDB meta pages": lambda: Damage(rng, state, 0, 2 * 200),
            "LMDB branch page": page(BRANCH, 0, 200),
            "LMDB leaf header": page(LEAF, 0, 40),
            "LMDB leaf": page(LEAF, 16, PAGE),
            "LMDB overflow page": page(OVERFLOW, 0, PAGE),
            "LMDB file": lambda: Shape(rng, state, 0, 1),
        }
        for name in small:
            path = os.path.join(node.data_dir, name)
            found[name] = lambda path=path: Damage(rng, path, 0, os.path.getsize(path))
            found[f"{name} as a whole"] = lambda path=path: Shape(rng, path, 0, 1)
        return {name: make for name, make in found.items() if not name.startswith("LMDB branch") or kinds[BRANCH]}

    # -- what came of it --

    def ended(self, node):
        """The server has refused to start: one line says where and what to do."""
        status, log = node.wait_exit(60), node.log()
        self.assertEqual(status, 1, log)
        errors = [line for line in log.splitlines() if " ERROR " in line]
        self.assertTrue(errors, log)
        told = " ".join(errors)
        self.assertRegex(told, r"wal/|state|nexus\.id|identity|current|durable|data directory", log)
        self.assertRegex(told, REMEDY, log)
        return "refused"

    def read(self, node):
        """Each value is right, or its read is refused; -> how many were."""
        refused = 0
        for key, value in self.expected.items():
            status, _, body = node.request("GET", key_path(key), timeout=30)
            if status == 200:
                self.assertEqual(body, value, key)
            else:
                self.assertGreaterEqual(status, 500, f"{key}: {status} {body!r}")
                self.assertTrue(json.loads(body)["message"])
                refused += 1
        return refused

    def outcome(self, node):
        """Starts it -> "repaired", "refused" or "refused reads"."""
        node.launch()
        try:
            node.wait_answer("/health", 60)
        except AssertionError:
            if node.is_running():
                raise
            return self.ended(node)
        try:
            refused = self.read(node)
        except (OSError, http.client.HTTPException, HttpError):
            if node.wait_exit(60) != 1:
                raise
            self.assertRegex(node.log(), REMEDY)
            return "refused"
        if refused:
            node.wait_log("(?i)damage|can't be read")
        node.kill_all()
        return "refused reads" if refused else "repaired"

    def judge(self, node, name, make):
        self.reset(node)
        damage = make()
        if not damage.do():
            return "no change"
        with self.subTest(f"{name}: {damage}, NEXUS_SEED={self.seed}"):
            result = self.outcome(node)
            self.assertNotRegex(node.log(), BROKEN)
            return result
        return "failed"

    def test_every_class_of_bytes(self):
        node = self.prepare()
        rng = random.Random(self.seed)
        results = {}
        self.reset(node)
        names = list(self.classes(node, rng))
        for number in range(COUNT or PER_CLASS * len(names)):
            name = names[number % len(names)]
            self.reset(node)
            result = self.judge(node, name, self.classes(node, rng)[name])
            counts = results.setdefault(name, {})
            counts[result] = counts.get(result, 0) + 1
            if node.is_running():
                node.kill_all()
        for name, counts in results.items():
            print(f"{name:<32} {counts}")

    def test_a_large_state_is_looked_through_beside_the_rest(self):
        """Above 64 MiB it is served at once; damage that it has stops the server, and a sound one is told of."""
        node = self.node("master", settings={"state.checkpoint_interval": "1h", "wal.shm_size": "64MiB"})
        put_many(node, [(f"large{n:03}", os.urandom(700_000)) for n in range(110)])
        node.export()
        node.stop()
        node.start()
        node.wait_log("the state was looked through: it is sound", timeout=120)
        node.stop()
        state = os.path.join(node.data_dir, "current", "state", "data.mdb")
        with open(state, "r+b") as file:
            data = file.read()
            found = [n for n in pages(state, LEAF) if b"large05" in data[n * PAGE : (n + 1) * PAGE]]
            for number in found:  # old versions of the page too
                file.seek(data.index(b"large05", number * PAGE) + 5)
                file.write(b"x")
        node.launch()
        self.assertEqual(node.wait_exit(timeout=120), 1)
        self.assertRegex(node.log(), "the state in .*/state is damaged: .*; recover this node from a replica")

    def test_a_log_that_decays_while_it_is_served(self):
        """Who asks for it is told which entry is damaged, and gets nothing of it or behind it; a full sync does without."""
        master = self.node("master", settings=SETTINGS)
        put_many(master, values())
        offset = master.status()["wal_offset"]
        master.export()  # merges: the shared log isn't needed
        master.stop()
        master.start()
        first, bad = (wal_files.read_log(master.wal_dir)[number - 1] for number in (1, offset // 2))
        with open(bad.path, "r+b") as file:
            file.seek(bad.at + len(bad.raw) - 1)
            file.write(bytes([bad.raw[-1] ^ 1]))
        with wire.RawPeer(master.replication_port, timeout=20) as peer:
            peer.handshake(last_wal_offset=1, last_epoch=1, last_crc=first.crc, cluster_id=master.status()["cluster_id"])
            peer.recv_entries(bad.offset - 2)
            self.assertRegex(peer.recv_error().message, f"entry {bad.offset} .*damaged; .*full sync")
        with Follower(master.http_port, since=0) as follower:
            self.assertEqual([change.offset for change in follower.changes(bad.offset - 1)][-1], bad.offset - 1)
            self.assertRaises(ConnectionError, follower.wait_end)
        master.wait_log(f"follower of /changes is cut at offset {bad.offset - 1}: .*damaged")
        replica = self.node("replica", settings={**SETTINGS, "replication.master_addr": master.replication_addr})
        replica.wait_offset(offset)
        self.assertEqual(master.export(), replica.export())

    def test_a_snapshot_that_is_damaged_is_not_restored(self):
        node = self.prepare()
        rng = random.Random(self.seed)
        (path,) = glob.glob(os.path.join(node.data_dir, "snapshots", "*.tar.zst"))
        for number in range(max(COUNT // 20, 4)):
            copy = os.path.join(node.directory, "copy.tar.zst")
            shutil.copy(path, copy)
            damage = (Damage if number % 4 else Shape)(rng, copy, 0, os.path.getsize(copy))
            if isinstance(damage, Shape) and damage.way in ("gone", "longer"):
                damage.way = "cut"
            if not damage.do():
                continue
            target = os.path.join(node.directory, "restored")
            with self.subTest(f"{damage}, NEXUS_SEED={self.seed}"):
                result = node.run("-D", target, "--restore", copy)
                self.assertEqual(result.returncode, 1, result)
                self.assertRegex(result.stdout + result.stderr, "(?i)snapshot|archive|zstd|tar")
            shutil.rmtree(target, ignore_errors=True)


if __name__ == "__main__":
    unittest.main()
