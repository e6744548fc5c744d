# timeout: 300
"""Sync mode where logs are full, the quorum changes under load, clients and processes go away, and the master
stops while writes wait."""

import json
import os
import signal
import socket
import threading
import unittest

from load import Connection, put
from nexus_test import SANITIZED, wait_until
from sync_nodes import SHORT, SyncTestCase
from wal_files import read_log

LOCAL = {"Nexus-Read": "local"}


class Attacks(SyncTestCase):
    def sync_cluster(self, replicas=2, quorum=2, **options):
        return super().sync_cluster(replicas, quorum, **options)

    def check_equal(self, cluster):
        cluster.master.wait_written()
        cluster.wait_level()
        master = cluster.master.export()
        for replica in cluster.replicas:
            self.assertEqual(replica.export(), master)


class Full(Attacks):
    def filled(self):
        """Unconfirmed entries, more than a small replica's log holds."""
        cluster = self.sync_cluster(
            replica_settings={"wal.shm_size": "32MiB"},
            **{"wal.shm_size": "192MiB", "replication.sync_timeout_ms": 300},
        )
        walwriter = self.pause(cluster.replicas[1])
        threads = [threading.Thread(target=self.fill, args=(cluster.master, i)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return cluster, walwriter

    def fill(self, master, number):
        client = master.client()
        for i in range(12):
            status = client.request("PUT", f"/kv/big{number}-{i}", os.urandom(1_000_000))[0]
            self.assertIn(status, (503, 504))

    def test_a_replica_s_log_full_of_unconfirmed_entries_goes_on(self):
        cluster, walwriter = self.filled()
        last = cluster.master.status()["wal_offset"]
        self.assertGreater(last, 30)
        cluster.replicas[0].wait_status(durable_offset=last)
        self.assertNotEqual(cluster.replicas[0].request("GET", "/kv/big0-0")[0], 200)
        self.resume(walwriter)
        self.check_equal(cluster)

    def test_what_was_merged_before_its_quorum_is_not_shown_after_a_restart(self):
        cluster, walwriter = self.filled()
        replica = cluster.replicas[0]
        replica.wait_status(durable_offset=cluster.master.status()["wal_offset"])
        replica.kill_all()
        replica.start()
        self.assertNotEqual(replica.request("GET", "/kv/big0-0")[0], 200)
        self.assertEqual(replica.request("GET", "/kv/big0-0", headers=LOCAL)[0], 200)
        self.resume(walwriter)
        self.check_equal(cluster)


class Clients(Attacks):
    def test_clients_that_go_away_leave_nothing_behind(self):
        cluster = self.sync_cluster(1, 1, **{"http.workers": 1, "replication.sync_timeout_ms": 500})
        master = cluster.master
        self.pause(cluster.replica)
        pid = master.pids("http")[0]
        memory = []
        for _ in range(5):
            for number in range(200):
                with socket.create_connection(("127.0.0.1", master.http_port)) as sock:
                    sock.sendall(put(f"gone{number}", b"v" * 2000))
            self.assertEqual(master.request("PUT", "/kv/x", b"v")[0], 504)
            with open(f"/proc/{pid}/status", encoding="ascii") as file:
                memory.append(next(int(x.split()[1]) for x in file if x.startswith("RssAnon:")))
        self.assertLess(memory[-1] - memory[0], (60 if SANITIZED else 4) << 10, memory)

    def test_pipelined_writes_of_all_durabilities(self):
        cluster = self.sync_cluster(2, 1, **{"replication.sync_timeout_ms": 1000})
        words = ["local", "quorum", "all"]
        with Connection(cluster.master.http_port) as connection:
            for paused in (False, True):
                if paused:
                    self.pause(cluster.replicas[0])
                    self.pause(cluster.replicas[1])
                connection.send([
                    put(f"p{i}-{paused}", b"v", f"Nexus-Durability: {words[i % 3]}\r\n")
                    for i in range(9)
                ])
                codes = [connection.answer()[0] for _ in range(9)]
                self.assertEqual(codes, [201, 504, 504] * 3 if paused else [201] * 9)

    def test_all_ends_when_the_last_one_vanishes(self):
        """It counts until it is known to be away; then it is no longer waited for."""
        cluster = self.sync_cluster(2, 1)
        self.pause(cluster.replicas[1])
        answers = []
        client = cluster.master.client()
        offset = cluster.master.status()["wal_offset"]
        writer = threading.Thread(
            target=lambda: answers.append(
                client.request("PUT", "/kv/all", b"v", {"Nexus-Durability": "all"})
            )
        )
        writer.start()
        cluster.master.wait_status(wal_offset=offset + 1)
        cluster.replicas[1].kill_all()
        writer.join()
        self.assertEqual(answers[0][0], 201)
        self.assertEqual(answers[0][1]["Nexus-Durability-Achieved"].split("/")[0], "2")

    def test_an_import_over_a_flapping_quorum(self):
        cluster = self.sync_cluster(1, 1, **SHORT)
        master = cluster.master
        stop = threading.Event()

        def flap():
            while not stop.wait(0.1):
                pid = cluster.replica.pids("walwriter")[0]
                os.kill(pid, signal.SIGSTOP)
                stop.wait(0.15)
                os.kill(pid, signal.SIGCONT)

        thread = threading.Thread(target=flap)
        thread.start()
        try:
            lines = b"".join(b'{"key": "i%05d", "value": "v"}\n' % i for i in range(50000))
            status, _, body = master.request("POST", "/import", lines, timeout=120)
        finally:
            stop.set()
            thread.join()
        answer = json.loads(body)
        if status == 200:
            self.assertEqual(answer["imported"], 50000)
        else:
            self.assertEqual((status, answer["code"]), (504, "quorum_timeout"), body)
            master.wait_until(
                lambda: master.json("GET", answer["check"])["state"] == "quorum", what="the end"
            )
        master.wait_written()
        count = len(master.versions("i"))
        self.assertGreaterEqual(count, answer["imported"])
        self.check_equal(cluster)


class Stops(Attacks):
    def test_a_fast_stop_while_writes_wait(self):
        cluster = self.sync_cluster(1, 1, **{"replication.stop_drain_ms": 500})
        master = cluster.master
        answers = {}

        def write(key):
            try:
                answers[key] = master.client().request("PUT", f"/kv/{key}", key.encode())[0]
            except OSError:
                answers[key] = None
            except Exception as error:  # pylint: disable=broad-except
                answers[key] = None if "Disconnected" in repr(error) else repr(error)

        self.pause(cluster.replica)
        before = master.status()["wal_offset"]
        threads = [threading.Thread(target=write, args=(f"c{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        master.wait_status(wal_offset=before + 4)
        cluster.replica.kill_all()
        master.wait_status(replica_count=0)
        gated = [threading.Thread(target=write, args=(f"g{i}",)) for i in range(4)]
        for thread in gated:
            thread.start()
        with Connection(master.http_port) as connection:
            connection.send([put("g-last", b"v")])
            wait_until(lambda: master.status()["wal_offset"] == before + 4, what="nothing logged")
            master.stop(timeout=20)
        for thread in threads + gated:
            thread.join()
        for key, status in answers.items():
            allowed = (504, None) if key[0] == "c" else (503, None)
            self.assertIn(status, allowed, answers)
        keys = {op.key for frame in read_log(master.wal_dir) for op in frame.entry().ops}
        self.assertFalse({key for key in keys if key[:1] == b"g"})

    def test_processes_that_die_while_writes_wait(self):
        cluster = self.sync_cluster(1, 1, **SHORT)
        master = cluster.master
        for kind in ("http", "walsender", "checkpointer"):
            pid = self.pause(cluster.replica)
            client = master.client()
            thread = threading.Thread(target=self.lose, args=(client,))
            offset = master.status()["wal_offset"]
            thread.start()
            master.wait_status(wal_offset=lambda value, at=offset: value > at)
            master.kill_child(kind)
            thread.join()
            self.resume(pid)
            master.drop_connections()
            master.wait_answer("/health")
            master.wait_written()
        self.check_equal(cluster)

    def lose(self, client):
        try:
            client.request("PUT", "/kv/lost", b"v")
        except Exception:  # pylint: disable=broad-except
            pass

    def test_mode_changes_over_restarts(self):
        cluster = self.sync_cluster(2, 2)
        master = cluster.master
        for mode in ("async", "sync", "async", "sync"):
            master.stop()
            master.settings["replication.mode"] = mode
            master.start()
            master.wait_written()
            master.put(f"in-{mode}", b"v")
            self.check_equal(cluster)
            for replica in cluster.replicas:
                replica.kill_all()
                replica.start()
                self.assertEqual(replica.get(f"in-{mode}"), b"v")


if __name__ == "__main__":
    unittest.main()
