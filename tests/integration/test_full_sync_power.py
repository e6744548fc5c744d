# build: release
# timeout: 300
"""Full syncs over power cuts and kills, of either end and at every stage: what is left starts by itself,
serves the old data or the new and never a mixture, and the replica ends level with its master."""
import base64
import collections
import json
import os
import random
import re
import shutil
import signal
import tempfile
import threading
import unittest

import load
import nexus_wire as wire
import power_cut
from nexus_test import NexusTestCase, free_port, is_alive, wait_until
from proxy import Proxy

IMAGES = int(os.environ.get("NEXUS_POWER_CUTS", "60"))
SEED = int(os.environ.get("NEXUS_SEED", "1"))
ROUNDS = max(IMAGES // 10, 1)  # kills at any moment

KIB = 1 << 10
LARGE = 9000  # random bytes of a value; the snapshot has 240 of them
KEYS = 240
KEPT = 60  # entries that the master keeps for everybody
SETTINGS = {"wal.segment_size": "64KiB", "wal.shm_size": "32MiB", "state.checkpoint_interval": "1s",
            "wal.max_size": "1MiB", "replication.max_log_size": KEPT, "state.map_size": "256MiB",
            "snapshot.chunk_size": "64KiB", "replication.heartbeat_ms": 500}


# ---- what the master holds, at every offset ----


class History:
    """The one writer of a master. It knows what the master holds at each offset."""

    def __init__(self, node, seed):
        self.node = node
        self.rng = random.Random(seed)
        self.entries = []  # (key, value or None), of offset 1 on
        self.stopping = threading.Event()
        self.thread = None

    @property
    def offset(self):
        return len(self.entries)

    def value(self, size):
        return base64.b64encode(self.rng.randbytes(size)).decode()

    def write(self, pairs):
        """One entry for each pair; of a value of None, a delete."""
        pairs = list(pairs)
        with load.Connection(self.node.http_port) as connection:
            for first in range(0, len(pairs), 32):
                some = pairs[first:first + 32]
                connection.send([load.delete(key) if value is None else load.put(key, value.encode())
                                 for key, value in some])
                for pair in some:
                    self.note(pair, *connection.answer())

    def note(self, pair, status, headers, body):
        if pair[1] is None and not json.loads(body)["deleted"]:
            return  # there was none: no entry
        if status not in (200, 201) or int(headers["nexus-offset"]) != self.offset + 1:
            raise AssertionError(f"entry {self.offset + 1}: {status} {headers} {body[:200]}")
        self.entries.append(pair)

    def large(self, count=KEYS):
        self.write((f"k{i:03d}", self.value(LARGE)) for i in range(count))

    def small(self, count):
        """Changes of any keys, some of them deletes."""
        self.write((f"k{self.rng.randrange(KEYS):03d}",
                    None if self.rng.random() < 0.2 else self.value(300)) for _ in range(count))

    def start(self):
        """Writes on in the background until stop()."""
        self.stopping.clear()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            self.small(4)
            self.stopping.wait(0.02)

    def stop(self):
        self.stopping.set()
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def at(self, offset):
        """All keys and values at that offset."""
        content = {}
        for key, value in self.entries[:offset]:
            if value is None:
                content.pop(key, None)
            else:
                content[key] = value
        return content


def content_of(answer):
    """An answer of GET /export -> (offset, {key: value})"""
    status, headers, body = answer
    if status != 200:
        raise AssertionError(f"GET /export: {status} {body[:300]!r}")
    items = [json.loads(line) for line in body.splitlines()]
    return int(headers["Nexus-Offset"]), {item["key"]: item["value"] for item in items}


# ---- directories ----


def snapshots_of(node):
    return os.path.join(node.data_dir, "snapshots")


def size_of(directory, suffix):
    """Bytes in all files there whose names end so."""
    try:
        names = [name for name in os.listdir(directory) if name.endswith(suffix)]
        return sum(os.stat(os.path.join(directory, name)).st_size for name in names)
    except FileNotFoundError:
        return 0


def leftovers(data_dir):
    """What a full sync must not leave behind, and a second data-N."""
    top = os.listdir(data_dir)
    roots = [name for name in top if re.fullmatch(r"data-\d+", name)]
    current = os.readlink(os.path.join(data_dir, "current"))
    left = [name for name in roots if name != current]
    left += [name for name in top if name.startswith("replaced-") or name == "current.tmp"]
    snapshots = os.path.join(data_dir, "snapshots")
    if os.path.isdir(snapshots):
        left += [f"snapshots/{name}" for name in os.listdir(snapshots)]
    return left


def points_of(named, records, begin, count, rng):
    """All of the points at names (or, of many, `count` by chance), and of the rest half anywhere, half at
    names again; in ascending order."""
    points = named if len(named) <= count else rng.sample(named, count)
    rest = count - len(points)
    points = [*points, *rng.choices(range(begin + 1, len(records) + 1), k=rest - rest // 2)]
    return sorted([*points, *rng.choices(named, k=rest // 2)])


class FullSyncCase(NexusTestCase):
    def proxy(self, node, **options):
        proxy = Proxy(node.replication_port, **options)
        self.addCleanup(proxy.close)
        return proxy

    def recorded(self, role, **settings):
        """A node whose data directory is recorded from its birth. -> (node, log's path)"""
        node = self.node(role, settings={**SETTINGS, **settings}, preload=["librecorder.so"], start=False)
        log = os.path.join(node.directory, "record")
        os.mkdir(node.data_dir, 0o700)
        node.env.update({"NX_RECORD_DIR": os.path.realpath(node.data_dir), "NX_RECORD_LOG": log})
        return node, log

    def scratch(self):
        directory = tempfile.mkdtemp(prefix="nexus-image-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        return directory

    def pin_path(self, master, replica_id):
        return os.path.join(snapshots_of(master), f"{replica_id}.pin")

    def assert_clean(self, replica):
        """Nothing is left of a full sync; what has been replaced is removed in the background."""
        wait_until(lambda: not leftovers(replica.data_dir), 10,
                   lambda: replica.describe(f"an end of {leftovers(replica.data_dir)}"))

    def assert_level(self, master, replica):
        """The replica comes level by itself, and holds the same."""
        offset = master.status()["wal_offset"]
        replica.wait_status(30, state="streaming", applied_offset=lambda value: value >= offset)
        self.assertEqual(replica.export(), master.export(), "the export differs")
        self.assert_clean(replica)


# ---- power cuts of the replica ----


class ReplicaPowerCut(FullSyncCase):
    def setUp(self):
        self.master = self.node("master", settings={**SETTINGS, "snapshot.keep": 1000})
        self.history = History(self.master, SEED)
        self.addCleanup(self.history.stop)

    def hold_log(self):
        """Another replica, which asks for a full sync and isn't seen again: its pin keeps the snapshot
        that it was offered, and the log from there on."""
        with wire.RawPeer(self.master.replication_port) as peer:
            welcome = peer.handshake()
            self.assertTrue(welcome.requires_full_sync)
            return peer.recv_type(wire.SNAPSHOT_META).wal_offset

    def record(self, new=False):
        """One whole full sync of a replica with old data, or of a new one.
        -> (root, records, where it begins)"""
        replica, log = self.recorded("replica", **{"replication.master_addr": self.master.replication_addr})
        if not new:
            replica.start("/ready")  # before the first entry: it is streamed to
            self.history.small(150)
            self.history.large(20)
            self.assert_level(self.master, replica)
            replica.stop()
        self.old = self.history.offset
        self.history.large()
        self.history.small(KEPT + 10)
        self.snapshot = self.hold_log()
        with open(log, "ab", buffering=0) as file:
            power_cut.append_ack(file.fileno(), "away")
        proxy = self.proxy(self.master, rate=4_000_000)
        replica.settings["replication.master_addr"] = proxy.addr
        self.history.start()
        replica.launch()
        wait_until(lambda: size_of(snapshots_of(replica), ".part") > 1 << 20, what="a part of the snapshot")
        self.replica_id = replica.status()["node_id"]
        with open(self.pin_path(self.master, self.replica_id), "rb") as file:
            self.pin = file.read()
        proxy.rate = None
        replica.wait_log("replaces")
        replica.wait_offset(self.snapshot + 1)
        self.history.stop()
        self.history.small(20)
        self.assert_level(self.master, replica)
        self.assertFalse(os.path.exists(self.pin_path(self.master, self.replica_id)))
        self.assertRegex(replica.log(), f"of offset {self.snapshot} of epoch")
        replica.stop()
        records = power_cut.read_log(log)
        begin = next(i for i, rec in enumerate(records) if rec[0] == power_cut.ACK)
        return os.path.realpath(replica.data_dir), records, begin

    def check_alone(self, replica):
        """Without a master: what it serves is what the master held at that offset, and nothing before a
        first full sync is done."""
        replica.start()
        answer = replica.request("GET", "/export")
        offset = replica.status()["wal_offset"]
        self.assertTrue(offset == self.old or offset >= self.snapshot,
                        f"offset {offset} is neither {self.old} nor behind {self.snapshot}")
        if offset == 0:
            self.assert_problem(answer, 503, "not_synced")
        else:
            self.assertEqual(content_of(answer), (offset, self.history.at(offset)))
        self.assertEqual([name for name in leftovers(replica.data_dir) if "/" not in name], [])
        replica.kill_all()

    def check_with_master(self, replica, number):
        """With the master, which knows of a transfer that the cut has ended."""
        with open(self.pin_path(self.master, self.replica_id), "wb") as file:
            file.write(self.pin)
        replica.settings["replication.master_addr"] = self.master.replication_addr
        replica.start()
        self.history.write([(f"image-{number}", "here")])
        self.assert_level(self.master, replica)
        replica.kill_all()

    def test_whatever_a_power_cut_leaves_of_a_full_sync(self):
        self.check_images(*self.record(), IMAGES)

    def test_whatever_a_power_cut_leaves_of_a_new_replica(self):
        self.check_images(*self.record(new=True), IMAGES // 3)

    def check_images(self, root, records, begin, count):
        rng = random.Random(SEED)
        boring = re.compile(r"/nexus\.pid|/replaced-\d+/wal/")
        named = power_cut.name_points(records, root, begin, lambda path: not boring.search(path))
        points = points_of(named, records, begin, count, rng)
        seen = collections.Counter()
        for number, point, disk in power_cut.replayed(root, records, points):
            image = self.scratch()
            style = disk.image(os.path.join(image, "data"), rng)
            replica = self.node("replica", directory=image, start=False, settings={
                **SETTINGS, "replication.master_addr": f"127.0.0.1:{self.nowhere}"})
            with self.subTest(image=number, point=point, style=style, seed=SEED,
                              last=power_cut.describe(records[point - 1])):
                self.check_alone(replica)
                self.check_with_master(replica, number)
            seen["resumed"] += "are here from before" in replica.log()
            seen["switched" if " replaces " in replica.log() else "switched before"] += 1
            if replica.is_running():
                replica.kill_all()  # its check has failed
            shutil.rmtree(image, ignore_errors=True)
        print(f"{len(records) - begin} records, {len(named)} points at names; {dict(seen)}")
        for what in ("switched", "switched before"):
            self.assertGreater(seen[what], 0, seen)

    @property
    def nowhere(self):
        """A port that nobody listens on."""
        if not hasattr(self, "_nowhere"):
            self._nowhere = free_port()
        return self._nowhere


# ---- power cuts of the master ----


class MasterPowerCut(FullSyncCase):
    def record(self):
        """A master under load that gives a replica one full sync, cut off once in the middle by the
        replica's death. -> (root, records, where it begins, {stage: copy of the replica})"""
        master, log = self.recorded("master")
        master.start()
        self.base = {f"k{i:03d}": base64.b64encode(random.Random(f"{SEED}/{i}").randbytes(LARGE)).decode()
                     for i in range(KEYS)}
        proxy = self.proxy(master)
        replica = self.node("replica", wait="/ready", settings={
            **SETTINGS, "replication.master_addr": proxy.addr})
        master.put("first", b"here")
        self.assert_level(master, replica)
        replica.stop()
        self.assertNotIn("full sync", replica.log())
        copies = {"old": self.copy(replica)}
        master.import_lines("".join(json.dumps({"key": key, "value": value}) + "\n"
                                    for key, value in self.base.items()))
        log_fd = os.open(log, os.O_WRONLY | os.O_APPEND)
        self.addCleanup(os.close, log_fd)
        writers = load.AckedPuts(master.http_port, clients=3, size=300,
                                 on_ack=lambda key, offset: power_cut.append_ack(log_fd, key))
        power_cut.append_ack(log_fd, "!old")
        writers.start()
        self.addCleanup(writers.stop)
        wait_until(lambda: writers.count() > 2 * KEPT, what="writes")
        proxy.rate = 3_000_000
        replica.launch()
        wait_until(lambda: size_of(snapshots_of(replica), ".part") > 1 << 20, what="a part of the snapshot")
        replica.kill_all()
        power_cut.append_ack(log_fd, "!middle")
        copies["middle"] = self.copy(replica)
        proxy.rate = None
        replica.start()
        replica.wait_log(" replaces ")
        master.wait_log("full sync of replica .* is over")
        replica.kill_all()
        power_cut.append_ack(log_fd, "!done")
        copies["done"] = self.copy(replica)
        seen = writers.count()
        wait_until(lambda: writers.count() > seen + 2 * KEPT, what="more writes")
        writers.stop()
        master.stop()
        self.assertIn("from byte", replica.log() + master.log())
        records = power_cut.read_log(log)
        begin = next(i for i, rec in enumerate(records) if rec[4] == b"!old")
        return os.path.realpath(master.data_dir), records, begin, copies

    def copy(self, replica):
        """A copy of the directory of a replica that doesn't run."""
        directory = self.scratch()
        shutil.copytree(replica.data_dir, os.path.join(directory, "data"), symlinks=True,
                        ignore=shutil.ignore_patterns("*.sock"))
        return directory

    def check_acked(self, master, acked):
        found = content_of(master.request("GET", "/export"))[1]
        for key in acked:
            self.assertIn(key, found, "answered, and lost")
        for key, value in found.items():
            right = self.base.get(key) or ("here" if key == "first" else key + "." * 300)
            self.assertEqual(value, right, f"a value of {key} that nobody wrote")
        self.assertEqual([key for key in self.base if key not in found], [])

    def check_replica(self, master, source):
        """A replica of that stage comes level by itself, and no pin is left of it."""
        copy = self.scratch()
        shutil.copytree(os.path.join(source, "data"), os.path.join(copy, "data"), symlinks=True)
        replica = self.node("replica", directory=copy, start=False, settings={
            **SETTINGS, "replication.master_addr": master.replication_addr})
        try:
            replica.start()
            master.put("first", b"here")
            self.assert_level(master, replica)
            master.wait_until(lambda: size_of(snapshots_of(master), ".pin") == 0, 5, "an end of pins")
        finally:
            replica.kill_all()
            shutil.rmtree(copy, ignore_errors=True)

    def test_whatever_a_power_cut_of_the_master_leaves_of_a_full_sync(self):
        root, records, begin, copies = self.record()
        rng = random.Random(SEED)
        named = power_cut.name_points(records, root, begin, lambda path: "/snapshots" in path)
        points = points_of(named, records, begin, IMAGES // 2, rng)
        for number, point, disk in power_cut.replayed(root, records, points):
            image = self.scratch()
            style = disk.image(os.path.join(image, "data"), rng)
            stage = [ack for ack in disk.acks if ack[0] == "!"][-1][1:]
            master = self.node("master", directory=image, start=False, settings=SETTINGS)
            with self.subTest(image=number, point=point, style=style, seed=SEED, stage=stage,
                              last=power_cut.describe(records[point - 1])):
                master.start()
                self.check_acked(master, [ack for ack in disk.acks if ack[0] != "!"])
                self.check_replica(master, copies[stage])
            if master.is_running():
                master.kill_all()
            shutil.rmtree(image, ignore_errors=True)
        print(f"{len(records) - begin} records, {len(named)} points at names")


# ---- kills ----


class Killed(FullSyncCase):
    """SIGKILL of one whole node at each stage of a full sync; the other one lives on."""

    def setUp(self):
        self.master = self.node("master", settings=SETTINGS)
        self.history = History(self.master, SEED)
        self.proxy_to_master = self.proxy(self.master)
        self.replica = self.node("replica", wait="/ready", settings={
            **SETTINGS, "replication.master_addr": self.proxy_to_master.addr})
        self.history.small(100)
        self.assert_level(self.master, self.replica)
        self.replica.stop()
        self.assertNotIn("full sync", self.replica.log())
        self.history.large()
        self.history.small(KEPT + 10)
        self.root = self.current()
        self.down = self.proxy_to_master.down

    def current(self):
        return os.readlink(os.path.join(self.replica.data_dir, "current"))

    # Stages: each returns with both nodes in it, and how they go on when the other one was killed.

    def before_meta(self):
        """The master makes no snapshot, since its checkpointer stands still."""
        pid = self.master.kill_child("checkpointer", signal.SIGSTOP)
        self.replica.start()
        self.replica.wait_status(state="snapshot")
        self.master.wait_until(lambda: self.master.pids("snapshot"), what="a snapshot process")
        self.assertNotIn("comes from the master", self.replica.log())
        return lambda: os.kill(pid, signal.SIGCONT)

    def while_it_is_made(self):
        """The snapshot process stands still in the middle; what it has written is sent."""
        go_on_merging = self.before_meta()
        pid = self.master.pids("snapshot")[0]
        os.kill(pid, signal.SIGSTOP)
        go_on_merging()
        written = wait_until(lambda: self.let_write(pid), poll=0, what="a part of its file")
        if written > KEYS * LARGE * 9 // 10:
            self.skipTest("the machine is too busy to stop the process in the middle")
        wait_until(lambda: size_of(snapshots_of(self.replica), ".part") > 0, what="chunks")
        return lambda: is_alive(pid) and os.kill(pid, signal.SIGCONT)

    def let_write(self, pid):
        """A moment for the snapshot process; then what it has written, once that is more than a chunk."""
        os.kill(pid, signal.SIGCONT)
        threading.Event().wait(0.0005)
        if is_alive(pid):
            os.kill(pid, signal.SIGSTOP)
        written = sum(size_of(snapshots_of(self.master), suffix) for suffix in (".tmp", ".tar.zst"))
        return written if written > 192 * KIB else 0

    def in_the_middle(self):
        self.proxy_to_master.rate = 1_000_000
        self.replica.start()
        wait_until(lambda: size_of(snapshots_of(self.replica), ".part") > 600 * KIB, what="chunks")

        def go_on():
            self.proxy_to_master.rate = None

        return go_on

    def before_the_rename(self, kind="restore"):
        """All chunks have come, and the restore process, or the postmaster, stands still."""
        go_on_sending = self.in_the_middle()
        pid = self.replica.pid
        if kind == "restore":
            pid = self.replica.kill_child("restore", signal.SIGSTOP)
        else:
            os.kill(pid, signal.SIGSTOP)
        go_on_sending()
        self.replica.wait_log("has come" if kind == "restore" else "is restored")
        self.assertEqual(self.current(), self.root)
        return lambda: is_alive(pid) and os.kill(pid, signal.SIGCONT)

    def behind_the_rename(self):
        self.in_the_middle()()
        wait_until(lambda: self.current() != self.root, what="the switch", poll=0.0005)
        return lambda: None

    # Afterwards

    def kill_replica(self, go_on):
        self.replica.kill_all()
        go_on()
        self.replica.start()

    def kill_master(self, go_on):
        self.master.kill_all()
        self.replica.wait_status(connected=False)
        mark = self.replica.log_mark()
        self.master.start()
        self.replica.wait_log("connected to master", since=mark)
        go_on()

    def finish(self, lost=0.0):
        """The replica ends level, and no part of a snapshot was sent twice; lost: part of one that
        couldn't be resumed."""
        self.master.wait_answer("/ready")
        self.history.small(20)
        self.assert_level(self.master, self.replica)
        self.assertEqual(content_of(self.replica.request("GET", "/export"))[1],
                         self.history.at(self.history.offset))
        self.assertNotEqual(self.current(), self.root)
        names = os.listdir(snapshots_of(self.master))
        self.assertEqual([name for name in names if name.endswith(".tmp")], [])
        size = size_of(snapshots_of(self.master), ".tar.zst")
        self.assertLess(self.proxy_to_master.down - self.down, (1.3 + lost) * size,
                        "more than one snapshot was sent: it could have been resumed")

    def test_01_replica_before_snapshot_meta(self):
        self.kill_replica(self.before_meta())
        self.finish()

    def test_02_master_before_snapshot_meta(self):
        self.before_meta()
        self.kill_master(lambda: None)
        self.finish()

    def test_021_replica_while_the_snapshot_is_made(self):
        self.kill_replica(self.while_it_is_made())
        self.finish()
        self.assertRegex(self.replica.log(), r"from chunk [1-9]\d* on")

    def test_022_master_while_the_snapshot_is_made(self):
        """Then it is gone, and another one is made."""
        self.while_it_is_made()
        self.kill_master(lambda: None)
        self.finish(lost=1.0)

    def test_03_replica_in_the_middle(self):
        self.kill_replica(self.in_the_middle())
        self.finish()
        self.assertEqual(self.master.stats()["snapshot_transfers"], 1)

    def test_04_master_in_the_middle(self):
        self.kill_master(self.in_the_middle())
        self.finish()
        self.assertEqual(self.master.stats()["snapshot_transfers"], 1)

    def test_05_replica_before_the_rename(self):
        self.kill_replica(self.before_the_rename())
        self.finish()

    def test_06_replica_with_a_restored_state_that_nobody_made_current(self):
        self.kill_replica(self.before_the_rename("postmaster"))
        self.finish()

    def test_07_master_before_the_rename(self):
        self.kill_master(self.before_the_rename())
        self.finish()

    def test_08_replica_behind_the_rename(self):
        self.kill_replica(self.behind_the_rename())
        self.finish()
        self.assertEqual(self.master.stats()["snapshot_transfers"], 1)

    def test_09_master_behind_the_rename(self):
        self.kill_master(self.behind_the_rename())
        self.finish()
        self.assertEqual(self.master.stats()["snapshot_transfers"], 0)

    # Single processes, and any moment

    def kill_in_the_middle(self, node, kind):
        go_on = self.in_the_middle()
        pid = node.kill_child(kind)
        go_on()
        if kind == "walwriter":  # all the others go with it
            node.wait_replaced(kind, pid)
        self.finish()

    def test_10_the_walreceiver(self):
        self.kill_in_the_middle(self.replica, "walreceiver")

    def test_11_the_restore_process(self):
        self.kill_in_the_middle(self.replica, "restore")

    def test_12_the_walsender(self):
        self.kill_in_the_middle(self.master, "walsender")

    def test_13_the_walwriter_of_the_replica(self):
        self.kill_in_the_middle(self.replica, "walwriter")

    def test_14_the_walwriter_of_the_master(self):
        self.kill_in_the_middle(self.master, "walwriter")

    def test_15_the_snapshot_process(self):
        self.while_it_is_made()
        self.master.kill_child("snapshot")
        self.finish(lost=1.0)

    def test_16_replica_again_and_again_at_any_moment(self):
        rng = random.Random(SEED)
        self.proxy_to_master.rate = 20_000_000
        for _ in range(ROUNDS):
            self.replica.launch()
            self.wait_any_moment(rng)
            self.replica.kill_all()
        self.replica.start()
        self.finish(lost=ROUNDS)

    def test_17_master_again_and_again_at_any_moment(self):
        rng = random.Random(SEED)
        self.proxy_to_master.rate = 20_000_000
        self.replica.start()
        for _ in range(ROUNDS):
            self.wait_any_moment(rng)
            self.master.kill_all()
            self.master.start()
        self.finish(lost=ROUNDS)

    @staticmethod
    def wait_any_moment(rng):
        threading.Event().wait(rng.uniform(0, 0.4))


if __name__ == "__main__":
    unittest.main()
