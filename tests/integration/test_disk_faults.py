# build: release
# timeout: 300
"""Disks that fail, fill up, come short or stand still (tests/preload/faults.c), while clients write: what was answered
is there, what was refused is not, the log says which file it was, and the node serves again, or stays safely down."""

import contextlib
import os
import subprocess
import sys
import tempfile
import unittest

import load
from disk_faults import Faults
from full_sync import SMALL, FullSyncCase, leftovers, put_many, random_pairs
from nexus_test import BUILD_DIR, NexusTestCase

BUSY = {"state.checkpoint_interval": "1s", "wal.segment_size": "64KiB", "wal.shm_size": "32MiB", "http.workers": 1}
KIB = 1 << 10


class FaultyCase(NexusTestCase):
    def faulty(self, role="master", start=True, **settings):
        """-> (node, its Faults)"""
        node = self.node(role, start=False, settings={**BUSY, **settings})
        faults = Faults(node)
        if start:
            node.start()
        return node, faults

    def writers(self, node, **options):
        writers = load.AckedPuts(node.http_port, **{"size": 500, **options})
        self.addCleanup(writers.stop)
        return writers.start()

    def more(self, node, writers, count=50):
        wanted = writers.count() + count
        node.wait_until(lambda: writers.count() >= wanted, what=f"{count} more answered writes")


class Library(unittest.TestCase):
    """What faults.c says of itself and no server shows."""

    WRITES = (  # how the file is open, the calls, what is behind its old end then
        ("os.O_WRONLY", "os.pwrite(fd, b'ABCDE', 3)", b""),
        ("os.O_WRONLY", "os.write(fd, b'AB'), os.write(fd, b'CDE'), os.pwrite(fd, b'F', 0)", b""),
        ("os.O_RDWR", "os.lseek(fd, 2, 0), os.writev(fd, [b'AB', b'CDE'])", b""),
        ("os.O_WRONLY | os.O_APPEND", "os.write(fd, b'AB'), os.writev(fd, [b'C', b'DE'])", bytes(5)),
    )

    def test_a_sync_loses_what_any_call_has_written(self):
        program = "import errno, os, sys\n"
        with tempfile.TemporaryDirectory(prefix="nexus-faults-") as directory:
            paths = [os.path.join(directory, f"file{number}") for number in range(len(self.WRITES))]
            for path, (flags, calls, _) in zip(paths, self.WRITES):
                with open(path, "wb") as file:
                    file.write(b"what was there")
                program += f"fd = os.open({path!r}, {flags}); {calls}\n"
                program += "try: sys.exit(os.fdatasync(fd) or 'synced')\n"
                program += "except OSError as error: assert error.errno == errno.EIO\n"
            rules = os.path.join(directory, "rules")
            with open(rules, "w", encoding="ascii") as file:
                file.write("sync /file lose\n")
            library = os.path.join(BUILD_DIR, "tests", "libfaults.so")
            env = {**os.environ, "LD_PRELOAD": library, "NX_FAULTS": rules}
            done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            for path, (flags, calls, end) in zip(paths, self.WRITES):
                with self.subTest(f"{flags}: {calls}"), open(path, "rb") as file:
                    self.assertEqual(file.read(), b"what was there" + end)


class Log(FaultyCase):
    """The device of the WAL."""

    def crash_by(self, *rules, last=0):
        """The walwriter ends by a fault, and all is read again from disk."""
        node, faults = self.faulty()
        writers = self.writers(node)
        for number, rule in enumerate(rules):
            mark = node.log_mark()
            self.more(node, writers)
            faults.set(*rule)
            faults.wait_touched(last if len(rule) > 1 else 0)
            node.wait_log("ERROR walwriter.* the log in .*/wal failed: .*; recovery will read", since=mark)
            node.wait_log("walwriter .* exited with status 2", since=mark)
            node.wait_log("shared memory is made afresh", since=mark)
            self.more(node, writers)
        writers.stop()
        faults.clear()
        writers.assert_kept_over_a_kill(node)
        return node

    def test_01_a_sync_that_fails_is_not_made_again(self):
        """Once; once with what it should have covered gone, as a kernel may do."""
        self.crash_by(
            ["fdatasync .wal EIO after=30 count=1 in=walwriter"],
            ["fdatasync .wal lose after=30 count=1 in=walwriter"],
        )

    def test_02_a_disk_that_goes_on_failing_stops_the_server(self):
        node, faults = self.faulty()
        writers = self.writers(node)
        self.more(node, writers)
        faults.set("fdatasync .wal EIO after=20 in=walwriter")
        self.assertEqual(node.wait_exit(), 1)
        writers.stop()
        self.assertRegex(node.log(), r"the server stops: syncing wal/\d{20}\.wal failed in recovery: .*mend the disk")
        faults.clear()
        node.start()
        writers.assert_kept_over_a_kill(node)

    def test_03_a_write_cut_short_in_the_middle_of_an_entry(self):
        """It goes on where it was cut; and when the rest doesn't fit, the half entry is nobody's."""
        node = self.crash_by(
            ["pwritev .wal short=100 count=50", "pwritev .wal ENOSPC after=60 count=1"],
            ["pwritev .wal short=300 count=1", "pwritev .wal EIO count=1"],
            last=1,
        )
        self.assertRegex(node.log(), "No space left on device")

    def test_04_a_name_or_a_mark_that_cannot_be_written(self):
        self.crash_by(["rename .wal EIO count=1 in=walwriter"], ["pwrite /wal/durable EIO count=1"])

    def test_041_a_mark_that_comes_short(self):
        """It is written whole all the same: with half of it the end of the log could not be judged."""
        node, faults = self.faulty()
        writers = self.writers(node)
        self.more(node, writers)
        faults.set("pwrite /wal/durable short count=3")
        faults.wait_touched(count=3)
        node.kill_all()
        writers.stop()
        node.start()
        writers.assert_kept_over_a_kill(node)

    def test_05_no_space_for_a_segment(self):
        """Puts are refused, reads go on; with the space the writes are back."""
        node, faults = self.faulty()
        writers = self.writers(node)
        self.more(node, writers)
        faults.set("allocate /wal/ ENOSPC", "write tmp-prepare ENOSPC", "write /wal/begin ENOSPC",
                   "rename /wal/ ENOSPC")
        # A segment that was being begun at that moment ends the walwriter: what it has become is unknown.
        node.wait_log("no space for a new WAL segment in .*/wal: .*507 disk_full.*free some space")
        node.wait_answer()
        node.wait_until(lambda: len(writers.refused) > 20, what="refused writes")
        large = b"x" * 70000  # no segment that is there has room for it
        self.assert_problem(node.request("PUT", "/kv/refused", large), 507, "disk_full")
        key = next(iter(writers.acked))
        self.assertTrue(node.get(key))
        self.assertEqual(node.request("GET", "/health")[0], 200)
        faults.clear()
        self.more(node, writers)
        writers.stop()
        writers.refused.add("refused")
        writers.assert_kept_over_a_kill(node)


class State(FaultyCase):
    """The device of LMDB."""

    def test_01_a_commit_that_fails(self):
        """LMDB's next commit would succeed, in silence: so the checkpointer begins anew, each time."""
        node, faults = self.faulty()
        writers = self.writers(node)
        for rule in (
            "fdatasync data.mdb lose count=1",
            "pwrite data.mdb EIO size=120 count=1",  # the meta page
        ):
            mark = node.log_mark()
            pid = node.pids("checkpointer")[0]
            faults.set(rule)
            with contextlib.suppress(OSError):
                node.request("GET", "/export", timeout=1)  # it asks for a merge
            faults.wait_touched()
            node.wait_log("merging generation .* failed: Input/output error; the log keeps them", since=mark)
            node.wait_log("checkpointer .* exited with status 2", since=mark)
            node.wait_replaced("checkpointer", pid)
            offset = node.status()["wal_offset"]
            node.wait_status(checkpoint_offset=lambda at, least=offset: at >= least)
        self.more(node, writers)
        writers.stop()
        node.wait_status(checkpoint_offset=node.status()["wal_offset"])
        writers.assert_kept_over_a_kill(node)

    def test_02_no_space(self):
        node, faults = self.faulty()
        writers = self.writers(node)
        self.more(node, writers)
        faults.set("write data.mdb ENOSPC")
        node.wait_log("the state in .*/state can't take more: .* disk is full; writes but deletes are refused .507.")
        node.wait_until(lambda: len(writers.refused) > 20, what="refused writes")
        self.assertTrue(node.get(next(iter(writers.acked))))
        faults.clear()
        node.wait_log("takes entries again")
        self.more(node, writers)
        writers.stop()
        writers.assert_kept_over_a_kill(node)


class Starts(FaultyCase):
    """A disk that can't be read: the node says which file, and what there is stays as it is."""

    def test_what_cannot_be_read_is_named(self):
        node, faults = self.faulty(**{"state.checkpoint_interval": "1h"})
        put_many(node, random_pairs("k", 300, 500))
        before = node.versions()
        for rule, text in (
            ("read .wal EIO count=1", r"wal/\d{20}\.wal at byte \d+: Input/output error"),
            ("read .wal EIO after=6 count=1", r"reading wal/\d{20}\.wal at byte [1-9]\d*: Input/output error"),
            ("open .wal EACCES count=1", r"wal/\d{20}\.wal at byte \d+: Permission denied"),
            ("read nexus.id EIO", "reading nexus.id: Input/output error"),
            ("read identity EIO", "reading identity: Input/output error"),
            ("read /durable EIO", "reading wal/durable: Input/output error"),
            ("open data.mdb EIO", "the state in .*/state can't be opened: Input/output error"),
        ):
            with self.subTest(rule):
                node.kill_all()
                mark = node.log_mark()
                faults.set(rule)
                node.launch()
                self.assertEqual(node.wait_exit(), 1)
                self.assertRegex(node.log()[mark:], text)
                faults.clear()
                node.start()
                node.wait_status(state="streaming")
                self.assertEqual(node.versions(), before)
        node.kill_all()
        faults.set("read /wal/ short=7", "read identity short=7")  # are no faults: the rest is read
        node.start()
        node.wait_status(state="streaming")
        self.assertEqual(node.versions(), before)


class Followers(FullSyncCase):
    def faulty(self, role, **settings):
        node = self.node(role, start=False, settings={**SMALL, **settings})
        faults = Faults(node)
        return node, faults

    def cluster_of(self, **settings):
        """-> master, its faults, replica, its faults; level"""
        master, of_master = self.faulty("master", **settings)
        master.start()
        replica, of_replica = self.faulty("replica", **{"replication.master_addr": master.replication_addr, **settings})
        replica.start("/ready")
        put_many(master, random_pairs("a", 50, 200))
        self.assert_level(master, replica)
        return master, of_master, replica, of_replica

    def test_01_a_log_that_cannot_be_read_for_a_replica(self):
        """The one that is behind waits for it; nobody else does."""
        master, faults, replica, _ = self.cluster_of()
        other = self.replica(master.replication_addr)
        replica.stop()
        put_many(master, random_pairs("b", 600, 200))
        self.assert_level(master, other)
        master.kill_all()  # what the replica lacks is in the files alone, or is made so
        master.start()
        faults.set("read .wal EIO count=2 in=walsender", "read .wal delay=1500 after=2 count=1 in=walsender")
        replica.start()
        put_many(master, random_pairs("c", 50, 200))
        self.assert_level(master, other)
        self.assert_level(master, replica)
        faults.clear()

    def test_02_the_disk_of_the_replica_stands_still(self):
        """Who waits for nobody goes on; who waits for the quorum is told "unknown", in time; both nodes come level."""
        master, _, replica, faults = self.cluster_of(
            **{"replication.mode": "sync", "replication.sync_timeout_ms": 500}
        )
        faults.set("sync .wal delay=1500 count=1")
        answer = master.request("PUT", "/kv/k", b"v")
        self.assert_problem(answer, 504, "quorum_timeout")
        for number in range(20):
            master.put(f"local{number}", "v", headers={"Nexus-Durability": "local"})
        self.assertLess(replica.status()["wal_offset"], master.status()["wal_offset"])
        faults.wait_touched()
        master.wait_written()
        self.assert_level(master, replica)

    def test_03_the_state_of_the_replica_finds_no_space(self):
        """It says so, skips nothing, holds back its master's entries alone, and goes on by itself."""
        master, _, replica, faults = self.cluster_of(**{"replication.max_log_size": 100000})
        faults.set("write data.mdb ENOSPC")
        put_many(master, random_pairs("b", 220, 100 * KIB))  # more than its memory
        replica.wait_log("the state in .*/state can't take more: .* disk is full")
        master.put("late", b"v")
        self.assertLess(replica.status()["wal_offset"], master.status()["wal_offset"])
        before = replica.status()["checkpoint_offset"]
        self.assertTrue(replica.get("a00000"))
        faults.clear()
        self.assert_level(master, replica)
        self.assertGreater(replica.status()["checkpoint_offset"], before)

    def test_04_a_full_sync_finds_no_space(self):
        """As it receives, as it unpacks, as it switches: the old data is served until it succeeds, and nothing is left."""
        master, _, replica, faults = self.cluster_of(**{"replication.max_log_size": 50})
        for rule, text in (
            ("write snapshots/ ENOSPC", "full sync: .*No space left.*: free disk space on this replica"),
            ("write data.mdb ENOSPC in=restore", "(WARN|ERROR).*(No space left|no room|disk is full|disk space)"),
            ("open identity.tmp ENOSPC", "WARN.*can't be made the node's data: No space left.*free disk space"),
            ("fdatasync data.mdb EIO in=restore count=1", "(WARN|ERROR).*full sync: .*Input/output error"),
        ):
            with self.subTest(rule):
                replica.stop()
                put_many(master, random_pairs("k", 200, 1000))
                master.export()  # merges
                put_many(master, random_pairs("k", 200, 1000))
                old = os.readlink(os.path.join(replica.data_dir, "current"))
                faults.set(rule)
                mark = replica.log_mark()
                replica.start()
                faults.wait_touched()
                replica.wait_log(text, since=mark)
                replica.wait_status(state=lambda state: state != "starting")
                self.assertTrue(replica.get("a00000", headers={"Nexus-Read": "local"}))
                self.assertEqual(os.readlink(os.path.join(replica.data_dir, "current")), old)
                faults.clear()
                self.assert_level(master, replica)
                replica.wait_log("data-[0-9]+ replaces", since=mark)
                replica.wait_until(lambda: not leftovers(replica), what="an end of the leftovers")

    def test_05_a_snapshot_that_cannot_be_read(self):
        master, faults, replica, _ = self.cluster_of(**{"replication.max_log_size": 50})
        replica.stop()
        put_many(master, random_pairs("k", 300, 1000))
        master.export()
        faults.set("read .tar.zst EIO after=2 count=1 in=walsender")
        replica.start()
        faults.wait_touched()
        master.wait_log("(WARN|ERROR).*snapshot.*Input/output error")
        self.assert_level(master, replica)


if __name__ == "__main__":
    unittest.main()
