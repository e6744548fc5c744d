"""Peers that break the replication protocol: each is answered as designed and closed, the server stays
up, and an honest replica notices nothing."""

import os
import socket
import struct
import time
import unittest
import uuid

import nexus_wire as wire
from nexus_test import VALGRIND, NexusTestCase, free_port, session_processes

HEADER = struct.Struct("<BI")
FLOOD = int(os.environ.get("NEXUS_FLOOD", "200"))  # connections of each kind


def header(message_type, length):
    return HEADER.pack(message_type, length)


def corrupt(frame, at=-6):
    frame = bytearray(frame)
    frame[at] ^= 0x10
    return bytes(frame)


def text_of(data):
    """A Hello whose replica_id is these bytes."""
    payload = struct.pack("<IQ", 0, len(data)) + data + struct.pack("<QI", 0, 1)
    return wire.encode_frame(wire.HELLO, payload)


NEW_ID = "0a0a0a0a-0000-4000-8000-000000000001"

# What stands there instead of a Hello -> the Error that answers.
BEFORE_HELLO = {
    "wrong CRC": (corrupt(wire.build_hello()), 6),
    "length 0x7FFFFFFF": (header(wire.HELLO, 0x7FFFFFFF), 6),
    "length 0xFFFFFFFF": (header(wire.HELLO, 0xFFFFFFFF), 6),
    "64 KiB and a byte": (header(wire.HELLO, (64 << 10) + 1), 6),
    "unknown type": (header(0x7E, 4), 6),
    "type 0": (header(0, 0), 6),
    "Ping": (wire.build_ping(), 6),
    "WalAck": (wire.build_ack(0), 6),
    "WalEntry": (wire.encode_entry(1, 1, 0, [wire.put_op(b"k", b"v")]), 6),
    "Welcome": (wire.build_welcome(), 6),
    "RequestSnapshot": (wire.build(wire.REQUEST_SNAPSHOT, replica_id=NEW_ID), 6),
    "an empty payload": (wire.encode_frame(wire.HELLO, b""), 6),
    "a payload cut short": (wire.encode_frame(wire.HELLO, b"\0\0\0\0\x24\0\0"), 6),
    "another variant": (
        wire.build(wire.HELLO, variant=1, replica_id=NEW_ID, last_wal_offset=0, protocol_version=1),
        6,
    ),
    "a string beyond the payload": (
        wire.encode_frame(wire.HELLO, struct.pack("<IQ", 0, 1 << 63) + b"x" * 40),
        6,
    ),
    "an id that is no UUID": (wire.build_hello("replica-1"), 6),
    "an id that is no UTF-8": (text_of(b"\xff" * 36), 6),
    "an id with a NUL": (text_of(NEW_ID[:-1].encode() + b"\0"), 6),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 6),
    "protocol version 2": (wire.build_hello(protocol_version=2), 1),
    "protocol version 0": (wire.build_hello(protocol_version=0), 1),
    "another cluster": (wire.build_hello(None, 3, cluster_id=str(uuid.uuid4())), 2),
}

# What follows the Welcome -> the Error that answers.
AFTER_HELLO = {
    "wrong CRC": (corrupt(wire.build_ping()), 6),
    "a Ping of 5,000 bytes": (header(wire.PING, 5000), 6),
    "length 0xFFFFFFFF": (header(wire.WAL_ACK, 0xFFFFFFFF), 6),
    "unknown type": (header(0x34, 0), 6),
    "a second Hello": (wire.build_hello(), 6),
    "Welcome": (wire.build_welcome(), 6),
    "WalEntry": (wire.encode_entry(11, 1, 0, [wire.put_op(b"k", b"v")]), 6),
    "SnapshotMeta": (
        wire.build(
            wire.SNAPSHOT_META,
            snapshot_id=NEW_ID, total_size=1, chunk_count=1, checksum=0, wal_offset=1,
        ),
        6,
    ),
    "an ack of the future": (wire.build_ack(1 << 40), 6),
    "the largest ack": (wire.build_ack((1 << 64) - 1), 6),
    "received in the future": (wire.build_ack(0, received=1 << 40), 6),
    "applied before it is durable": (wire.build_ack(0, received=1, applied=1), 6),
    "an ack cut short": (wire.encode_frame(wire.WAL_ACK, struct.pack("<IQ", 5, 0)), 6),
    "success of 2": (wire.encode_frame(wire.WAL_ACK, struct.pack("<IQB", 5, 0, 2)), 6),
    "another variant": (wire.build(wire.PING, variant=3, timestamp=1), 6),
}


class HostileReplicas(NexusTestCase):
    """A master with an honest replica, and somebody else on its port."""

    def setUp(self):
        self.master, self.replica = self.pair(
            settings={"replication.connect_timeout_ms": 1000, "replication.heartbeat_ms": 300}
        )
        for i in range(10):
            self.master.put(f"k{i}", b"v%d" % i)
        self.replica.wait_offset(10)
        self.children = self.child_pids()

    def child_pids(self):
        """Children that live as long as the server."""
        return {
            process["kind"] + str(process["pid"])
            for node in (self.master, self.replica)
            for process in node.processes()
            if process["kind"] != "walsender"
        }

    def peer(self, **options):
        peer = wire.RawPeer(self.master.replication_port, **options)
        self.addCleanup(peer.close)
        return peer

    def assert_nothing_noticed(self):
        offset = self.master.put("after", b"all of it")
        self.replica.wait_offset(offset)
        self.assertEqual(self.replica.get("after"), b"all of it")
        self.master.wait_until(  # a snapshot may still be on its way
            lambda: self.child_pids() == self.children, what="the same processes as before"
        )
        self.assertEqual(self.replica.stats()["reconnects"], 0)
        self.assertTrue(self.replica.stats()["connected"])
        self.master.wait_until(
            lambda: len(self.master.replicas()) == 1, what="the honest replica alone"
        )

    def test_01_before_hello(self):
        for name, (sent, code) in BEFORE_HELLO.items():
            with self.subTest(name):
                peer = self.peer()
                peer.send(sent)
                self.assertTrue(peer.recv_error(code).message)
        self.assert_nothing_noticed()

    def test_02_after_hello(self):
        for name, (sent, code) in AFTER_HELLO.items():
            with self.subTest(name):
                peer = self.peer()
                peer.handshake()
                peer.send(sent)
                self.assertTrue(peer.recv_error(code).message)
        self.assert_nothing_noticed()

    def test_03_acks_must_not_go_back(self):
        peer = self.peer()
        peer.handshake()
        peer.recv_entries(10)
        peer.send(wire.build_ack(7))
        peer.send(wire.build_ack(6))
        message = peer.recv_error(6).message
        self.assertIn("6", message)
        self.assertIn("7", message)
        self.assert_nothing_noticed()

    def test_04_half_open_connections_are_closed(self):
        silent = self.peer()
        beginning = self.peer()
        beginning.send(wire.build_hello()[:20])
        begin = time.monotonic()
        self.assertIsNone(silent.recv(5))
        self.assertLess(time.monotonic() - begin, 3)
        beginning.recv_end(5)
        self.assert_nothing_noticed()

    def test_05_a_frame_cut_off_by_the_end_of_the_connection(self):
        for cut in (1, 4, 5, 20):
            with self.subTest(cut=cut):
                peer = self.peer()
                peer.send(wire.build_hello()[:cut])
                peer.close()
        peer = self.peer()
        peer.handshake()
        peer.send(wire.build_ping()[:7])
        peer.reset()
        self.assert_nothing_noticed()

    def test_06_a_replica_that_falls_silent_is_given_up(self):
        peer = self.peer()
        peer.handshake()
        peer.recv_entries(10)
        begin = time.monotonic()
        peer.recv_end(10)
        self.assertGreater(time.monotonic() - begin, 0.8)
        self.master.wait_log("the replica appears dead")
        self.assert_nothing_noticed()

    def test_07_pings_are_answered_and_are_life(self):
        peer = self.peer()
        peer.handshake()
        peer.recv_entries(10)
        until = time.monotonic() + 2
        stamp = 1
        while time.monotonic() < until:
            peer.send(wire.build_ping(stamp))
            self.assertEqual(peer.recv_type(wire.PONG).timestamp, stamp)
            stamp += 1
            time.sleep(0.1)
        peer.close()
        self.assert_nothing_noticed()

    def test_08_pings_without_end_that_nobody_reads_the_answers_of(self):
        peer = self.peer()
        peer.handshake()
        flood = wire.build_ping(1) * 10000
        peer.sock.settimeout(2)
        try:
            for _ in range(20):
                peer.sock.sendall(flood)
        except (TimeoutError, OSError):
            pass
        if not VALGRIND:
            self.assertLess(self.largest_walsender(), 64 << 20)
        peer.close()
        self.assert_nothing_noticed()

    def largest_walsender(self):
        """Resident bytes of the largest walsender."""
        sizes = []
        for process in session_processes(self.master.pid):
            if "walsender" in process.title:
                with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as file:
                    for line in file:
                        if line.startswith("Private_Dirty:"):
                            sizes.append(int(line.split()[1]) << 10)
        return max(sizes)

    def test_09_the_same_replica_twice(self):
        replica_id = str(uuid.uuid4())
        first = self.peer()
        first.handshake(replica_id)
        first.recv_entries(10)
        second = self.peer()
        second.handshake(replica_id)
        second.recv_entries(10)
        while (message := first.recv()) is not None:
            self.assertIn(message.type, (wire.PING, wire.ERROR))
        self.master.wait_until(
            lambda: [row["id"] for row in self.master.replicas()].count(replica_id) == 1,
            what="one replica of that id",
        )
        second.send(wire.build_ack(10))
        second.close()
        self.assert_nothing_noticed()

    def test_10_a_replica_beyond_the_master_keeps_its_data(self):
        peer = self.peer()
        cluster = self.master.status()["cluster_id"]
        peer.send(wire.build_hello(None, 11, cluster_id=cluster, last_epoch=1, last_crc=7))
        message = peer.recv_error(wire.ERROR_BEHIND).message
        self.assertIn("11", message)
        self.assertIn("10", message)
        self.assert_nothing_noticed()

    def test_11_another_history_at_the_same_offset(self):
        cluster = self.master.status()["cluster_id"]
        for offset in (5, 10):
            with self.subTest(offset=offset):
                peer = self.peer()
                peer.send(
                    wire.build_hello(None, offset, cluster_id=cluster, last_epoch=1, last_crc=7)
                )
                self.assertTrue(peer.recv_type(wire.WELCOME).requires_full_sync)
                self.assertEqual(peer.recv_type(wire.SNAPSHOT_META).wal_offset, 10)
        self.assert_nothing_noticed()

    def test_12_the_masters_own_id(self):
        peer = self.peer()
        peer.send(wire.build_hello(self.master.status()["node_id"]))
        self.assertIn("node id", peer.recv_error(wire.ERROR_AUTH).message)
        self.assert_nothing_noticed()

    def test_13_a_newer_peer_with_more_fields_and_an_older_one_with_fewer(self):
        newer = self.peer()
        newer.send(wire.build_hello(extra=b"tomorrow"))
        self.assertEqual(newer.recv_type(wire.WELCOME).current_wal_offset, 10)
        newer.recv_entries(10)
        older = self.peer()
        older.send(wire.build_hello(last="protocol_version"))
        self.assertEqual(older.recv_type(wire.WELCOME).current_wal_offset, 10)
        older.recv_entries(10)
        newer.close()
        older.close()
        self.assert_nothing_noticed()

    def test_14_a_replica_answers_hello_with_its_master(self):
        with wire.RawPeer(self.replica.replication_port) as peer:
            peer.send(wire.build_hello())
            message = peer.recv_error(wire.ERROR_NOT_MASTER).message
        self.assertIn(self.master.replication_addr, message)
        self.assert_nothing_noticed()

    def test_15_a_frame_that_drips_is_no_sign_of_life(self):
        peer = self.peer()
        peer.handshake()
        self.assertFalse(peer.drip(wire.build_ack(10) * 10))
        self.master.wait_log("the replica appears dead")
        self.assert_nothing_noticed()


class Floods(NexusTestCase):
    """Many at once: each costs a process of bounded life, of which there is a bounded number."""

    REPLICAS = 4
    MOST = REPLICAS + 16  # processes, with those for handshakes (NX_SPARE_WALSENDERS)

    def setUp(self):
        self.master, self.replica = self.pair(
            settings={"replication.max_replicas": self.REPLICAS, "replication.connect_timeout_ms": 20000}
        )
        self.replica.wait_offset(self.master.put("k", b"v"))

    def walsenders(self):
        count = len(self.master.pids("walsender"))
        self.assertLessEqual(count, self.MOST)
        return count

    def flood(self, frame):
        """Connections that send this, whether they are taken or turned away."""
        sockets = []
        for number in range(FLOOD):
            sock = socket.create_connection(("127.0.0.1", self.master.replication_port), 10)
            self.addCleanup(sock.close)
            sockets.append(sock)
            try:
                sock.sendall(frame(number))
            except (BrokenPipeError, ConnectionResetError):
                pass
            if number % 20 == 0:
                self.walsenders()
        return sockets

    def test_more_than_there_are_places(self):
        floods = {  # name -> what each sends, and whether it keeps its place
            "silent": (lambda _: b"", True),
            "a beginning": (lambda _: wire.build_hello()[:20], True),
            "garbage": (lambda _: b"\xff" * 100, False),
            "a Hello each": (lambda _: wire.build_hello(str(uuid.uuid4())), False),
            "one replica's Hello": (lambda _: wire.build_hello(NEW_ID), False),
        }
        for name, (frame, stays) in floods.items():
            with self.subTest(name):
                sockets = self.flood(frame)
                if stays:
                    self.master.wait_until(
                        lambda: self.walsenders() == self.MOST, what="all places taken"
                    )
                self.replica.wait_offset(self.master.put("k", name.encode()))
                self.walsenders()
                for sock in sockets:
                    sock.close()
                self.master.wait_until(lambda: self.walsenders() == 1, what="the honest replica alone")
        self.assertEqual(self.replica.stats()["reconnects"], 0)
        self.assertEqual([row for row in self.master.processes() if row["restarts"] > 0], [])
        self.node("replica", settings={"replication.master_addr": self.master.replication_addr}).wait_offset(
            self.master.put("k", b"after the floods")
        )


class Doors(NexusTestCase):
    def test_more_replicas_than_allowed(self):
        master = self.node("master", settings={"replication.max_replicas": 1})
        with wire.RawPeer(master.replication_port) as first:
            first.handshake()
            with wire.RawPeer(master.replication_port) as second:
                second.send(wire.build_hello())
                self.assertIn("max_replicas is 1", second.recv_error(wire.ERROR_TOO_MANY).message)
            master.put("k", b"v")
            first.recv_entries(1)

    def test_nobody_without_a_token(self):
        master = self.node("master", settings={"replication.allow_without_token": "none"})
        with wire.RawPeer(master.replication_port) as peer:
            self.assertIn("token", peer.recv_error(wire.ERROR_AUTH).message)

    def test_a_stranger_that_connects_and_leaves_is_no_event(self):
        master = self.node("master")
        mark = master.log_mark()
        for _ in range(20):
            wire.RawPeer(master.replication_port).close()
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake()
        master.wait_log("is here", since=mark)
        self.assertNotRegex(master.log()[mark:], r"(?i)\b(warn|error)")


class HostileMasters(NexusTestCase):
    """A replica whose master is not one."""

    def setUp(self):
        self.raw = wire.RawMaster(free_port())
        self.addCleanup(self.raw.close)
        self.log = wire.LogBuilder()
        self.replica = self.node(
            "replica",
            settings={
                "replication.master_addr": self.raw.addr,
                "replication.heartbeat_ms": 300,
                "replication.connect_timeout_ms": 2000,
            },
        )

    def hello(self):
        """The next connection that the replica has not given up yet: (peer, its Hello)."""
        while True:
            peer = self.raw.accept(15)
            hello = peer.recv_type(wire.HELLO)
            peer.sock.setblocking(False)  # else Python waits for the socket's timeout
            try:
                if not peer.sock.recv(1, socket.MSG_PEEK):
                    continue
            except BlockingIOError:
                pass
            return peer, hello

    def welcome(self, **fields):
        """Welcomes the replica: (peer, its Hello)."""
        peer, hello = self.hello()
        merged = {"cluster_id": self.raw.cluster_id, "epoch": 1, "heartbeat_ms": 300, **fields}
        peer.send(wire.build_welcome(self.raw.master_id, **merged))
        return peer, hello

    def session(self):
        """An accepted and welcomed replica that has been sent one more good entry."""
        peer, hello = self.welcome(current_wal_offset=self.log.offset + 1)
        self.assertEqual(hello.last_wal_offset, self.log.offset)
        self.assertEqual(hello.last_crc, self.log.crc)
        number = self.log.offset + 1
        peer.send(self.log.append(wire.put_op(b"k%d" % number, b"v%d" % number)))
        self.wait_ack(peer, number)
        return peer

    def wait_ack(self, peer, offset):
        while peer.recv_type(wire.WAL_ACK).offset < offset:
            pass

    def hostile_frames(self):
        """name -> what a master must not send behind the log's end."""
        offset, crc = self.log.offset, self.log.crc
        put = [wire.put_op(b"evil", b"x")]
        good = wire.encode_entry(offset + 1, 1, crc, put)
        return {
            "gap": wire.encode_entry(offset + 2, 1, crc, put),
            "duplicate": self.log.frames[-1],
            "first entry again": self.log.frames[0],
            "the largest offset": wire.encode_entry((1 << 64) - 1, 1, crc, put),
            "offset 0": wire.encode_entry(0, 1, crc, put),
            "epoch 0": wire.encode_entry(offset + 1, 0, crc, put),
            "another prev_crc": wire.encode_entry(offset + 1, 1, crc ^ 1, put),
            "wrong CRC": corrupt(good),
            "an unknown operation": wire.encode_entry(
                offset + 1, 1, crc, [wire.Op(9, b"evil", b"x")]
            ),
            "an unknown flag": wire.encode_entry(
                offset + 1, 1, crc, [wire.Op(wire.PUT, b"evil", b"x", 4)]
            ),
            "a key of 0 bytes": wire.encode_entry(offset + 1, 1, crc, [wire.put_op(b"", b"x")]),
            "a key of 512 bytes": wire.encode_entry(
                offset + 1, 1, crc, [wire.put_op(b"k" * 512, b"x")]
            ),
            "more operations than there are": wire.encode_entry(
                offset + 1, 1, crc, put, op_count=2
            ),
            "no operation": wire.encode_entry(offset + 1, 1, crc, []),
            "17 MiB": header(wire.WAL_ENTRY, 17 << 20),
            "length 0xFFFFFFFF": header(wire.WAL_ENTRY, 0xFFFFFFFF),
            "unknown type": header(0x55, 0),
            "Hello": wire.build_hello(),
            "a second Welcome": wire.build_welcome(cluster_id=self.raw.cluster_id),
            "WalAck": wire.build_ack(1),
            "a chunk never asked for": wire.build(
                wire.SNAPSHOT_CHUNK, snapshot_id=NEW_ID, chunk_index=0, data=b"x", checksum=0
            ),
        }

    def test_01_what_does_not_continue_the_log_is_refused_and_changes_nothing(self):
        self.session().close()
        for name in self.hostile_frames():
            with self.subTest(name):
                peer = self.session()
                peer.send(self.hostile_frames()[name])
                self.assertTrue(peer.recv_error(6).message)
        peer = self.session()
        state = {item["key"]: item["value"] for item in self.replica.json("GET", "/kv")["items"]}
        wanted = {f"k{i}": f"v{i}" for i in range(1, self.log.offset + 1)}
        self.assertEqual(state, wanted)
        self.assertEqual(self.replica.status()["wal_offset"], self.log.offset)
        peer.close()

    def test_02_a_lower_epoch(self):
        peer = self.session()
        self.log.epoch = 5
        peer.send(self.log.append(wire.epoch_op(str(uuid.uuid4()))))
        self.wait_ack(peer, self.log.offset)
        peer.send(
            wire.encode_entry(self.log.offset + 1, 4, self.log.crc, [wire.put_op(b"evil", b"x")])
        )
        message = peer.recv_error(6).message
        self.assertIn("lower epoch", message)
        self.assertIn("epoch 4", message)
        self.assertIn("epoch 5", message)

    def test_03_the_log_line_names_both_sides(self):
        peer = self.session()
        self.log.append(wire.put_op(b"missing", b"x"))
        peer.send(self.log.append(wire.put_op(b"k", b"v")))
        message = peer.recv_error(6).message
        self.assertIn("entry 3", message)
        self.assertIn("offset 1", message)
        self.assertIn("gap", message)
        self.replica.wait_log("entry 3 .*leaves a gap: offset 1 ")

    def test_04_pings_without_end_leave_the_node_usable(self):
        peer = self.session()
        flood = wire.build_ping(1, current_wal_offset=1) * 5000
        peer.sock.settimeout(2)
        try:
            for _ in range(20):
                peer.sock.sendall(flood)
        except (TimeoutError, OSError):
            pass
        self.assertEqual(self.replica.get("k1"), b"v1")
        self.assertTrue(self.replica.status()["connected"])
        peer.close()
        self.session().close()

    def test_05_a_master_that_falls_silent_appears_dead(self):
        peer = self.session()
        mark = self.replica.log_mark()
        peer.recv_end(10)
        self.replica.wait_log("appears dead", since=mark)
        self.session().close()

    def test_06_a_master_that_never_welcomes(self):
        peer, _ = self.hello()
        peer.recv_end(10)
        self.replica.wait_log("no Welcome within connect_timeout_ms")
        self.session().close()

    def test_07_foreign_empty_and_older_masters_replace_nothing(self):
        self.session().close()
        refusals = [
            ({"cluster_id": str(uuid.uuid4())}, wire.ERROR_CLUSTER),
            ({"cluster_id": ""}, 6),
            ({"current_wal_offset": 0}, wire.ERROR_BEHIND),
            ({"epoch": 0}, wire.ERROR_BEHIND),
            ({"requires_full_sync": True, "current_wal_offset": 0}, wire.ERROR_BEHIND),
            ({"requires_full_sync": True, "epoch": 0}, wire.ERROR_BEHIND),
        ]
        for fields, code in refusals:
            with self.subTest(str(fields)):
                peer, _ = self.welcome(**{"current_wal_offset": 1, **fields})
                self.assertTrue(peer.recv_error(code).message)
        self.assertEqual(self.replica.get("k1"), b"v1")
        self.assertEqual(self.replica.status()["wal_offset"], 1)

    def test_08_an_error_is_logged_once_and_tried_again(self):
        for _ in range(3):
            peer, _ = self.hello()
            peer.send(wire.build_error(5, "my master is\n10.1.1.1:15475"))
            peer.recv_end()
        self.replica.wait_log(r"Error 5 \(not a master\): my master is\\x0[aA]10\.1\.1\.1:15475")
        self.assertEqual(self.replica.log().count("Error 5"), 1)

    def test_09_a_frame_that_drips_is_no_sign_of_life_and_one_on_a_slow_line_is(self):
        peer = self.session()
        large = self.log.append(wire.put_op(b"large", b"x" * (400 << 10)))
        self.assertTrue(peer.drip(large, pause=0.2, size=32 << 10))
        self.wait_ack(peer, self.log.offset)
        mark = self.replica.log_mark()
        put = [wire.put_op(b"k", b"x" * 500)]
        self.assertFalse(peer.drip(wire.encode_entry(self.log.offset + 1, 1, self.log.crc, put)))
        self.replica.wait_log("appears dead", since=mark)
        self.session().close()


if __name__ == "__main__":
    unittest.main()
