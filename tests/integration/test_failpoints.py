# timeout: 300
"""Crashes and failures at chosen steps (src/common/failpoint.h): whatever a process had done when it died, an answered
write is there afterwards, one that was refused is not, and the node serves again by itself."""

import json
import select
import signal
import unittest

import load
import nexus_wire as wire
from failpoints import Failpoint
from full_sync import SMALL, FullSyncCase, put_many, random_pairs
from nexus_test import NexusTestCase, is_alive

BUSY = {"state.checkpoint_interval": "1s", "wal.segment_size": "64KiB", "wal.shm_size": "32MiB"}


class Crashes(NexusTestCase):
    """One process of a node dies at a step, under load."""

    def crash_at(self, name, action, settings=None):
        node = self.node("master", start=False, crashable=True, settings={**BUSY, **(settings or {})})
        point = Failpoint(node, name, action)
        node.start()
        writers = load.AckedPuts(node.http_port, size=500).start()
        try:
            pid = point.wait_hit()
            node.wait_until(lambda: not is_alive(pid), what=f"the end of {pid}")
            node.wait_written("probe", over_crashes=True)
            before = writers.count()
            node.wait_until(lambda: writers.count() > before + 20, what="writes after the crash")
        finally:
            writers.stop()
        writers.assert_kept(node)
        self.assert_no_gap(node)
        return node

    def assert_no_gap(self, node):
        """A second start reads the same."""
        before = node.export()
        node.stop()
        node.start()
        self.assertEqual(node.export(), before)

    def test_01_the_walwriter_at_each_step_of_a_group(self):
        steps = (
            ("entry_unlinked", "abort@40"),
            ("group_unwritten", "abort@30"),
            ("group_unsynced", "kill@30"),
            ("group_unpublished", "abort@30"),
            ("group_unanswered", "kill@30"),
        )
        for name, action in steps:
            with self.subTest(name):
                node = self.crash_at(name, action)
                self.assertRegex(node.log(), r"walwriter.*signal (6|9)")

    def test_02_the_checkpointer_at_each_step_of_a_merge(self):
        for name in ("merge_uncommitted", "merge_committed"):
            with self.subTest(name):
                self.assertRegex(self.crash_at(name, "abort").log(), "checkpointer.*signal 6")

    def test_03_the_checkpointer_as_it_takes_a_segment_away(self):
        node = self.crash_at("segment_removal", "kill", {"replication.max_log_size": 200})
        self.assertRegex(node.log(), "checkpointer.*signal 9")

    def test_04_again_and_again_in_recovery(self):
        """The walwriter dies at the n-th entry that it replays; each time the next recovery brings the same."""
        settings = {**BUSY, "state.checkpoint_interval": "1h"}
        node = self.node("master", start=False, crashable=True, settings=settings)
        node.start()
        put_many(node, random_pairs("k", 300, 100))
        before = node.versions()
        for at in (1, 2, 50, 150, 299):
            node.kill_all()
            point = Failpoint(node, "recovery_replay", f"kill@{at}")
            node.launch()
            point.wait_hit()
            node.wait_written("probe", over_crashes=True)
            node.delete("probe")
            self.assertEqual(node.versions(), before)

    def test_05_a_write_that_fails_is_not_answered_as_done(self):
        """EIO behind the pwrite of a group: nothing of the group is acknowledged, and the log is read again."""
        node = self.crash_at("group_unsynced", "errno(EIO)@30")
        self.assertRegex(node.log(), "walwriter")

    def test_06_a_disk_that_fails_once_before_a_write(self):
        self.crash_at("group_unwritten", "errno(ENOSPC)@30")


class Starts(NexusTestCase):
    def test_01_one_that_dies_at_each_start_ends_the_server(self):
        node = self.node("master", start=False, crashable=True)
        node.env["NEXUS_FAILPOINT"] = "walwriter_start:abort"
        node.launch()
        self.assertNotEqual(node.wait_exit(timeout=60), 0)
        log = node.log()
        starts = log.count("failpoint walwriter_start")
        self.assertGreaterEqual(starts, 2, log)
        self.assertLessEqual(starts, 8, log)  # no storm
        self.assertRegex(log, "(?i)walwriter")
        node.env.pop("NEXUS_FAILPOINT")
        node.start()
        node.put("k", b"v")

    def test_02_signals_during_recovery(self):
        """No hang, and no further start of what is told to end."""
        node = self.node("master", start=False, settings=BUSY)
        node.start()
        put_many(node, random_pairs("k", 50, 100))
        before = node.export()
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            with self.subTest(sig.name):
                node.kill_all()
                begin = node.log_mark()
                point = Failpoint(node, "recovery_begin", "pause")
                node.launch()
                point.wait_hit()
                node.wait_log("failpoint recovery_begin", since=begin)
                mark = node.log_mark()
                node.process.send_signal(sig)
                node.wait_log(r"stopping \(|immediate stop", since=mark)
                point.go()
                node.wait_exit(timeout=60)
                self.assertNotIn("ready:", node.log()[mark:])
                self.assertEqual(node.log()[mark:].count("failpoint"), 0)
                point.disarm()
                node.start()
                self.assertEqual(node.export(), before)

    def test_03_one_that_reads_its_log_says_how_far_it_is(self):
        node = self.node("master")
        for i in range(30):
            last = node.put(f"k{i}", b"v")
        node.kill_all()
        point = Failpoint(node, "recovery_replay", "pause@20")
        node.launch()
        point.wait_hit()
        try:
            status, _, body = node.client().request("GET", "/kv/k0")
            self.assertEqual(status, 503, body)
            error = json.loads(body)
            self.assertEqual(error["code"], "role_change")
            self.assertRegex(error["message"], rf"up to offset \d+( of at least {last})?; try again")
            self.assertEqual(node.client().request("GET", "/ready")[0], 503)
        finally:
            point.go()
        node.wait_answer()
        self.assertEqual(node.get(f"k{last - 1}"), b"v")


class Shipping(FullSyncCase):
    def pings(self, peer, count):
        """Answers so many Pings; nothing else may come between them."""
        while count > 0:
            message = peer.recv(timeout=20)
            self.assertIsNotNone(message, "the session ended")
            self.assertEqual(message.name, "Ping")
            if message.timestamp:
                peer.send(wire.build_pong(message.timestamp))
                count -= 1

    def test_what_is_not_synced_is_neither_answered_nor_shown_nor_sent(self):
        """Each absence is seen by what comes later on the same way: the answers to reads from the worker that has the
        write, and Pings behind which the entry would have come first."""
        # Nothing is merged: who comes without data is streamed to.
        master = self.node("master", start=False, settings={**SMALL, "state.checkpoint_interval": "1h"})
        point = Failpoint(master, "group_unsynced", "pause@2")
        master.start()
        replica = self.replica(master.replication_addr)
        offset = master.put("first", b"v")
        replica.wait_offset(offset)
        with wire.RawPeer(master.replication_port) as peer, load.Connection(master.http_port, 60) as writer:
            peer.handshake()
            peer.recv_entries(offset)
            writer.send([load.put("second", b"v")])
            try:
                point.wait_hit()
                self.pings(peer, 2)
                self.assertIsNone(replica.get("second"))
                self.assertEqual(replica.status()["wal_offset"], offset)
                for _ in range(2):
                    self.assertIsNone(master.get("second"))
                self.assertEqual(select.select([writer.sock], [], [], 0)[0], [], "it is answered")
            finally:
                point.go()
            self.assertEqual(writer.answer()[0], 201)
            self.assertEqual(peer.recv_entries(1)[0].offset, offset + 1)
        self.assert_level(master, replica)


class Retention(FullSyncCase):
    def test_a_segment_that_a_replica_needs_survives_a_crash_as_it_is_removed(self):
        """The checkpointer stops before it takes a segment away; all die; what the replica needs is there, or it is
        told to take a full sync: never a gap."""
        master = self.node("master", start=False, settings={**SMALL, "replication.max_log_size": 100})
        point = Failpoint(master, "segment_removal", "pause")
        master.start()
        replica = self.replica(master.replication_addr)
        put_many(master, random_pairs("a", 20, 1000))
        self.assert_level(master, replica)
        replica.kill_all()
        put_many(master, random_pairs("b", 400, 1000))
        point.wait_hit()  # by a merge that nobody asked for: who asks would wait for it
        master.kill_all()
        point.disarm()
        master.start()
        replica.launch()
        self.assert_level(master, replica)


class FullSyncs(FullSyncCase):
    """Either side dies at a chunk, or the postmaster at the switch: the old data stays, or the new is whole."""

    def sync(self, victim, name, action):
        pairs = random_pairs("k", 60, 4000)
        master = self.node("master", start=False, crashable=True, settings=SMALL)
        points = [Failpoint(master, name, action)] if victim == "master" else []
        master.start()
        put_many(master, pairs)
        master.export()
        replica = self.replica(master.replication_addr, launch=False)
        if victim == "replica":
            points = [Failpoint(replica, name, action)]
        replica.launch()
        return master, replica, points[0]

    def test_01_a_chunk_sent(self):
        for at in (1, 5):
            with self.subTest(at):
                master, replica, point = self.sync("master", "chunk_sent", f"kill@{at}")
                point.wait_hit()
                self.assert_level(master, replica)
                self.assert_tidy(replica)

    def test_02_a_chunk_received(self):
        for action in ("kill@1", "kill@5", "errno(ENOSPC)@3"):
            with self.subTest(action):
                master, replica, point = self.sync("replica", "chunk_received", action)
                point.wait_hit()
                self.assert_level(master, replica)
                self.assert_tidy(replica)

    def test_03_the_switch(self):
        for name in ("switch_unrenamed", "switch_renamed"):
            with self.subTest(name):
                master, replica, point = self.sync("replica", name, "kill")
                point.wait_hit()
                replica.wait_exit()
                point.disarm()
                replica.launch()
                self.assert_level(master, replica)
                self.assert_tidy(replica)

    def test_04_a_switch_that_fails(self):
        master, replica, point = self.sync("replica", "switch_unrenamed", "errno(EIO)")
        point.wait_hit()
        self.assertEqual(replica.wait_exit(), 1)
        self.assertRegex(replica.log(), "the server stops: .*data-2 can't be made the node's data: Input/output error")
        point.disarm()
        replica.launch()
        self.assert_level(master, replica)


class Files(NexusTestCase):
    def test_a_crash_around_the_rename_of_a_small_file(self):
        """identity is replaced at a promotion among others; here at the first start, by the postmaster, which dies at
        each of the first three files."""
        for name in ("file_unrenamed", "file_renamed"):
            for at in (1, 2, 3):
                with self.subTest(f"{name} {at}"):
                    node = self.node("master", start=False, crashable=True)
                    point = Failpoint(node, name, f"kill@{at}")
                    node.launch()
                    self.assertEqual(point.wait_hit(), node.pid)
                    self.assertEqual(node.wait_exit(), -signal.SIGKILL)
                    point.disarm()
                    node.start()
                    node.wait_written()
                    node.put("k", b"v")
                    node.kill_all()
                    node.start()
                    self.assertEqual(node.get("k"), b"v")


if __name__ == "__main__":
    unittest.main()
