"""Streaming replication: from the shared log and from WAL files, over deaths of either end, and what a
replica that can't be served is told."""

import os
import signal
import socket
import time
import unittest
import uuid

import load
import nexus_wire as wire
import wal_files
from nexus_test import NexusTestCase, free_port, wait_until
from proxy import Proxy

SMALL = {"wal.segment_size": "1MiB", "wal.shm_size": "32MiB"}


def frames(node):
    """The bytes of all frames in a node's WAL files, by offset."""
    return {frame.offset: frame.raw for frame in wal_files.read_log(node.wal_dir)}


class Streaming(NexusTestCase):
    def test_01_writes_appear_on_the_replica(self):
        master, replica = self.pair()
        offset = master.put("greeting", b"hello")
        self.assertEqual(replica.http.get("greeting", {"Nexus-Min-Offset": str(offset)}), b"hello")
        master.batch([{"put": {"key": "a", "value": "1"}}, {"delete": {"key": "greeting"}}])
        offset = master.put("bytes", bytes(range(256)))
        replica.wait_offset(offset)
        self.assertIsNone(replica.get("greeting"))
        self.assertEqual(replica.get("bytes"), bytes(range(256)))
        self.assertEqual(master.export(), replica.export())

    def test_02_the_conversation_seen_from_outside(self):
        master = self.node("master", settings={"replication.heartbeat_ms": 300})
        for i in range(20):
            master.put(f"k{i}", b"v%d" % i)
        status = master.status()
        replica_id = str(uuid.uuid4())
        with wire.RawPeer(master.replication_port) as peer:
            welcome = peer.handshake(
                replica_id, http_addr=":9", advertised_addr="replica.example:7"
            )
            self.assertEqual(welcome.master_id, status["node_id"])
            self.assertEqual(welcome.cluster_id, status["cluster_id"])
            self.assertEqual(welcome.current_wal_offset, 20)
            self.assertIs(welcome.requires_full_sync, False)
            self.assertEqual(welcome.epoch, status["epoch"])
            self.assertEqual(welcome.heartbeat_ms, 300)
            self.assertTrue(welcome.http_addr.endswith(str(master.http_port)))
            entries = peer.recv_entries(20)
            self.assertEqual([entry.offset for entry in entries], list(range(1, 21)))
            self.assertEqual([entry.frame for entry in entries], list(frames(master).values()))
            self.assertEqual(self.row(master, replica_id)["state"], "catching_up")
            peer.send(wire.build_ack(20))
            row = self.wait_row(master, replica_id, last_ack_offset=20, state="streaming", lag=0)
            self.assertEqual(row["addr"], "replica.example:7")
            master.put("later", b"x")
            self.assertEqual(peer.recv_entries(1)[0].offset, 21)
            ping = peer.recv_type(wire.PING)
            self.assertEqual(ping.current_wal_offset, 21)
            self.assertLess(abs(ping.timestamp - wire.now_ms()), 60000)
            self.wait_row(master, replica_id, lag=1)
            stats = master.stats()
            self.assertEqual(stats["sync_acks"], 1)
            self.assertGreater(stats["bytes_sent"], sum(len(entry.frame) for entry in entries))
        master.wait_status(replica_count=0)
        self.assertEqual(master.stats()["sync_acks"], 1)

    def row(self, master, replica_id):
        return next((row for row in master.replicas() if row["id"] == replica_id), None)

    def wait_row(self, master, replica_id, **fields):
        """Waits until the replica's row has these values."""

        def matches():
            row = self.row(master, replica_id)
            return row if row and all(row[name] == value for name, value in fields.items()) else None

        return master.wait_until(matches, what=f"a row with {fields}")

    def test_025_during_a_drain_http_is_refused_at_once(self):
        master = self.node("master")
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake()
            master.put("k", b"v")
            peer.recv_entries(1)  # never acknowledged: the stop waits for it
            os.kill(master.pid, signal.SIGTERM)
            master.wait_log("stopping")
            wait_until(lambda: not self.accepts(master.http_port), what="the end of HTTP")
            self.assertTrue(master.is_running())
            peer.send(wire.build_ack(1))
            self.assertEqual(master.wait_exit(), 0)

    @staticmethod
    def accepts(port):
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        except ConnectionRefusedError:
            return False

    def test_03_a_restarted_master_is_asked_where_the_log_ends(self):
        master, replica = self.pair()
        for i in range(50):
            master.put(f"k{i}", b"v")
        replica.wait_offset(50)
        master.stop()
        replica.wait_status(connected=False)
        self.assertEqual(replica.get("k49"), b"v")
        master.start()
        offset = master.put("again", b"v")
        replica.wait_offset(offset)
        self.assertEqual(frames(master), frames(replica))
        stats = replica.stats()
        self.assertEqual((stats["reconnects"], stats["lag"]), (1, 0))
        self.assertEqual(stats["entries_received"], 51)
        self.assertEqual(stats["entries_applied"], 51)

    def test_04_the_largest_values(self):
        master, replica = self.pair(settings={"http.max_value_size": "15MiB"})
        values = {f"large{i}": os.urandom(1 << 20) * 15 for i in range(3)}
        for key, value in values.items():
            master.put(key, value)
            master.put("small-" + key, b"x")
        replica.wait_offset(6)
        for key, value in values.items():
            self.assertTrue(replica.get(key) == value, key)
        self.assertEqual(frames(master), frames(replica))

    def test_05_a_replica_far_behind_is_streamed_from_wal_files(self):
        master, replica = self.pair(settings=SMALL)
        master.put("first", b"x")
        replica.wait_offset(1)
        replica.stop()
        count = 400
        for i in range(count):  # 40 MB: more than the shared log can hold
            master.put(f"k{i}", b"%d" % i * 25000)
        self.assertGreater(len(wal_files.list_segments(master.wal_dir)), 20)
        status = master.status()
        with wire.RawPeer(master.replication_port, timeout=30) as peer:
            peer.handshake(
                last_wal_offset=1,
                last_epoch=1,
                last_crc=wire.frame_crc(frames(master)[1]),
                cluster_id=status["cluster_id"],
            )
            entries = peer.recv_entries(count)
            self.assertEqual([entry.offset for entry in entries], list(range(2, count + 2)))
        replica.start()
        offset = master.put("last", b"x")
        replica.wait_offset(offset, 60)
        self.assertEqual(replica.stats()["entries_received"], count + 1)
        self.assertEqual(master.export(), replica.export())
        self.assertEqual(frames(master), frames(replica))

    def test_06_a_replica_whose_log_is_full_holds_back_and_stays_connected(self):
        master, replica = self.pair(settings={**SMALL, "replication.heartbeat_ms": 200})
        checkpointer = replica.kill_child("checkpointer", signal.SIGSTOP)
        for i in range(400):
            master.put(f"k{i % 50}", b"%d" % i * 25000)
        until = time.monotonic() + 2  # more than ten heartbeats, three of which would be too many
        while time.monotonic() < until:
            self.assertEqual([row["healthy"] for row in master.replicas()], [True])
            self.assertTrue(replica.stats()["connected"])
            time.sleep(0.1)
        self.assertGreater(replica.status()["lag"], 0)
        os.kill(checkpointer, signal.SIGCONT)
        replica.wait_offset(400, 60)
        self.assertEqual(replica.stats()["reconnects"], 0)
        self.assertEqual(master.export(), replica.export())

    def test_07_a_fast_stop_loses_nothing(self):
        master, replica = self.pair()
        writers = load.Writers(master.http_port, 3000, clients=4, seed=3).start()
        wait_until(lambda: master.status()["wal_offset"] > 1000, what="writes")
        master.stop()
        writers.join()
        last = max(frames(master))
        replica.wait_offset(last)
        self.assertEqual(frames(master), frames(replica))

    def test_08_both_ends_are_told_in_process_titles(self):
        master, replica = self.pair()
        offset = master.put("k", b"v")
        replica.wait_offset(offset)
        node_id = replica.status()["node_id"][:8]
        master.wait_until(
            lambda: any(
                f"walsender {node_id} streaming {offset}" in process.title
                for process in master.children()
            ),
            what="the walsender's title",
        )
        replica.wait_until(
            lambda: any(
                f"walreceiver streaming {offset}" in process.title
                for process in replica.children()
            ),
            what="the walreceiver's title",
        )


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@unittest.skipUnless(has_ipv6(), "no IPv6 here")
class Ipv6(NexusTestCase):
    def test_a_pair_and_a_promotion(self):
        master, replica = self.cluster(1, start=False).nodes
        for node in (master, replica):
            node.host = "::1"
        replica.settings["replication.master_addr"] = master.replication_addr
        replica.settings["replication.peers"] = master.addr
        master.start()
        replica.start("/ready")
        replica.wait_offset(master.put("k", b"v"))
        self.assertEqual(replica.get("k"), b"v")
        problem = self.assert_problem(replica.request("PUT", "/kv/k", b"w"), 403, "read_only_replica")
        self.assertEqual(problem["master"], f"http://[::1]:{master.http_port}")
        (row,) = master.replicas()
        self.assertEqual(row["addr"], replica.replication_addr)
        self.assertEqual(replica.json("POST", "/replication/promote?dry_run=1")["unreached_peers"], [])
        master.stop()
        replica.json("POST", "/replication/promote")
        replica.put("k", b"w")


class Deaths(NexusTestCase):
    def kill_while_writing(self, master, replica, node, kind):
        writers = load.AckedPuts(master.http_port, prefix=kind).start()
        for _ in range(3):
            before = writers.count()
            wait_until(lambda: writers.count() > before + 200, 30, "writes")  # noqa: B023
            pid = node.kill_child(kind)
            node.wait_replaced(kind, pid)
            replica.wait_status(connected=True)
        writers.stop()
        replica.wait_offset(max(writers.acked.values()), 30)
        self.assertEqual(master.export(), replica.export())
        ours, theirs = frames(master), frames(replica)
        self.assertEqual(list(theirs), list(range(1, max(theirs) + 1)))
        self.assertEqual(ours, theirs)

    def test_01_kill_9_of_the_walsender(self):
        master, replica = self.pair()
        self.kill_while_writing(master, replica, master, "walsender")
        self.assertGreaterEqual(replica.stats()["reconnects"], 3)

    def test_02_kill_9_of_the_walreceiver(self):
        master, replica = self.pair()
        self.kill_while_writing(master, replica, replica, "walreceiver")
        self.assertGreaterEqual(replica.stats()["reconnects"], 3)

    def test_03_kill_9_of_the_replicas_walwriter(self):
        master, replica = self.pair()
        self.kill_while_writing(master, replica, replica, "walwriter")

    def test_04_a_frozen_master_appears_dead(self):
        master, replica = self.pair(settings={"replication.heartbeat_ms": 200})
        offset = master.put("k", b"v")
        replica.wait_offset(offset)
        mark = replica.log_mark()
        stopped = [process.pid for process in master.all_processes()]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            replica.wait_log("appears dead", since=mark, timeout=10)
            self.assertFalse(replica.stats()["connected"])
            self.assertEqual(replica.get("k"), b"v")
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        offset = master.put("k", b"w")
        replica.wait_offset(offset)

    def test_05_a_frozen_replica_is_given_up_and_comes_back(self):
        master, replica = self.pair(settings={"replication.heartbeat_ms": 200})
        receiver = replica.kill_child("walreceiver", signal.SIGSTOP)
        try:
            master.wait_log("the replica appears dead", timeout=10)
            offset = master.put("k", b"v")
            master.wait_status(replica_count=0)
        finally:
            os.kill(receiver, signal.SIGCONT)
        replica.wait_offset(offset)


class Refusals(NexusTestCase):
    def test_01_a_node_without_data_adopts_another_cluster(self):
        first = self.node("master")
        replica = self.node(
            "replica", settings={"replication.master_addr": first.replication_addr}
        )
        replica.wait_log("this node belongs to cluster " + first.status()["cluster_id"])
        other = self.node("master")
        other.put("other", b"x")
        self.adopt_master(replica, other)
        replica.wait_offset(1)
        self.assertEqual(replica.status()["cluster_id"], other.status()["cluster_id"])
        self.assertEqual(replica.get("other"), b"x")

    def test_02_a_replica_of_another_cluster_keeps_its_data(self):
        master, replica = self.pair()
        master.put("own", b"x")
        replica.wait_offset(1)
        other = self.node("master")
        other.put("other", b"x")
        self.adopt_master(replica, other)
        replica.wait_log(r"Error 2 \(another cluster\)")
        self.assertIsNone(replica.get("other"))

    def adopt_master(self, replica, master):
        """Restarts the replica with another master."""
        replica.stop()
        replica.settings["replication.master_addr"] = master.replication_addr
        replica.start(wait=None)

    def test_03_a_replica_of_a_replica_is_sent_to_the_master(self):
        master, replica = self.pair()
        second = self.node(
            "replica",
            settings={"replication.master_addr": replica.replication_addr},
        )
        second.wait_log(r"Error 5 \(not a master\).*" + master.replication_addr)

    def test_035_replicas_in_a_circle_stay_replicas(self):
        nodes = [self.node("replica", start=False) for _ in range(2)]
        ways = [Proxy(node.replication_port, record=True) for node in nodes]
        for node, way in zip(nodes, reversed(ways)):
            self.addCleanup(way.close)
            node.settings["replication.master_addr"] = way.addr
            node.start()
        for node, way in zip(nodes, ways):
            node.wait_log(r"Error 5 \(not a master\)")
            node.wait_until(lambda attempts=way.recordings: len(attempts) >= 4, 60, "more attempts")
        for node in nodes:
            self.assert_problem(node.request("PUT", "/kv/k", b"v"), 403, "read_only_replica")
            self.assertEqual(node.log().count("the master says Error 5"), 1)
            self.assertEqual([row for row in node.processes() if row["restarts"] > 0], [])

    def test_04_no_master_yet_one_line_and_no_hurry(self):
        port = free_port()
        replica = self.node(
            "replica", settings={"replication.master_addr": f"127.0.0.1:{port}"}
        )
        replica.wait_log(f"can't connect to master 127.0.0.1:{port}: Connection refused")
        time.sleep(1)  # attempts that are refused leave no trace; that they go on is seen by the next one
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(30)
            connection, _ = listener.accept()
            with connection:
                self.assertEqual(replica.log().count("can't connect"), 1)

    def test_05_a_name_that_nobody_has(self):
        replica = self.node(
            "replica",
            settings={
                "replication.master_addr": "no-such-host.invalid:15475",
                "replication.connect_timeout_ms": 1000,
            },
        )
        replica.wait_log("no-such-host.invalid:15475")
        begin = time.monotonic()
        replica.stop()
        self.assertLess(time.monotonic() - begin, 5)


if __name__ == "__main__":
    unittest.main()
