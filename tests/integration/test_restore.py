"""A new node from a snapshot's file: nexus-ctl restore."""

import os
import shutil
import signal
import subprocess
import unittest

from full_sync import FullSyncCase, random_pairs
from nexus_test import BUILD_DIR, wait_until

CTL = os.path.join(BUILD_DIR, "nexus-ctl")


class Restore(FullSyncCase):
    def setUp(self):
        super().setUp()
        self.source = self.master(random_pairs("k", 300, 2000))
        self.made = self.source.json("POST", "/replication/snapshot")
        self.new = self.node("master", start=False, name="new")

    def restore(self, snapshot, *options, **how):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NEXUS_")}
        environment["ASAN_OPTIONS"] = "detect_leaks=0"
        return subprocess.run(
            [CTL, "restore", snapshot, "-D", self.new.data_dir, *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, timeout=60, check=False, **how
        )

    def assert_nothing_made(self, done, text):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(text, done.stderr.decode())
        self.assertFalse(os.path.exists(self.new.data_dir))
        self.assertFalse(os.path.exists(self.new.data_dir + ".restoring"))

    def test_01_the_node_has_all_and_begins_a_new_epoch(self):
        done = self.restore(self.made["path"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"300 records at offset 300 of epoch 1", done.stderr)
        self.new.start()
        status, old = self.new.status(), self.source.status()
        self.assertEqual((status["epoch"], status["wal_offset"]), (2, 301))
        self.assertEqual(status["cluster_id"], old["cluster_id"])
        self.assertNotEqual(status["node_id"], old["node_id"])
        self.assertEqual(self.new.export(), self.source.export())
        self.assertEqual(self.new.versions(), self.source.versions())
        self.assertEqual(self.new.put("more", b"x"), 302)
        self.new.stop()
        self.new.start()
        self.assertEqual(self.new.status()["epoch"], 2)  # it begins once

    def test_02_from_standard_input(self):
        with open(self.made["path"], "rb") as file:
            done = self.restore("-", stdin=file)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.new.start()
        self.assertEqual(self.new.export(), self.source.export())

    def test_03_a_restored_replica_goes_on_where_the_snapshot_ends(self):
        self.source.put("later", b"y")
        self.assertEqual(self.restore(self.made["path"]).returncode, 0)
        self.new.role = "replica"
        self.new.settings["replication.master_addr"] = self.source.replication_addr
        self.new.start()
        self.assert_level(self.source, self.new)
        self.assertEqual(self.source.stats()["snapshot_transfers"], 0)

    def test_04_what_is_refused_leaves_nothing(self):
        with open(self.made["path"], "rb") as file:
            content = file.read()
        cut = os.path.join(self.new.directory, "cut")
        with open(cut, "wb") as file:
            file.write(content[: len(content) // 2])
        self.assert_nothing_made(self.restore(cut), "it ends in the middle")
        self.assert_nothing_made(self.restore("/etc/passwd"), "zstd")
        self.assert_nothing_made(self.restore("nowhere"), "No such file")
        self.assert_nothing_made(self.restore(self.new.directory), "is a directory")

    def test_05_nothing_is_restored_over_something(self):
        os.mkdir(self.new.data_dir, 0o700)
        with open(os.path.join(self.new.data_dir, "precious"), "w", encoding="ascii"):
            pass
        done = self.restore(self.made["path"])
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"is not empty", done.stderr)
        self.assertEqual(os.listdir(self.new.data_dir), ["precious"])
        shutil.rmtree(self.new.data_dir)
        scratch = self.new.data_dir + ".restoring"
        os.mkdir(scratch, 0o700)
        with open(os.path.join(scratch, "precious"), "w", encoding="ascii"):
            pass
        done = self.restore(self.made["path"])
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"no restore made it", done.stderr)
        self.assertEqual(os.listdir(scratch), ["precious"])

    def test_06_one_that_was_killed_is_begun_again(self):
        with open(self.made["path"], "rb") as file:
            content = file.read()
        with subprocess.Popen(
            [CTL, "restore", "-", "-D", self.new.data_dir], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as running:
            running.stdin.write(content[: len(content) // 2])
            running.stdin.flush()
            wait_until(
                lambda: os.path.exists(self.new.data_dir + ".restoring/data-2"), 20, "the restore"
            )
            running.send_signal(signal.SIGKILL)
        self.assertFalse(os.path.exists(self.new.data_dir))
        done = self.restore(self.made["path"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.new.start()
        self.assertEqual(self.new.export(), self.source.export())


if __name__ == "__main__":
    unittest.main()
