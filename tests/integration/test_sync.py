# timeout: 300
"""Sync mode: the three answers of a write, what reads see meanwhile, and what a master may say after it
was started again."""

import json
import os
import shutil
import signal
import threading
import unittest

from sync_nodes import SHORT, SYNC, SyncTestCase

LOCAL = {"Nexus-Read": "local"}


class Answers(SyncTestCase):
    def test_a_write_is_answered_when_the_quorum_has_it(self):
        cluster = self.sync_cluster(2, quorum=2)
        master = cluster.master
        status, headers, body = master.request("PUT", "/kv/a", b"1")
        self.assertEqual(status, 201, body)
        self.assertEqual(headers["Nexus-Durability-Achieved"], "3/3")
        offset = json.loads(body)["offset"]
        self.assertEqual(master.status()["quorum_offset"], offset)
        for replica in cluster.replicas:
            replica.wait_status(durable_offset=offset)
            replica.wait_until(lambda r=replica: r.request("GET", "/kv/a")[0] == 200, what="the value there")
        self.assertEqual(
            master.json("GET", f"/replication/entry/{offset}"), {"state": "quorum", "nodes": "3/3"}
        )

    def test_without_replicas_nothing_is_logged(self):
        master = self.node("master", settings={**SYNC, **SHORT})
        problem = self.assert_problem(
            master.request("PUT", "/kv/a", b"1"), 503, "quorum_unavailable"
        )
        master.wait_log("writes are refused .*: 1 must confirm them .sync_quorum., and 0 of 0 connected replicas")
        self.assertTrue(problem["retryable"])
        self.assertNotIn("offset", problem)
        self.assertEqual(self.offset(master), 0)
        for method, path, body in (
            ("DELETE", "/kv/a", None),
            ("POST", "/batch", b'{"ops": [{"put": {"key": "a", "value": "1"}}]}'),
            ("POST", "/import", b'{"key": "a", "value": "1"}\n'),
        ):
            self.assert_problem(master.request(method, path, body), 503, "quorum_unavailable")
        self.assertEqual(self.offset(master), 0)

    def test_each_refusal_comes_in_time_where_nothing_else_happens(self):
        """The worker is woken by nothing but its own clock."""
        settings = {"replication.sync_timeout_ms": 150, "http.workers": 1}
        master = self.node("master", settings={**SYNC, **settings})
        codes = []

        def write(number):
            client = master.client(timeout=5)
            for _ in range(30):
                codes.append(client.request("PUT", f"/kv/{number}", b"1")[0])

        writers = [threading.Thread(target=write, args=(number,)) for number in range(16)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        self.assertEqual(codes, [503] * 480)

    def test_a_write_waits_for_its_quorum_and_goes_on_when_it_comes(self):
        cluster = self.cluster(1, start=False, master_settings=SYNC)
        cluster.master.start()
        answers = []
        writers = [
            threading.Thread(
                target=lambda key=f"k{i}": answers.append(
                    cluster.master.client().request("PUT", f"/kv/{key}", b"v")[0]
                )
            )
            for i in range(8)
        ]
        for writer in writers:
            writer.start()
        cluster.replica.start()
        for writer in writers:
            writer.join()
        self.assertEqual(answers, [201] * 8)

    def test_what_is_not_confirmed_in_time_is_unknown_and_can_be_asked_for(self):
        cluster = self.sync_cluster(1, **SHORT)
        master, replica = cluster.master, cluster.replica
        walwriter = self.pause(replica)
        before = self.offset(master)
        problem = self.assert_problem(master.request("PUT", "/kv/a", b"1"), 504, "quorum_timeout")
        self.assertEqual(problem["offset"], before + 1)
        self.assertEqual(problem["check"], f"/replication/entry/{before + 1}?epoch=1")
        self.assertEqual(
            master.json("GET", problem["check"]), {"state": "pending", "nodes": "1/2"}
        )
        # It is not a part of what anybody reads, but of what is durable here.
        self.assertEqual(master.request("GET", "/kv/a")[0], 404)
        self.assertEqual(master.get("a", headers=LOCAL), b"1")
        # What is judged on it is not answered as if it stood: nothing is written, and that is said.
        self.assert_problem(
            master.request("PUT", "/kv/a", b"2", {"If-None-Match": "*"}), 503, "quorum_unavailable"
        )
        self.assertEqual(self.offset(master), before + 1)
        self.resume(walwriter)
        master.wait_until(
            lambda: master.json("GET", problem["check"])["state"] == "quorum", what="the entry's end"
        )
        self.assertEqual(master.get("a"), b"1")
        self.assertEqual(
            replica.json("GET", problem["check"]), {"state": "quorum", "nodes": "2/2"}
        )

    def test_an_import_that_loses_its_quorum_says_how_far_it_came(self):
        cluster = self.sync_cluster(1, **SHORT)
        master = cluster.master
        self.pause(cluster.replica)
        lines = b"".join(b'{"key": "i%d", "value": "v"}\n' % i for i in range(10))
        problem = self.assert_problem(
            master.request("POST", "/import", lines), 504, "quorum_timeout"
        )
        self.assertEqual((problem["imported"], problem["line"]), (0, 1))
        self.assertEqual(master.json("GET", problem["check"])["state"], "pending")


class Reload(SyncTestCase):
    def test_the_quorum_can_be_changed_while_a_write_waits_for_it(self):
        cluster = self.cluster(2, start=False, master_settings=SYNC)
        master = cluster.master
        conf = os.path.join(master.directory, "nexus.conf")

        def reload(quorum):
            with open(conf, "w", encoding="utf-8") as file:
                file.write(f"[replication]\nsync_quorum = {quorum}\n")

        reload(2)
        master.env["NEXUS_CONFIG"] = conf
        cluster.start()
        master.wait_written()
        self.pause(cluster.replicas[0])
        before = self.offset(master)
        answers = []
        writer = threading.Thread(
            target=lambda: answers.append(master.client().request("PUT", "/kv/a", b"1"))
        )
        writer.start()
        cluster.replicas[1].wait_status(durable_offset=before + 1)
        self.assertEqual(answers, [])
        reload(1)
        os.kill(master.pid, signal.SIGHUP)
        writer.join()
        self.assertEqual(answers[0][0], 201)
        self.assertEqual(answers[0][1]["Nexus-Durability-Achieved"], "2/3")
        reload(2)
        mark = master.log_mark()
        os.kill(master.pid, signal.SIGHUP)
        master.wait_log(r"reloaded: 1 key changed: replication\.sync_quorum", since=mark)
        master.put("local", b"1", headers={"Nexus-Durability": "local"})
        last = self.offset(master)
        cluster.replicas[1].wait_status(durable_offset=last)
        self.assertEqual(master.json("GET", f"/replication/entry/{last}")["state"], "pending")


class Durability(SyncTestCase):
    """Nexus-Durability: for one write, whatever the mode."""

    def put(self, node, key, durability):
        return node.request("PUT", f"/kv/{key}", b"v", {"Nexus-Durability": durability})

    def test_an_async_master_can_be_asked_for_more(self):
        cluster = self.cluster(2, master_settings=SHORT)
        master = cluster.master
        for durability in ("local", "quorum", "all"):
            status, headers, body = self.put(master, durability, durability)
            self.assertEqual(status, 201, body)
            nodes = headers["Nexus-Durability-Achieved"].split("/")
            self.assertEqual(nodes[1], "3")
            self.assertGreaterEqual(int(nodes[0]), {"local": 1, "quorum": 2, "all": 3}[durability])
        self.assertNotIn("Nexus-Durability-Achieved", master.request("PUT", "/kv/x", b"")[1])
        self.pause(cluster.replicas[0])
        self.assertEqual(self.put(master, "k1", "quorum")[0], 201)
        problem = self.assert_problem(self.put(master, "k2", "all"), 504, "quorum_timeout")
        self.assertEqual(master.request("GET", "/kv/k2")[0], 200)  # async: what is durable here is read
        self.assertEqual(
            master.json("GET", problem["check"]), {"state": "quorum", "nodes": "2/3"}
        )

    def test_all_is_answered_when_the_last_one_has_it(self):
        cluster = self.cluster(2)
        walwriter = self.pause(cluster.replicas[1])
        answers = []
        writer = threading.Thread(
            target=lambda: answers.append(self.put(cluster.master.client(), "k", "all"))
        )
        writer.start()
        cluster.master.wait_until(lambda: self.offset(cluster.master) == 1, what="the entry")
        self.assertEqual(answers, [])
        self.resume(walwriter)
        writer.join()
        self.assertEqual(answers[0][0], 201)
        self.assertEqual(answers[0][1]["Nexus-Durability-Achieved"], "3/3")

    def test_a_sync_master_can_be_asked_for_less(self):
        master = self.node("master", settings={**SYNC, **SHORT})
        status, headers, _ = self.put(master, "k", "local")
        self.assertEqual((status, headers["Nexus-Durability-Achieved"]), (201, "1/1"))
        self.assertEqual(master.request("GET", "/kv/k")[0], 404)
        self.assertEqual(master.request("GET", "/kv/k", headers=LOCAL)[0], 200)

    def test_what_can_not_be_is_refused(self):
        master = self.node("master")
        for value in ("", "both", "local, quorum"):
            self.assert_problem(self.put(master, "k", value), 400, "bad_parameter")
        standalone = self.node("standalone")
        self.assertEqual(self.put(standalone, "k", "local")[0], 201)
        for value in ("quorum", "all"):
            self.assert_problem(self.put(standalone, "k2", value), 400, "bad_parameter")
        self.assertEqual(self.offset(standalone), 1)


class Reads(SyncTestCase):
    def test_a_restarted_master_waits_for_its_quorum(self):
        cluster = self.sync_cluster(1, **SHORT)
        master, replica = cluster.master, cluster.replica
        master.put("a", b"1")
        replica.stop()
        master.kill9()
        master.start()
        self.assert_problem(master.request("GET", "/kv/a"), 503, "quorum_unavailable")
        self.assert_problem(master.request("GET", "/kv?limit=1"), 503, "quorum_unavailable")
        self.assert_problem(master.request("GET", "/export"), 503, "quorum_unavailable")
        self.assert_problem(master.request("PUT", "/kv/b", b"2"), 503, "quorum_unavailable")
        self.assertEqual(master.get("a", headers=LOCAL), b"1")
        self.assertEqual(len(master.json("GET", "/kv", headers=LOCAL)["items"]), 2)
        replica.start()
        master.wait_written()
        self.assertEqual(master.get("a"), b"1")

    def test_a_replica_shows_only_what_the_quorum_has(self):
        cluster = self.sync_cluster(2, quorum=2, **SHORT)
        master, replica, paused = cluster.master, *cluster.replicas
        walwriter = self.pause(paused)
        problem = self.assert_problem(master.request("PUT", "/kv/a", b"1"), 504, "quorum_timeout")
        replica.wait_status(durable_offset=problem["offset"])
        self.assertEqual(replica.request("GET", "/kv/a")[0], 404)
        self.assertEqual(replica.get("a", headers=LOCAL), b"1")
        # A node that is started again has not forgotten which those are.
        replica.kill9()
        replica.start()
        replica.wait_answer("/ready")
        self.assertEqual(replica.request("GET", "/kv/a")[0], 404)
        self.assertEqual(replica.request("GET", "/kv/writable")[0], 200)
        self.resume(walwriter)
        replica.wait_until(lambda: replica.request("GET", "/kv/a")[0] == 200, what="the value")

    def test_a_replica_without_its_master_shows_what_it_had_heard(self):
        cluster = self.sync_cluster(1)
        master, replica = cluster.master, cluster.replica
        offset = json.loads(master.request("PUT", "/kv/a", b"1")[2])["offset"]
        replica.wait_status(quorum_offset=offset)
        replica.stop()
        master.stop()
        replica.start()
        self.assertEqual(replica.get("a"), b"1")

    def test_a_replica_goes_on_showing_what_it_showed_in_async_mode(self):
        """Its master, of another mode now, doesn't know what its quorum has."""
        cluster = self.cluster(1)
        master, replica = cluster.master, cluster.replica
        master.put("a", b"1")
        cluster.wait_level()
        replica.stop()
        master.stop()
        for node in cluster.nodes:
            node.settings.update({**SYNC, "replication.sync_quorum": 2})
        master.start()
        replica.start()
        replica.wait_status(connected=True)
        self.assert_problem(master.request("GET", "/kv/a"), 503, "quorum_unavailable")
        self.assertEqual(replica.get("a"), b"1")

    def test_a_new_replica_shows_nothing_less_than_its_master_had(self):
        """That one, just begun, doesn't know yet what was confirmed."""
        cluster = self.sync_cluster(2, **SHORT)
        master, first, late = cluster.master, *cluster.replicas
        late.stop()
        shutil.rmtree(late.data_dir)
        offset = json.loads(master.request("PUT", "/kv/a", b"1")[2])["offset"]
        first.stop()
        master.kill9()
        master.settings["replication.sync_quorum"] = 2
        master.start()
        late.start()
        late.wait_status(wal_offset=offset, connected=True)
        for _ in range(2):
            self.assert_problem(late.request("GET", "/kv/a"), 503, "not_synced")
            self.assertEqual(late.get("a", headers=LOCAL), b"1")
            late.kill9()  # and it doesn't forget it
            late.start()
            late.wait_status(wal_offset=offset, connected=True)
        first.start()
        late.wait_until(lambda: late.request("GET", "/kv/a")[0] != 503, what="a read")
        self.assertEqual(late.get("a"), b"1")

    def test_an_export_is_of_the_committed_state_and_waits_for_no_quorum(self):
        cluster = self.sync_cluster(1, **SHORT)
        master = cluster.master
        master.put("a", b"1")
        master.put("b", b"1")
        self.pause(cluster.replica)
        committed = self.offset(master)
        for key, value in (("a", b"2"), ("c", b"2")):
            self.assertEqual(master.request("PUT", f"/kv/{key}", value)[0], 504)
        self.assertEqual(master.request("DELETE", "/kv/b")[0], 504)
        status, headers, body = master.request("GET", "/export")
        self.assertEqual((status, headers["Nexus-Offset"]), (200, str(committed)))
        lines = {line["key"]: line["value"] for line in map(json.loads, body.splitlines())}
        self.assertEqual(lines, {"a": "1", "b": "1", "writable": "x"})
        self.assertEqual(
            {item["key"]: item["value"] for item in master.json("GET", "/kv")["items"]}, lines
        )
        snapshot = master.json("POST", "/replication/snapshot")
        self.assertEqual(snapshot["wal_offset"], committed)
        self.assert_problem(master.request("GET", "/export", headers=LOCAL), 400, "bad_parameter")

    def test_a_linearizable_read_asks_the_quorum(self):
        cluster = self.sync_cluster(1, **{"http.request_timeout_ms": 500})
        master = cluster.master
        asked = {"Nexus-Read": "linearizable"}
        master.put("a", b"1")
        self.assertEqual(master.get("a", headers=asked), b"1")
        readers = [
            threading.Thread(
                target=lambda: self.assertEqual(
                    [master.client().get("a", headers=asked) for _ in range(20)], [b"1"] * 20
                )
            )
            for _ in range(4)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        self.assert_problem(
            cluster.replica.request("GET", "/kv/a", headers=asked), 403, "read_only_replica"
        )
        walreceiver = self.pause(cluster.replica, "walreceiver")
        self.assert_problem(
            master.request("GET", "/kv/a", headers=asked), 503, "quorum_unavailable"
        )
        self.assertEqual(master.request("GET", "/kv/a")[0], 200)
        self.resume(walreceiver)
        master.wait_until(
            lambda: master.request("GET", "/kv/a", headers=asked)[0] == 200, what="the quorum"
        )

    def test_min_offset_counts_what_is_committed(self):
        cluster = self.sync_cluster(1, **SHORT, **{"http.request_timeout_ms": 300})
        master = cluster.master
        self.pause(cluster.replica)
        offset = json.loads(master.request("PUT", "/kv/a", b"1")[2])["offset"]
        wanted = {"Nexus-Min-Offset": str(offset)}
        self.assert_problem(
            master.request("GET", "/kv/a", headers=wanted), 504, "min_offset_timeout"
        )
        self.assertEqual(master.get("a", headers={**wanted, **LOCAL}), b"1")
        answer = master.raw_http(
            "GET /kv/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            "Nexus-Min-Offset: 1\r\nNexus-Min-Offset: 999\r\n\r\n"
        )
        self.assertIn(b" 400 ", answer.splitlines()[0])
        self.assertIn(b"bad_parameter", answer)


class Stop(SyncTestCase):
    def test_a_sync_master_whose_replication_is_stopped_takes_no_writes(self):
        cluster = self.sync_cluster(1)
        master = cluster.master
        master.put("a", b"1")
        master.json("POST", "/replication/stop")
        for method, path, body in (
            ("PUT", "/kv/a", b"2"),
            ("POST", "/batch", b'{"ops": [{"put": {"key": "a", "value": "2"}}]}'),
            ("POST", "/import", b'{"key": "a", "value": "2"}\n'),
        ):
            self.assert_problem(master.request(method, path, body), 503, "replication_stopped")
        self.assertEqual(master.get("a"), b"1")
        self.assert_problem(
            master.request("GET", "/kv/a", headers={"Nexus-Read": "linearizable"}),
            503,
            "replication_stopped",
        )
        self.assertEqual(
            master.request("PUT", "/kv/b", b"1", {"Nexus-Durability": "local"})[0], 201
        )

    def test_a_write_at_the_gate_is_told_of_a_stop_at_once(self):
        master = self.node("master", settings=SYNC)  # sync_timeout_ms is 30 s
        answers = []
        writer = threading.Thread(
            target=lambda: answers.append(master.client(timeout=15).request("PUT", "/kv/a", b"1"))
        )
        writer.start()
        master.wait_until(
            lambda: master.json("POST", "/replication/stop")["success"] and answers, what="the answer"
        )
        writer.join()
        self.assert_problem(answers[0], 503, "replication_stopped")

    def logged_write(self, master):
        """A write that is logged and waits for its quorum -> its thread, the list that gets its answer."""
        before = self.offset(master)
        answers = []
        writer = threading.Thread(
            target=lambda: answers.append(master.client(timeout=15).request("PUT", "/kv/a", b"1"))
        )
        writer.start()
        master.wait_until(lambda: self.offset(master) > before, what="the entry")
        return writer, answers

    def test_a_fast_stop_refuses_what_is_not_logged_and_drains_what_is(self):
        cluster = self.sync_cluster(1)
        master = cluster.master
        walwriter = self.pause(cluster.replica)
        writer, answers = self.logged_write(master)
        os.kill(master.pid, signal.SIGTERM)
        master.wait_log("stopping")
        self.resume(walwriter)
        writer.join()
        self.assertEqual(master.wait_exit(), 0)
        self.assertEqual(answers[0][0], 201)
        self.assertEqual(cluster.replica.get("a", headers=LOCAL), b"1")

    def stop_while_a_write_waits(self, *signals):
        """Its quorum is silent, and sync_timeout_ms (30 s) far away."""
        cluster = self.sync_cluster(1, **{"replication.stop_drain_ms": 200})
        master = cluster.master
        self.pause(cluster.replica)
        before = self.offset(master)
        writer, answers = self.logged_write(master)
        for number in signals:
            os.kill(master.pid, number)
            master.wait_log("stopping" if number == signals[0] else "becomes a fast one")
        writer.join()
        problem = self.assert_problem(answers[0], 504, "quorum_timeout")
        self.assertEqual(problem["offset"], before + 1)
        self.assertEqual(master.wait_exit(), 0)

    def test_a_fast_stop_says_what_is_still_unknown(self):
        self.stop_while_a_write_waits(signal.SIGTERM)

    def test_a_smart_stop_that_becomes_a_fast_one_too(self):
        self.stop_while_a_write_waits(signal.SIGUSR2, signal.SIGTERM)


class Entries(SyncTestCase):
    """GET /replication/entry/N"""

    def test_a_replica_that_is_away_still_has_what_it_acknowledged(self):
        cluster = self.cluster(1)
        master = cluster.master
        self.assertEqual(
            master.request("PUT", "/kv/a", b"1", {"Nexus-Durability": "all"})[0], 201
        )
        cluster.replica.stop()
        master.wait_until(lambda: master.replicas() == [], what="the replica's end")
        master.put("b", b"1")
        nodes = lambda offset: master.json("GET", f"/replication/entry/{offset}")["nodes"]
        self.assertEqual([nodes(1), nodes(2)], ["2/2", "1/2"])

    def test_states(self):
        master = self.node("master")
        for i in range(3):
            master.put(f"k{i}", b"v")
        entry = lambda path: master.json("GET", f"/replication/entry/{path}")
        self.assertEqual(entry("3?epoch=1"), {"state": "pending", "nodes": "1/1"})
        self.assertEqual(entry("3@1"), {"state": "pending", "nodes": "1/1"})
        self.assertEqual(entry("4?epoch=1"), {"state": "given_up", "nodes": "0/1"})
        self.assertEqual(entry("3@1?epoch=1")["state"], "pending")
        # Of another master, if anybody's: this one can't tell.
        for later in ("3?epoch=2", "3@2", "4@2"):
            self.assert_problem(
                master.request("GET", f"/replication/entry/{later}"), 410, "history_changed"
            )
        self.assertEqual(entry("4"), {"state": "pending", "nodes": "0/1"})
        for bad in ("0", "x", "-1", "1?epoch=0", "1?epoch=x", "1?epok=1", "1@1?epoch=2"):
            self.assert_problem(
                master.request("GET", f"/replication/entry/{bad}"), 400, "bad_parameter"
            )
        self.assert_problem(
            master.request("GET", "/replication/entry/"), 404, "no_such_endpoint"
        )
        standalone = self.node("standalone")
        standalone.put("k", b"v")
        self.assertEqual(
            standalone.json("GET", "/replication/entry/1"), {"state": "quorum", "nodes": "1/1"}
        )

    def test_what_is_no_longer_kept_is_not_told_of(self):
        master = self.node(
            "master",
            settings={
                "replication.max_log_size": 5,
                "wal.shm_size": "32MiB",
                "wal.segment_size": "1MiB",
                "wal.max_size": "2MiB",
                "state.checkpoint_interval": "1s",
            },
        )

        def gone():
            master.put("k", os.urandom(1 << 20))
            return master.json("GET", "/replication/entry/1?epoch=1")["state"] == "history_gone"

        master.wait_until(gone, what="the first entry to be gone")


if __name__ == "__main__":
    unittest.main()
