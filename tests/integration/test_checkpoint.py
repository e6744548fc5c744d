"""Generations of the log become state while clients read and write: reads stay at one offset, log files
go, nothing is lost by kills, and a full disk refuses writes until there is space again."""

import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import unittest

import load
import wal_files
from nexus_test import Client, Cluster, HttpError, NexusTestCase, wait_until

MIB = 1 << 20
SMALL = {
    "wal.shm_size": 32 * MIB,  # a generation is 6.4 MiB of log
    "wal.segment_size": MIB,
    "wal.max_size": 4 * MIB,
    "state.checkpoint_interval": "1s",
    "http.workers": 2,
}
KEYS = [f"k{number:03d}" for number in range(150)]


class History:
    """What one writer has written, by offset: the model of every read."""

    def __init__(self, node, seed):
        self.client = node.client(timeout=60)
        self.random = random.Random(seed)
        self.versions = {}  # key -> [(offset, value or None)], ascending
        self.count = 0

    def note(self, key, offset, value):
        self.versions.setdefault(key, []).append((offset, value))

    def write(self, largest=40000):
        """A put, a delete, or a batch of both."""
        self.count += 1
        key = self.random.choice(KEYS)
        dice = self.random.random()
        if dice < 0.15:
            answer = self.client.delete(key)
            if answer["deleted"]:
                self.note(key, answer["offset"], None)
        elif dice < 0.3:
            self._write_batch()
        else:
            value = self._value(self.random.randrange(largest))
            self.note(key, self.client.put(key, value), value)

    def _value(self, length):
        return f"{self.count}-" + "x" * length

    def _write_batch(self):
        keys = self.random.sample(KEYS, 6)
        values = [self._value(self.random.randrange(60)) for _ in keys]
        ops = [{"put": {"key": k, "value": v}} for k, v in zip(keys[:3], values)]
        ops += [{"delete": {"key": k}} for k in keys[3:]]
        offset = self.client.batch(ops)["offset"]
        for index, key in enumerate(keys):
            self.note(key, offset, values[index] if index < 3 else None)

    def at(self, key, offset):
        """(offset of the version, value), or None: what a read at `offset` must find."""
        found = None
        for version in self.versions.get(key, []):
            if version[0] > offset:
                break
            found = version
        return found if found and found[1] is not None else None

    def live(self, offset):
        """key -> (offset, value) of all that lives at `offset`."""
        rows = {key: self.at(key, offset) for key in self.versions}
        return {key: row for key, row in rows.items() if row is not None}

    @property
    def newest(self):
        return max(rows[-1][0] for rows in self.versions.values())


class Readers:
    """Threads that read keys and pages while a writer writes; judged by the history afterwards."""

    def __init__(self, nodes):
        self.gets = []  # (node, offset, key, value or None)
        self.pages = []  # (node, offset, start, end, limit, {key: (offset, value)})
        self.failures = []
        self.checkpoints = {node.name: set() for node in nodes}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(node, Client(node.http_port)))
            for node in nodes
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, node, client):
        rng = random.Random(node.name)
        rounds = 0
        try:
            while not self._stop.is_set():
                self._get(node, client, rng.choice(KEYS))
                rounds += 1
                if rounds % 10 == 0:
                    self._page(node, client, rng)
                    status = client.json("GET", "/replication/status")
                    self.checkpoints[node.name].add(status["checkpoint_offset"])
        except Exception as error:  # pylint: disable=broad-except
            self.failures.append((node.name, repr(error)))
        finally:
            client.close()

    def _get(self, node, client, key):
        status, headers, body = client.request("GET", "/kv/" + key)
        if status not in (200, 404):
            raise HttpError("GET", "/kv/" + key, status, body)
        value = body.decode() if status == 200 else None
        self.gets.append((node.name, int(headers["Nexus-Offset"]), key, value))

    def _page(self, node, client, rng):
        start, end = sorted(rng.sample(KEYS, 2))
        limit = rng.choice((3, 20, 1000))
        path = f"/kv?start={start}&end={end}&limit={limit}"
        status, headers, body = client.request("GET", path)
        if status != 200:
            raise HttpError("GET", path, status, body)
        items = {row["key"]: (row["offset"], row["value"]) for row in json.loads(body)["items"]}
        self.pages.append((node.name, int(headers["Nexus-Offset"]), start, end, limit, items))

    def judge(self, test, history):
        test.assertEqual(self.failures, [])
        last_offset = {}
        for node, offset, key, value in self.gets:
            wanted = history.at(key, offset)
            if (wanted and wanted[1]) != value:
                test.fail(f"{node}: {key} at {offset}: {str(value)[:20]}, not {str(wanted)[:20]}")
            test.assertGreaterEqual(offset, last_offset.get(node, 0))
            last_offset[node] = offset
        for node, offset, start, end, limit, items in self.pages:
            rows = history.live(offset)
            keys = sorted(key for key in rows if start <= key < end)[:limit]
            wanted = {key: rows[key] for key in keys[: len(items)]}
            # A page may end early by its bytes, never within the limit by chance.
            full = sum(len(value) for _, value in items.values()) >= 4 * MIB - 50000
            if items != wanted or (len(items) < len(keys) and not full):
                test.fail(f"{node}: page {start}..{end} limit {limit} at {offset} is wrong")


def log_files(node):
    """First offsets of the segments, ascending, and the bytes of them all."""
    names = sorted(name for name in os.listdir(node.wal_dir) if name.endswith(".wal"))
    size = 0
    for name in names:
        try:
            size += os.path.getsize(os.path.join(node.wal_dir, name))
        except FileNotFoundError:
            pass  # it went meanwhile
    return [int(name.split(".")[0]) for name in names], size


class Generations(NexusTestCase):
    """One cluster and one history for all of them."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(1, settings=SMALL)
        cls.addClassCleanup(cls.cluster.cleanup)
        cls.cluster.start()
        cls.history = History(cls.cluster.master, seed=1)

    def assert_nodes_hold_the_history(self):
        self.cluster.wait_level()
        for node in self.cluster.nodes:
            wanted = self.history.live(self.history.newest)
            exported = [json.loads(line) for line in node.export().splitlines()]
            values = {row["key"]: row["value"] for row in exported}
            versions = node.versions()
            self.assertEqual(sorted(values), sorted(wanted), node.name)
            self.assertEqual(versions, {key: offset for key, (offset, _) in wanted.items()})
            wrong = [key for key, (_, value) in wanted.items() if values[key] != value]
            self.assertEqual(wrong, [], node.name)

    def wait_all_merged(self, node):
        newest = node.status()["wal_offset"]
        node.wait_status(checkpoint_offset=newest)

    def wait_log_small(self, node):
        most = SMALL["wal.max_size"] + SMALL["wal.segment_size"]
        node.wait_until(lambda: log_files(node)[1] <= most, what="log files within wal.max_size")
        firsts, _ = log_files(node)
        self.assertGreater(firsts[0], 1)

    def test_1_reads_stay_right_while_generations_are_merged(self):
        with Readers(self.cluster.nodes) as readers:
            for _ in range(1800):
                self.history.write()
        readers.judge(self, self.history)
        self.assertGreater(len(readers.gets), 100)
        self.assertGreater(len(readers.pages), 10)
        for node in self.cluster.nodes:
            # Some thirty MiB: at least so many generations were full.
            self.assertGreaterEqual(len(readers.checkpoints[node.name]), 4, node.name)
            self.wait_all_merged(node)
            self.wait_log_small(node)
        self.assert_nodes_hold_the_history()

    def test_2_a_killed_checkpointer_loses_and_repeats_nothing(self):
        for node in self.cluster.nodes:
            for _ in range(2):
                for _ in range(150):
                    self.history.write()
                pid = node.kill_child("checkpointer")
                for _ in range(100):
                    self.history.write()
                node.wait_replaced("checkpointer", pid)
        self.assert_nodes_hold_the_history()
        for node in self.cluster.nodes:
            self.wait_all_merged(node)
            self.wait_log_small(node)

    def test_3_state_and_the_rest_of_the_log_are_all(self):
        for _ in range(200):
            self.history.write()
        self.cluster.wait_level()
        for node in self.cluster.nodes:
            node.kill_all()
        for node in self.cluster.nodes:
            node.launch()
        for node in self.cluster.nodes:
            node.wait_answer("/ready")
        self.assert_nodes_hold_the_history()
        # What is overwritten and deleted now was in the state alone before.
        for _ in range(200):
            self.history.write()
        self.assert_nodes_hold_the_history()

    def test_4_a_merge_takes_what_an_export_asks_for(self):
        node = self.cluster.master
        offset = self.history.client.put("k000", "asked")
        self.history.note("k000", offset, "asked")
        self.assertIn(b'"asked"', node.export("k000"))
        self.assertGreaterEqual(node.status()["checkpoint_offset"], offset)


class LittleMemory(NexusTestCase):
    """Shared memory of the smallest size, and entries that are large for it."""

    def test_1_large_entries_among_small_ones_stop_nobody(self):
        settings = {"wal.shm_size": "32MiB", "http.max_value_size": "15MiB",
                    "state.checkpoint_interval": "1h", "http.workers": 2}
        node = self.node("master", settings=settings)
        small = load.AckedPuts(node.http_port, clients=4, size=1000).start()
        large = lambda rng, client, number: load.put(f"large{number}", bytes(15 * MIB))
        failures = load.Writers(node.http_port, 10, clients=1, window=1, make=large).start().join()
        small.stop()
        self.assertEqual(failures, [])
        self.assertEqual(small.refused, set())
        self.assertGreater(node.status()["checkpoint_offset"], 0)

    def test_2_a_log_larger_than_memory_is_merged_while_it_is_recovered(self):
        for fsync in ("always", "off"):
            with self.subTest(fsync):
                node = self.node("master", settings={"state.checkpoint_interval": "1h",
                                                     "wal.shm_size": "256MiB", "wal.fsync": fsync})
                values = {f"k{number}": str(number) * MIB for number in range(24)}
                for key, value in values.items():
                    node.put(key, value.encode())
                node.kill_all()
                # As after a power cut: the mark is never synced, so an older one is found.
                os.truncate(os.path.join(node.wal_dir, "durable"), 0)
                with open(os.path.join(node.wal_dir, "durable"), "wb") as mark:
                    mark.write(wal_files.Mark(0, 0, 0, 0, 0, 0).encode())
                node.settings["wal.shm_size"] = "32MiB"
                node.start()
                self.assertIn("larger than wal.shm_size", node.log())
                for key, value in values.items():
                    self.assertEqual(node.get(key), value.encode())


class FullDisk(NexusTestCase):
    """A node whose data directory is a filesystem of its own, with a ballast file in it."""

    SIZE = 48 * MIB

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="nexus-full-")
        self.addCleanup(os.rmdir, self.directory)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE},mode=0700", "tmpfs", self.directory],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            self.skipTest(f"a filesystem can't be mounted here: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", self.directory], check=True)
        self.node_ = self.node(
            directory=self.directory,
            settings={
                "wal.shm_size": 32 * MIB,
                "wal.segment_size": MIB,
                "state.checkpoint_interval": "1s",
                "http.workers": 1,
            },
        )
        self.ballast = os.path.join(self.directory, "ballast")

    def free_bytes(self):
        found = os.statvfs(self.directory)
        return found.f_bavail * found.f_frsize

    def fill_disk(self, leave):
        with open(self.ballast, "wb") as file:
            while self.free_bytes() > leave:
                file.write(b"b" * min(MIB, self.free_bytes() - leave))
                file.flush()

    def write_until_refused(self, history):
        """Each write is answered and noted, or refused as it must be."""
        for _ in range(3000):
            try:
                history.write()
            except HttpError as error:
                self.assertEqual((error.status, error.code), (507, "disk_full"))
                return
        self.fail("3000 writes and no full disk")

    def assert_holds(self, history):
        node = self.node_
        rows = {}
        offset = node.status()["wal_offset"]
        for key in KEYS:
            value = node.get(key)
            if value is not None:
                rows[key] = value.decode()
        wanted = {key: value for key, (_, value) in history.live(offset).items()}
        self.assertEqual(sorted(rows), sorted(wanted))
        self.assertEqual([key for key in wanted if rows[key] != wanted[key]], [])

    def wait_writes_again(self, history):
        def written():
            try:
                value = "again"
                history.note(KEYS[0], history.client.put(KEYS[0], value), value)
                return True
            except HttpError as error:
                self.assertEqual((error.status, error.code), (507, "disk_full"))
                return False

        wait_until(written, what="a write after space was freed", poll=0.05)

    def test_writes_are_refused_reads_go_on_and_nothing_is_lost(self):
        node = self.node_
        history = History(node, seed=2)
        for _ in range(200):
            history.write()
        self.fill_disk(leave=8 * MIB)
        self.write_until_refused(history)
        node.wait_log("the disk of .* is full")
        self.assert_holds(history)

        # A delete is taken: by such ones a full node is emptied.
        key = next(key for key in KEYS if history.at(key, history.newest))
        answer = history.client.delete(key)
        self.assertTrue(answer["deleted"])
        history.note(key, answer["offset"], None)
        self.assert_holds(history)
        self.assertEqual(node.request("GET", "/health")[0], 200)

        os.unlink(self.ballast)
        self.wait_writes_again(history)
        node.wait_log("has space again")
        for _ in range(100):
            history.write()
        node.wait_status(checkpoint_offset=node.status()["wal_offset"])
        self.assert_holds(history)
        node.kill_all()
        node.start()
        self.assert_holds(history)

    def test_a_disk_that_is_filled_at_once_costs_nothing_either(self):
        node = self.node_
        history = History(node, seed=4)
        for _ in range(100):
            history.write()
        self.fill_disk(leave=0)
        self.write_until_refused(history)
        self.assert_holds(history)
        # The state can't grow now; what it lacks stays in the log.
        pid = node.kill_child("checkpointer")
        node.wait_replaced("checkpointer", pid)
        self.assert_holds(history)
        os.unlink(self.ballast)
        self.wait_writes_again(history)
        node.wait_status(checkpoint_offset=node.status()["wal_offset"])
        self.assert_holds(history)
        node.kill_all()
        node.start()
        self.assert_holds(history)

    def test_a_start_on_a_full_disk_reads_and_goes_on_when_there_is_space(self):
        node = self.node_
        history = History(node, seed=3)
        for _ in range(100):
            history.write()
        node.stop(signal.SIGTERM)
        self.fill_disk(leave=512 * 1024)
        node.start()
        self.assert_holds(history)
        node.wait_log("the disk of .* is full")
        node.wait_until(
            lambda: node.request("PUT", "/kv/k000", b"v" * 70000)[0] == 507, what="507 for a put"
        )
        os.unlink(self.ballast)
        self.wait_writes_again(history)
        self.assert_holds(history)


if __name__ == "__main__":
    unittest.main()
