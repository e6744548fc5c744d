# timeout: 300
"""Full syncs between real servers: for replicas that are new, too far behind or of another history,
under load and over cuts, and seen from outside, frame by frame."""

import http.client
import json
import os
import re
import shutil
import socket
import threading
import time
import unittest
import uuid
import zlib

import load
import nexus_wire as wire
import wal_files
from full_sync import (
    SMALL,
    FullSyncCase,
    Received,
    archives,
    pins,
    put_many,
    random_pairs,
    running,
    versions,
)
from nexus_test import wait_until
from snapshots import read_snapshot

UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


# ---- replicas that need one ----


class Needed(FullSyncCase):
    def test_01_a_replica_that_was_away_too_long(self):
        cluster = self.cluster(
            settings={**SMALL, "replication.missed_heartbeats_threshold": 20},
            env={"NEXUS_REPLICATION_MAX_LOG_SIZE": "1000"},
        )
        master, replica = cluster.master, cluster.replica
        for number in range(10):
            master.put(f"before{number}", b"x")
        replica.wait_offset(10)
        replica.stop()
        master.delete("before3")
        put_many(master, ((f"k{i:05d}", b"%d" % i * 20) for i in range(5000)))
        master.wait_until(
            lambda: wal_files.list_segments(master.wal_dir)[0][0] > 11, what="that segments go"
        )
        self.assertLessEqual(master.stats()["log_size"], 1000)

        mark = replica.log_mark()
        replica.start()
        offset = self.assert_level(master, replica)
        replica.wait_answer("/ready")
        self.assertRegex(replica.log()[mark:], "(?i)snapshot|full sync")
        self.assertIsNone(replica.get("before3"))
        stats, mine = master.stats(), replica.stats()
        self.assertEqual(stats["snapshot_transfers"], 1)
        (path,) = archives(master)
        size = os.path.getsize(path)
        self.assertGreaterEqual(stats["bytes_sent"], size)
        self.assertGreaterEqual(mine["bytes_received"], size)
        self.assertEqual((mine["current_offset"], mine["lag"]), (offset, 0))
        self.assertTrue(mine["connected"])
        self.assertEqual(mine["master_id"], master.status()["node_id"])
        self.assert_tidy(replica)
        self.check_archive(path, master)

        offset = master.put("after", b"x")
        replica.wait_offset(offset)
        for segment, _ in wal_files.list_segments(replica.wal_dir)[:1]:
            self.assertGreater(segment, 4000)  # its log begins behind the snapshot
        master.wait_until(lambda: not pins(master), what="the end of the pin")
        for end in (replica.stop, replica.kill_all):
            end()
            replica.start("/ready")
            self.assert_level(master, replica)
        self.assertEqual(master.stats()["snapshot_transfers"], 1)

    def check_archive(self, path, master):
        """The archive is one by an independent reader's judgment too, and holds what is exported."""
        with open(path, "rb") as file:
            manifest, epochs, records = read_snapshot(file.read())
        status = master.status()
        self.assertEqual(manifest["cluster_id"], status["cluster_id"])
        self.assertEqual(manifest["epoch"], status["epoch"])
        self.assertEqual(manifest["wal_offset"], status["wal_offset"])  # nobody has written since
        self.assertEqual(manifest["wal_crc32"], status["last_crc"])
        self.assertEqual(epochs["epochs"][-1]["epoch"], status["epoch"])
        self.assertTrue(
            os.path.basename(path).startswith(f"{manifest['wal_offset']:020d}-{manifest['id']}")
        )
        exported = [json.loads(line) for line in master.export().splitlines()]
        self.assertEqual(
            [(record.key.decode(), record.expires_at) for record in records],
            [(row["key"], row.get("expires_at")) for row in exported],
        )
        self.assertEqual([record.value.decode() for record in records], [r["value"] for r in exported])
        versions = master.versions()
        self.assertEqual({r.key.decode(): r.offset for r in records}, versions)

    def test_02_a_new_replica_of_a_master_with_data(self):
        pairs = random_pairs("k", 4000, 4000)  # more than the sockets on the way take
        master = self.master(pairs)
        proxy = self.proxy(master, rate=1_000_000)
        replica = self.replica(proxy.addr)
        row = self.wait_row(master, state="snapshot")
        replica.wait_status(state="snapshot")
        self.assertEqual(row["last_ack_offset"], 0)
        self.assertEqual(replica.request("GET", "/ready")[0], 503)
        self.assert_problem(replica.request("GET", "/kv/k00001"), 503, "not_synced")
        replica.wait_until(lambda: running(replica, "restore"), what="a restore process")
        progress = []

        def rises():
            row = self.row(master)
            progress.append(row["snapshot_progress"] if row else 0)
            return len(set(progress)) > 3

        master.wait_until(rises, what="progress")
        self.assertEqual(progress, sorted(progress))
        self.assertLess(progress[-1], 1)
        for number in range(20):
            master.put(f"during{number}", b"%d" % number)
        master.delete("k00000")
        self.wait_row(master, state="snapshot")
        proxy.rate = None
        replica.wait_answer("/ready")
        self.assert_level(master, replica)
        self.assertEqual(replica.get("during7"), b"7")
        self.assertIsNone(replica.get("k00000"))
        self.wait_row(master, state="streaming", lag=0)
        self.assertEqual(master.stats()["snapshot_transfers"], 1)
        self.assert_tidy(replica)

    def test_03_under_writes_and_cut_twice(self):
        master = self.master(
            random_pairs("k", 500, 4000), **{"replication.max_log_size": 100}
        )
        proxy = self.proxy(master, rate=400_000)
        writers = load.AckedPuts(master.http_port, clients=1, size=100).start()
        self.addCleanup(writers.stop)
        replica = self.replica(proxy.addr)
        self.wait_row(master, state="snapshot")
        for _ in range(2):
            proxy.cut_after(400_000)
            before = proxy.connections
            wait_until(lambda: proxy.connections > before, 20, "a reconnect")  # noqa: B023
        self.wait_row(master, state="snapshot")
        self.assertGreater(writers.count(), 300)  # more than the log would keep
        proxy.rate = None
        replica.wait_answer("/ready", 60)
        writers.stop()
        self.assert_level(master, replica)
        self.wait_row(master, state="streaming")
        self.assertEqual(master.stats()["snapshot_transfers"], 1)
        lost = set(writers.acked) - set(replica.versions("acked"))
        self.assertEqual(lost, set())
        size = sum(map(os.path.getsize, archives(master)))
        self.assertEqual(len(archives(master)), 1)
        self.assertLess(proxy.down, size * 1.5 + writers.count() * 400)  # it went on, not anew
        self.assert_tidy(replica)

    def test_04_several_replicas_share_one_snapshot(self):
        master = self.master(random_pairs("k", 300, 4000))
        proxies = [self.proxy(master) for _ in range(3)]
        for proxy in proxies:
            proxy.pause()
        replicas = [
            self.replica(proxy.addr, name=f"replica{number}")
            for number, proxy in enumerate(proxies)
        ]
        for proxy in proxies:
            wait_until(lambda: proxy.connections > 0, what="a connection")  # noqa: B023
        mark = master.log_mark()
        for proxy in proxies:
            proxy.resume()
        for replica in replicas:
            replica.wait_answer("/ready", 30)
            self.assert_level(master, replica)
        self.assertEqual(master.stats()["snapshot_transfers"], 3)
        # Who asks as it is being named has another one begun, and takes it or the one that is there: not each its own.
        sent = set(re.findall(rf"sending snapshot ({UUID})", master.log()[mark:]))
        self.assertLess(len(sent), 3, sent)
        self.assertLess(len(archives(master)), 3)

    def test_05_a_replica_of_another_history(self):
        master = self.master(random_pairs("k", 50, 100))
        master.stop()
        other = self.node("master", start=False, name="other", settings=SMALL)
        os.mkdir(other.data_dir, 0o700)
        for name in os.listdir(master.data_dir):
            if name in ("current", "data-1"):
                source = os.path.join(master.data_dir, name)
                target = os.path.join(other.data_dir, name)
                if os.path.islink(source):
                    os.symlink(os.readlink(source), target)
                else:
                    shutil.copytree(source, target)
        with open(os.path.join(other.data_dir, "nexus.id"), "w", encoding="ascii") as file:
            file.write(f"node_id = {uuid.uuid4()}\nformat = 1\n")
        os.chmod(os.path.join(other.data_dir, "nexus.id"), 0o600)
        other.start()
        # With another node's log it goes on in an epoch of its own, and stays apart.
        self.assertEqual((other.status()["wal_offset"], other.status()["epoch"]), (51, 2))
        put_many(other, random_pairs("other", 10, 10))
        other.stop()
        master.start()
        put_many(master, random_pairs("mine", 20, 10))

        other.role = "replica"
        other.settings["replication.master_addr"] = master.replication_addr
        other.start()
        # Its own epoch is the higher one: it gives up nothing before it is told to.
        other.wait_log("Error 11")
        self.assertEqual(len(other.versions("other")), 10)
        follow = {"master_addr": master.replication_addr, "force": True}
        other.json("POST", "/replication/follow", json.dumps(follow))
        self.assert_level(master, other)
        given_up = [entry["offset"] for entry in other.json("GET", "/replication/diverged")["entries"]]
        self.assertEqual(given_up, list(range(51, 62)))
        self.assertEqual(other.versions("other"), {})
        self.assertEqual(len(other.versions("mine")), 20)
        self.assertEqual(master.stats()["snapshot_transfers"], 1)
        self.assert_tidy(other)

    def test_06_larger_than_snapshot_max_size(self):
        master = self.master(**{"snapshot.max_size": "1MiB", "replication.max_log_size": 100})
        proxy = self.proxy(master)
        replica = self.replica(proxy.addr).wait_answer("/ready")
        offset = master.put("old", b"data")
        replica.wait_offset(offset)
        replica.stop()
        put_many(master, random_pairs("k", 500, 5000))
        marks = master.log_mark(), replica.log_mark()
        replica.start()
        master.wait_log("(WARN|ERROR).*max_size", since=marks[0])
        replica.wait_log("(WARN|ERROR).*max_size", since=marks[1])
        self.assertEqual(replica.get("old"), b"data")
        self.assertEqual(replica.status()["wal_offset"], offset)
        before, begin = proxy.connections, time.monotonic()
        wait_until(lambda: proxy.connections >= before + 2, 20, "that it tries again")
        self.assertGreater(time.monotonic() - begin, 0.5)  # not at once each time
        self.assertEqual(archives(master), [])
        self.assertEqual(master.stats()["snapshot_transfers"], 0)
        self.assertEqual(replica.get("old"), b"data")
        master.stop()
        master.settings["snapshot.max_size"] = "1GiB"
        master.start()
        self.assert_level(master, replica)
        self.assert_tidy(replica)

    def test_07_reads_see_the_old_state_until_the_switch(self):
        master = self.master(**{"replication.max_log_size": 100})
        proxy = self.proxy(master)
        replica = self.replica(proxy.addr).wait_answer("/ready")
        old = master.put("k", b"old")
        replica.wait_offset(old)
        replica.stop()
        put_many(master, random_pairs("more", 300, 4000))
        new = master.put("k", b"new")
        proxy.rate = 500_000
        replica.start()
        reader = Reader(replica)
        self.addCleanup(reader.stop)
        self.wait_row(master, state="snapshot")
        replica.wait_status(state="snapshot")
        count = len(reader.seen)
        wait_until(lambda: len(reader.seen) > count + 50, what="reads")
        self.assertEqual(set(reader.seen), {(old, b"old")})
        self.assertEqual(replica.versions(), {"k": old})
        proxy.rate = None
        wait_until(lambda: reader.seen[-1][1] == b"new", 30, "the new state")
        reader.stop()
        offsets = [offset for offset, _ in reader.seen]
        self.assertEqual(offsets, sorted(offsets))
        for offset, value in reader.seen:
            self.assertEqual(value, b"old" if offset < new else b"new")
        self.assertLessEqual({status for status, _ in reader.refusals}, {503})
        self.assert_level(master, replica)

    def test_08_an_empty_state(self):
        master = self.master(random_pairs("k", 20, 10), **{"replication.max_log_size": 5})
        master.batch([{"delete": {"key": key}} for key in master.versions()])
        master.export()
        replica = self.replica(master.replication_addr)
        replica.wait_answer("/ready")
        self.assert_level(master, replica)
        self.assertEqual(replica.export(), b"")
        offset = master.put("again", b"x")
        replica.wait_offset(offset)
        self.assertEqual(replica.get("again"), b"x")

    def test_09_large_values_and_all_kinds_of_keys(self):
        later = wire.now_ms() + 3_600_000
        raw = wire.RawMaster()
        self.addCleanup(raw.close)
        settings = {"wal.shm_size": "128MiB"}
        master = self.replica(raw.addr, name="master", **settings)
        peer, _ = raw.welcome(current_wal_offset=1)
        entry = [
            wire.put_op(b"expires", b"later", later),
            wire.put_op(b"\x00\x01/%?", b""),
            wire.put_op(b"\xff" * 511, bytes(range(256))),
        ]
        peer.send(wire.LogBuilder().append(*entry))
        peer.recv_type(wire.WAL_ACK)
        master.stop()
        raw.close()
        master.role = "master"
        del master.settings["replication.master_addr"]
        master.settings["http.max_value_size"] = "15MiB"
        master.start()
        values = {f"large{number}": os.urandom(1 << 20) * 15 for number in range(2)}
        for key, value in values.items():
            master.put(key, value)
        master.export()
        replica = self.replica(master.replication_addr, **settings)
        replica.wait_answer("/ready", 30)
        self.assertEqual(versions(replica)["expires"], (1, later))
        for key, value in values.items():
            self.assertTrue(replica.get(key) == value, key)
        self.assert_level(master, replica)
        self.assertEqual(master.stats()["snapshot_transfers"], 1)


    def test_10_more_than_fits_the_replica(self):
        master = self.master(**{"replication.max_log_size": 5})
        settings = {"state.map_size": "16MiB"}
        replica = self.replica(master.replication_addr, **settings).wait_answer("/ready")
        offset = master.put("old", b"data")
        replica.wait_offset(offset)
        replica.stop()
        put_many(master, random_pairs("k", 20, 1 << 20))
        mark = replica.log_mark()
        replica.start()
        replica.wait_log("(WARN|ERROR).*state.map_size", since=mark)
        self.assertEqual(replica.get("old"), b"data")
        self.assertEqual(replica.status()["wal_offset"], offset)
        replica.stop()
        replica.settings["state.map_size"] = "1GiB"
        replica.start()
        self.assert_level(master, replica)
        self.assert_tidy(replica)


class Reader:
    """Reads one key without pause and notes (Nexus-Offset, value)."""

    def __init__(self, node):
        self.client = node.client()
        self.seen = []
        self.refusals = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stopping.wait(0.002):
            try:
                status, headers, body = self.client.request("GET", "/kv/k")
            except (OSError, http.client.HTTPException):
                continue  # its server is being replaced
            if status == 200:
                self.seen.append((int(headers["Nexus-Offset"]), body))
            else:
                self.refusals.append((status, body))

    def stop(self):
        self.stopping.set()
        self.thread.join()
        self.client.close()


# ---- seen from outside ----


class Outside(FullSyncCase):
    CHUNK = 16 << 10

    def check_totals(self, received, archive):
        """Both messages say the truth, or SnapshotMeta nothing."""
        totals = (len(archive), -(-len(archive) // self.CHUNK), zlib.crc32(archive))
        meta, complete = received.meta, received.complete
        self.assertIn((meta.total_size, meta.chunk_count, meta.checksum), [totals, (0, 0, 0)])
        self.assertIs(complete.success, True)
        self.assertEqual(complete.snapshot_id, meta.snapshot_id)
        self.assertEqual((complete.total_size, complete.chunk_count, complete.checksum), totals)
        for data in received.chunks[:-1]:
            self.assertEqual(len(data), self.CHUNK)

    def check_content(self, received, archive, master):
        manifest, _, records = read_snapshot(archive)
        self.assertEqual(manifest["id"], received.meta.snapshot_id)
        self.assertEqual(manifest["wal_offset"], received.meta.wal_offset)
        self.assertEqual(manifest["epoch"], received.meta.epoch)
        self.assertEqual({r.key.decode(): r.offset for r in records}, master.versions())
        return manifest

    def test_01_the_conversation(self):
        master = self.master(random_pairs("k", 300, 1000))
        replica_id = str(uuid.uuid4())
        peer = self.peer(master)
        welcome = peer.handshake(replica_id)
        self.assertIs(welcome.requires_full_sync, True)
        self.assertEqual(welcome.current_wal_offset, 300)
        received = Received(peer).run()
        self.check_totals(received, received.archive)
        manifest = self.check_content(received, received.archive, master)
        self.assertEqual(received.meta.wal_offset, 300)
        self.wait_row(master, id=replica_id, last_ack_offset=0)
        offset = master.put("next", b"x")
        (entry,) = peer.recv_entries(1)
        self.assertEqual((entry.offset, entry.prev_crc), (offset, manifest["wal_crc32"]))
        self.assertEqual(entry.offset, received.meta.wal_offset + 1)
        peer.send(wire.build_ack(300))
        self.wait_row(master, id=replica_id, last_ack_offset=300)
        peer.send(wire.build_ack(301))
        self.wait_row(master, id=replica_id, last_ack_offset=301, state="streaming")
        self.assertEqual(master.stats()["snapshot_transfers"], 1)
        self.assertGreater(master.stats()["bytes_sent"], len(received.archive))
        master.wait_until(lambda: not pins(master), what="the end of the pin")

    def test_02_a_replica_asks_for_one(self):
        master = self.master(**{"snapshot.chunk_size": self.CHUNK})
        put_many(master, random_pairs("k", 100, 1000))
        replica_id = str(uuid.uuid4())
        peer = self.peer(master)
        self.assertIs(peer.handshake(replica_id).requires_full_sync, False)
        peer.recv_entries(100)
        peer.send(wire.build_ack(100))
        self.wait_row(master, last_ack_offset=100)
        peer.send(wire.build(wire.REQUEST_SNAPSHOT, replica_id=replica_id))
        received = Received(peer).run()
        self.check_totals(received, received.archive)
        self.check_content(received, received.archive, master)
        self.assertEqual(received.meta.wal_offset, 100)
        offset = master.put("next", b"x")
        self.assertEqual(peer.recv_entries(1)[0].offset, offset)
        peer.send(wire.build_ack(offset))
        self.wait_row(master, last_ack_offset=offset, state="streaming")
        self.assertEqual(master.stats()["snapshot_transfers"], 1)

    def test_03_pings_while_it_is_made(self):
        master = self.master(
            random_pairs("k", 1000, 4000),
            **{
                "snapshot.compression_level": 19,
                "replication.heartbeat_ms": 50,
                "replication.missed_heartbeats_threshold": 200,
            },
        )
        peer = self.peer(master)
        peer.handshake()
        received = Received(peer).run()
        self.assertGreater(received.pings, 0)
        self.check_totals(received, received.archive)
        offset = master.put("next", b"x")
        self.assertEqual(peer.recv_entries(1)[0].offset, offset)

    def test_04_resumed_after_the_log_has_moved_on(self):
        master = self.master(random_pairs("k", 300, 4000), **{"replication.max_log_size": 100})
        replica_id = str(uuid.uuid4())
        peer = self.peer(master, sock=narrow_socket(master.replication_port))
        peer.handshake(replica_id)
        first = Received(peer).run(5)
        peer.close()
        master.wait_status(replica_count=0)
        put_many(master, random_pairs("late", 1000, 400))
        master.export()
        time_to_recycle(master)
        self.assertEqual(len(pins(master)), 1)

        peer = self.peer(master)
        welcome = peer.handshake(
            replica_id, resume_snapshot_id=first.meta.snapshot_id, resume_chunk=5
        )
        self.assertIs(welcome.requires_full_sync, True)
        rest = Received(peer, 5).run()
        self.assertEqual(rest.meta.snapshot_id, first.meta.snapshot_id)
        archive = first.archive + rest.archive
        self.check_totals(rest, archive)
        manifest, _, _ = read_snapshot(archive)
        last = master.status()["wal_offset"]
        entries = peer.recv_entries(last - 300)
        self.assertEqual([entry.offset for entry in entries], list(range(301, last + 1)))
        self.assertEqual(entries[0].prev_crc, manifest["wal_crc32"])

        # What was acknowledged counts: the pin moves forward and goes.
        peer.send(wire.build_ack(800))
        self.wait_row(master, last_ack_offset=800)
        self.assertEqual(master.stats()["snapshot_transfers"], 1)
        peer.close()
        master.wait_status(replica_count=0)
        peer = self.peer(master)
        status = master.status()
        welcome = peer.handshake(
            replica_id,
            800,
            cluster_id=status["cluster_id"],
            last_epoch=status["epoch"],
            last_crc=entries[499].crc,
        )
        self.assertIs(welcome.requires_full_sync, False)
        self.assertEqual(peer.recv_entries(last - 800)[0].offset, 801)
        peer.send(wire.build_ack(last))
        master.wait_until(lambda: not pins(master), what="the end of the pin")

    def test_05_resuming_what_is_not_there(self):
        master = self.master(random_pairs("k", 100, 1000))
        for snapshot_id, number in ((str(uuid.uuid4()), 3), ("../../x", 1), ("", 7)):
            with self.subTest(snapshot_id):
                peer = self.peer(master)
                peer.handshake(resume_snapshot_id=snapshot_id, resume_chunk=number)
                received = Received(peer).run()
                self.check_totals(received, received.archive)
                peer.close()
        peer = self.peer(master)
        peer.handshake()
        received = Received(peer).run()
        peer.close()
        peer = self.peer(master)  # a chunk that it never had
        peer.send(
            wire.build_hello(resume_snapshot_id=received.meta.snapshot_id, resume_chunk=0xFFFFFFFF)
        )
        message = peer.recv_type(wire.WELCOME)
        message = peer.recv()
        while message is not None and message.type == wire.PING:
            message = peer.recv()
        if message is not None and message.type == wire.SNAPSHOT_META:
            again = Received(peer)
            again.meta = message
            again.run()
            self.assertEqual(again.archive, received.archive)
        replica = self.replica(master.replication_addr)
        replica.wait_answer("/ready")
        self.assert_level(master, replica)

    def test_06_acks_that_are_not_true(self):
        master = self.master(random_pairs("k", 300, 1000))
        peer = self.peer(master)
        peer.handshake()
        peer.send(wire.build_ack(301))  # of a history that the snapshot replaces: it counts nothing
        Received(peer).run()
        self.wait_row(master, last_ack_offset=0)
        peer.send(wire.build_ack(301))
        self.assertEqual(self.end_of(peer).code, wire.ERROR_FRAME)
        master.wait_status(replica_count=0)
        self.assertEqual(len(master.get("k00000")), 1000)

    @staticmethod
    def end_of(peer):
        """Reads to the end: the Error that came, or None."""
        error = None
        while (message := peer.recv()) is not None:
            if message.type == wire.ERROR:
                error = message
        return error

    def test_07_a_peer_that_reads_nothing(self):
        """The walsender waits for it without growing, and gives it up when it is silent."""
        master = self.master(
            random_pairs("k", 1500, 4000), **{"replication.missed_heartbeats_threshold": 2}
        )
        peer = self.peer(master)
        peer.handshake()
        master.wait_log("appears dead", timeout=20)
        master.wait_status(replica_count=0)
        replica = self.replica(master.replication_addr)
        replica.wait_answer("/ready", 30)
        self.assert_level(master, replica)


    def test_08_a_peer_that_asks_again_and_again(self):
        master = self.master(random_pairs("k", 100, 1000))
        replica_id = str(uuid.uuid4())
        peer = self.peer(master)
        peer.handshake(replica_id)
        Received(peer).run()
        peer.send(wire.build_ack(100))
        self.wait_row(master, last_ack_offset=100)
        ask = wire.build(wire.REQUEST_SNAPSHOT, replica_id=replica_id)
        peer.send(ask * 100)
        metas = completes = 0
        while completes == 0 or completes < metas:
            message = peer.recv()
            self.assertIsNotNone(message)
            metas += message.type == wire.SNAPSHOT_META
            completes += message.type == wire.SNAPSHOT_COMPLETE
        wait_until(lambda: archives(master), what="the name of the archive")
        self.assertEqual(len(archives(master)), 1)
        offset = master.put("next", b"x")
        self.assertEqual(peer.recv_entries(1)[0].offset, offset)


def narrow_socket(port):
    """A connection that takes little in advance."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    sock.connect(("127.0.0.1", port))
    return sock


def time_to_recycle(master):
    """Waits until the checkpointer has had its turns after a merge."""
    before = master.status()["checkpoint_offset"]
    for _ in range(2):
        master.put("turn", b"x")
        wait_until(lambda: master.status()["checkpoint_offset"] > before, 10, "a checkpoint")
        before = master.status()["checkpoint_offset"]


if __name__ == "__main__":
    unittest.main()
