# build: release
"""SIGKILL of all processes at any moment of a recovery, again and again: what the next one brings is the same."""

import os
import random
import shutil
import tempfile
import time
import unittest

import load
import wal_files
from nexus_test import NexusTestCase

KILLS = int(os.environ.get("NEXUS_RECOVERY_KILLS", "20"))
SEED = int(os.environ.get("NEXUS_SEED", "1"))
ENTRIES = 24000
SIZE = 1000
# The log is larger than memory: generations are merged while it is read.
SETTINGS = {"state.checkpoint_interval": "1h", "wal.segment_size": "1MiB", "wal.shm_size": "32MiB"}
LARGER = {**SETTINGS, "wal.shm_size": "128MiB"}


def large(rng, client, number):
    key = f"k{rng.randrange(ENTRIES // 2)}"
    return load.put(key, f"{client}-{number}-".encode() + b"x" * SIZE)


class RecoveryKills(NexusTestCase):
    def recovered(self, directory):
        """-> (the export, seconds until it served) of a node that recovers once, undisturbed"""
        node = self.node("master", directory=directory, settings=SETTINGS, start=False)
        began = time.monotonic()
        node.start()
        node.wait_status(state="streaming")
        seconds = time.monotonic() - began
        export = node.export()
        node.kill_all()
        return export, seconds

    def test_twenty_kills_in_one_recovery(self):
        node = self.node("master", settings=LARGER)
        writers = load.Writers(node.http_port, ENTRIES, seed=SEED, window=64, make=large)
        self.assertEqual(writers.start().join(), [])
        node.kill_all()
        scratch = tempfile.mkdtemp(prefix="nexus-kills-")
        self.addCleanup(shutil.rmtree, scratch, ignore_errors=True)
        shutil.copytree(node.data_dir, os.path.join(scratch, "data"), symlinks=True,
                        ignore=shutil.ignore_patterns("nexus.sock"))
        wanted, seconds = self.recovered(scratch)
        last = wal_files.read_log(node.wal_dir)[-1]

        node.settings = SETTINGS
        rng = random.Random(SEED)
        unfinished = 0
        for _ in range(KILLS):
            mark = node.log_mark()
            node.launch()
            time.sleep(rng.uniform(0, seconds))
            node.kill_all()
            unfinished += "ready: role" not in node.log()[mark:]
        self.assertGreaterEqual(unfinished, KILLS // 4, "the kills come when recovery is over")
        node.start()
        status = node.wait_status(state="streaming")
        self.assertEqual((status["wal_offset"], status["last_crc"]), (last.offset, last.crc))
        self.assertTrue(node.export() == wanted, "the exports differ")


if __name__ == "__main__":
    unittest.main()
