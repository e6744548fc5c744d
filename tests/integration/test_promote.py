# timeout: 600
"""A change of the master: promotion, the fence of the former master and its way back, following another master at
run time, promises, and what of all that holds over restarts."""

import json
import os
import signal
import subprocess
import threading
import unittest
import uuid

import identity_file
from guide import GuideCase, commands, example
from nexus_test import BUILD_DIR, HOST, NexusTestCase, free_port

CTL = os.path.join(BUILD_DIR, "nexus-ctl")
PROMOTE = "/replication/promote"
FOLLOW = "/replication/follow"
PROMISE = "/replication/promise"
GUIDE_PROMOTE = "Promote Replica to Master"
QUICK = {"replication.heartbeat_ms": 100, "replication.missed_heartbeats_threshold": 4}
SYNC = {"replication.mode": "sync", "replication.sync_timeout_ms": 1000}
TYPES = {
    "success": bool,
    "message": str,
    "detail": str,
    "old_epoch": int,
    "epoch": int,
    "offset": int,
    "missing_entries": int,
    "master_seconds_ago": (int, float, type(None)),
    "master_answers": bool,
    "unreached_peers": list,
    "sync_loss_possible": bool,
    "warnings": list,
}


def ctl(node, *arguments):
    return subprocess.run(
        [CTL, *arguments, "-D", node.data_dir],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=node.environment(),
        timeout=60,
        check=False,
    )


class PromoteCase(NexusTestCase):
    def level_cluster(self, replicas=1, writes=5, **options):
        """Its replicas have all of a few entries."""
        options["settings"] = {**QUICK, **options.get("settings", {})}
        cluster = self.cluster(replicas, **options)
        for number in range(writes):
            cluster.master.put(f"k{number}", b"v")
        cluster.wait_level()
        return cluster

    def peers_cluster(self, replicas=2, **options):
        """A sync cluster whose nodes know each other as peers."""
        cluster = self.cluster(replicas, start=False, settings={**QUICK, **SYNC}, **options)
        for node in cluster.nodes:
            others = [other.addr for other in cluster.nodes if other is not node]
            node.settings["replication.peers"] = ",".join(others)
        cluster.start()
        cluster.master.wait_written("first", b"v")
        cluster.wait_level()
        return cluster

    def promote(self, node, query="", timeout=60):
        """-> the answer, whose members are found to be those that they should be"""
        answer = node.json("POST", PROMOTE + query, timeout=timeout)
        self.assertEqual(list(answer), list(TYPES))
        for name, kind in TYPES.items():
            self.assertIsInstance(answer[name], kind, f"{name} of {answer}")
        self.assertIs(answer["success"], True)
        return answer

    def assert_leads(self, node, epoch):
        """It is the master, and takes writes this very moment."""
        offset = node.put("after", b"v")
        status = node.status()
        self.assertEqual(
            (status["role"], status["epoch"], status["running"], status["connected"]),
            ("master", epoch, True, True),
        )
        for path in ("/health", "/ready", "/primary"):
            self.assertEqual(node.request("GET", path)[0], 200, path)
        self.assertEqual(node.get("after"), b"v")
        return offset

    def follow(self, node, master, force=None):
        body = {"master_addr": master.replication_addr}
        if force is not None:
            body["force"] = force
        answer = node.json("POST", FOLLOW, body)
        self.assertEqual(
            answer,
            {"success": True, "message": f"This node follows {master.replication_addr} now"},
        )

    def wait_follows(self, node, master):
        """It is a replica of that master, and level."""
        master_id = master.status()["node_id"]
        offset = master.status()["wal_offset"]
        node.wait_status(role="replica", connected=True, wal_offset=lambda value: value >= offset)
        node.wait_answer("/ready")
        self.assertEqual(node.json("GET", "/replication/replica/stats")["master_id"], master_id)


class Promotion(PromoteCase):
    def test_01_of_a_replica_whose_master_is_dead(self):
        cluster = self.level_cluster()
        replica, old_id = cluster.replica, cluster.replica.status()["node_id"]
        cluster.master.kill9()
        replica.wait_status(promotable=True)
        answer = self.promote(replica)
        self.assertEqual(answer["message"], example(GUIDE_PROMOTE)["message"])
        self.assertEqual(answer["detail"], "writes are accepted now; nothing else to start")
        self.assertEqual((answer["old_epoch"], answer["epoch"]), (1, 2))
        self.assertEqual(answer["offset"], 6)  # the entry that begins the epoch
        self.assertEqual(answer["missing_entries"], 0)
        self.assertEqual((answer["master_answers"], answer["unreached_peers"]), (False, []))
        self.assertIs(answer["sync_loss_possible"], False)
        self.assertEqual(self.assert_leads(replica, 2), 7)
        self.assertEqual(replica.get("k4"), b"v")
        self.assertEqual(replica.status()["node_id"], old_id)
        # Whoever asks again, since the answer was lost, is told that it is done.
        again = self.promote(replica)
        self.assertIn("already", again["detail"])
        self.assertEqual((again["old_epoch"], again["epoch"]), (2, 2))

    def test_02_by_nexus_ctl(self):
        cluster = self.level_cluster()
        replica = cluster.replica
        cluster.master.kill9()
        replica.wait_status(promotable=True)
        done = ctl(replica, "promote", "--dry-run")
        self.assertEqual(done.returncode, 0, done)
        self.assertRegex(done.stdout, r"^would be promoted: epoch 1 -> 2, at offset \d+; no entry ")
        self.assertEqual(replica.status()["role"], "replica")
        done = ctl(replica, "promote")
        self.assertEqual(done.returncode, 0, done)
        self.assertRegex(done.stdout, r"^promoted: epoch 1 -> 2, at offset \d+; no entry of")
        self.assert_leads(replica, 2)

    def test_03_it_holds_over_restarts(self):
        cluster = self.level_cluster()
        replica = cluster.replica
        cluster.master.kill9()
        self.promote(replica)
        self.assert_leads(replica, 2)
        for end in (replica.stop, replica.kill9, replica.kill_all):
            end()
            replica.start("/primary")
            self.assert_leads(replica, 2)

    def test_04_a_changed_configuration_wins(self):
        cluster = self.level_cluster()
        replica = cluster.replica
        cluster.master.kill9()
        self.promote(replica)
        replica.stop()
        former = replica.settings["replication.master_addr"]
        replica.settings["replication.master_addr"] = f"{HOST}:{free_port()}"
        replica.start()
        self.assertEqual(replica.status()["role"], "replica")
        self.assertEqual(replica.request("PUT", "/kv/k", b"w")[0], 403)
        # The noted one again is no new promotion by itself, nor does it forget the first one.
        replica.stop()
        replica.settings["replication.master_addr"] = former
        replica.start()
        self.assertIn(replica.status()["role"], ("replica", "master"))

    def test_05_a_dry_run_changes_nothing(self):
        cluster = self.level_cluster()
        master, replica = cluster.master, cluster.replica
        before = replica.status()
        answer = self.promote(replica, "?dry_run=1")
        self.assertEqual(
            answer["message"], "This replica would be promoted to master; nothing was changed."
        )
        self.assertEqual((answer["old_epoch"], answer["epoch"]), (1, 2))
        after = replica.status()
        for name in ("role", "epoch", "wal_offset", "node_id"):
            self.assertEqual(after[name], before[name])
        replica.wait_offset(master.put("k", b"w"))
        self.assertEqual(replica.get("k"), b"w")
        self.assertEqual(master.status()["state"], "streaming")

    def test_06_auto_failover_has_no_say(self):
        cluster = self.level_cluster(settings={"replication.auto_failover": "false"})
        cluster.master.kill9()
        self.promote(cluster.replica)
        self.assert_leads(cluster.replica, 2)

    def test_07_entries_that_are_lost_are_counted(self):
        """The replica has heard of more than it has."""
        cluster = self.level_cluster()
        master, replica = cluster.master, cluster.replica
        walwriter = replica.kill_child("walwriter", signal.SIGSTOP)
        for number in range(20):
            master.put(f"lost{number}", b"v")
        replica.wait_status(lag=lambda lag: lag > 0)
        master.kill9()
        os.kill(walwriter, signal.SIGCONT)
        replica.wait_status(promotable=True)
        lag = replica.status()["lag"]
        answer = self.promote(replica)
        self.assertEqual(answer["missing_entries"], lag)
        self.assert_leads(replica, 2)

    def test_08_after_stop_it_runs_again(self):
        cluster = self.level_cluster()
        replica = cluster.replica
        replica.json("POST", "/replication/stop")
        cluster.master.kill9()
        replica.wait_status(running=False)
        self.promote(replica)
        self.assert_leads(replica, 2)

    def test_09_a_second_change(self):
        """Epochs go on: the first replica is promoted, the second one behind it."""
        cluster = self.level_cluster(2)
        first, second = cluster.replicas
        cluster.master.kill9()
        self.promote(first)
        self.follow(second, first)
        self.wait_follows(second, first)
        first.kill9()
        answer = self.promote(second)
        self.assertEqual((answer["old_epoch"], answer["epoch"]), (2, 3))
        self.assert_leads(second, 3)
        self.assertEqual(second.get("k4"), b"v")


class GuidePromotion(GuideCase):
    def test_the_guides_command(self):
        """The guide's procedure: the old master is stopped, its replica promoted by the guide's curl command."""
        master, replica = self.guide_pair()
        offset = master.put("k", b"v")
        replica.wait_offset(offset)
        master.stop()
        (command,) = commands(GUIDE_PROMOTE)
        answer = json.loads(self.shell(command, replica))
        self.assertEqual(
            {name: answer[name] for name in ("success", "message")}, example(GUIDE_PROMOTE)
        )
        self.assertEqual(replica.put("k", b"w"), offset + 2)
        self.assertEqual(replica.status()["role"], "master")


class Fences(PromoteCase):
    def fenced_pair(self):
        """-> (former master, fenced, which still runs; the new master)"""
        cluster = self.level_cluster()
        self.promote(cluster.replica)
        cluster.master.wait_status(state="fenced")
        return cluster.master, cluster.replica

    def assert_fenced(self, old, new):
        status = old.status()
        self.assertEqual(
            (status["role"], status["state"], status["running"], status["connected"]),
            ("master", "fenced", True, False),
        )
        for method, path, body in (
            ("PUT", "/kv/x", b"v"),
            ("DELETE", "/kv/k0", None),
            ("POST", "/batch", '{"ops": [{"delete": {"key": "k0"}}]}'),
            ("POST", "/import", '{"key": "x", "value": "v"}\n'),
        ):
            with self.subTest(method=method, path=path):
                problem = self.assert_problem(old.request(method, path, body), 409, "fenced")
                self.assertEqual(problem["master"], f"http://{new.addr}")
                self.assertIn("epoch 2", problem["message"])
                self.assertIn(new.status()["node_id"], problem["message"])
                self.assertIn("nexus-ctl follow", problem["message"])
        self.assert_problem(
            old.request("GET", "/kv/k0", None, {"Nexus-Read": "linearizable"}), 409, "fenced"
        )
        self.assertEqual(old.request("GET", "/health")[0], 200)
        for path in ("/ready", "/primary"):
            code, _, body = old.request("GET", path)
            self.assertEqual((code, json.loads(body)["reasons"]), (503, ["fenced"]), path)
        self.assertEqual(old.get("k0", headers={"Nexus-Read": "local"}), b"v")

    def test_01_a_master_that_lives_is_fenced(self):
        cluster = self.level_cluster()
        answer = self.promote(cluster.replica)
        self.assertIs(answer["master_answers"], True)
        self.assert_leads(cluster.replica, 2)
        cluster.master.wait_status(state="fenced")
        self.assert_fenced(cluster.master, cluster.replica)

    def test_02_over_restarts(self):
        old, new = self.fenced_pair()
        for end in (old.stop, old.kill9):
            end()
            old.start()
            self.assert_fenced(old, new)

    def test_03_one_that_comes_back_is_fenced(self):
        """The new master goes on looking for it."""
        cluster = self.level_cluster()
        cluster.master.kill9()
        self.promote(cluster.replica)
        self.assert_leads(cluster.replica, 2)
        cluster.master.start()
        cluster.master.wait_status(state="fenced")
        self.assert_fenced(cluster.master, cluster.replica)

    def test_04_the_way_back(self):
        old, new = self.fenced_pair()
        offset = new.put("k0", b"w")
        self.follow(old, new)
        self.wait_follows(old, new)
        self.assertEqual(old.get("k0"), b"w")
        self.assertEqual(old.request("PUT", "/kv/x", b"v")[0], 403)
        self.assertEqual(new.status()["replica_count"], 1)
        # It stays so, though it is configured as a master.
        old.stop()
        old.start()
        self.wait_follows(old, new)
        old.wait_offset(new.put("k1", b"w"))
        self.assertGreater(offset, 6)

    def test_05_the_way_back_by_nexus_ctl(self):
        old, new = self.fenced_pair()
        done = ctl(old, "follow", new.replication_addr)
        said = f"this node follows {new.replication_addr} now\n"
        self.assertEqual((done.returncode, done.stdout), (0, said), done)
        self.wait_follows(old, new)

    def test_06_what_it_alone_had_is_given_up(self):
        """It was written by the former master after its replica had gone: the new master's history holds."""
        cluster = self.level_cluster()
        old, new = cluster.master, cluster.replica
        new.stop()
        lost = old.put("lost", b"v")
        old.kill9()
        new.start()
        self.promote(new)
        self.assertEqual(self.assert_leads(new, 2), lost + 1)
        old.start()
        old.wait_status(state="fenced")
        self.follow(old, new)
        self.wait_follows(old, new)
        self.assertIsNone(old.get("lost"))
        self.assertEqual(old.get("after"), b"v")

    def test_07_force_ends_it(self):
        old, new = self.fenced_pair()
        problem = self.assert_problem(old.request("POST", PROMOTE), 409, "fenced")
        self.assertEqual(problem["master"], f"http://{new.addr}")
        self.assertIn("force=1", problem["message"])
        self.assert_problem(old.request("POST", PROMOTE + "?dry_run=1"), 409, "fenced")
        answer = self.promote(old, "?force=1")
        self.assertGreater(answer["epoch"], 2)
        self.assert_leads(old, answer["epoch"])
        new.wait_status(state="fenced")

    def test_08_what_waits_for_its_quorum_is_told(self):
        """Two replicas are asked for, and there is one: a write waits at the gate until the fence comes."""
        cluster = self.level_cluster(
            writes=0,
            settings={
                "replication.mode": "sync",
                "replication.sync_quorum": 2,
                "replication.sync_timeout_ms": 60000,
                "http.request_timeout_ms": 60000,
            },
        )
        old, new = cluster.master, cluster.replica
        old.put("k0", b"v", headers={"Nexus-Durability": "local"})
        new.wait_status(applied_offset=1)
        answers = {}

        def ask(name, *request):
            answers[name] = old.client(timeout=60).request(*request)

        threads = [
            threading.Thread(target=ask, args=request)
            for request in (
                ("put", "PUT", "/kv/x", b"v"),
                ("read", "GET", "/kv/k0", None, {"Nexus-Read": "linearizable"}),
            )
        ]
        for thread in threads:
            thread.start()
        self.promote(new, "?force=1")
        for thread in threads:
            thread.join()
        old.wait_status(state="fenced")
        for answer in answers.values():
            self.assert_problem(answer, 409, "fenced")
        self.assertEqual(old.status()["wal_offset"], 1)

    def test_09_a_sync_master_that_starts_fenced_knows_of_nothing_committed(self):
        cluster = self.level_cluster(settings=SYNC)
        old, new = cluster.master, cluster.replica
        warnings = " ".join(self.promote(new, "?force=1")["warnings"])
        self.assertIn("writes wait until 1 replica follows this node", warnings)
        old.wait_status(state="fenced")
        self.assertEqual(old.get("k0"), b"v")  # it has seen that confirmed
        old.stop()
        old.start()
        old.wait_status(state="fenced")
        problem = self.assert_problem(old.request("GET", "/kv/k0"), 409, "fenced")
        self.assertEqual(problem["master"], f"http://{new.addr}")
        self.assertIn("Nexus-Read: local", problem["message"])
        self.assertEqual(old.get("k0", headers={"Nexus-Read": "local"}), b"v")


class Epochs(PromoteCase):
    """N@E after an async failover that has lost entries."""

    def test_a_lost_offset_is_not_taken_for_the_new_one(self):
        cluster = self.level_cluster()
        old, new = cluster.master, cluster.replica
        new.stop()
        lost = old.put("lost", b"v")
        old.kill9()
        new.start()
        self.promote(new)
        last = self.assert_leads(new, 2)
        read = lambda offset: new.request("GET", "/kv/k0", None, {"Nexus-Min-Offset": offset})
        self.assertEqual(read("5@1")[0], 200)
        self.assertEqual(read(f"{last}@2")[0], 200)
        for offset in (f"{lost}@1", f"{last}@1", f"{last + 9}@1"):
            problem = self.assert_problem(read(offset), 410, "history_changed")
            self.assertEqual((problem["offset"], problem["epoch"]), (5, 2))
        entry = lambda path: new.json("GET", f"/replication/entry/{path}")["state"]
        self.assertEqual(entry(f"{lost}?epoch=1"), "given_up")
        self.assertIn(entry("5?epoch=1"), ("pending", "quorum"))
        self.assertIn(entry(f"{last}?epoch=2"), ("pending", "quorum"))
        change = lambda tag: new.request("PUT", "/kv/after", b"w", {"If-Match": tag})
        self.assert_problem(change(f"{last}@1"), 410, "history_changed")
        self.assertEqual(change(f"{last}@2")[0], 200)


class Following(PromoteCase):
    def test_01_another_master_at_run_time(self):
        cluster = self.level_cluster(2)
        first, second = cluster.replicas
        cluster.master.kill9()
        self.promote(first)
        first.put("k0", b"w")
        self.follow(second, first)
        self.wait_follows(second, first)
        self.assertEqual(second.get("k0"), b"w")
        second.stop()
        second.start()
        self.wait_follows(second, first)

    def test_06_the_way_back_by_its_own_configuration(self):
        """It led meanwhile; the master that its configuration names leads again."""
        cluster = self.level_cluster()
        first, second = cluster.master, cluster.replica
        first.kill9()
        self.promote(second)
        first.start()
        first.wait_status(state="fenced")
        self.follow(first, second)
        self.wait_follows(first, second)
        # Whom to ask who leads it knows when it has noted who has followed it.
        known = f"replica = {first.status()['node_id']}\n"
        second.wait_until(lambda: known in identity_file.read(second), what="it has noted its replica")
        second.kill9()
        self.promote(first)
        offset = first.put("k0", b"again")
        second.start()
        second.wait_log("the promotion of this node is over")
        self.wait_follows(second, first)
        second.wait_offset(offset)
        self.assertEqual(second.get("k0"), b"again")
        second.stop()
        second.start()
        self.wait_follows(second, first)

    def test_02_a_changed_configuration_wins(self):
        cluster = self.level_cluster(2)
        first, second = cluster.replicas
        cluster.master.kill9()
        self.promote(first)
        self.follow(second, first)
        self.wait_follows(second, first)
        second.stop()
        second.settings["replication.master_addr"] = f"{HOST}:{free_port()}"
        second.start()
        self.assertIs(second.status()["connected"], False)
        self.assertEqual(second.status()["state"], "connecting")

    def test_03_a_replica_that_was_never_synced(self):
        master = self.node("master")
        master.put("k", b"v")
        replica = self.node(
            "replica", settings={"replication.master_addr": f"{HOST}:{free_port()}"}
        )
        self.follow(replica, master)
        self.wait_follows(replica, master)
        self.assertEqual(replica.get("k"), b"v")

    def test_04_it_ends_a_stop(self):
        cluster = self.level_cluster()
        replica = cluster.replica
        replica.json("POST", "/replication/stop")
        replica.wait_status(running=False)
        self.follow(replica, cluster.master)
        self.wait_follows(replica, cluster.master)
        replica.wait_status(running=True)

    def test_05_it_is_answered_before_the_connection_is_tried(self):
        cluster = self.level_cluster()
        body = {"master_addr": f"{HOST}:{free_port()}"}
        cluster.replica.json("POST", FOLLOW, body)
        cluster.replica.wait_status(connected=False)
        self.assertEqual(cluster.replica.get("k0"), b"v")
        self.follow(cluster.replica, cluster.master)
        self.wait_follows(cluster.replica, cluster.master)


class Promises(PromoteCase):
    def promise(self, node, epoch, node_id, method="POST"):
        body = json.dumps({"epoch": epoch, "node_id": node_id})
        return node.request(method, PROMISE, body)

    def test_01_a_promise_holds(self):
        cluster = self.level_cluster()
        replica = cluster.replica
        asker = str(uuid.uuid4())
        status, _, body = self.promise(replica, 5, asker)
        self.assertEqual(status, 200, body)
        own = replica.status()
        self.assertEqual(
            json.loads(body),
            {
                "success": True,
                "epoch": 1,
                "offset": 5,
                "crc": own["last_crc"],
                "node_id": own["node_id"],
                "cluster_id": own["cluster_id"],
            },
        )
        # It follows no lower epoch: nothing of what is written now is acknowledged.
        replica.wait_status(connected=False)
        cluster.master.put("k0", b"w")
        for epoch in (4, 5):
            problem = self.assert_problem(
                self.promise(replica, epoch, str(uuid.uuid4())), 409, "quorum_not_seen"
            )
            self.assertEqual(problem["epoch"], 5)
        replica.wait_log("the master leads in epoch 1, and this node has promised epoch 5")
        self.assertEqual(replica.status()["wal_offset"], 5)
        problem = self.assert_problem(self.promise(replica, 1, asker), 409, "quorum_not_seen")
        self.assertEqual(problem["epoch"], 1)
        problem = self.assert_problem(
            self.promise(cluster.master, 6, asker), 409, "wrong_role"
        )
        self.assertEqual(problem["epoch"], 1)
        replica.stop()
        replica.start()
        self.assertEqual(replica.status()["wal_offset"], 5)
        status, _, body = self.promise(replica, 5, asker, "DELETE")
        self.assertEqual((status, json.loads(body)), (200, {"success": True}))
        replica.wait_offset(6)

    def test_02_without_its_quorum_nobody_is_promoted(self):
        """R = 2, Q = 1: two promised positions are needed, so that one of them has all that was confirmed."""
        cluster = self.peers_cluster()
        first, second = cluster.replicas
        cluster.master.kill9()
        second.kill9()
        problem = self.assert_problem(
            first.request("POST", PROMOTE, timeout=60), 409, "quorum_not_seen"
        )
        self.assertRegex(problem["message"], r"\d")
        self.assertEqual(first.status()["role"], "replica")
        done = ctl(first, "promote")
        self.assertEqual((done.returncode, done.stdout), (1, ""), done)
        self.assertIn(problem["message"][:20], done.stderr)
        answer = self.promote(first, "?force=1")
        self.assertIs(answer["sync_loss_possible"], True)
        self.assertIn(second.addr, " ".join(answer["unreached_peers"]))
        self.assertTrue(answer["warnings"])

    def test_05_a_dry_run_while_promises_are_taken_back(self):
        """From a node that doesn't answer that may take long; what a promotion would meet is told all the same."""
        cluster = self.peers_cluster()
        first, second = cluster.replicas
        cluster.master.kill9()
        stopped = [process.pid for process in second.all_processes()]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            for query in ("", "?dry_run=1"):
                answer = first.request("POST", PROMOTE + query, timeout=60)
                self.assert_problem(answer, 409, "quorum_not_seen")
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def test_025_a_promise_that_comes_behind_its_withdrawal_is_none(self):
        replica = self.level_cluster().replica
        asker = str(uuid.uuid4())

        def ask(method, attempt, epoch=5):
            return replica.request(method, PROMISE, json.dumps({"epoch": epoch, "node_id": asker, "attempt": attempt}))

        self.assertEqual(ask("DELETE", 1)[0], 200)
        self.assertIn("withdrawn", self.assert_problem(ask("POST", 1), 409, "quorum_not_seen")["message"])
        self.assertEqual(ask("POST", 2)[0], 200)
        self.assertEqual(ask("DELETE", 1)[0], 200)
        replica.wait_status(connected=False)
        self.assertEqual(ask("DELETE", 2, epoch=4)[0], 200)  # whatever its epoch was in the end
        replica.wait_status(connected=True)

    def test_03_the_most_advanced_is_promoted(self):
        cluster = self.peers_cluster()
        first, second = cluster.replicas
        first.stop()
        cluster.master.wait_written("only-on-the-second", b"v")
        cluster.master.kill9()
        first.start()
        self.assert_problem(
            first.request("POST", PROMOTE, timeout=60), 409, "not_most_advanced"
        )
        # Its promises are withdrawn: they bind nobody.
        answer = self.promote(second)
        self.assertIs(answer["sync_loss_possible"], False)
        self.assertEqual(second.get("only-on-the-second", headers={"Nexus-Read": "local"}), b"v")
        self.follow(first, second)
        self.wait_follows(first, second)
        second.wait_written("again", b"v")

    def test_04_a_former_master_asks_before_it_serves(self):
        cluster = self.peers_cluster()
        first, second = cluster.replicas
        cluster.master.kill9()
        self.promote(first)
        self.follow(second, first)
        self.wait_follows(second, first)
        cluster.master.start()
        self.assert_problem(cluster.master.request("PUT", "/kv/x", b"v"), 409, "fenced")
        cluster.master.wait_status(state="fenced")


if __name__ == "__main__":
    unittest.main()
