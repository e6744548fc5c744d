# timeout: 300
"""Promotions that die or meet something at a chosen step (src/common/failpoint.h): afterwards the node is wholly a
replica or wholly the master of the new epoch, no epoch is used twice, and asking again does no harm."""

import http.client
import threading
import unittest

from failover import QUICK, SYNC, FailoverCase, answer_of, frames, PROMOTE
from failpoints import Failpoint
from full_sync import SMALL, FullSyncCase, put_many, random_pairs
from nexus_test import HttpError, is_alive

# In the postmaster, and so the end of the node, or in the walwriter, whose death begins recovery.
STEPS = ("promotion_asked", "promotion_noted", "epoch_appended", "epoch_synced", "promotion_finished")


class Steps(FailoverCase):
    def armed_cluster(self, name, action):
        cluster = self.cluster(2, start=False, crashable=True, settings={**QUICK, **SYNC})
        self.introduce(cluster.nodes)
        point = Failpoint(cluster.replicas[0], name, action)
        self.start_level(cluster)
        return cluster, point

    def settle(self, node, point, pid):
        """Until what died is back, and the node's role is one again; -> its status"""
        node.wait_until(lambda: not is_alive(pid), what=f"the end of {pid}")
        if pid == node.pid:
            node.wait_exit()
            point.disarm()
            node.start()
        # Until the postmaster has seen the death, what lives of the node may still show the old role with the new epoch.
        node.wait_until(lambda: self.is_whole(node), 60, "one role")
        return node.status()

    def is_whole(self, node):
        """Wholly a replica of epoch 1, or wholly master of a later one."""
        try:
            status = node.status()
        except (OSError, http.client.HTTPException, HttpError):
            return False
        return (status["role"], status["epoch"] > 1) in (("replica", False), ("master", True))

    def lead(self, node):
        """Asks until the node is master."""

        def leads():
            try:
                status, answer = answer_of(node, "POST", PROMOTE)
            except (OSError, http.client.HTTPException):
                return False
            return status == 200 or (status == 409 and "is the master already" in answer["message"])

        node.wait_until(leads, 60, "a promotion, or a master")

    def die_at(self, name):
        cluster, point = self.armed_cluster(name, "kill")
        master, (first, second) = cluster.master, cluster.replicas
        written = self.write_many(master, "k")
        cluster.wait_level()
        master.kill9()
        self.wait_promotable(first, second)
        asking = threading.Thread(target=self.ask, args=(first,))
        asking.start()
        pid = point.wait_hit()
        status = self.settle(first, point, pid)
        asking.join()
        self.assertEqual(status["role"] == "master", status["epoch"] > 1, status)
        self.lead(first)
        self.follow(second, first)
        self.wait_follows(second, first)
        written.update(self.write_many(first, "after"))
        self.assert_has(first, written)
        self.assert_same(first, second)
        self.assert_epochs_once(first)

    def assert_epochs_once(self, node):
        """The epochs of a log only grow."""
        log = frames(node)
        self.assertEqual(list(log), list(range(1, len(log) + 1)))
        epochs = node.status()["epoch"]
        self.assertGreaterEqual(epochs, 2)

    def test_01_each_step(self):
        for name in STEPS:
            with self.subTest(name):
                self.die_at(name)

    def test_03_a_crash_behind_the_epoch_of_one_that_had_stopped_replicating(self):
        """It leads all the same, tells the others so, and takes no promise back."""
        cluster, point = self.armed_cluster("epoch_synced", "kill")
        old, (first, second) = cluster.master, cluster.replicas
        self.assertEqual(first.request("POST", "/replication/stop", "")[0], 200)
        asking = threading.Thread(target=self.ask, args=(first,))
        asking.start()
        pid = point.wait_hit()
        self.settle(first, point, pid)
        asking.join()
        first.wait_status(role="master", running=True)
        old.wait_status(state="fenced")
        self.follow(second, first)
        self.wait_follows(second, first)

    def test_02_a_note_that_cannot_be_stored(self):
        """The promotion is refused with the reason, nothing has changed, and the next one succeeds."""
        cluster, point = self.armed_cluster("promotion_asked", "errno(ENOSPC)")
        first, second = cluster.replicas
        cluster.master.kill9()
        self.wait_promotable(first, second)
        status, answer = answer_of(first, "POST", PROMOTE)
        self.assertNotEqual(status, 200)
        self.assertIn("The disk is full", answer["message"])
        self.assertEqual(first.status()["role"], "replica")
        self.assertIsNotNone(point.hit())
        self.lead(first)
        self.follow(second, first)
        self.wait_follows(second, first)


class Meanwhile(FullSyncCase, FailoverCase):
    """Promotion while a process of the replica stands at a step of its own."""

    def replica_at(self, name):
        master = self.node("master", settings={**SMALL, "replication.heartbeat_ms": 200})
        put_many(master, random_pairs("k", 50, 2000))
        master.export()
        replica = self.replica(
            master.replication_addr,
            launch=False,
            **{"replication.max_log_size": 50, "replication.heartbeat_ms": 200},
        )
        point = Failpoint(replica, name, "pause")
        replica.launch()
        return master, replica, point

    def promoted(self, replica, point):
        answers = []
        asking = threading.Thread(target=lambda: answers.append(answer_of(replica, "POST", PROMOTE)))
        asking.start()
        try:
            replica.wait_until(lambda: answers or "promotion" in replica.log(), what="a promotion that began")
        finally:
            point.go()
            asking.join()
        return answers[0]

    def test_01_a_merge_and_the_removal_of_segments(self):
        for name in ("merge_uncommitted", "segment_removal"):
            with self.subTest(name):
                master, replica, point = self.replica_at(name)
                replica.wait_answer("/ready")
                put_many(master, random_pairs("l", 200, 2000))
                point.wait_hit()
                before = master.export()
                replica.wait_offset(master.status()["wal_offset"])
                master.kill9()
                self.assertEqual(self.promoted(replica, point)[0], 200)
                self.assertEqual(replica.export(), before)
                replica.put("after", b"v")
                replica.kill_all()
                replica.start()
                self.assertEqual(replica.get("after"), b"v")

    def test_02_a_snapshot_being_received(self):
        """It has no data yet: refused with the reason, and the full sync goes on."""
        master, replica, point = self.replica_at("chunk_received")
        point.wait_hit()
        try:
            status, answer = answer_of(replica, "POST", PROMOTE)
        finally:
            point.go()
        self.assertEqual((status, answer["code"]), (409, "wrong_role"), answer)
        self.assert_level(master, replica)


if __name__ == "__main__":
    unittest.main()
