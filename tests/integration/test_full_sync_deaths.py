# timeout: 300
"""Full syncs in which somebody dies: each recovers by itself, goes on where it was, and ends level."""

import glob
import os
import re
import signal
import time
import unittest
import uuid

import load
import nexus_wire as wire
from full_sync import FullSyncCase, Received, archives, put_many, random_pairs, running
from nexus_test import wait_until


class Deaths(FullSyncCase):
    """Each in the middle of a transfer that a slow line holds."""

    PAIRS = 600
    SIZE = 4000
    TOTAL = PAIRS * SIZE
    HELD = 20_000  # bytes a second: it doesn't end meanwhile

    def setUp(self):
        self.the_master = self.master(
            random_pairs("k", self.PAIRS, self.SIZE), **{"replication.stop_drain_ms": 1000}
        )

    def in_the_middle(self, share=0.6):
        """A new replica that has that share of the snapshot, on a slow line: (proxy, replica)."""
        proxy = self.proxy(self.the_master, rate=1_000_000)
        replica = self.replica(proxy.addr)
        wait_until(lambda: proxy.down > self.TOTAL * share, 30, lambda: f"{proxy.down} bytes")
        proxy.rate = self.HELD
        replica.wait_status(state="snapshot")
        return proxy, replica

    def ends_level(self, proxy, replica, resumed=True, restarted=False):
        """Of a restarted master, the life before may have counted the transfer: all it had left
        to send was in the line's buffers, and the pin says so; the count went with that life."""
        proxy.rate = None
        replica.wait_answer("/ready", 60)
        offset = self.the_master.put("after", b"x")
        replica.wait_offset(offset, 30)
        self.assert_level(self.the_master, replica)
        self.assert_tidy(replica)
        if resumed:
            self.assertLess(proxy.down, self.TOTAL * 1.5)
        self.assertIn(
            self.the_master.stats()["snapshot_transfers"], (0, 1) if restarted else (1,)
        )

    def test_01_walsender(self):
        proxy, replica = self.in_the_middle()
        self.the_master.kill_child("walsender")
        self.ends_level(proxy, replica)

    def test_02_walreceiver(self):
        proxy, replica = self.in_the_middle()
        replica.kill_child("walreceiver")
        self.ends_level(proxy, replica)

    def test_03_restore_process(self):
        proxy, replica = self.in_the_middle()
        replica.kill_child("restore")
        self.ends_level(proxy, replica)

    def test_04_whole_replica(self):
        proxy, replica = self.in_the_middle()
        replica.kill_all()
        replica.launch()
        self.ends_level(proxy, replica, resumed=False)

    def test_05_whole_master(self):
        proxy, replica = self.in_the_middle()
        self.the_master.kill_all()
        self.the_master.start()
        self.ends_level(proxy, replica, resumed=False, restarted=True)

    def test_06_walwriters(self):
        """Their death ends all children."""
        proxy, replica = self.in_the_middle()
        old = self.the_master.kill_child("walwriter")
        self.the_master.wait_replaced("walwriter", old)
        replica.wait_status(state="snapshot")
        old = replica.kill_child("walwriter")
        replica.wait_replaced("walwriter", old)
        self.ends_level(proxy, replica, resumed=False)

    def test_07_stops_are_clean(self):
        proxy, replica = self.in_the_middle()
        replica.stop()
        replica.launch()
        wait_until(lambda: proxy.connections > 1, 20, "a reconnect")
        replica.wait_status(state="snapshot")
        self.the_master.stop()
        self.the_master.start()
        self.ends_level(proxy, replica, resumed=False, restarted=True)


    def test_08_a_cut_in_the_last_bytes(self):
        """All is out at the master, but the replica lacks some of it: that is no transfer yet."""
        proxy, replica = self.in_the_middle(0.99)
        self.the_master.wait_log("is sent")
        proxy.cut()
        self.ends_level(proxy, replica)


class Moments(FullSyncCase):
    """kill -9 of everything on one side, as soon as its log says something."""

    REPLICA = (
        "comes from the master",
        "has come",
        "is restored",
        "the full sync is complete",
        "recovered to offset [1-9]",
    )
    MASTER = ("needs a full sync", "begins", "sending snapshot", "is done", "is sent")

    def wait_line(self, node, pattern, since=0):
        expression = re.compile(pattern)
        wait_until(
            lambda: expression.search(node.log(), since), 20, lambda: node.describe(pattern), 0.001
        )

    def test_01_the_replica(self):
        master = self.master(random_pairs("k", 200, 1000))
        for number, moment in enumerate(self.REPLICA):
            with self.subTest(moment):
                replica = self.replica(master.replication_addr, name=f"replica{number}")
                self.wait_line(replica, moment)
                replica.kill_all()
                replica.launch()
                replica.wait_answer("/ready", 30)
                self.assert_level(master, replica)
                self.assert_tidy(replica)
                replica.stop()

    def test_02_the_master(self):
        master = self.master(random_pairs("k", 200, 1000), **{"replication.max_log_size": 10})
        for number, moment in enumerate(self.MASTER):
            with self.subTest(moment):
                put_many(master, random_pairs("more", 30, 100))  # so that another one is made
                mark = master.log_mark()
                replica = self.replica(master.replication_addr, name=f"replica{number}")
                self.wait_line(master, moment, mark)
                master.kill_all()
                master.start()
                replica.wait_answer("/ready", 30)
                self.assert_level(master, replica)
                self.assert_tidy(replica)
                replica.stop()
        left = glob.glob(os.path.join(master.data_dir, "snapshots", "*.tmp"))
        self.assertEqual(left, [])


class Others(FullSyncCase):
    def test_a_slow_restore_keeps_the_connection(self):
        master = self.master(random_pairs("k", 500, 4000), **{"replication.heartbeat_ms": 200})
        proxy = self.proxy(master, rate=1_000_000)
        replica = self.replica(proxy.addr, **{"replication.heartbeat_ms": 200})
        replica.wait_answer("/health")
        replica.wait_until(lambda: replica.pids("restore"), what="a restore process")
        pid = replica.kill_child("restore", signal.SIGSTOP)
        proxy.rate = None
        master.wait_log("is sent")
        until = time.monotonic() + 2  # ten heartbeats, three of which would be too many
        while time.monotonic() < until:
            self.assertEqual([row["healthy"] for row in master.replicas()], [True])
            self.assertTrue(replica.stats()["connected"])
            time.sleep(0.1)
        os.kill(pid, signal.SIGCONT)
        replica.wait_answer("/ready", 30)
        self.assert_level(master, replica)
        self.assertNotIn("appears dead", master.log() + replica.log())
        self.assertEqual(proxy.connections, 2)

    def test_an_export_before_the_checkpointers_first_word(self):
        master = self.master(random_pairs("k", 100, 1000))
        pid = self.stop_starting_checkpointer(master)
        with load.Connection(master.http_port, timeout=10) as connection:
            connection.send([b"GET /export HTTP/1.1\r\nHost: localhost\r\n\r\n"])
            master.status()  # the one worker has that behind it
            os.kill(pid, signal.SIGCONT)
            self.assertEqual(connection.answer()[0], 200)

    def test_a_snapshot_before_the_checkpointers_first_word(self):
        master = self.master(random_pairs("k", 100, 1000))
        pid = self.stop_starting_checkpointer(master)
        replica_id = str(uuid.uuid4())
        peer = self.peer(master)
        status = master.status()
        peer.handshake(
            replica_id,
            100,
            cluster_id=status["cluster_id"],
            last_epoch=status["epoch"],
            last_crc=status["last_crc"],
        )
        peer.send(wire.build(wire.REQUEST_SNAPSHOT, replica_id=replica_id))
        wait_until(lambda: running(master, "snapshot"), 20, "a snapshot process")
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(Received(peer).run().meta.wal_offset, 100)

    def test_a_new_replica_before_the_checkpointers_first_word(self):
        """What the master's state holds isn't known yet: the Welcome waits for that."""
        master = self.master(random_pairs("k", 100, 1000))
        pid = self.stop_starting_checkpointer(master)
        peer = self.peer(master)
        peer.send(wire.build_hello())
        try:
            welcome = peer.recv(0.5)
        except TimeoutError:
            welcome = None
        os.kill(pid, signal.SIGCONT)
        welcome = welcome or peer.recv_type(wire.WELCOME)
        self.assertIs(welcome.requires_full_sync, True)

    def stop_starting_checkpointer(self, node):
        """Restarts the node, whose checkpointer doesn't get to say where the state is; its pid."""
        for _ in range(20):
            node.kill_all()
            node.launch()
            (pid,) = wait_until(lambda: running(node, "checkpointer"), 20, "a checkpointer", 0)
            os.kill(pid, signal.SIGSTOP)
            node.wait_answer("/health")
            if node.status()["checkpoint_offset"] == 0:
                return pid
            os.kill(pid, signal.SIGCONT)
        raise unittest.SkipTest("it is always too late")

    def test_the_process_that_makes_the_snapshot(self):
        master = self.master(random_pairs("k", 1000, 4000), **{"snapshot.compression_level": 19})
        replica = self.replica(master.replication_addr)
        (pid,) = wait_until(lambda: running(master, "snapshot"), 20, "a snapshot process", 0.002)
        self.assertIn(pid, master.pids("snapshot"))
        os.kill(pid, signal.SIGKILL)
        replica.wait_answer("/ready", 60)
        self.assert_level(master, replica)
        self.assert_tidy(replica)
        # The replica follows while the file is made, and may have all of it before it has its name.
        wait_until(lambda: len(archives(master)) == 1, what="the snapshot")
        left = glob.glob(os.path.join(master.data_dir, "snapshots", "*.tmp"))
        self.assertEqual(left, [])


if __name__ == "__main__":
    unittest.main()
