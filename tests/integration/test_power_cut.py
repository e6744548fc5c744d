# build: release
"""Power cuts: from one run under load, directories are rebuilt with any part of the unsynced writes
missing or torn. Each must start, hold every answered write, and no invented one."""
import json
import os
import random
import shutil
import tempfile
import unittest

import load
import power_cut
from nexus_wire import MAX_ENTRY_FRAME
from nexus_test import NexusTestCase, wait_until

IMAGES = int(os.environ.get("NEXUS_POWER_CUTS", "60"))
SEED = int(os.environ.get("NEXUS_SEED", "1"))

# Small segments and memory, so that the run crosses segment changes, merges and recycling.
SETTINGS = {"wal.segment_size": "256KiB", "wal.shm_size": "32MiB", "state.checkpoint_interval": "1s",
            "wal.max_size": "1MiB", "replication.max_log_size": "500", "state.map_size": "256MiB"}


class PowerCut(NexusTestCase):
    def record(self, role):
        """One recorded run under load; returns the data directory's path and the log's."""
        node = self.node(role=role, settings=SETTINGS, preload=["librecorder.so"], start=False)
        log = os.path.join(node.directory, "record")
        os.mkdir(node.data_dir, 0o700)
        node.env.update({"NX_RECORD_DIR": os.path.realpath(node.data_dir), "NX_RECORD_LOG": log})
        node.start()
        log_fd = os.open(log, os.O_WRONLY | os.O_APPEND)
        writers = load.AckedPuts(node.http_port, clients=4, size=900,
                                 on_ack=lambda key, offset: power_cut.append_ack(
                                     log_fd, "%s %d" % (key, offset)))
        writers.start()
        wait_until(lambda: writers.count() > 6000 and node.status()["checkpoint_offset"] > 2000, 60,
                   "6,000 answered writes and a checkpoint")
        writers.stop()
        node.stop()
        os.close(log_fd)
        return os.path.realpath(node.data_dir), log

    def check_image(self, image, acked):
        """Starts a node on the image and compares what it holds with what was answered."""
        node = self.node(role="master", settings=SETTINGS, directory=image)
        found = {}
        for line in node.export().splitlines():
            item = json.loads(line)
            found[item["key"]] = item["value"]
        node.kill_all()
        for key, offset in acked.items():
            self.assertIn(key, found, f"answered at offset {offset}, lost")
        for key, value in found.items():
            self.assertEqual(value, key + "." * 900, "a value that nobody wrote")

    def test_a_group_is_never_larger_than_the_largest_entry(self):
        """Recovery relies on it: a torn group ends within that distance."""
        node = self.node(role="master", preload=["librecorder.so"], start=False,
                         settings={"http.max_value_size": "15MiB", "http.workers": 4})
        log = os.path.join(node.directory, "record")
        os.mkdir(node.data_dir, 0o700)
        node.env.update({"NX_RECORD_DIR": os.path.realpath(node.data_dir), "NX_RECORD_LOG": log})
        node.start()
        make = lambda rng, client, number: load.put(f"k{client}", bytes(rng.randrange(7 << 20, 15 << 20)))
        self.assertEqual(load.Writers(node.http_port, 16, clients=8, window=1, make=make).start().join(), [])
        node.stop()
        unsynced, groups, segments = {}, [], set()
        for kind, inode, _, _, payload in power_cut.read_log(log):
            if kind == power_cut.CREATE and b"/wal/" in payload:
                segments.add(inode)
            elif kind == power_cut.WRITE and inode in segments and len(payload) > 1 << 20:
                unsynced[inode] = unsynced.get(inode, 0) + len(payload)
                groups.append(unsynced[inode])
            elif kind == power_cut.SYNC:
                unsynced.pop(inode, None)
        self.assertGreaterEqual(len(groups), 8)  # two of the smaller ones fit one group
        self.assertLessEqual(max(groups), MAX_ENTRY_FRAME)

    def test_every_answered_write_survives_any_power_cut(self):
        root, log = self.record("master")
        records = power_cut.read_log(log)
        points = power_cut.crash_points(records, IMAGES, SEED)
        rng = random.Random(SEED)
        for number, point, disk in power_cut.replayed(root, records, points):
            image = tempfile.mkdtemp(prefix="nexus-image-")
            self.addCleanup(shutil.rmtree, image, ignore_errors=True)
            style = disk.image(os.path.join(image, "data"), rng)
            acked = dict(ack.split() for ack in disk.acks)
            with self.subTest(image=number, point=point, style=style, seed=SEED):
                self.check_image(image, acked)
            shutil.rmtree(image, ignore_errors=True)
        kinds = {record[0] for record in records}
        for kind in (power_cut.WRITE, power_cut.SYNC, power_cut.RENAME, power_cut.MKDIR):
            self.assertIn(kind, kinds, "the recorder missed a kind of change")


if __name__ == "__main__":
    unittest.main()
