# timeout: 400
"""Failover between three nodes: the guide's procedure step by step, a promotion that loses what another replica
has, and a former master that comes back, from behind a cut network or from the dead."""

import os
import signal
import threading
import time
import unittest

import load
from failover import (
    DIVERGED,
    MASTER_ADDR,
    MODES,
    QUICK,
    ROLE,
    Cut,
    FailoverCase,
    leads,
    most_advanced,
    numbers,
)
from full_sync import versions
from guide import GuideCase, commands, example
from nexus_test import wait_until
from proxy import Proxy

STEPS = "Recommended Failover Procedure"


class Procedure(GuideCase, FailoverCase):
    """The guide's "Recommended Failover Procedure": the nodes are configured by its variables."""

    def three(self, mode):
        """-> (master, [replica, replica]), configured by the environment alone but for their ports"""
        common = {**QUICK, **MODES[mode], "replication.role": None}
        master = self.node("master", settings=common, env={ROLE: "master"})
        env = {ROLE: "replica", MASTER_ADDR: master.replication_addr}
        replicas = [
            self.node("replica", name=f"replica{number}", settings=common, env=env, wait="/ready")
            for number in (1, 2)
        ]
        self.wait_write(master, "first")
        return master, replicas

    def restart_as_replica_of(self, node, master):
        """Steps 3 and 4: another configuration, and a restart."""
        node.stop()
        node.env[ROLE] = "replica"
        node.env[MASTER_ADDR] = master.replication_addr
        node.role = "replica"
        node.start()

    def rejoin(self, node, master, how):
        if how == "restart":
            self.restart_as_replica_of(node, master)
        else:
            if not node.is_running():
                node.start()
            if node.status()["role"] == "master":
                self.wait_fenced(node, by=master)
            self.follow(node, master)
        self.wait_follows(node, master)

    def procedure(self, mode, end, how):
        master, replicas = self.three(mode)
        self.write_many(master, "before")
        acked = self.end_of_the_master(master, replicas, mode, end)
        self.wait_promotable(*replicas)
        new = most_advanced(replicas)
        (other,) = [replica for replica in replicas if replica is not new]
        (command,) = commands(STEPS)
        text = self.shell(command, new)
        self.assertIn(example("Promote Replica to Master")["message"], text)
        self.assertTrue(leads(new))
        self.rejoin(other, new, how)
        self.wait_write(new, "after", b"new")
        found = versions(new)
        self.assertEqual({key: found.get(key, (0,))[0] for key in acked}, acked)
        self.assert_same(new, other)
        # The old master, whose tail may be its own.
        self.rejoin(master, new, how)
        self.wait_write(new, "later", b"newer")
        self.assert_same(new, other)
        self.assert_same(new, master, whole=end == "stop")
        if end == "stop":
            self.assertEqual(master.json("GET", DIVERGED), {"entries": [], "files": []})
        self.assert_stays(new, [other, master])

    def end_of_the_master(self, master, replicas, mode, end):
        """Ends it, in mid-flow where nothing may be lost by it; -> key: offset of what was answered 200."""
        writers = load.AckedPuts(master.http_port, clients=3).start()
        wait_until(lambda: writers.count() > 200, 60, "writes")
        if mode == "async" and end == "kill9":
            writers.stop()
            for replica in replicas:
                replica.wait_offset(master.status()["wal_offset"])
        getattr(master, end)()
        if not writers.stopping.is_set():
            writers.stop()
        self.assertGreater(len(writers.acked), 200)
        return writers.acked

    def assert_stays(self, new, others):
        """Over a restart of everybody."""
        for node in (*others, new):
            node.stop()
        for node in (new, *others):
            node.start()
        for node in others:
            self.wait_follows(node, new)
        self.wait_write(new, "last", b"newest")
        for node in others:
            self.wait_reads(node, new.status()["wal_offset"])
            self.assertEqual(node.get("last"), b"newest")

    def test_01_async_a_clean_stop_and_restarts(self):
        self.procedure("async", "stop", "restart")

    def test_02_async_killed_and_follow(self):
        self.procedure("async", "kill9", "follow")

    def test_03_sync_a_clean_stop_and_follow(self):
        self.procedure("sync", "stop", "follow")

    def test_04_sync_killed_and_restarts(self):
        self.procedure("sync", "kill9", "restart")


class Behind(FailoverCase):
    """The replica that is to be promoted was cut off before the last writes, which the other one has."""

    def behind(self, mode):
        """-> (master, dead; the one behind; the one ahead; its position; what only the other has; last offset)"""
        cluster = self.cluster(2, start=False, settings={**QUICK, **MODES[mode]})
        self.introduce(cluster.nodes)
        first, second = cluster.replicas
        proxy = Proxy(cluster.master.replication_port)
        self.addCleanup(proxy.close)
        first.settings["replication.master_addr"] = proxy.addr
        self.start_level(cluster)
        fork = cluster.wait_level()
        proxy.pause()
        written = self.write_many(cluster.master, "only")
        last = cluster.wait_level(replicas=[second])
        cluster.master.kill9()
        self.wait_promotable(first, second)
        self.assertEqual(first.status()["wal_offset"], fork)
        return cluster.master, first, second, fork, written, last

    def promote_what_is_behind(self, mode):
        master, first, second, fork, written, last = self.behind(mode)
        for query in ("", "?dry_run=1"):
            problem = self.not_promoted(first, "not_most_advanced", query)
            found = numbers(problem["message"].replace(second.addr, ""))
            self.assertIn(fork, found)
            self.assertIn(last, found)
            self.assertIn(second.status()["node_id"], problem["message"])
            self.assertIn(second.addr, problem["message"])
        answer = self.promote(first, "?force=1")
        self.assertEqual(answer["missing_entries"], last - fork)
        self.assertEqual(answer["offset"], fork + 1)
        self.assertEqual(answer["unreached_peers"], [master.addr])
        self.assertIs(answer["sync_loss_possible"], mode == "sync")
        self.assertTrue(answer["warnings"])
        self.follow(second, first)
        self.wait_follows(second, first)
        self.wait_write(first, "after")
        self.assert_lacks(first, written)
        self.assert_same(first, second, whole=False)
        path = self.assert_diverged(second, fork + 1, last, written)
        # The former master has the same, and gives up the same.
        master.start()
        self.wait_fenced(master, by=first)
        self.follow(master, first)
        self.wait_follows(master, first)
        again = self.assert_diverged(master, fork + 1, last, written)
        with open(path, "rb") as one, open(again, "rb") as other:
            self.assertEqual(one.read(), other.read())
        done = self.import_file(first, path)
        self.assertEqual(done["imported"], last - fork + 2)  # three of them are one batch
        for node in (second, master):
            self.wait_reads(node, first.status()["wal_offset"])
        for node in (first, second, master):
            self.assert_has(node, written)
        self.assert_same(first, second, master, whole=False)

    def test_01_async(self):
        self.promote_what_is_behind("async")

    def test_02_sync(self):
        self.promote_what_is_behind("sync")

    def test_03_the_one_ahead_loses_nothing(self):
        _, first, second, _, written, last = self.behind("sync")
        self.not_promoted(first, "not_most_advanced")
        answer = self.promote(second)
        self.assertEqual((answer["missing_entries"], answer["offset"]), (0, last + 1))
        self.assertIs(answer["sync_loss_possible"], False)
        self.follow(first, second)
        self.wait_follows(first, second)
        self.wait_write(second, "after")
        self.assert_has(second, written)
        self.assert_same(second, first)


class Partition(Cut):
    """The old master goes on behind a cut network while another one is promoted."""

    def fenced_by_the_heal(self, peers):
        """-> (old, new, other, what only the old one has, its first and last offset), healed and fenced"""
        cluster = self.cut_cluster(peers=peers)
        old, (new, other) = cluster.master, cluster.replicas
        fork = old.status()["wal_offset"]
        self.cut()
        self.wait_promotable(new, other)
        answer = self.promote(new)
        self.assertIs(answer["master_answers"], False)
        written = self.write_many(old, "lost")
        last = old.status()["wal_offset"]
        self.assertTrue(leads(old))
        self.follow(other, new)
        self.wait_follows(other, new)
        self.write_many(new, "kept")
        self.assert_same(new, other)
        self.assert_has(old, written)
        self.heal()
        begin = time.monotonic()
        old.wait_status(state="fenced")
        self.assertLess(time.monotonic() - begin, 5)  # a call that was held, and a busy machine
        return old, new, other, written, fork + 1, last

    def gives_up_its_tail(self, old, new, other, written, first, last):
        self.follow(old, new)
        self.wait_follows(old, new)
        self.assert_lacks(old, written)
        self.assert_diverged(old, first, last, written)
        self.wait_write(new, "after")
        self.assert_same(new, other)
        self.assert_same(new, old, whole=False)
        for node in (new, other):
            self.assertEqual(node.json("GET", DIVERGED), {"entries": [], "files": []})

    def assert_fenced(self, old, new, written):
        """Its clients are sent to the new master, and read what it has."""
        problem = self.fenced_problem(old)
        self.assertEqual(problem["master"], f"http://{new.seen_addr}")
        self.assertIn(new.status()["node_id"], problem["message"])
        self.assert_has(old, written)
        self.assertIsNone(old.get("kept1"))
        self.assertIn(b'"lost1"', old.export())

    def test_01_fenced_by_the_heal(self):
        old, new, other, written, first, last = self.fenced_by_the_heal(peers=True)
        self.assert_fenced(old, new, written)
        self.gives_up_its_tail(old, new, other, written, first, last)

    def test_02_without_peers(self):
        old, new, other, written, first, last = self.fenced_by_the_heal(peers=False)
        self.assert_fenced(old, new, written)
        self.gives_up_its_tail(old, new, other, written, first, last)

    def test_03_it_stays_fenced_over_restarts(self):
        old, new, other, written, first, last = self.fenced_by_the_heal(peers=True)
        # Nobody tells it again.
        self.cut()
        for end in (old.stop, old.kill9, old.kill_all):
            end()
            old.start()
            self.assertEqual(old.status()["state"], "fenced")
            self.assert_fenced(old, new, written)
        self.heal()
        self.gives_up_its_tail(old, new, other, written, first, last)

    def test_04_sync_it_confirms_nothing_meanwhile(self):
        cluster = self.cut_cluster(mode="sync")
        old, (new, other) = cluster.master, cluster.replicas
        self.cut()
        # One may be logged and unconfirmed; nothing is answered 200.
        answers = [old.request("PUT", f"/kv/lost{n}", b"v", timeout=60)[0] for n in range(2)]
        self.assertLessEqual(set(answers), {503, 504})
        self.wait_promotable(new, other)
        self.assertIs(self.promote(new)["sync_loss_possible"], False)
        self.follow(other, new)
        self.wait_follows(other, new)
        self.wait_write(new, "after")
        status, _, _ = old.request("PUT", "/kv/lost", b"v", timeout=60)
        self.assertEqual(status, 503)
        self.heal()
        self.wait_fenced(old)
        self.assertEqual(self.fenced_problem(old)["master"], f"http://{new.seen_addr}")
        self.follow(old, new)
        self.wait_follows(old, new)
        self.assert_same(new, other)
        self.assert_same(new, old, whole=False)


class Returns(FailoverCase):
    """The old master was down while another node was promoted, and nobody tells it: it asks."""

    def comes_back(self, peers):
        cluster = self.failover_cluster(peers=peers)
        old, (new, other) = cluster.master, cluster.replicas
        old.kill9()
        self.wait_promotable(new, other)
        self.promote(new)
        self.follow(other, new)
        self.wait_follows(other, new)
        self.silence(new)
        begin = old.log_mark()
        statuses = self.write_from_the_start(old)
        self.assertLessEqual(statuses, {409, 503})
        self.assertRegex(old.log()[begin:], "another node leads")
        self.assertEqual(old.status()["wal_offset"], new.status()["wal_offset"] - 1)
        return old, new, other

    def silence(self, new):
        """It calls nobody any more."""
        new.wait_until(lambda: new.pids("peers"), what="its calls")
        pid = new.kill_child("peers", signal.SIGSTOP)
        self.addCleanup(self.resume, pid)

    @staticmethod
    def resume(pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def write_from_the_start(self, node):
        """Starts it under writes that don't stop; -> the statuses of their answers, up to the first 409."""
        statuses = set()
        done = threading.Event()

        def write():
            client = node.client()
            while not done.is_set():
                try:
                    status = client.request("PUT", "/kv/early", b"v")[0]
                except OSError:
                    continue
                statuses.add(status)
                if status == 409:
                    done.set()

        threads = [threading.Thread(target=write) for _ in range(3)]
        node.launch()
        for thread in threads:
            thread.start()
        try:
            node.wait_until(done.is_set, what="409 for a write")
        finally:
            done.set()
            for thread in threads:
                thread.join()
        return statuses

    def test_01_its_peers_say_so(self):
        old, new, other = self.comes_back(peers=True)
        self.assertEqual(self.fenced_problem(old)["master"], f"http://{new.addr}")
        self.follow(old, new)
        self.wait_follows(old, new)
        self.wait_write(new, "after")
        self.assert_same(new, other, old)

    def test_02_the_replicas_that_it_has_had_say_so(self):
        old, new, _ = self.comes_back(peers=False)
        self.assertEqual(self.fenced_problem(old)["master"], f"http://{new.addr}")

    def test_03_a_replica_of_the_new_master_alone_says_so(self):
        """It has had the epoch, not its place: nobody's name is known, and nothing is written."""
        cluster = self.failover_cluster(peers=False)
        old, (new, other) = cluster.master, cluster.replicas
        old.kill9()
        self.wait_promotable(new, other)
        self.promote(new)
        self.follow(other, new)
        self.wait_follows(other, new)
        new.stop()
        self.assertLessEqual(self.write_from_the_start(old), {409, 503})
        self.assertNotIn("master", self.fenced_problem(old))
        new.start()
        self.wait_fenced(old, by=new)


if __name__ == "__main__":
    unittest.main()
