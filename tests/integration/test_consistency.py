"""The main promise: what is written on the master is read on the replica, whatever dies meanwhile."""
import http.client
import signal
import unittest

import load
import wal_files
from nexus_test import NexusTestCase, wait_until


def frames(node):
    """All frames in a node's WAL files: offset -> bytes."""
    return {frame.offset: frame.raw for frame in wal_files.read_log(node.wal_dir)}


class Consistency(NexusTestCase):
    def assert_equal_nodes(self, master, replica):
        offset = master.status()["wal_offset"]
        replica.wait_offset(offset, timeout=60)
        self.assertEqual(master.export(), replica.export())

    def test_100000_mixed_writes_over_8_connections_are_equal_on_both(self):
        master, replica = self.pair()
        failures = load.Writers(master.http_port, 100000, clients=8, seed=7).start().join()
        self.assertEqual(failures, [])
        self.assert_equal_nodes(master, replica)
        status = master.status()
        self.assertGreater(status["wal_offset"], 90000)
        self.assertGreater(len(master.export()), 1000000)

    def test_wal_frames_of_the_replica_are_the_masters_bytes(self):
        master, replica = self.pair(settings={"wal.segment_size": "1MiB"})
        failures = load.Writers(master.http_port, 8000, clients=8, seed=8).start().join()
        self.assertEqual(failures, [])
        self.assert_equal_nodes(master, replica)
        ours, theirs = frames(master), frames(replica)
        self.assertEqual(sorted(ours), list(range(1, master.status()["wal_offset"] + 1)))
        self.assertEqual(ours, theirs)

    def test_a_replica_away_for_50000_writes_catches_up_from_wal_files(self):
        small = {"wal.segment_size": "1MiB", "wal.shm_size": "32MiB"}
        master, replica = self.pair(settings=small)
        self.assertEqual(load.Writers(master.http_port, 1000, seed=1).start().join(), [])
        self.assert_equal_nodes(master, replica)
        replica.stop()
        big = lambda rng, client, n: load.put("big%d-%d" % (client, n), b"v" * 1000)
        self.assertEqual(
            load.Writers(master.http_port, 50000, seed=2, make=big, window=64).start().join(), [])
        replica.start()
        self.assert_equal_nodes(master, replica)
        self.assertEqual(replica.stats()["entries_applied"], 50000, "a gap or a duplicate")
        offsets = [frame.offset for frame in wal_files.read_log(replica.wal_dir)]
        self.assertEqual(offsets, list(range(offsets[0], master.status()["wal_offset"] + 1)))


class Kills(NexusTestCase):
    def assert_all_there(self, node, acked):
        found = node.versions()
        missing = [key for key, offset in acked.items() if found.get(key) != offset]
        self.assertEqual(missing, [], "answered writes that are gone")

    def answers(self, node):
        """True when the node takes a write again."""
        try:
            return node.request("PUT", "/kv/probe", b"x")[0] in (200, 201)
        except (OSError, http.client.HTTPException):
            return False

    def test_kill_9_of_any_child_loses_no_answered_write(self):
        master, replica = self.pair()
        for kind in ("walwriter", "checkpointer", "http", "walsender"):
            writers = load.AckedPuts(master.http_port, prefix=kind).start()
            wait_until(lambda: writers.count() > 300, 30, "writes")
            master.kill_child(kind, signal.SIGKILL)
            wait_until(lambda: self.answers(master), 10, f"an answer after kill -9 of {kind}")
            before = writers.count()
            wait_until(lambda: writers.count() > before + 300, 30, "writes after the kill")
            writers.stop()
            self.assert_all_there(master, writers.acked)
        for kind in ("walreceiver", "walwriter"):
            writers = load.AckedPuts(master.http_port, prefix="replica-" + kind).start()
            wait_until(lambda: writers.count() > 300, 30, "writes")
            replica.kill_child(kind, signal.SIGKILL)
            wait_until(lambda: writers.count() > 900, 30, "writes after the kill")
            writers.stop()
        offset = master.status()["wal_offset"]
        replica.wait_offset(offset, timeout=60)
        self.assertEqual(master.export(), replica.export())

    def test_kill_9_of_everything_keeps_every_answered_write(self):
        node = self.node(role="master")
        acked = {}
        for round_number in range(4):
            writers = load.AckedPuts(node.http_port, prefix="round%d" % round_number).start()
            wait_until(lambda: writers.count() > 500, 30, "writes")
            node.kill_all()
            writers.stop()
            acked.update(writers.acked)
            node.start()
            self.assert_all_there(node, acked)


if __name__ == "__main__":
    unittest.main()
