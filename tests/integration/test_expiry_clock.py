# build: release
# timeout: 240
"""The wall clock is set, forwards and back, on one node or all, at run time, over restarts, crashes and promotions:
keys expire when they were promised to."""
import email.utils
import os
import struct
import time
import unittest

import wal_files
from nexus_test import NexusTestCase

DAY = 86400
SETTINGS = {"replication.heartbeat_ms": 200, "http.workers": 1}


class WallClock:
    """The wall clock of some nodes."""

    def __init__(self, case, *nodes):
        self.path = os.path.join(nodes[0].directory, "wall-clock")
        self.set(0)
        for node in nodes:
            node.preload.append("libwallclock.so")
            node.env["NX_WALL_CLOCK"] = self.path
        case.clocks = getattr(case, "clocks", []) + [self]

    def set(self, seconds):
        """Ahead of the machine's, by so many seconds."""
        flags = os.O_WRONLY | os.O_CREAT
        fd = os.open(self.path, flags, 0o600)
        os.write(fd, struct.pack("=q", seconds))
        os.close(fd)


class ClockCase(NexusTestCase):
    def alone(self):
        node = self.node("standalone", start=False, settings=SETTINGS)
        clock = WallClock(self, node)
        node.start()
        return node, clock

    def two(self):
        cluster = self.cluster(1, start=False, settings=SETTINGS)
        clocks = [WallClock(self, node) for node in cluster.nodes]
        return cluster, clocks

    def wait_gone(self, node, key):
        node.wait_until(lambda: node.get(key) is None, what=f"the end of {key}")

    def assert_there(self, node, key, expires_at=None):
        status, headers, _ = node.request("GET", f"/kv/{key}")
        self.assertEqual(status, 200, key)
        if expires_at is not None:
            self.assertEqual(headers["nexus-expires-at"], expires_at)

    def assert_wall(self, node, ahead):
        """The node sees its clock as it was set."""
        date = node.request("GET", "/health")[1]["date"]
        seen = email.utils.parsedate_to_datetime(date).timestamp() - time.time()
        self.assertLess(abs(seen - ahead), 3600)

    def expires_at(self, node, key):
        return node.request("GET", f"/kv/{key}")[1]["nexus-expires-at"]


class OneNode(ClockCase):
    def test_01_a_step_at_run_time_changes_nothing(self):
        node, clock = self.alone()
        node.put("long", "v", ttl=DAY // 2)
        moment = self.expires_at(node, "long")
        clock.set(2 * DAY)
        self.assert_there(node, "long", moment)
        self.assert_wall(node, 2 * DAY)
        node.put("short", "v", ttl=1)
        clock.set(-2 * DAY)
        self.wait_gone(node, "short")
        self.assert_there(node, "long", moment)

    def test_02_nor_does_one_with_a_restart(self):
        node, clock = self.alone()
        node.put("long", "v", ttl=DAY // 2)
        moment = self.expires_at(node, "long")
        for step in (2 * DAY, -2 * DAY):
            node.put("short", "v", ttl=2)
            node.stop()
            clock.set(step)
            node.start()
            self.assert_there(node, "long", moment)
            self.wait_gone(node, "short")

    def test_03_nor_with_a_crash(self):
        node, clock = self.alone()
        node.put("long", "v", ttl=DAY // 2)
        moment = self.expires_at(node, "long")
        clock.set(2 * DAY)
        node.wait_replaced("walwriter", node.kill_child("walwriter"))
        node.wait_answer("/ready")
        self.assert_there(node, "long", moment)
        clock.set(-2 * DAY)
        node.kill_all()
        node.start()
        self.assert_there(node, "long", moment)
        node.put("short", "v", ttl=1)
        self.wait_gone(node, "short")

    def test_04_stamps_never_go_back(self):
        node, clock = self.alone()
        for step in (0, 2 * DAY, -2 * DAY, 0):
            clock.set(step)
            node.put("k", "v")
            node.stop()
            node.start()
            node.put("k", "v")
        node.stop()
        stamps = [frame.entry().timestamp for frame in wal_files.read_log(node.wal_dir)]
        self.assertEqual(stamps, sorted(stamps))
        self.assertEqual(len(stamps), 8)
        self.assertLess(stamps[-1] - stamps[0], 3600 * 1000000)


class Replicas(ClockCase):
    def test_01_a_replica_goes_by_its_masters_clock(self):
        for step in (2 * DAY, -2 * DAY):
            with self.subTest(step=step):
                cluster, clocks = self.two()
                clocks[1].set(step)
                cluster.start()
                self.assert_wall(cluster.replica, step)
                cluster.master.put("long", "v", ttl=DAY)
                moment = self.expires_at(cluster.master, "long")
                cluster.wait_level()
                cluster.replica.wait_until(lambda: cluster.replica.get("long") is not None,
                                           what="the master's clock")
                self.assert_there(cluster.replica, "long", moment)
                cluster.master.put("short", "v", ttl=1)
                self.wait_gone(cluster.replica, "short")
                self.assert_there(cluster.replica, "long", moment)

    def test_02_a_promotion_moves_no_expiry(self):
        for step in (2 * DAY, -2 * DAY):
            with self.subTest(step=step):
                cluster, clocks = self.two()
                cluster.start()
                cluster.master.put("long", "v", ttl=DAY)
                cluster.master.put("short", "v", ttl=4)
                moment = self.expires_at(cluster.master, "long")
                cluster.wait_level()
                clocks[1].set(step)
                cluster.master.kill_all()
                replica = cluster.replica
                replica.json("POST", "/replication/promote")
                self.assert_there(replica, "long", moment)
                replica.put("new", "v", ttl=DAY)
                apart = int(self.expires_at(replica, "new")) - int(moment)
                self.assertLess(abs(apart), 3600 * 1000)
                self.wait_gone(replica, "short")
                replica.stop()
                replica.start()  # as the master that it is
                self.assert_there(replica, "long", moment)


if __name__ == "__main__":
    unittest.main()
