# timeout: 300
# serial: yes
"""Sync mode under load while replicas, and the master, are stopped, killed and started at random: what each
write was answered is held against the WAL files of all nodes.

NEXUS_SEED repeats the writes and the order of the faults; a failure prints it. NEXUS_WRITES changes how many
are written."""

import os
import random
import signal
import unittest

from nexus_test import NexusTestCase, wait_until
from sync_load import DONE, REFUSED, UNKNOWN, Load, Log, faults_of_done, faults_of_others

CLIENTS = 16
WRITES = int(os.environ.get("NEXUS_WRITES", "10000"))
TIMEOUT_MS = 250  # sync_timeout_ms: short, so that 503 and 504 really come
SETTINGS = {
    "replication.heartbeat_ms": 200,
    "replication.sync_timeout_ms": TIMEOUT_MS,
    "http.workers": 2,
}
SHOWN = 5  # faults in a message


class Faults:
    """What is done to the replicas, one thing after the other, each until enough writes have felt it."""

    def __init__(self, test, cluster, load, quorum, rng):
        self.test = test
        self.cluster = cluster
        self.load = load
        self.quorum = quorum
        self.rng = rng
        # All three come to pass, and the first two with a quorum that is lost: 504 and 503.
        self.plan = [("pause", True), ("kill", True), ("stop", True)]
        rng.shuffle(self.plan)

    def wait_answers(self, *names, count=1):
        """Until so many more writes were answered like this, or no writer is left."""
        account = self.load.account
        wanted = account.count(*names) + count
        wait_until(
            lambda: account.count(*names) >= wanted or account.faults or not self.load.is_running(),
            30,
            lambda: self.cluster.master.describe(f"{count} more answers {names}: {account.counts}"),
        )

    def next(self):
        if self.plan:
            return self.plan.pop()
        return self.rng.choice(["pause", "kill", "stop"]), self.rng.random() < 0.5

    def run(self):
        account = self.load.account
        while self.load.is_running() and not account.faults:
            what, lose = self.next()
            spare = len(self.cluster.replicas) - self.quorum
            down = spare + 1 if lose or spare == 0 else spare
            victims = self.rng.sample(self.cluster.replicas, down)
            getattr(self, what)(victims, down > spare)
            self.wait_answers(DONE, count=self.rng.randrange(50, 400))

    def feel(self, lost, *names):
        if lost:
            self.wait_answers(*names, count=self.rng.randrange(1, 2 * CLIENTS))
        else:
            self.wait_answers(DONE, count=self.rng.randrange(1, 300))

    def pause(self, victims, lost):
        """It counts as healthy, as its walreceiver answers, but stores nothing."""
        pids = [node.pids("walwriter")[0] for node in victims]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            self.feel(lost, UNKNOWN)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def kill(self, victims, lost):
        for node in victims:
            node.kill_all()
        self.feel(lost, REFUSED)
        for node in victims:
            node.start()

    def stop(self, victims, lost):
        for node in victims:
            node.stop()
        self.feel(lost, REFUSED)
        for node in victims:
            node.start()


class SyncLoad(NexusTestCase):
    def setUp(self):
        self.seed = os.environ.get("NEXUS_SEED") or str(random.randrange(1 << 32))
        self.rng = random.Random(self.seed)

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        result = super().run(result)
        if result and len(result.failures) + len(result.errors) > before:
            print(f"{self.id()} failed with NEXUS_SEED={self.seed}", flush=True)
        return result

    def begin(self, quorum, writes=WRITES):
        cluster = self.cluster(
            2,
            settings=SETTINGS,
            master_settings={"replication.mode": "sync", "replication.sync_quorum": quorum},
        )
        cluster.master.wait_written()
        load = Load(cluster.master.http_port, writes, CLIENTS, self.seed)
        load.start()
        self.addCleanup(load.abandon)
        return cluster, load

    def check(self, faults):
        self.assertFalse(faults, f"{len(faults)}, the first:\n" + "\n".join(faults[:SHOWN]))

    def check_now(self, cluster, load, quorum):
        """What was answered until now is on the disks now, while all goes on."""
        done = load.account.of(DONE)
        logs = [Log(node) for node in cluster.nodes]
        self.check(faults_of_done(done, logs[0], logs[1:], quorum))

    def check_answers(self, cluster, load, quorum):
        """All of it against the logs as they are; returns them."""
        account = load.account
        self.check(account.faults)
        logs = [Log(node) for node in cluster.nodes]
        for log in logs:
            self.assertEqual(log.first, 1)  # nothing of it lies in a snapshot
        self.check(faults_of_done(account.of(DONE), logs[0], logs[1:], quorum))
        self.check(faults_of_others(account, logs))
        return logs

    def check_at_rest(self, cluster, load):
        """All nodes are there: what was unknown has ended, the same way everywhere."""
        master = cluster.master
        master.wait_written()
        last = cluster.wait_level()
        for write in load.account.of(UNKNOWN):
            if write.check:
                self.assertEqual(master.json("GET", write.check)["state"], "quorum", write)
        for replica in cluster.replicas:
            replica.wait_status(quorum_offset=last)
        exports = {node.name: node.export() for node in cluster.nodes}
        self.assertEqual(len(set(exports.values())), 1, {k: len(v) for k, v in exports.items()})
        refused = {mark for write in load.account.of(REFUSED) for mark in write.marks}
        self.assertFalse(refused & load.reader.values)
        self.assertGreater(load.reader.reads, 100)

    def check_all_came(self, load):
        account = load.account
        self.assertEqual(account.total(), WRITES)
        for name in (DONE, "quorum_unavailable", "quorum_timeout"):
            self.assertGreater(account.count(name), 0, f"{name} in {account.counts}")
        self.assertGreater(account.count(DONE), WRITES // 2, account.counts)

    def check_dead_and_risen(self, cluster, load, quorum):
        """Power off for all at once, and on again."""
        for node in cluster.nodes:
            node.kill_all()
        before = self.check_answers(cluster, load, quorum)
        for node in cluster.nodes:
            node.launch()
        for node in cluster.nodes:
            node.wait_answer("/health")
        self.check_at_rest(cluster, load)
        after = self.check_answers(cluster, load, quorum)
        for offset, entry in before[0].entries.items():
            self.assertEqual({log.entries[offset] for log in after}, {entry})

    def replicas_come_and_go(self, quorum):
        cluster, load = self.begin(quorum)
        faults = Faults(self, cluster, load, quorum, self.rng)
        faults.run()
        load.join()
        self.check(load.account.faults)
        self.check_all_came(load)
        self.check_now(cluster, load, quorum)
        self.check_dead_and_risen(cluster, load, quorum)

    def test_replicas_come_and_go_quorum_1(self):
        self.replicas_come_and_go(1)

    def test_replicas_come_and_go_quorum_2(self):
        self.replicas_come_and_go(2)

    def test_power_off_for_all_in_the_middle(self):
        """Each time all nodes die at one moment, under load."""
        cluster, load = self.begin(2)
        for _ in range(3):
            Faults(self, cluster, load, 2, self.rng).wait_answers(DONE, count=self.rng.randrange(200, 900))
            self.check_now(cluster, load, 2)
            for node in self.rng.sample(cluster.nodes, 3):
                node.kill_all()
            self.check_now(cluster, load, 2)
            for node in self.rng.sample(cluster.nodes, 3):
                node.start()
        load.join()
        self.check_answers(cluster, load, 2)
        self.check_at_rest(cluster, load)

    def master_dies(self, quorum):
        cluster, load = self.begin(quorum)
        master = cluster.master
        faults = Faults(self, cluster, load, quorum, self.rng)
        for kill in ("walwriter", "all", "walwriter"):
            faults.wait_answers(DONE, count=self.rng.randrange(100, 800))
            for replica in cluster.replicas:
                getattr(replica, self.rng.choice(["kill_all", "stop"]))()
            if kill == "all":
                master.kill_all()
                self.check_now(cluster, load, quorum)
                master.start()
            else:
                old = master.pids("walwriter")[0]
                master.kill_child("walwriter")
                master.wait_replaced("walwriter", old)  # before, an old worker may still answer
                master.wait_answer("/health")
            self.check_unconfirmed(master)
            for replica in cluster.replicas:
                replica.start()
        load.join()
        self.check_answers(cluster, load, quorum)
        self.check_at_rest(cluster, load)
        self.check_dead_and_risen(cluster, load, quorum)

    def check_unconfirmed(self, master):
        """A master whose log nobody has confirmed yet."""
        offset = master.wait_status(wal_offset=lambda value: value)["wal_offset"]
        for method, path in (("GET", "/kv/register-0"), ("GET", "/kv?limit=1"), ("PUT", "/kv/x")):
            body = b"x" if method == "PUT" else None
            self.assert_problem(master.request(method, path, body), 503, "quorum_unavailable")
        self.assertEqual(master.status()["wal_offset"], offset)

    def test_master_dies_quorum_1(self):
        self.master_dies(1)

    def test_master_dies_quorum_2(self):
        self.master_dies(2)


if __name__ == "__main__":
    unittest.main()
