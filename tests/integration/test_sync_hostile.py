# timeout: 300
"""Replicas that lie to a sync master: what they say confirms nothing that it must not, and changes nothing
for the others. A replica that claims to have stored what it was sent can't be found out; all else can."""

import json
import os
import socket
import threading
import time
import unittest
import uuid

import nexus_wire as wire
from nexus_test import SANITIZED, NexusTestCase, free_port, memory_of, wait_until

SETTINGS = {
    "replication.mode": "sync",
    "replication.heartbeat_ms": 200,
    "replication.sync_timeout_ms": 1500,
    "http.request_timeout_ms": 1500,
    "http.workers": 2,
}
LOCAL = {"Nexus-Durability": "local"}
LINEAR = {"Nexus-Read": "linearizable"}
# That a process may grow by, bytes: a sanitizer keeps what was freed for a while.
MEMORY = (400 if SANITIZED else 24) << 20


class Peer:
    """A replica by hand: stores nothing, acknowledges and answers Pings as it is told to."""

    def __init__(self, master, replica_id=None, ack=True, pong=True, hold=False, **position):
        self.id = replica_id or str(uuid.uuid4())
        self.ack = ack
        self.pong = pong
        self.last = position.get("last_wal_offset", 0)
        self.error = None
        self.snapshot = False
        self.hold = hold  # reads nothing behind the beginning of a snapshot
        self.pings = []
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.peer = wire.RawPeer(master.replication_port)
        if hold:
            self.shrink()
        try:
            self.welcome = self.peer.handshake(self.id, **position)
        except AssertionError:
            self.peer.close()
            raise
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while (message := self.next()) is not None:
                self.take(message)
        except (OSError, ValueError):
            pass
        self.ended.set()

    def next(self):
        while True:
            try:
                return self.peer.recv(0.05)
            except TimeoutError:
                if self.ended.is_set():
                    return None

    def take(self, message):
        if message.type == wire.PING and message.timestamp:
            self.pings.append(message.timestamp)
            if self.pong:
                self.send(wire.build_pong(message.timestamp))
        elif message.type == wire.WAL_ENTRY:
            self.last = message.offset
            if self.ack:
                self.send(wire.build_ack(message.offset))
        elif message.type == wire.ERROR:
            self.error = message
        elif message.type == wire.SNAPSHOT_META:
            self.snapshot = True
            if self.hold:
                self.ended.wait()

    def shrink(self):
        """The sockets between hold little from now on: what is more stays with the master until it is read."""
        self.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def send(self, *frames):
        with self.lock:
            self.peer.send(b"".join(frames))

    def close(self):
        self.ended.set()
        self.thread.join()
        self.peer.close()


class Hostile(NexusTestCase):
    def master(self, quorum=1, **settings):
        return self.node("master", settings={**SETTINGS, "replication.sync_quorum": quorum, **settings})

    def peer(self, master, replica_id=None, level=True, **options):
        peer = Peer(master, replica_id, **options)
        self.addCleanup(peer.close)
        if level:
            self.wait_state(master, peer.id, "streaming")
        return peer

    def position(self, master):
        status = master.status()
        return {
            "last_wal_offset": status["wal_offset"],
            "last_epoch": status["epoch"],
            "last_crc": status["last_crc"],
            "cluster_id": status["cluster_id"],
        }

    def wait_state(self, master, replica_id, state):
        master.wait_until(
            lambda: any(r["id"] == replica_id and r["state"] == state for r in master.replicas()),
            what=f"{replica_id} {state}",
        )

    def wait_refused(self, peer, code=6):
        wait_until(peer.ended.is_set, 10, "the end of the session")
        if code is not None:
            self.assertEqual(getattr(peer.error, "code", None), code, peer.error)

    def unknown(self, master, key="k", headers=None):
        """A write that is logged and that nobody confirms."""
        problem = self.assert_problem(
            master.request("PUT", f"/kv/{key}", b"v", headers), 504, "quorum_timeout"
        )
        self.assertEqual(master.json("GET", problem["check"])["state"], "pending")
        return problem

    def fill(self, master):
        """More than the sockets' buffers hold: a snapshot of it is being sent until it is read."""
        for number in range(12):
            master.wait_written(f"k{number}", os.urandom(1 << 20))

    def check_honest(self, master, problem=None):
        """An honest peer comes: all that was written is confirmed by it, and new writes are."""
        peer = self.peer(master, level=False)
        if peer.welcome.requires_full_sync:
            peer.close()
            peer = self.peer(master, level=False, **self.position(master))
        if problem:
            master.wait_until(
                lambda: master.json("GET", problem["check"])["state"] == "quorum", what="confirmation"
            )
        master.wait_written("honest", b"v")
        return peer


class Acks(Hostile):
    def refused_ack(self, frames, code=6):
        master = self.master()
        liar = self.peer(master)
        master.wait_written("first", b"v")
        liar.ack = False
        quorum = master.status()["quorum_offset"]
        problem = self.unknown(master)
        wait_until(lambda: liar.last == problem["offset"], what="the entry at the peer")
        liar.send(*frames(problem["offset"]))
        self.wait_refused(liar, code)
        self.assertEqual(master.status()["quorum_offset"], quorum)
        self.assertEqual(master.json("GET", problem["check"])["state"], "pending")
        self.assertEqual(master.request("GET", "/kv/k")[0], 404)
        self.check_honest(master, problem)

    def test_of_the_future(self):
        self.refused_ack(lambda offset: [wire.build_ack(offset + 1)])
        self.refused_ack(lambda offset: [wire.build_ack((1 << 64) - 1)])

    def test_received_of_the_future(self):
        self.refused_ack(lambda offset: [wire.build_ack(offset, received=offset + 1)])

    def test_backwards(self):
        self.refused_ack(lambda offset: [wire.build_ack(offset - 2)])

    def test_of_a_failure(self):
        self.refused_ack(lambda offset: [wire.build_ack(offset, success=False)], None)

    def test_one_replica_counts_once(self):
        master = self.master(quorum=2)
        one = str(uuid.uuid4())
        stop = threading.Event()
        opened = []

        def connect():
            while not stop.is_set():
                try:
                    peer = Peer(master, one)
                except (OSError, AssertionError):
                    continue
                opened.append(peer)
                peer.ended.wait(0.2)
                peer.close()

        threads = [threading.Thread(target=connect) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for number in range(8):
                answer = master.request("PUT", f"/kv/k{number}", b"v")
                self.assert_problem(answer, 503, "quorum_unavailable")
                status = master.request("PUT", f"/kv/l{number}", b"v", LOCAL)[0]
                self.assertEqual(status, 201)
                self.assertEqual(master.status()["quorum_offset"], 0)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertGreater(len(opened), 8)

    def test_an_old_session_says_no_more(self):
        """It acknowledges while the same replica is back and lacks what it had."""
        master = self.master()
        old = self.peer(master)
        old.ack = False
        problem = self.unknown(master)
        wait_until(lambda: old.last == problem["offset"], what="the entry at the peer")
        new = self.peer(master, old.id, level=False, ack=False)
        try:
            for _ in range(1000):
                old.send(wire.build_ack(problem["offset"]))
        except OSError:
            pass
        wait_until(old.ended.is_set, what="the end of the old session")
        self.assertEqual(master.status()["quorum_offset"], 0)
        self.assertEqual(master.json("GET", problem["check"])["state"], "pending")
        self.assert_problem(master.request("PUT", "/kv/x", b"v"), 503, "quorum_unavailable")
        new.send(wire.build_ack(problem["offset"]))
        master.wait_until(
            lambda: master.json("GET", problem["check"])["state"] == "quorum", what="confirmation"
        )

    def test_one_that_comes_back_with_less_does_not_count_for_more(self):
        """It had acknowledged 1 to 5, lost them, and says so: a second replica's word is one word."""
        master = self.master(quorum=2)
        first = self.peer(master)
        for number in range(5):
            master.put(f"k{number}", b"v", headers=LOCAL)
        self.assertEqual(master.status()["quorum_offset"], 0)
        wait_until(lambda: first.last == 5, what="the entries at the peer")
        first.close()
        again = self.peer(master, first.id, level=False, ack=False)
        wait_until(lambda: again.last == 5, what="the entries at the peer")
        self.peer(master)
        self.assertEqual(master.status()["quorum_offset"], 0)
        again.send(wire.build_ack(3))  # behind what was there as it came: it doesn't count yet
        master.wait_until(
            lambda: any(r["last_ack_offset"] == 3 for r in master.replicas()), what="the ack"
        )
        self.assertEqual(master.status()["quorum_offset"], 0)
        again.send(wire.build_ack(5))
        master.wait_status(quorum_offset=5)

    def test_while_a_snapshot_is_sent(self):
        master = self.master()
        first = self.peer(master)
        self.fill(master)
        master.json("POST", "/replication/snapshot")
        first.close()
        before = master.status()["quorum_offset"]
        offset = master.put("l", b"v", headers=LOCAL)
        # An ack that comes when the entry behind the snapshot is sent could not be told from the truth.
        liar = self.peer(master, level=False, hold=True)
        self.assertTrue(liar.welcome.requires_full_sync)
        liar.send(wire.build_ack(offset))
        wait_until(lambda: liar.snapshot or liar.ended.is_set(), what="the snapshot")
        for _ in range(10):
            self.assertEqual(master.status()["quorum_offset"], before)
            self.assertEqual(master.request("GET", "/kv/l")[0], 404)
            time.sleep(0.03)
        liar.close()
        self.check_honest(master)

    def test_one_that_asks_for_a_snapshot_counts_no_more(self):
        master = self.master()
        liar = self.peer(master)
        self.fill(master)
        liar.shrink()
        liar.hold = True
        liar.send(wire.build(wire.REQUEST_SNAPSHOT, replica_id=liar.id))
        wait_until(lambda: liar.snapshot, what="the snapshot")
        before = master.status()["quorum_offset"]
        offset = master.put("l", b"v", headers=LOCAL)
        try:
            liar.send(wire.build_ack(offset), wire.build_ack(offset + 1))
        except OSError:
            pass
        self.assertEqual(master.status()["quorum_offset"], before)
        liar.close()
        self.check_honest(master)


class Life(Hostile):
    def test_pongs_of_no_ping_confirm_nothing(self):
        master = self.master()
        liar = self.peer(master)
        master.put("k", b"v")
        self.assertEqual(master.get("k", headers=LINEAR), b"v")
        old = liar.pings[:3]  # answered already
        liar.pong = False
        stop = threading.Event()

        def lie():
            while not stop.wait(0.005):
                now = wire.now_ms()
                stamps = [0, 1, now + 5000, now - 5000, (1 << 64) - 1, *old]
                liar.send(*map(wire.build_pong, stamps))

        thread = threading.Thread(target=lie)
        thread.start()
        try:
            for _ in range(3):
                self.assert_problem(
                    master.request("GET", "/kv/k", headers=LINEAR), 503, "quorum_unavailable"
                )
        finally:
            stop.set()
            thread.join()
        self.assertFalse(liar.ended.is_set())  # any frame is life
        liar.pong = True
        master.wait_until(
            lambda: master.request("GET", "/kv/k", headers=LINEAR)[0] == 200, what="the quorum's word"
        )

    def test_a_silent_one_does_not_count_for_new_writes(self):
        master = self.master()
        liar = self.peer(master)
        master.put("k", b"v")
        liar.ack = liar.pong = False
        master.wait_until(
            lambda: not any(r["healthy"] for r in master.replicas()), what="its silence to be noticed"
        )
        offset = master.status()["wal_offset"]
        self.assert_problem(master.request("PUT", "/kv/l", b"v"), 503, "quorum_unavailable")
        self.assertEqual(master.status()["wal_offset"], offset)

    def test_one_that_stops_reading_holds_nobody_up(self):
        master = self.master(**{"replication.heartbeat_ms": 1000, "replication.sync_timeout_ms": 10000})
        self.peer(master)
        full = wire.RawPeer(master.replication_port)
        self.addCleanup(full.close)
        full.handshake()
        pids = [row["pid"] for row in master.processes() if row["pid"]]
        master.put("warm", b"v" * 1_000_000)
        before = {pid: memory_of(pid) for pid in pids}
        for number in range(60):
            master.put(f"k{number % 5}", b"v" * 1_000_000)
        for pid in pids:
            self.assertLess(memory_of(pid) - before[pid], MEMORY, pid)

    def test_idle_connections_take_no_place(self):
        master = self.master()
        idle = [socket.create_connection(("127.0.0.1", master.replication_port)) for _ in range(24)]
        try:
            self.check_honest(master)
            for number in range(50):
                master.put(f"k{number}", b"v")
        finally:
            for sock in idle:
                sock.close()


class FalseMaster(Hostile):
    def test_its_word_of_the_quorum_does_not_outlast_it(self):
        """What a replica has beyond the quorum's word is hidden again from the honest master's next entry on."""
        cluster = self.cluster(1, settings={"replication.mode": "sync", "replication.sync_quorum": 2})
        master, replica = cluster.master, cluster.replica
        replica.wait_status(wal_offset=master.put("first", b"v", headers=LOCAL))
        self.assertIsNone(replica.get("first"))
        with wire.RawMaster(free_port(), timeout=20) as false:
            replica.json("POST", "/replication/follow", json.dumps({"master_addr": false.addr}))
            peer = false.accept(20)
            hello = peer.recv_type(wire.HELLO)
            welcome = {"cluster_id": hello.cluster_id, "epoch": 1, "current_wal_offset": 1, "mode": 1}
            peer.send(wire.build_welcome(false.master_id, **welcome))
            peer.send(wire.build_ping(1, current_wal_offset=1 << 60, quorum_offset=(1 << 64) - 1))
            peer.recv_type(wire.PONG)
            replica.json("POST", "/replication/follow", json.dumps({"master_addr": master.replication_addr}))
        replica.wait_status(wal_offset=master.put("second", b"v", headers=LOCAL))
        self.assertIsNone(replica.get("second"))
        replica.stop()
        replica.start()
        replica.wait_status(wal_offset=master.put("third", b"v", headers=LOCAL))
        self.assertEqual((replica.get("second"), replica.get("third")), (None, None))


class Hellos(Hostile):
    def restarted(self):
        """A master that was started again: nobody has confirmed its log since."""
        master = self.master()
        honest = self.peer(master)
        for number in range(5):
            master.wait_written(f"k{number}", b"v")
        honest.close()
        master.kill_all()
        master.start()
        return master

    def check_unconfirmed(self, master):
        self.assertEqual(master.status()["quorum_offset"], 0)
        self.assert_problem(master.request("GET", "/kv/k0"), 503, "quorum_unavailable")
        self.assert_problem(master.request("PUT", "/kv/x", b"v"), 503, "quorum_unavailable")
        self.assertEqual(master.status()["wal_offset"], 5)

    def test_only_the_right_position_confirms_a_restarted_master(self):
        master = self.restarted()
        right = self.position(master)
        lies = {
            "another crc": {"last_crc": right["last_crc"] ^ 1},
            "no crc": {"last_crc": 0},
            "a higher epoch": {"last_epoch": right["last_epoch"] + 1},
            "epoch 0": {"last_epoch": 0},
            "a far epoch": {"last_epoch": 1 << 63},
            "beyond": {"last_wal_offset": 6},
            "far beyond": {"last_wal_offset": (1 << 64) - 1},
            "behind with that crc": {"last_wal_offset": 4},
            "no cluster": {"cluster_id": ""},
            "another cluster": {"cluster_id": str(uuid.uuid4())},
        }
        for name, lie in lies.items():
            with self.subTest(name):
                try:
                    peer = Peer(master, ack=False, **{**right, **lie})
                except AssertionError:
                    self.check_unconfirmed(master)  # answered with an Error
                    continue
                self.addCleanup(peer.close)
                try:
                    peer.send(wire.build_ack(5))
                except OSError:
                    pass
                self.assertTrue(peer.welcome.requires_full_sync)
                self.check_unconfirmed(master)
                peer.close()
        self.peer(master, **right)
        master.wait_status(quorum_offset=5)
        self.assertEqual(master.get("k0"), b"v")
        master.put("x", b"v")


class Together(Hostile):
    def test_honest_replicas_go_on_among_liars(self):
        """Two real replicas, quorum 2, and peers that lie in every way: each success is on both."""
        cluster = self.cluster(
            2, master_settings={**SETTINGS, "replication.sync_quorum": 2,
                                "replication.sync_timeout_ms": 5000}
        )
        master = cluster.master
        master.wait_written("w")
        ids = [row["id"] for row in master.replicas()]
        stop = threading.Event()
        sessions = []

        def lie(kind):
            while not stop.is_set():
                try:
                    position = self.position(master)
                    with wire.RawPeer(master.replication_port) as peer:
                        peer.handshake(None, **position)
                        sessions.append(kind)
                        last = position["last_wal_offset"]
                        if kind == "future":
                            peer.send(wire.build_ack(last + 1000))
                        elif kind == "back":
                            peer.send(wire.build_ack(0))
                        elif kind == "false":
                            peer.send(wire.build_ack(last, success=False))
                        elif kind == "snapshot":
                            peer.send(wire.build(wire.REQUEST_SNAPSHOT, replica_id=ids[0]))
                        elif kind == "reset":
                            peer.reset()
                        stop.wait(0.02)
                except (OSError, AssertionError, ValueError, KeyError):
                    stop.wait(0.01)

        kinds = ("future", "back", "false", "snapshot", "reset")
        threads = [threading.Thread(target=lie, args=(kind,)) for kind in kinds]
        pids = [row["pid"] for row in master.processes() if row["pid"] and row["kind"] != "walsender"]
        for thread in threads:
            thread.start()
        before = None
        try:
            for number in range(300):
                status, _, body = master.request("PUT", f"/kv/k{number}", b"%d" % number)
                self.assertEqual(status, 201, body)
                before = before or {pid: memory_of(pid) for pid in pids}
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(set(sessions), set(kinds))
        for pid in pids:
            self.assertLess(memory_of(pid) - before[pid], MEMORY, pid)
        last = json.loads(master.request("PUT", "/kv/last", b"v")[2])["offset"]
        for replica in cluster.replicas:
            replica.wait_status(durable_offset=last)
            replica.wait_offset(last)
            self.assertEqual(replica.export(), master.export())


if __name__ == "__main__":
    unittest.main()
