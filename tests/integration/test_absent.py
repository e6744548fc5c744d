# timeout: 300
"""Replicas that a master knows though they are away: when they are listed, over restarts and kills, and
how they are forgotten."""

import os
import re
import signal
import subprocess
import time
import unittest
import uuid

import identity_file
import nexus_wire as wire
import wal_files
from full_sync import Received, pins, put_many
from nexus_test import BUILD_DIR, NexusTestCase

PATH = "/replication/replicas"
CTL = os.path.join(BUILD_DIR, "nexus-ctl")
SMALL = {"wal.segment_size": "1MiB", "wal.shm_size": "32MiB"}
WEEK_MS = 7 * 24 * 3600 * 1000
MOST = 128


def absent(master):
    """id -> row"""
    return {row["id"]: row for row in master.json("GET", PATH)["absent"]}


def stored(node):
    """id -> {"connected", "last_seen", "last_ack_offset", "addr", "http_addr"} of the file."""
    found, row = {}, None
    for line in identity_file.read(node).splitlines():
        name, _, value = line.partition(" = ")
        if name == "replica":
            row = found.setdefault(value, {})
        elif row is not None and name != "crc32":
            row[name] = int(value) if value.isdigit() else value
    return found


def write_identity(node, rows):
    """Puts these replicas into the file of a node that doesn't run."""
    text = re.match("cluster_id = .*\n", identity_file.read(node)).group()
    for replica_id, row in rows.items():
        fields = {"connected": 0, "last_ack_offset": 0, "addr": "", "http_addr": "", **row}
        text += f"replica = {replica_id}\n"
        for name in ("connected", "last_seen", "last_ack_offset", "addr", "http_addr"):
            text += f"{name} = {fields[name]}\n"
    identity_file.write(node, text)


def now_ms():
    return time.time_ns() // 1000000


class AbsentCase(NexusTestCase):
    def come_and_go(self, master, replica_id=None, **hello):
        """A peer that is welcomed and leaves; returns its id once it is absent."""
        replica_id = replica_id or str(uuid.uuid4())
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake(replica_id, **hello)
        self.wait_absent(master, replica_id)
        return replica_id

    def wait_absent(self, master, replica_id):
        return master.wait_until(
            lambda: absent(master).get(replica_id), what=f"{replica_id} among the absent"
        )

    def wait_stored(self, master, replica_id, **fields):
        """Waits until the file has these values for it."""

        def matches():
            row = stored(master).get(replica_id)
            return row and all(row[name] == value for name, value in fields.items()) and row

        return master.wait_until(matches, what=f"{replica_id} in {identity_file.path(master)}: {fields}")

    def connected(self, master):
        return {row["id"] for row in master.replicas()}

    def forget(self, master, replica_id, **options):
        return master.request("DELETE", f"{PATH}/{replica_id}", **options)

    def assert_forgotten(self, answer):
        status, headers, body = answer
        self.assertEqual((status, body), (200, b'{"success":true,"message":"Replica forgotten"}\n'))
        self.assertEqual(headers.get_content_type(), "application/json")


class Listed(AbsentCase):
    def test_01_a_replica_that_stops_and_comes_back(self):
        master, replica = self.pair()
        replica_id = replica.status()["node_id"]
        for number in range(10):
            master.put(f"k{number}", b"v")
        replica.wait_offset(10)
        self.assertEqual(absent(master), {})
        row = master.replicas()[0]
        replica.stop()
        # From the very moment at which it isn't connected any more.
        answer = master.wait_until(
            lambda: (a := master.json("GET", PATH)) and not a["replicas"] and a, what="its end"
        )
        self.assertEqual(list(answer), ["replicas", "absent"])
        self.assertEqual(len(answer["absent"]), 1)
        away = answer["absent"][0]
        self.assertEqual(
            list(away), ["id", "addr", "last_seen_seconds", "last_ack_offset", "log_kept"]
        )
        self.assertEqual(away["id"], replica_id)
        self.assertEqual(away["addr"], row["addr"])
        self.assertLess(away["last_seen_seconds"], 20)
        self.assertEqual((away["last_ack_offset"], away["log_kept"]), (10, True))
        master.put("more", b"v")
        self.assertEqual(absent(master)[replica_id]["last_ack_offset"], 10)
        master.wait_until(
            lambda: absent(master)[replica_id]["last_seen_seconds"] >= 1, what="that time passes"
        )
        replica.start()
        replica.wait_offset(11)
        self.assertEqual(self.connected(master), {replica_id})
        self.assertEqual(absent(master), {})

    def test_02_it_is_told_where_it_was(self):
        master = self.node("master")
        replica_id = self.come_and_go(
            master, http_addr="replica.example:8", advertised_addr="replica.example:7"
        )
        self.assertEqual(absent(master)[replica_id]["addr"], "replica.example:7")
        row = self.wait_stored(master, replica_id, connected=0)
        self.assertEqual((row["addr"], row["http_addr"]), ("replica.example:7", "replica.example:8"))
        self.come_and_go(master, replica_id, advertised_addr="elsewhere.example:7")
        master.wait_until(
            lambda: absent(master)[replica_id]["addr"] == "elsewhere.example:7", what="the new address"
        )
        self.assertEqual(len(absent(master)), 1)

    def test_03_who_was_not_welcomed_is_not_known(self):
        master = self.node("master")
        with wire.RawPeer(master.replication_port) as peer:
            hello = {"cluster_id": str(uuid.uuid4()), "last_wal_offset": 5}
            peer.send(wire.build_hello(str(uuid.uuid4()), **hello))
            peer.recv_type(wire.ERROR)
        with wire.RawPeer(master.replication_port) as peer:
            peer.send(b"\0" * 64)
        replica_id = self.come_and_go(master)
        self.assertEqual(list(absent(master)), [replica_id])

    def test_04_a_second_connection_of_the_same_replica(self):
        master = self.node("master")
        replica_id = str(uuid.uuid4())
        with wire.RawPeer(master.replication_port) as older:
            older.handshake(replica_id)
            with wire.RawPeer(master.replication_port) as newer:
                newer.handshake(replica_id)
                master.wait_log("its older connection is closed")
                master.wait_until(lambda: len(master.replicas()) == 1, what="the older one's end")
                self.assertEqual(absent(master), {})
                self.assertEqual(self.wait_stored(master, replica_id)["connected"], 1)
            self.wait_absent(master, replica_id)

    def test_05_the_log_is_given_up(self):
        cluster = self.cluster(settings=SMALL, master_settings={"replication.max_log_size": 1000})
        master, replica = cluster.master, cluster.replica
        replica_id = replica.status()["node_id"]
        for number in range(10):
            master.put(f"k{number}", b"v")
        replica.wait_offset(10)
        replica.stop()
        self.assertTrue(self.wait_absent(master, replica_id)["log_kept"])
        # Entry 11 is the oldest of the last 1,000 while 1010 is the newest.
        for number in range(1000):
            master.put(f"n{number}", b"v")
        self.assertEqual(master.status()["wal_offset"], 1010)
        self.assertTrue(absent(master)[replica_id]["log_kept"])
        master.put("one more", b"v")
        row = absent(master)[replica_id]
        self.assertEqual((row["last_ack_offset"], row["log_kept"]), (10, False))
        replica.start()
        master.wait_log(f"replica {replica_id} at .* needs a full sync")
        master.wait_until(
            lambda: [row["last_ack_offset"] for row in master.replicas()] == [1011], what="its end"
        )
        replica.stop()
        row = self.wait_absent(master, replica_id)
        self.assertEqual((row["last_ack_offset"], row["log_kept"]), (1011, True))

    def test_055_the_log_is_held_by_a_full_sync(self):
        """A pin keeps more than max_log_size for the one replica whose full sync it belongs to."""
        settings = {
            **SMALL,
            "state.checkpoint_interval": "1s",
            "replication.max_log_size": 1000,
            "replication.missed_heartbeats_threshold": 100,
        }
        master = self.node("master", settings=settings)
        put_many(master, ((f"k{n}", b"v") for n in range(100)))
        master.export()  # merges: who has nothing gets a full sync
        replica_id = str(uuid.uuid4())
        with wire.RawPeer(master.replication_port) as peer:
            self.assertIs(peer.handshake(replica_id).requires_full_sync, True)
            Received(peer).run()
            put_many(master, ((f"k{n}", b"v") for n in range(3000)))
            peer.send(wire.build_ack(100))
            master.wait_until(
                lambda: [row["last_ack_offset"] for row in master.replicas()] == [100], what="the ack"
            )
        row = self.wait_absent(master, replica_id)
        self.assertEqual((row["last_ack_offset"], row["log_kept"]), (100, True))
        for pin in pins(master):
            os.unlink(pin)
        self.assertIs(absent(master)[replica_id]["log_kept"], False)

    def test_06_a_crash_of_a_child_loses_nothing(self):
        cluster = self.cluster(replicas=2)
        master, (stays, goes) = cluster.master, cluster.replicas
        master.put("k", b"v")
        cluster.wait_level()
        gone = goes.status()["node_id"]
        goes.stop()
        before = self.wait_absent(master, gone)
        pid = master.kill_child("walwriter")
        master.wait_replaced("walwriter", pid)
        row = self.wait_absent(master, gone)
        for name in ("addr", "last_ack_offset", "log_kept"):
            self.assertEqual(row[name], before[name])
        stays.wait_status(connected=True)
        master.wait_until(lambda: len(master.replicas()) == 1, what="the other replica")
        self.assertEqual(list(absent(master)), [gone])

    def test_07_other_roles_have_none(self):
        for role in ("standalone", "replica"):
            settings = {"replication.master_addr": "127.0.0.1:1"} if role == "replica" else {}
            node = self.node(role, settings=settings)
            self.assert_problem(node.request("GET", PATH), 409, "wrong_role")


class Kept(AbsentCase):
    def test_01_over_restarts(self):
        master = self.node("master")
        master.put("k", b"v")
        crc = wire.frame_crc(wal_files.read_log(master.wal_dir)[0].raw)
        replica_id = str(uuid.uuid4())
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake(
                replica_id,
                last_wal_offset=1,
                last_epoch=1,
                last_crc=crc,
                cluster_id=master.status()["cluster_id"],
                advertised_addr="replica.example:7",
            )
        before = self.wait_absent(master, replica_id)
        self.assertEqual(before["last_ack_offset"], 1)
        seen = self.wait_stored(master, replica_id, connected=0)["last_seen"]
        for _ in range(2):
            master.stop()
            master.start()
            row = absent(master)[replica_id]
            for name in ("addr", "last_ack_offset", "log_kept"):
                self.assertEqual(row[name], before[name])
            self.assertEqual(stored(master)[replica_id]["last_seen"], seen)
        for kill in (master.kill9, master.kill_all):
            kill()
            master.start()
            self.assertEqual(absent(master)[replica_id]["last_ack_offset"], 1)
        self.assertEqual(stored(master)[replica_id]["last_seen"], seen)

    def test_02_a_replica_that_stays_over_the_masters_restarts(self):
        master, replica = self.pair()
        replica_id = replica.status()["node_id"]
        master.put("k", b"v")
        replica.wait_offset(1)
        for _ in range(2):
            master.stop()
            self.assertEqual(stored(master)[replica_id]["connected"], 0)
            self.assertEqual(stored(master)[replica_id]["last_ack_offset"], 1)
            master.start()
            master.wait_until(lambda: self.connected(master) == {replica_id}, what="the replica")
            self.assertEqual(absent(master), {})

    def test_03_a_master_that_was_killed_has_not_seen_it_go(self):
        master, replica = self.pair()
        replica_id = replica.status()["node_id"]
        self.wait_stored(master, replica_id, connected=1)
        master.kill9()
        replica.stop()
        row = stored(master)[replica_id]
        write_identity(master, {replica_id: {**row, "last_seen": now_ms() - 2 * WEEK_MS}})
        master.start()
        row = absent(master)[replica_id]
        self.assertLess(row["last_seen_seconds"], 60)
        self.wait_stored(master, replica_id, connected=0)

    def test_04_a_stop_writes_once(self):
        master = self.node("master")
        peers = [wire.RawPeer(master.replication_port) for _ in range(3)]
        ids = [str(uuid.uuid4()) for _ in peers]
        for peer, replica_id in zip(peers, ids):
            self.addCleanup(peer.close)
            peer.handshake(replica_id)
        for replica_id in ids:
            self.wait_stored(master, replica_id, connected=1)
        inode = os.stat(identity_file.path(master)).st_ino
        os.kill(master.pid, signal.SIGTERM)
        seen = set()
        while master.is_running():
            seen.add(os.stat(identity_file.path(master)).st_ino)
        master.wait_exit()
        self.assertLessEqual(len(seen - {inode}), 1)
        self.assertEqual({row["connected"] for row in stored(master).values()}, {0})
        self.assertEqual(set(stored(master)), set(ids))

    def test_05_heartbeats_and_acks_write_nothing(self):
        master, replica = self.pair(settings={"replication.heartbeat_ms": 100})
        self.wait_stored(master, replica.status()["node_id"], connected=1)
        before = os.stat(identity_file.path(master))
        received = replica.stats()["bytes_received"]
        for number in range(20):
            master.put(f"k{number}", b"v")
        replica.wait_offset(20)
        replica.wait_until(
            lambda: replica.stats()["bytes_received"] > received + 1000, what="heartbeats"
        )
        after = os.stat(identity_file.path(master))
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns))

    def test_06_a_file_that_cannot_be_written_is_tried_again(self):
        master = self.node("master")
        blocked = identity_file.path(master) + ".tmp"
        os.mkdir(blocked)
        replica_id = self.come_and_go(master)
        master.wait_log("known replicas .* can't be stored")
        self.assertNotIn(replica_id, stored(master))
        problem = self.assert_problem(self.forget(master, replica_id), 500, "internal")
        self.assertIn("identity", problem["message"])
        self.assertIn(replica_id, absent(master))
        os.rmdir(blocked)
        self.wait_stored(master, replica_id, connected=0)
        self.assert_forgotten(self.forget(master, replica_id))
        self.assertNotIn(replica_id, stored(master))

    def test_07_a_file_of_before_and_a_damaged_one(self):
        master = self.node("master")
        replica_id = self.come_and_go(master)
        self.wait_stored(master, replica_id, connected=0)
        master.stop()
        text = identity_file.read(master)
        write_identity(master, {})
        master.start()
        self.assertEqual(absent(master), {})
        master.stop()
        with open(identity_file.path(master), "w", encoding="ascii") as file:
            file.write(text.replace("connected = 0", "connected = 1"))
        done = master.run(*master.arguments()[1:])
        self.assertEqual(done.returncode, 1)
        self.assertIn("identity is damaged", done.stderr)
        with open(identity_file.path(master), "w", encoding="ascii") as file:
            file.write(text)
        master.start()
        self.assertIn(replica_id, absent(master))

    def test_08_a_master_that_becomes_a_replica_and_back(self):
        """In between nothing is listed or forgotten."""
        master = self.node("master")
        replica_id = self.come_and_go(master)
        self.wait_stored(master, replica_id, connected=0)
        master.stop()
        master.role = "replica"
        master.settings["replication.master_addr"] = "127.0.0.1:1"
        master.start()
        self.assert_problem(self.forget(master, replica_id), 409, "wrong_role")
        master.stop()
        self.assertIn(replica_id, stored(master))
        master.role = "master"
        del master.settings["replication.master_addr"]
        master.start()
        self.assertIn(replica_id, absent(master))

    def test_09_a_full_sync_brings_a_history_that_nobody_has_acknowledged(self):
        master, replica = self.pair()
        replica_id = replica.status()["node_id"]
        master.put("k", b"v")
        replica.wait_offset(1)
        replica.stop()
        self.wait_absent(master, replica_id)
        master.put("given up", b"v")
        master.stop()
        self.assertIn(replica_id, stored(master))
        # They change places, and their histories have parted.
        replica.role = "master"
        replica.settings["replication.master_addr"] = None
        replica.start()
        for number in range(3):
            replica.put(f"k{number}", b"v")
        master.role = "replica"
        master.settings["replication.master_addr"] = replica.replication_addr
        master.start()
        master.wait_log("data-2 replaces")
        master.wait_offset(5)  # one of them begins the epoch
        self.assertEqual(stored(master), {})
        self.assertIn(
            f"cluster_id = {replica.status()['cluster_id']}\n", identity_file.read(master)
        )


class Forgotten(AbsentCase):
    def test_01_over_http(self):
        cluster = self.cluster(replicas=2)
        master, (stays, goes) = cluster.master, cluster.replicas
        gone, there = goes.status()["node_id"], stays.status()["node_id"]
        problem = self.assert_problem(self.forget(master, gone), 409, "replica_connected")
        self.assertIn(gone, problem["message"])
        goes.stop()
        self.wait_absent(master, gone)
        self.assert_forgotten(self.forget(master, gone))
        self.assertEqual(list(stored(master)), [there])
        self.assertEqual(absent(master), {})
        self.assert_problem(self.forget(master, gone), 404, "no_such_replica")
        self.assert_problem(self.forget(master, there), 409, "replica_connected")
        for kill in (master.stop, master.kill9):
            kill()
            master.start()
            self.assertNotIn(gone, absent(master))
        goes.start()
        cluster.wait_level()
        master.wait_until(lambda: self.connected(master) == {gone, there}, what="both")
        goes.stop()
        self.wait_absent(master, gone)

    def test_02_ids_that_are_none(self):
        master = self.node("master")
        replica_id = self.come_and_go(master)
        for text in (
            str(uuid.uuid4()),
            "x",
            "last",
            replica_id[:-1],
            replica_id + "0",
            replica_id[:-1] + "g",
            replica_id + "%00",
            "%0a" * 36,
            "a" * 5000,
        ):
            self.assert_problem(self.forget(master, text), 404, "no_such_replica")
        self.assert_problem(self.forget(master, replica_id + "/"), 404, "no_such_endpoint")
        self.assert_problem(self.forget(master, replica_id + "?x=1"), 400, "bad_parameter")
        answer = master.request("GET", f"{PATH}/{replica_id}")
        self.assert_problem(answer, 405, "method_not_allowed")
        self.assertEqual(answer[1]["Allow"], "DELETE, OPTIONS")
        self.assertEqual(list(absent(master)), [replica_id])

    def test_025_one_id_in_capitals_and_not(self):
        master = self.node("master")
        replica_id = str(uuid.uuid4())
        with wire.RawPeer(master.replication_port) as older:
            older.handshake(replica_id)
            with wire.RawPeer(master.replication_port) as newer:
                newer.handshake(replica_id.upper())
                older.recv_error(wire.ERROR_SHUTDOWN)  # replaced, as by any connection of the same
                self.assertEqual(self.connected(master), {replica_id})
                self.assert_problem(
                    self.forget(master, replica_id.upper()), 409, "replica_connected"
                )
        self.wait_absent(master, replica_id)
        self.assert_forgotten(self.forget(master, replica_id.upper()))
        self.assertEqual(absent(master), {})
        own = master.status()["node_id"].upper()
        with wire.RawPeer(master.replication_port) as copy:
            copy.send(wire.build_hello(own))
            copy.recv_error(wire.ERROR_AUTH)

    def test_03_the_answer_comes_when_it_is_stored(self):
        master = self.node("master", settings={"http.workers": 2})
        for replica_id in [self.come_and_go(master) for _ in range(10)]:
            self.assert_forgotten(self.forget(master, replica_id))
            self.assertNotIn(replica_id, stored(master))

    def test_04_many_at_once(self):
        """Answers find those who asked, also where one of them asked for a snapshot."""
        master = self.node("master", settings={"http.workers": 1})
        known = [self.come_and_go(master) for _ in range(8)]
        unknown = [str(uuid.uuid4()) for _ in range(8)]
        asked = [i for both in zip(known, unknown) for i in both]
        requests = [f"DELETE {PATH}/{i} HTTP/1.1\r\nHost: localhost\r\n\r\n" for i in asked]
        requests[5:5] = ["POST /replication/snapshot?wait=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"]
        # The postmaster finds all of them at once.
        os.kill(master.pid, signal.SIGSTOP)
        clients = []
        try:
            for request in requests:
                client = master.client()
                client._connect()
                client._connection.sock.sendall(request.encode())
                clients.append(client._connection.sock)
        finally:
            os.kill(master.pid, signal.SIGCONT)
        statuses = [int(sock.recv(65536).split()[1]) for sock in clients]
        self.assertEqual(statuses.pop(5), 202)
        self.assertEqual(statuses, [200, 404] * 8)
        self.assertEqual(absent(master), {})

    def test_05_a_client_that_does_not_wait(self):
        master = self.node("master", settings={"http.workers": 1})
        replica_id = self.come_and_go(master)
        os.kill(master.pid, signal.SIGSTOP)
        try:
            client = master.client()
            client._connect()
            client._connection.sock.sendall(
                f"DELETE {PATH}/{replica_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            client.close()
        finally:
            os.kill(master.pid, signal.SIGCONT)
        master.wait_until(lambda: absent(master) == {}, what="that it is forgotten")
        self.assertEqual(master.put("k", b"v"), 1)

    def test_06_after_a_week(self):
        master = self.node("master")
        master.stop()
        now = now_ms()
        ids = [str(uuid.uuid4()) for _ in range(4)]
        times = [now - WEEK_MS - 1000, now - WEEK_MS + 6000, now - WEEK_MS + 3600000, now + WEEK_MS]
        write_identity(master, {i: {"last_seen": t} for i, t in zip(ids, times)})
        master.start()
        self.assertNotIn(ids[0], absent(master))
        master.wait_log(f"replica {ids[0]} .*is forgotten: not seen for 7 days")
        master.drop_connections()
        master.wait_log(f"replica {ids[1]} .*is forgotten: not seen for 7 days")
        self.assertEqual(set(absent(master)), set(ids[2:]))
        self.assertEqual(absent(master)[ids[3]]["last_seen_seconds"], 0)
        master.wait_until(lambda: set(stored(master)) == set(ids[2:]), what="the others in the file")

    def test_07_the_one_too_many(self):
        master = self.node("master")
        master.stop()
        now = now_ms()
        ids = [str(uuid.uuid4()) for _ in range(MOST)]
        write_identity(
            master,
            {
                i: {"last_seen": now - 1000 * n, "addr": "a" * 249 + ":12345", "http_addr": "b" * 255}
                for n, i in enumerate(ids)
            },
        )
        master.start()
        self.assertEqual(set(absent(master)), set(ids))
        newer = self.come_and_go(master)
        self.assertEqual(set(absent(master)), {newer, *ids[:-1]})
        master.stop()
        master.start()
        self.assertEqual(set(absent(master)), {newer, *ids[:-1]})

    def test_08_nexus_ctl(self):
        master = self.node("master")
        replica_id = self.come_and_go(master)

        def ctl(*arguments):
            env = {key: value for key, value in os.environ.items() if not key.startswith("NEXUS_")}
            return subprocess.run(
                [CTL, "forget", *arguments, "-D", master.data_dir],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=env,
                check=False,
            )

        done = ctl(replica_id)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, f"replica {replica_id} is forgotten\n")
        self.assertEqual(absent(master), {})
        done = ctl(replica_id)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"^nexus-ctl: This master knows no replica of this id")
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake(replica_id)
            done = ctl(replica_id)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, rf"^nexus-ctl: Replica {replica_id} is connected: stop")
        self.wait_absent(master, replica_id)
        done = ctl("-s", replica_id)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        for arguments, error in (
            ([], "forget: name the replica"),
            (["x", "y"], "'y' behind forget"),
            (["../status"], "isn't the id of a replica"),
            (["no-such"], "knows no replica"),
        ):
            done = ctl(*arguments)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(error, done.stderr)
        master.stop()
        done = ctl(replica_id)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no server runs", done.stderr)


if __name__ == "__main__":
    unittest.main()
