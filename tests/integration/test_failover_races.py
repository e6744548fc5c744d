# timeout: 400
"""Failover at bad moments: two promotions at once, a promotion in the middle of a full sync, and too few nodes left
to know what was confirmed."""

import json
import os
import shutil
import signal
import threading
import unittest
import uuid

import identity_file
from failover import DIVERGED, PROMOTE, QUICK, SYNC, FailoverCase, answer_of, leads
from failpoints import Failpoint
from full_sync import FullSyncCase, leftovers, put_many, random_pairs, running
from nexus_test import wait_until
from proxy import Proxy


def promote_both(*nodes):
    """Asks both at the same time; -> [(status, answer)] in their order"""
    answers = [None] * len(nodes)
    gate = threading.Barrier(len(nodes))

    def ask(number):
        gate.wait()
        answers[number] = answer_of(nodes[number], "POST", PROMOTE)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(nodes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def by_rank(nodes):
    """Nodes by (epoch, node id): the last one leads in the end."""

    def rank(node):
        status = node.status()
        return status["epoch"], status["node_id"]

    return sorted(nodes, key=rank)


class Twins(FailoverCase):
    """Two replicas are promoted at the same time."""

    def orphans(self, mode="async", peers=True, **settings):
        """-> (cluster, whose master is dead; its replicas, which have found that out)"""
        cluster = self.failover_cluster(mode=mode, peers=peers, **settings)
        cluster.master.kill9()
        self.wait_promotable(*cluster.replicas)
        return cluster, cluster.replicas

    def assert_one_leads(self, lower, higher):
        self.wait_fenced(lower, by=higher)
        self.assertTrue(leads(higher))
        offset = self.wait_write(higher, "after")
        self.follow(lower, higher)
        self.wait_follows(lower, higher)
        lower.wait_offset(offset)
        self.assert_same(higher, lower, whole=False)

    def assert_twins_are_told(self, *nodes):
        for node in nodes:
            node.wait_log(r"ERROR .*two nodes were promoted to epoch 2: ")

    def know_each_other(self, *twins):
        for node in twins:
            others = [other.addr for other in twins if other is not node]
            self.configure(node, f"[replication]\npeers = {','.join(others)}\n")

    def old_master_returns(self, old, higher):
        old.start()
        self.wait_fenced(old, by=higher)
        self.assertEqual(self.fenced_problem(old)["master"], f"http://{higher.addr}")
        self.follow(old, higher)
        self.wait_follows(old, higher)
        self.assert_same(higher, old, whole=False)

    def test_01_without_peers_they_hear_of_each_other_later(self):
        """Nobody could be asked: both lead, until their configuration names the other."""
        cluster, twins = self.orphans(peers=False)
        self.promoted_twice(twins)
        lower, higher = by_rank(twins)
        written = {node: self.write_many(node, node.name) for node in twins}
        self.know_each_other(lower, higher)
        self.assert_twins_are_told(lower, higher)
        last = lower.status()["wal_offset"]
        self.assert_one_leads(lower, higher)
        self.assert_has(higher, written[higher])
        self.assert_lacks(lower, written[lower])
        # Its epoch began with an entry of its own, which is given up too.
        given_up = lower.json("GET", DIVERGED)["entries"]
        self.assertEqual([each["offset"] for each in given_up], list(range(2, last + 1)))
        self.assertEqual({each["epoch"] for each in given_up}, {2})
        self.old_master_returns(cluster.master, higher)
        self.assertTrue(leads(higher))

    def promoted_twice(self, twins):
        for status, answer in promote_both(*twins):
            self.assertEqual((status, answer["epoch"]), (200, 2), answer)
            self.assertIn("nobody could be asked", " ".join(answer["warnings"]))
        for node in twins:
            self.assertTrue(leads(node))

    def test_02_without_peers_the_old_master_tells_them_of_each_other(self):
        cluster, twins = self.orphans(peers=False)
        self.promoted_twice(twins)
        lower, higher = by_rank(twins)
        self.old_master_returns(cluster.master, higher)
        self.assert_twins_are_told(lower)
        self.assert_one_leads(lower, higher)

    def test_03_async_with_peers(self):
        cluster, twins = self.orphans()
        answers = promote_both(*twins)
        statuses = [status for status, _ in answers]
        self.assertIn(200, statuses)
        for status, answer in answers:
            # One that is asked a moment later finds that the other has gone ahead.
            refusal = (503, "role_change"), (409, "not_most_advanced")
            self.assertTrue(status == 200 or (status, answer["code"]) in refusal, answer)
        lower, higher = self.settled(twins)
        if statuses == [200, 200]:
            if lower.status()["epoch"] == higher.status()["epoch"]:
                self.assert_twins_are_told(lower, higher)
            self.assert_one_leads(lower, higher)
        else:
            self.follow(lower, higher)
            self.wait_follows(lower, higher)
        self.old_master_returns(cluster.master, higher)

    def settled(self, twins):
        """-> (the one that doesn't lead, the one that does), once there is exactly one"""
        wait_until(
            lambda: [leads(node) for node in twins].count(True) == 1
            and len({node.status()["state"] for node in twins}) == 2,
            what=lambda: "\n".join(node.describe("one leads") for node in twins),
        )
        return sorted(twins, key=leads)

    def test_04_sync_with_peers(self):
        for attempt in range(3):
            with self.subTest(attempt):
                self.sync_twins()

    def sync_twins(self):
        cluster, twins = self.orphans(mode="sync")
        answers = promote_both(*twins)
        promoted = [node for node, (status, _) in zip(twins, answers) if status == 200]
        self.assertLessEqual(len(promoted), 1, answers)
        for status, answer in answers:
            if status != 200:
                self.assertIn(
                    (status, answer["code"]),
                    ((409, "quorum_not_seen"), (409, "not_most_advanced"), (503, "role_change")),
                    answer,
                )
        if promoted:
            (new,) = promoted
        else:
            new = twins[0]
            self.wait_promoted(new)
        (other,) = [node for node in twins if node is not new]
        self.assertFalse(leads(other))
        self.assertEqual(other.status()["role"], "replica")
        self.follow(other, new)
        self.wait_follows(other, new)
        self.wait_write(new, "after")
        self.assert_same(new, other)
        self.old_master_returns(cluster.master, new)
        for node in cluster.nodes:
            node.stop()

    def wait_promoted(self, node):
        """Promises of the refused promotions are withdrawn soon."""

        def promoted():
            status, _, body = node.request("POST", PROMOTE, timeout=60)
            self.assertIn(status, (200, 409, 503), body)
            return status == 200

        node.wait_until(promoted, what="a promotion after the refused ones")


class FullSync(FullSyncCase, FailoverCase):
    """The node that is promoted is in the middle of a full sync. Each finds its master unreachable at that
    moment."""

    OLD, NEW = 100, 300  # entries: what the node has, and what its master has besides
    SIZE = 4000
    HELD = 20_000  # bytes a second: a transfer doesn't end meanwhile

    def setUp(self):
        self.the_master = self.master(**{"replication.max_log_size": 10, **QUICK})
        self.old = random_pairs("old", self.OLD, 100)
        self.new = random_pairs("new", self.NEW, self.SIZE)

    def behind(self):
        """A replica with older data that needs a full sync, stopped; its proxy."""
        proxy = self.proxy(self.the_master)
        replica = self.replica(proxy.addr, **QUICK).wait_answer("/ready")
        put_many(self.the_master, self.old)
        replica.wait_offset(self.OLD)
        replica.stop()
        put_many(self.the_master, self.new)
        self.the_master.export()  # merges
        return proxy, replica

    def promoted_with_its_old_data(self, proxy, replica):
        """Nothing of its master comes through any more: it is promoted where it is."""
        proxy.pause()
        self.assertEqual(replica.status()["state"], "snapshot")
        answer = self.promote(replica)
        self.assertEqual((answer["offset"], answer["missing_entries"]), (self.OLD + 1, self.NEW))
        self.assert_valid(replica, self.old, self.OLD + 1)

    def assert_valid(self, node, pairs, begin):
        """It leads with exactly these keys, also when it was killed; nothing is left of the transfer."""
        expected = {key: value for key, value in pairs}
        for end in (None, node.kill_all, node.stop):
            if end is not None:
                end()
                node.start("/primary")
                self.assert_tidy(node)
            offset = node.put("after", b"x")
            self.assertGreater(offset, begin)
            self.assertEqual(node.get("after"), b"x")
            self.assertEqual(node.status()["role"], "master")
            self.assertEqual(set(node.versions()), {*expected, "after"})
            for key in list(expected)[:: max(1, len(expected) // 20)]:
                self.assertEqual(node.get(key), expected[key], key)

    def test_01_a_node_that_was_never_synced(self):
        put_many(self.the_master, self.new)
        self.the_master.export()
        proxy = self.proxy(self.the_master, rate=self.HELD)
        replica = self.replica(proxy.addr, **QUICK)
        replica.wait_answer("/health")
        replica.wait_status(state="snapshot")
        for query in ("", "?force=1", "?dry_run=1"):
            self.not_promoted(replica, "wrong_role", query)
        pid = self.held_restore(proxy, replica)
        self.not_promoted(replica, "wrong_role")
        # Nothing was broken by that: it goes on, and is synced.
        os.kill(pid, signal.SIGCONT)
        replica.wait_answer("/ready", 60)
        self.assert_level(self.the_master, replica)
        self.assert_tidy(replica)

    def held_restore(self, proxy, replica):
        """All has come, and the process that restores it is stopped; -> its pid"""
        pid = replica.wait_until(lambda: running(replica, "restore"), what="a restore process")[0]
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(self.resume, pid)
        mark = replica.log_mark()
        proxy.rate = None
        replica.wait_log("has come", since=mark)
        return pid

    @staticmethod
    def resume(pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def test_02_as_the_master_makes_the_snapshot(self):
        proxy, replica = self.behind()
        self.the_master.kill_child("checkpointer", signal.SIGSTOP)  # it isn't begun before that has merged
        replica.start()
        replica.wait_status(state="snapshot")
        self.promoted_with_its_old_data(proxy, replica)

    def test_03_as_chunks_arrive(self):
        proxy, replica = self.behind()
        proxy.rate = self.HELD * 20
        replica.start()
        wait_until(lambda: proxy.down > self.NEW * self.SIZE * 0.4, 30, lambda: f"{proxy.down}")
        self.assertNotEqual(leftovers(replica), [])
        self.promoted_with_its_old_data(proxy, replica)
        self.assertEqual(leftovers(replica), [])

    def test_04_as_it_restores(self):
        proxy, replica = self.behind()
        proxy.rate = self.HELD * 20
        replica.start()
        self.held_restore(proxy, replica)
        self.assertNotEqual(leftovers(replica), [])
        self.promoted_with_its_old_data(proxy, replica)
        self.assertEqual(leftovers(replica), [])

    def test_05_just_before_the_switch(self):
        """The last of the restore and the promotion meet: it is before the switch, or after."""
        proxy, replica = self.behind()
        proxy.rate = self.HELD * 20
        replica.start()
        pid = self.held_restore(proxy, replica)
        proxy.pause()
        os.kill(pid, signal.SIGCONT)
        self.promoted_before_or_after(replica)

    def test_06_at_the_switch(self):
        """As the log says that all is restored."""
        proxy, replica = self.behind()
        proxy.rate = self.HELD * 20
        replica.start()
        mark = replica.log_mark()
        pid = self.held_restore(proxy, replica)
        proxy.pause()
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: "is restored" in replica.log()[mark:], 20, "the restore", 0.001)
        self.promoted_before_or_after(replica)

    def promoted_before_or_after(self, replica):
        def promoted():
            try:
                status, _, body = replica.client(timeout=60).request("POST", PROMOTE)
            except OSError:
                return None  # the switch ends all processes
            self.assertIn(status, (200, 503), body)
            return json.loads(body) if status == 200 else None

        answer = replica.wait_until(promoted, what="a promotion")
        replica.drop_connections()
        switched = answer["offset"] == self.OLD + self.NEW + 1
        self.assertIn(answer["offset"], (self.OLD + 1, self.OLD + self.NEW + 1))
        self.assertEqual(answer["missing_entries"], 0 if switched else self.NEW)
        self.assert_valid(replica, self.old + self.new if switched else self.old, answer["offset"])


class Quorum(FailoverCase):
    """Of R replicas, of which Q confirm each write, R - Q + 1 positions show all that was confirmed."""

    def test_01_the_other_replica_is_dead_too(self):
        cluster = self.failover_cluster(mode="sync")
        master, (first, second) = cluster.master, cluster.replicas
        written = self.write_many(master, "k")
        cluster.wait_level()
        master.kill9()
        second.kill9()
        self.wait_promotable(first)
        for query in ("", "?dry_run=1"):
            problem = self.not_promoted(first, "quorum_not_seen", query)
            self.assertIn("2 positions of 2 replicas", problem["message"])
            self.assertIn("(sync_quorum 1), and only 1 is", problem["message"])
            for addr in (master.addr, second.addr):
                self.assertIn(addr, problem["message"])
            self.assertIn("force=1", problem["message"])
        answer = self.promote(first, "?force=1")
        self.assertIs(answer["sync_loss_possible"], True)
        self.assertEqual(sorted(answer["unreached_peers"]), sorted([master.addr, second.addr]))
        self.assertIn("By force", " ".join(answer["warnings"]))
        second.start()
        self.follow(second, first)
        self.wait_follows(second, first)
        self.wait_write(first, "after")
        self.assert_has(first, written)
        self.assert_same(first, second)

    def test_02_promises_of_a_refused_promotion_are_withdrawn(self):
        """Three replicas: two of three positions are too few, and the old master finds both again."""
        cluster = self.failover_cluster(3, mode="sync")
        master, (first, second, third) = cluster.master, cluster.replicas
        master.kill9()
        third.kill9()
        self.wait_promotable(first, second)
        problem = self.not_promoted(first, "quorum_not_seen")
        self.assertIn("3 positions of 3 replicas", problem["message"])
        self.assertIn("(sync_quorum 1), and only 2 are", problem["message"])
        second.wait_log(r"the promise of epoch 2 to node .* is withdrawn")
        master.start()
        for replica in (first, second):
            self.wait_follows(replica, master)
        self.wait_write(master, "again")
        self.assert_same(master, first, second)
        third.start()
        self.wait_follows(third, master)

    def test_025_promises_are_withdrawn_whoever_dies_meanwhile(self):
        cluster = self.cluster(3, start=False, settings={**QUICK, **SYNC})
        self.introduce(cluster.nodes)
        first, second, third = cluster.replicas
        silent = Proxy(third.http_port)
        self.addCleanup(silent.close)
        first.settings["replication.peers"] = f"{cluster.master.addr},{second.addr},{silent.addr}"
        point = Failpoint(first, "withdrawal_untold", "kill")
        self.start_level(cluster)
        silent.pause()
        mark = second.log_mark()
        asking = threading.Thread(target=lambda: first.request("POST", PROMOTE, timeout=60))
        asking.start()
        try:
            second.wait_log("epoch 2 is promised", since=mark)
            asking.join()
            self.assertIn("the promotion is refused (quorum_not_seen)", first.log())
            point.wait_hit()
        finally:
            silent.resume()  # what was asked and taken back meanwhile comes too, in whichever order
            asking.join()
        second.wait_log("the promise of epoch 2 to node .* is withdrawn", since=mark)
        for replica in cluster.replicas:
            self.wait_follows(replica, cluster.master)
        self.wait_write(cluster.master, "again")
        self.assert_same(*cluster.nodes)

    def test_03_promises_of_a_promotion_that_is_behind_are_withdrawn(self):
        cluster = self.cluster(2, start=False, settings={**QUICK, **SYNC})
        self.introduce(cluster.nodes)
        first, second = cluster.replicas
        proxy = Proxy(cluster.master.replication_port)
        self.addCleanup(proxy.close)
        first.settings["replication.master_addr"] = proxy.addr
        self.start_level(cluster)
        proxy.pause()
        self.wait_write(cluster.master, "only")
        cluster.master.kill9()
        self.wait_promotable(first, second)
        self.not_promoted(first, "not_most_advanced")
        second.wait_log(r"the promise of epoch 2 to node .* is withdrawn")
        proxy.cut()
        proxy.resume()
        cluster.master.start()
        for replica in (first, second):
            self.wait_follows(replica, cluster.master)
        self.wait_write(cluster.master, "again")
        self.assert_same(cluster.master, first, second)

    def test_04_where_all_confirm_its_own_position_suffices(self):
        cluster = self.failover_cluster(mode="sync", **{"replication.sync_quorum": 2})
        master, (first, second) = cluster.master, cluster.replicas
        written = self.write_many(master, "k")
        master.kill9()
        second.kill9()
        answer = self.promote(first)
        self.assertIs(answer["sync_loss_possible"], False)
        self.assertEqual(sorted(answer["unreached_peers"]), sorted([master.addr, second.addr]))
        second.start()
        self.follow(second, first)
        self.wait_follows(second, first)
        master.start()
        self.wait_fenced(master, by=first)
        self.follow(master, first)
        self.wait_follows(master, first)
        self.wait_write(first, "after")
        self.assert_has(first, written)
        self.assert_same(first, second, master)

    def test_05_a_replica_s_reads_do_not_go_back(self):
        """Whoever leads next may, just begun anew, know of nothing confirmed."""
        cluster = self.failover_cluster(mode="sync", **{"replication.sync_quorum": 2})
        old, (new, replica) = cluster.master, cluster.replicas
        self.write_many(old, "first", 20)
        cluster.wait_level()
        for node in cluster.nodes:
            node.export()
        replica.kill_all()
        replica.start()
        written = self.write_many(old, "second", 20)
        cluster.wait_level()
        self.assert_has(replica, written)
        old.kill9()
        self.wait_promotable(new, replica)
        self.promote(new)
        new.kill_child("walwriter")
        new.wait_status(role="master", quorum_offset=0, epoch=2)
        self.follow(replica, new)
        self.wait_follows(replica, new)
        self.assert_has(replica, written)
        replica.stop()
        replica.start()
        self.assert_has(replica, written)

    def test_06_a_full_sync_from_a_master_that_has_nothing_confirmed(self):
        """Its only replica needs one: the quorum would never come else."""
        cluster = self.failover_cluster(1, mode="sync", peers=False)
        old, new = cluster.master, cluster.replica
        written = self.write_many(old, "k", 20)
        cluster.wait_level()
        new.kill_all()
        old.put("fork", b"v", headers={"Nexus-Durability": "local"})
        old.kill9()
        new.start()
        self.promote(new)
        new.kill_all()  # before it has merged anything
        new.start()
        old.start()
        self.wait_fenced(old, by=new)
        self.follow(old, new)
        self.wait_follows(old, new)
        self.wait_write(new, "after")
        self.assert_has(new, written)
        self.assert_same(new, old)

    def half_synced(self, peers):
        """-> (its master, which is dead, the replica, the offset that that one had, what was written): the replica has
        given up what it had for a snapshot of less."""
        cluster = self.failover_cluster(mode="sync", peers=peers)
        old, (new, replica) = cluster.nodes[0], cluster.replicas
        written = self.write_many(old, "k", 20)
        cluster.wait_level()
        had = old.status()["wal_offset"]
        new.kill_all()
        old.put("more", b"v")
        replica.wait_offset(had + 1)
        old.kill9()
        replica.stop()
        new.start()
        self.promote(new, "?force=1")
        new.kill_all()  # before it has merged anything
        new.start()
        point = Failpoint(replica, "switch_unrenamed", "pause")
        replica.start()
        self.follow(replica, new)
        point.wait_hit()
        mark = replica.log_mark()
        new.kill9()
        point.go()
        point.disarm()
        replica.wait_log("ready: role replica", since=mark)
        replica.drop_connections()
        return new, replica, had, written

    def assert_vouches(self, replica, had, epoch=1):
        """For what it had, and shows nothing meanwhile."""
        self.assert_problem(replica.request("GET", "/kv/k1"), 503, "not_synced")
        status = replica.wait_status(running=True)
        self.assertLess(status["wal_offset"], had)
        self.assertIs(status["promotable"], False)
        self.assertEqual(status["sync_goal"], {"epoch": epoch, "offset": had})

    def test_07_a_full_sync_that_its_master_does_not_live_to_complete(self):
        """What a replica had confirmed, and gave up for less, it neither shows as missing nor vouches for."""
        for peers in (False, True):
            with self.subTest(peers=peers):
                new, replica, had, written = self.half_synced(peers)
                replica.wait_status(master_alive=False)
                self.assert_vouches(replica, had)
                for query in ("", "?dry_run=1"):
                    problem = self.not_promoted(replica, "not_most_advanced", query)
                    self.assertIn(f"and had {had} of this history before", problem["message"])
                asked = json.dumps({"epoch": 9, "node_id": str(uuid.uuid4())})
                status, _, body = replica.request("POST", "/replication/promise", asked)
                self.assertEqual((status, json.loads(body)["offset"]), (200, had))
                replica.stop()
                replica.start()
                self.assert_vouches(replica, had)
                self.configure(new, "[replication]\nsync_quorum = 2\n")  # more than there are
                new.start()
                self.follow(replica, new)
                replica.wait_status(wal_offset=had + 1)  # and nothing of it is confirmed
                self.assertNotIn("sync_goal", replica.status())
                self.assert_problem(replica.request("GET", "/kv/k1"), 503, "not_synced")
                replica.wait_answer("/ready")  # it doesn't look at the quorum
                self.assertEqual(replica.get("k1", headers={"Nexus-Read": "local"}), b"k1")
                self.configure(new, "")
                self.wait_follows(replica, new)
                self.assert_has(replica, written)

    def test_075_a_forced_promotion_of_such_a_replica_that_dies_before_its_epoch(self):
        new, replica, had, written = self.half_synced(False)
        replica.stop()
        point = Failpoint(replica, "promotion_noted", "kill")
        replica.start()
        self.ask(replica, "?force=1")
        replica.wait_exit()
        point.disarm()
        replica.start()
        self.assert_vouches(replica, had)
        self.not_promoted(replica, "not_most_advanced")
        new.start()
        self.follow(replica, new)
        self.wait_follows(replica, new)
        self.assert_has(replica, written)

    def test_076_a_master_of_an_earlier_epoch_than_it_had(self):
        """Is followed by force alone; and a promotion by force begins a later one."""
        new, replica, had, written = self.half_synced(False)
        replica.stop()
        identity = identity_file.read(replica)
        self.assertIn(f"goal_offset = {had}\ngoal_epoch = 1\n", identity)
        identity_file.write(replica, identity.replace("goal_epoch = 1\n", "goal_epoch = 7\n"))
        replica.start()
        self.assertEqual(self.promote(replica, "?dry_run=1&force=1")["epoch"], 8)
        new.start()
        self.follow(replica, new)
        replica.wait_log(f"whose last full sync is not complete, had offset {had} of epoch 7")
        self.assert_vouches(replica, had, epoch=7)
        self.follow(replica, new, force=True)
        self.wait_follows(replica, new)
        self.assert_has(replica, written)
        self.assertNotIn("epoch = 7", identity_file.read(replica))

    def test_077_a_new_replica_whose_master_dies_before_it_has_all(self):
        """It shows nothing, over a restart too, and takes over by force alone."""
        cluster = self.failover_cluster(1, peers=False)
        master, replica = cluster.nodes
        replica.stop()
        shutil.rmtree(replica.data_dir)
        last = put_many(master, random_pairs("k", 40, 10_000))  # not merged yet: streamed from entry 1 on
        with Proxy(master.replication_port, rate=100_000) as proxy:
            replica.settings["replication.master_addr"] = proxy.addr
            replica.launch()
            replica.wait_log("connected to master")
            replica.wait_status(wal_offset=lambda value: value > 5)
            master.kill9()
            replica.wait_status(master_alive=False, running=True)
        self.assertNotIn("full sync", replica.log())
        for _ in range(2):
            status = replica.status()
            self.assertLess(status["wal_offset"], last)
            self.assertIs(status["promotable"], False)
            self.assertNotIn("sync_goal", status)  # it has acknowledged nothing of that
            self.assert_problem(replica.request("GET", "/kv/k00039"), 503, "not_synced")
            self.not_promoted(replica, "wrong_role")
            replica.kill_all()
            replica.start()
            replica.wait_status(master_alive=False, running=True)
        self.promote(replica, "?force=1")
        self.assertEqual(len(replica.get("k00001")), 10_000)

    def test_08_a_crash_of_its_own_makes_no_loss_possible(self):
        cluster = self.failover_cluster(mode="sync")
        old, (replica, _) = cluster.master, cluster.replicas
        self.write_many(old, "k", 20)
        cluster.wait_level()
        old.kill9()
        self.wait_promotable(replica)
        replica.kill_child("walwriter")
        replica.wait_answer("/health")
        replica.wait_status(master_alive=False, running=True)
        answer = self.promote(replica, "?dry_run=1")
        self.assertIs(answer["sync_loss_possible"], False)
        self.assertIsNotNone(answer["master_seconds_ago"])


if __name__ == "__main__":
    unittest.main()
