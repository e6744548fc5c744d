# build: release
"""SIGKILL of all processes at any read of a recovery, again and again: what the next one brings is the same."""

import os
import random
import shutil
import tempfile
import time
import unittest

import load
import wal_files
from disk_faults import Faults
from nexus_test import NexusTestCase

KILLS = int(os.environ.get("NEXUS_RECOVERY_KILLS", "20"))
SEED = int(os.environ.get("NEXUS_SEED", "1"))
ENTRIES = 24000
SIZE = 1000
# The log is larger than memory: generations are merged while it is read.
SETTINGS = {"state.checkpoint_interval": "1h", "wal.segment_size": "1MiB", "wal.shm_size": "32MiB"}
LARGER = {**SETTINGS, "wal.shm_size": "128MiB"}
ENDED = "recovered to offset"


def large(rng, client, number):
    key = f"k{rng.randrange(ENTRIES // 2)}"
    return load.put(key, f"{client}-{number}-".encode() + b"x" * SIZE)


def copy(source, target):
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("nexus.sock"))


class RecoveryKills(NexusTestCase):
    def recovered(self, directory):
        """-> (the export, how often the log is read) of a node that recovers once, undisturbed"""
        node = self.node("master", directory=directory, settings=SETTINGS, start=False)
        faults = Faults(node, "read .wal delay=0")
        node.start()
        node.wait_log(ENDED)
        reads = faults.touched()
        node.wait_status(state="streaming")
        export = node.export()
        node.kill_all()
        return export, reads

    def killed_in_recovery(self, node, faults, number, later):
        """Kills all while that read of the log (from 0) takes its time, the checkpointer so many seconds further on.
        False: recovery had less to read, and was over."""
        mark = node.log_mark()
        faults.set(f"read .wal delay=600000 after={number}")
        node.launch()
        node.wait_until(lambda: faults.touched() or ENDED in node.log()[mark:], what=f"read {number}")
        time.sleep(later)
        node.kill_all()
        return ENDED not in node.log()[mark:]

    def test_twenty_kills_in_one_recovery(self):
        node = self.node("master", settings=LARGER)
        writers = load.Writers(node.http_port, ENTRIES, seed=SEED, window=64, make=large)
        self.assertEqual(writers.start().join(), [])
        node.kill_all()
        scratch = tempfile.mkdtemp(prefix="nexus-kills-")
        self.addCleanup(shutil.rmtree, scratch, ignore_errors=True)
        for name in ("data", "first"):
            copy(node.data_dir, os.path.join(scratch, name))
        wanted, reads = self.recovered(scratch)
        last = wal_files.read_log(node.wal_dir)[-1]

        node.settings = SETTINGS
        faults = Faults(node)
        rng = random.Random(SEED)
        kills = 0
        for _ in range(4 * KILLS):
            if self.killed_in_recovery(node, faults, rng.randrange(reads), rng.uniform(0, 0.1)):
                kills += 1
                if kills == KILLS:
                    break
            else:  # too late: all from the beginning
                shutil.rmtree(node.data_dir)
                copy(os.path.join(scratch, "first"), node.data_dir)
        self.assertEqual(kills, KILLS, "kills in recovery")
        faults.clear()
        node.start()
        status = node.wait_status(state="streaming")
        self.assertEqual((status["wal_offset"], status["last_crc"]), (last.offset, last.crc))
        self.assertTrue(node.export() == wanted, "the exports differ")


if __name__ == "__main__":
    unittest.main()
