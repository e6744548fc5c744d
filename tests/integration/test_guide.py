# timeout: 300
"""docs/replication-guide.md, kept to its word: servers started by its blocks with environment variables alone,
its curl and jq commands as they stand there, its tables, examples, modes, steps and limits. Its
troubleshooting is in test_guide_troubleshooting.py; what proves which line, in docs/guide-conformance.md."""

import json
import os
import re
import signal
import struct
import subprocess
import time
import unittest
import zlib

import guide
import nexus_wire as wire
from full_sync import FullSyncCase, put_many, random_pairs
from guide import GuideCase, commands, env_block, example, table
from nexus_test import (
    SERVER,
    SOURCE_DIR,
    HttpError,
    NexusTestCase,
    free_port,
    wait_until,
)
from proxy import Proxy

STATUS = "Get Replication Status"
MASTER_STATS = "Get Master Statistics"
REPLICA_STATS = "Get Replica Statistics"
REPLICAS = "List Connected Replicas (Master Only)"
SNAPSHOT = "Create Snapshot"
LAST_SNAPSHOT = "Get Last Snapshot Info"
STOP = "Stop Replication"


class Endpoints(GuideCase):
    """The guide's curl commands and the shapes of its examples."""

    def test_01_status_in_every_role(self):
        master, replica = self.guide_pair()
        standalone = self.guide_standalone()
        offset = master.put("k", b"v")
        replica.wait_offset(offset)
        for node, wanted in (
            (master, {"running": True, "connected": True, "replica_count": 1, "lag": 0}),
            (replica, {"running": True, "connected": True, "replica_count": 0, "lag": 0}),
            (standalone, {"running": False, "connected": False, "replica_count": 0, "lag": 0}),
        ):
            with self.subTest(node.role):
                status = self.ask(STATUS, node)
                self.assert_like_the_guide(STATUS, status)
                offset_here = 0 if node is standalone else offset
                wanted.update(role=node.role, mode="async", wal_offset=offset_here)
                self.assertEqual({name: status[name] for name in wanted}, wanted)
                self.assertIs(type(status["lag"]), int)
        self.assertNotEqual(master.status()["node_id"], replica.status()["node_id"])

    def test_02_statistics_of_a_master(self):
        master, replica = self.guide_pair()
        for number in range(20):
            offset = master.put(f"k{number}", b"v")
        replica.wait_offset(offset)
        master.wait_until(lambda: master.replicas()[0]["last_ack_offset"] == offset, what="the ack")
        stats = self.ask(MASTER_STATS, master)
        self.assert_like_the_guide(MASTER_STATS, stats)
        wanted = {
            "entries_replicated": 20,
            "connected_replicas": 1,
            "healthy_replicas": 1,
            "log_size": 20,
            "current_offset": 20,
            "snapshot_transfers": 0,
        }
        self.assertEqual({name: stats[name] for name in wanted}, wanted)
        self.assertGreater(stats["bytes_sent"], 20 * 60)
        self.assertGreater(stats["sync_acks"], 0)

    def test_03_statistics_of_a_replica(self):
        master, replica = self.guide_pair()
        for number in range(20):
            offset = master.put(f"k{number}", b"v")
        replica.wait_offset(offset)
        wait_until(lambda: replica.stats()["entries_received"] == 20, what="its counters")
        stats = self.ask(REPLICA_STATS, replica)
        self.assert_like_the_guide(REPLICA_STATS, stats)
        wanted = {
            "entries_received": 20,
            "entries_applied": 20,
            "current_offset": 20,
            "lag": 0,
            "reconnects": 0,
            "connected": True,
            "master_id": master.status()["node_id"],
        }
        self.assertEqual({name: stats[name] for name in wanted}, wanted)
        self.assertGreater(stats["bytes_received"], 20 * 60)

    def test_04_a_replica_that_never_met_its_master_has_all_fields_too(self):
        replica = self.guide_replica(f"127.0.0.1:{free_port()}")
        for heading in (STATUS, REPLICA_STATS):
            answer = self.ask(heading, replica)
            self.assert_like_the_guide(heading, answer, empty=["master_id"])
            self.assertEqual((answer["connected"], answer["lag"]), (False, 0))

    def test_05_replicas(self):
        master, replica = self.guide_pair()
        offset = master.put("k", b"v")
        master.wait_until(lambda: master.replicas()[0]["lag"] == 0, what="the ack")
        answer = self.ask(REPLICAS, master)
        self.assert_like_the_guide(REPLICAS, answer)
        (row,) = answer["replicas"]
        self.assertEqual(row["id"], replica.status()["node_id"])
        self.assertEqual(row["addr"], replica.replication_addr)
        self.assertEqual((row["last_ack_offset"], row["lag"], row["healthy"]), (offset, 0, True))
        replica.stop()
        master.wait_status(replica_count=0)
        self.assertEqual(self.ask(REPLICAS, master)["replicas"], [])

    def test_06_a_snapshot_is_made_and_shown(self):
        master, replica = self.guide_pair()
        standalone = self.guide_standalone()
        for number in range(50):
            offset = master.put(f"k{number}", b"value %d" % number)
        replica.wait_offset(offset)
        standalone.put("k", b"v")
        for node in (master, replica, standalone):
            with self.subTest(node.role):
                problem = self.refused(LAST_SNAPSHOT, node)
                self.assertEqual((problem["status"], problem["code"]), (404, "no_snapshot"))
                made = self.ask(SNAPSHOT, node)
                self.assert_like_the_guide(SNAPSHOT, made)
                self.assertEqual(made["wal_offset"], node.status()["wal_offset"])
                self.assertLess(abs(made["created_at"] - wire.now_ms()), 3_600_000)
                shown = self.ask(LAST_SNAPSHOT, node)
                self.assert_like_the_guide(SNAPSHOT, shown)
                fields = example(SNAPSHOT)
                self.assertEqual({n: shown[n] for n in fields}, {n: made[n] for n in fields})
                self.check_archive(node, made)

    def check_archive(self, node, made):
        """tar and zstd read it, and the sizes are its own."""
        path = os.path.join(node.data_dir, "snapshots", os.path.basename(made["path"]))
        self.assertEqual(os.path.getsize(path), made["compressed_size"])
        listed = subprocess.run(
            ["tar", "--zstd", "-tvf", path], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        self.assertEqual(len(listed), made["files_count"])
        # Of the tar, as the guide's numbers are: its members and what tar itself adds.
        self.assertLessEqual(
            sum(int(line.split()[2]) for line in listed), made["uncompressed_size"]
        )

    def test_07_the_wrong_role_is_409(self):
        master, replica = self.guide_pair()
        standalone = self.guide_standalone()
        for heading, wanted, nodes in (
            (MASTER_STATS, "master", (replica, standalone)),
            (REPLICA_STATS, "replica", (master, standalone)),
            (REPLICAS, "master", (replica, standalone)),
        ):
            for node in nodes:
                with self.subTest(heading, role=node.role):
                    problem = self.refused(heading, node)
                    self.assertEqual((problem["status"], problem["code"]), (409, "wrong_role"))
                    self.assertIs(problem["success"], False)
                    what = "standalone" if node is standalone else "a " + node.role
                    self.assertEqual(
                        problem["message"],
                        f"This endpoint is for {wanted}s only; this node is {what}.",
                    )

    def test_08_stop(self):
        master, replica = self.guide_pair()
        for node in (replica, master):
            for _ in range(2):
                answer = self.ask(STOP, node)
                self.assertIs(answer["success"], True)
                self.assertEqual(answer["message"], "Replication stopped")
            self.assertIs(node.wait_status(running=False)["running"], False)
            self.assert_like_the_guide(STATUS, self.ask(STATUS, node))
        problem = self.refused(STOP, self.guide_standalone())
        self.assertEqual((problem["status"], problem["code"]), (409, "wrong_role"))

    def test_09_every_other_command_is_known_here(self):
        """What the guide asks for with curl is what these tests ask for; promote is in test_promote.py."""
        asked = [
            command
            for heading, lines in guide.SECTIONS.items()
            if "```bash" in [line.strip() for line in lines]
            for command in commands(heading)
            if command.startswith("curl")
        ]
        paths = {re.search(r":15474(/\S*)", command)[1] for command in asked}
        self.assertEqual(
            paths,
            {
                "/replication/status",
                "/replication/master/stats",
                "/replication/replica/stats",
                "/replication/replicas",
                "/replication/snapshot",
                "/replication/stop",
                "/replication/promote",
            },
        )


class HealthChecks(GuideCase):
    """The guide's jq filters."""

    def test_they_tell_the_truth(self):
        master_check, replica_check = commands("Health Check Example")
        fast = {"NEXUS_REPLICATION_HEARTBEAT_MS": "500"}
        master = self.guide_master(env=fast)
        self.assertEqual(self.shell(master_check, master), "false\n")  # no replica yet
        replica = self.guide_replica(master.replication_addr, env=fast)
        replica.wait_answer("/ready")
        self.assertEqual(self.shell(master_check, master), "true\n")
        self.assertEqual(self.shell(replica_check, replica), "true\n")
        # A lag of 1000 and more is not healthy, and never null, which jq takes for less than any number.
        self.assertIs(type(replica.status()["lag"]), int)
        pid = replica.kill_child("walwriter", signal.SIGSTOP)
        try:
            put_many(master, [(f"k{number}", b"v") for number in range(1100)])
            wait_until(
                lambda: self.shell(replica_check, replica) == "false\n", what="a lag of 1000"
            )
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: self.shell(replica_check, replica) == "true\n", what="its end")
        master.stop()
        replica.wait_status(connected=False)
        self.assertEqual(self.shell(replica_check, replica), "false\n")
        self.assertEqual(replica.status()["lag"], 0)  # as last heard


# Variable -> values that are taken, as --print-config shows them, and one that is refused.
VALUES = {
    "NEXUS_REPLICATION_ROLE": ({"master": "master", "Standalone": "standalone"}, "slave"),
    "NEXUS_REPLICATION_BIND_ADDR": ({"127.0.0.1:9": "127.0.0.1:9", "[::1]:9": "[::1]:9"}, "9"),
    "NEXUS_REPLICATION_MASTER_ADDR": ({"db1.example:15475": "db1.example:15475"}, "db1.example"),
    "NEXUS_REPLICATION_MODE": ({"async": "async", "ASYNC": "async"}, "semi"),
    "NEXUS_REPLICATION_SYNC_QUORUM": ({"2": "2"}, "0"),
    "NEXUS_REPLICATION_HEARTBEAT_MS": ({"250": "250", "2s": "2000"}, "often"),
    "NEXUS_REPLICATION_CONNECT_TIMEOUT_MS": ({"700": "700"}, "0"),
    "NEXUS_REPLICATION_MAX_LOG_SIZE": ({"1": "1", "5000000": "5000000"}, "-1"),
    "NEXUS_REPLICATION_AUTO_FAILOVER": ({"false": "false", "on": "true", "0": "false"}, "maybe"),
    "NEXUS_SNAPSHOT_COMPRESSION_LEVEL": ({"0": "0", "22": "22"}, "23"),
    "NEXUS_SNAPSHOT_MAX_SIZE": ({"20GB": "20GiB", "1073741824": "1GiB"}, "huge"),
    "NEXUS_SNAPSHOT_CHUNK_SIZE": ({"2MB": "2MiB", "64KB": "64kiB"}, "1"),
}


def run_server(*arguments, **env):
    """The server run to its end in an environment of these NEXUS_ variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_")}
    return subprocess.run(
        [SERVER, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        env={**clean, **env},
        timeout=60,
        check=False,
    )


def in_force(**env):
    """Variable -> value, by --print-config."""
    done = run_server("--print-config", **env)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    found, section = {}, None
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
        elif match := re.fullmatch(r"(\w+) = ?(.*?)  # .*", line):
            found[f"NEXUS_{section}_{match[1]}".upper()] = match[2]
    return found


class Variables(NexusTestCase):
    def test_01_defaults(self):
        defaults = in_force()
        sizes = {"10GB": "10GiB", "1MB": "1MiB"}  # the same sizes: both count in 1024s
        wanted = {name: sizes.get(value, value) for name, value in guide.variables().items()}
        self.assertEqual({name: defaults[name] for name in wanted}, wanted)
        self.assertEqual(len(wanted), 12)

    def test_02_values_that_are_taken(self):
        self.assertEqual(set(VALUES), set(guide.variables()))
        for name, (values, _) in VALUES.items():
            for value, shown in values.items():
                with self.subTest(name, value=value):
                    self.assertEqual(in_force(**{name: value})[name], shown)

    def test_03_values_that_are_refused(self):
        for name, (_, value) in VALUES.items():
            with self.subTest(name, value=value):
                done = run_server("--check-config", **{name: value})
                self.assertEqual(done.returncode, 1)
                self.assertIn(f"{name}={value}: expected ", done.stderr)

    def test_04_a_replica_needs_a_master(self):
        done = run_server("--check-config", NEXUS_REPLICATION_ROLE="replica")
        self.assertEqual(done.returncode, 1)
        self.assertIn("master_addr", done.stderr)

    def test_05_the_levels_of_the_compression(self):
        """The guide says 0-22."""
        (row,) = [row for row in table("Snapshot Configuration") if "LEVEL" in row[0]]
        low, high = re.search(r"\((\d+)-(\d+)\)", row[1]).groups()
        for value, status in ((low, 0), (high, 0), ("-1", 1), (str(int(high) + 1), 1)):
            done = run_server("--check-config", NEXUS_SNAPSHOT_COMPRESSION_LEVEL=value)
            self.assertEqual(done.returncode, status, done.stderr)


def frames_of(data):
    """The bytes of one direction of a connection -> [(type, payload, crc)], by the guide's words alone."""
    found, at = [], 0
    while len(data) - at >= 9:
        message_type, length = struct.unpack_from("<BI", data, at)
        end = at + 5 + length
        if len(data) < end + 4:
            break  # not whole when the recording ended
        (crc,) = struct.unpack_from("<I", data, end)
        if crc != zlib.crc32(data[at:end]):
            raise AssertionError(f"type {message_type:#04x} at byte {at}: wrong CRC")
        found.append((message_type, bytes(data[at + 5 : end]), crc))
        at = end + 4
    return found


class Wire(FullSyncCase):
    """The bytes between real nodes."""

    CODES = {int(code, 16): name for code, name, _ in table("Message Types")}

    def test_01_a_whole_session(self):
        """All of it is frames of the guide's form, each type with its code and in its direction."""
        master = self.master(random_pairs("k", 200, 400), **{"replication.heartbeat_ms": 100})
        proxy = self.proxy(master, record=True)
        replica = self.replica(proxy.addr, **{"replication.heartbeat_ms": 100})
        replica.wait_answer("/ready")
        put_many(master, random_pairs("later", 10, 100))
        self.assert_level(master, replica)
        wait_until(lambda: self.types(proxy)[1] >= {0x10, 0x11}, what="heartbeats of the replica")
        wait_until(lambda: self.types(proxy)[0] >= {0x10, 0x11}, what="heartbeats of the master")
        down, up = self.types(proxy)
        self.assertEqual({self.CODES[code] for code in up}, {"Hello", "WalAck", "Ping", "Pong"})
        self.assertEqual(
            {self.CODES[code] for code in down},
            {
                "Welcome",
                "Ping",
                "Pong",
                "WalEntry",
                "SnapshotMeta",
                "SnapshotChunk",
                "SnapshotComplete",
            },
        )
        for down, up in proxy.recordings:
            self.assertEqual(self.CODES[frames_of(up)[0][0]], "Hello")
            self.assertEqual(self.CODES[frames_of(down)[0][0]], "Welcome")

    @staticmethod
    def types(proxy):
        """The types that came down and went up, on all connections: a restored replica comes again."""
        sides = zip(*proxy.recordings)
        return [{frame[0] for data in side for frame in frames_of(bytes(data))} for side in sides]

    def test_02_the_rest_of_the_types(self):
        """A full sync asked for, and an Error: the bytes as the guide lays them out."""
        master = self.master(random_pairs("k", 20, 100))
        replica = self.replica(master.replication_addr).wait_answer("/ready")
        peer = self.peer(master)
        self.assertIs(peer.handshake().requires_full_sync, True)
        self.types_until(peer, 0x33)
        payload = struct.pack("<IQ", 6, 36) + b"0" * 8 + b"-0000-4000-8000-" + b"0" * 12
        body = struct.pack("<BI", 0x30, len(payload)) + payload
        peer.send(body + struct.pack("<I", zlib.crc32(body)))
        self.assertEqual(self.types_until(peer, 0x33) - {0x10, 0x11, 0x20}, {0x31, 0x32, 0x33})
        other = self.peer(replica)
        other.send(wire.build_hello())
        data = other.recv_error(wire.ERROR_NOT_MASTER).frame
        ((message_type, payload, _),) = frames_of(data)
        self.assertEqual(self.CODES[message_type], "Error")
        self.assertEqual(struct.unpack_from("<II", payload), (10, 5))

    @staticmethod
    def types_until(peer, last):
        found = set()
        while last not in found:
            found.add(peer.recv().type)
        return found

    def test_03_the_table_is_whole(self):
        names = {code: name for code, (name, _, _) in wire.MESSAGES.items()}
        self.assertEqual(self.CODES, names)

    def test_04_what_is_damaged_is_refused(self):
        """A frame whose CRC or length is not as the guide says is answered by Error, not taken."""
        master = self.master()
        hello = wire.build_hello()
        for frame in (hello[:-1] + bytes([hello[-1] ^ 1]), hello[:1] + b"\xff" * 4 + hello[5:]):
            peer = self.peer(master)
            peer.send(frame)
            peer.recv_error(wire.ERROR_FRAME)


class FullSync(FullSyncCase):
    """The guide's four steps."""

    def test_01_the_steps(self):
        env = {"NEXUS_SNAPSHOT_CHUNK_SIZE": "64KB", "NEXUS_SNAPSHOT_COMPRESSION_LEVEL": "1"}
        master = self.node("master", env=env)
        put_many(master, random_pairs("k", 300, 1000))
        master.export()  # what is in the state is no longer streamed to who is new
        proxy = Proxy(master.replication_port, record=True)
        self.addCleanup(proxy.close)
        replica = self.replica(proxy.addr).wait_answer("/ready")
        self.assert_level(master, replica)
        messages = self.messages(proxy)
        (meta,) = [m for m in messages if m.type == wire.SNAPSHOT_META]
        chunks = [m for m in messages if m.type == wire.SNAPSHOT_CHUNK]
        self.assertTrue(messages[0].requires_full_sync)
        # 1. A compressed snapshot, tar and zstd.
        archive = os.path.join(replica.directory, "received.tar.zst")
        with open(archive, "wb") as file:
            file.write(b"".join(chunk.data for chunk in chunks))
        listed = subprocess.run(
            ["tar", "--zstd", "-tf", archive], capture_output=True, text=True, check=True
        ).stdout.split()
        self.assertIn("kv/000000", listed)
        # 2. In chunks of the configured size, each with its CRC32.
        self.assertGreater(len(chunks), 2)
        self.assertEqual({len(chunk.data) for chunk in chunks[:-1]}, {64 << 10})
        self.assertEqual([chunk.chunk_index for chunk in chunks], list(range(len(chunks))))
        for chunk in chunks:
            self.assertEqual(chunk.checksum, zlib.crc32(chunk.data))
        # 3. The replica has restored it. 4. The stream goes on behind it.
        self.assertEqual(replica.stats()["entries_received"], 300 - meta.wal_offset)
        offset = master.put("next", b"x")
        replica.wait_offset(offset)
        self.assertEqual(replica.get("next"), b"x")
        self.assertEqual(master.stats()["snapshot_transfers"], 1)
        entries = [m for m in self.messages(proxy) if m.type == wire.WAL_ENTRY]
        self.assertEqual([e.offset for e in entries], list(range(meta.wal_offset + 1, offset + 1)))

    @staticmethod
    def messages(proxy):
        """All that came down, in its order."""
        return [
            wire.parse(wire.encode_frame(message_type, payload))
            for down, _ in proxy.recordings
            for message_type, payload, _ in frames_of(bytes(down))
        ]


class Heartbeats(GuideCase):
    """Every 5 seconds; after 3 missed ones (15 seconds) the master is considered dead."""

    def test_by_default(self):
        defaults = in_force()
        self.assertEqual(defaults["NEXUS_REPLICATION_HEARTBEAT_MS"], "5000")
        self.assertEqual(defaults["NEXUS_REPLICATION_MISSED_HEARTBEATS_THRESHOLD"], "3")
        master = self.guide_master()
        raw = wire.RawMaster(timeout=30)
        self.addCleanup(raw.close)
        replica = self.guide_replica(raw.addr)
        peer, _ = raw.welcome()  # and then says nothing
        welcomed = time.monotonic()
        with wire.RawPeer(master.replication_port, timeout=30) as other:
            self.assertEqual(other.handshake().heartbeat_ms, 5000)
            shaken = time.monotonic()
            self.assertEqual(other.recv().type, wire.PING)
            self.assertGreater(time.monotonic() - shaken, 4.5)
        self.assertEqual(peer.recv().type, wire.PING)
        self.assertGreater(time.monotonic() - welcomed, 4.5)
        replica.wait_log("appears dead.*heartbeat_ms 5000.*missed_heartbeats_threshold 3", 60)
        self.assertGreater(time.monotonic() - welcomed, 14.5)
        # No election: it stays what it is, and says what it could become.
        status = replica.wait_status(master_alive=False, connected=False)
        self.assertEqual(status["role"], "replica")
        self.assertIs(type(status["promotable"]), bool)


class Async(GuideCase):
    def test_the_master_waits_for_nobody(self):
        (block,) = guide.blocks("Async Replication (Default)", "bash")
        master = self.guide_node(env_block("NEXUS_REPLICATION_ROLE=master", block), "master")
        self.assertEqual(master.status()["mode"], "async")
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake()
            for number in range(10):
                master.put(f"k{number}", b"v")  # answered, though nothing is ever acknowledged
            peer.recv_entries(10)
            self.assertEqual(master.replicas()[0]["last_ack_offset"], 0)


class Sync(GuideCase):
    """The guide's sync mode; more of it in test_sync.py."""

    def setUp(self):
        lines = "\n".join(guide.blocks("Sync Replication", "bash")).splitlines()
        self.block = env_block("NEXUS_REPLICATION_ROLE=master", *(x.split()[0] for x in lines))

    def test_01_a_confirmed_write_is_on_the_replica(self):
        master = self.guide_node(self.block, "master")
        replica = self.guide_replica(master.replication_addr).wait_answer("/ready")
        for number in range(20):
            offset = master.put(f"k{number}", b"v")
            self.assertGreaterEqual(master.replicas()[0]["last_ack_offset"], offset)
        status = self.ask(STATUS, master)
        self.assert_like_the_guide(STATUS, status)
        self.assertEqual(status["mode"], "sync")
        self.assertGreaterEqual(status["quorum_offset"], offset)
        replica.wait_offset(offset)
        self.assertGreater(self.ask(MASTER_STATS, master)["sync_acks"], 0)

    def test_02_without_its_quorum_nothing_is_confirmed(self):
        env = {"NEXUS_REPLICATION_SYNC_TIMEOUT_MS": "500"}
        master = self.guide_node(self.block, "master", env=env)
        with self.assertRaises(HttpError) as caught:
            master.put("k", b"v")
        self.assertEqual((caught.exception.status, caught.exception.code), (503, "quorum_unavailable"))
        self.assertEqual(master.status()["wal_offset"], 0)


class Limits(GuideCase):
    """The guide's limitations are errors that say so."""

    def test_01_replicas_are_read_only(self):
        master, replica = self.guide_pair()
        text = self.shell(
            "curl -X PUT --data v http://replica:15474/kv/k -w ' %{http_code}'", replica
        )
        body, _, status = text.rpartition(" ")
        problem = json.loads(body)
        self.assertEqual((status, problem["code"]), ("403", "read_only_replica"))
        self.assertEqual(problem["master"], f"http://127.0.0.1:{master.http_port}")

    def test_02_replication_is_not_started_at_run_time(self):
        node = self.guide_standalone()
        text = self.shell("curl -X POST http://localhost:15474/replication/start", node)
        self.assertEqual(json.loads(text)["code"], "no_such_endpoint")

    def test_03_one_master_and_no_cascade(self):
        master, replica = self.guide_pair()
        with wire.RawPeer(replica.replication_port) as peer:
            peer.send(wire.build_hello())
            message = peer.recv_error(wire.ERROR_NOT_MASTER).message
        self.assertIn(master.replication_addr, message)


class Conformance(unittest.TestCase):
    """docs/guide-conformance.md names tests that exist."""

    @staticmethod
    def named():
        """Yields (file, test or None, line) of the document."""
        path = os.path.join(SOURCE_DIR, "docs", "guide-conformance.md")
        with open(path, encoding="utf-8") as file:
            for line in file:
                for name in re.findall(r"`([\w/]*test_\w+\.(?:py|c)(?: [\w.]+)?)`", line):
                    file_name, _, test = name.partition(" ")
                    yield file_name, test or None, line

    def test_each_test_that_is_named_exists(self):
        count = 0
        for file_name, test, line in self.named():
            count += 1
            folder = "unit" if file_name.endswith(".c") else "integration"
            path = os.path.join(SOURCE_DIR, "tests", folder, file_name)
            with self.subTest(file_name, test=test):
                with open(path, encoding="utf-8") as file:
                    self.assert_has(file.read(), test)
        self.assertGreater(count, 100)

    def assert_has(self, text, test):
        """A Class, Class.test of Python, or a test of C."""
        if test is None:
            return
        if text.startswith("/*"):
            self.assertIn(f"START_TEST({test})", text)
            return
        class_name, _, function = test.partition(".")
        match = re.search(rf"^class {class_name}\(.*?(?=^class |\Z)", text, re.MULTILINE | re.DOTALL)
        self.assertIsNotNone(match, f"class {class_name}")
        if function:
            self.assertRegex(match[0], rf"(?m)^    def {function}\(")

    def test_every_endpoint_variable_type_and_field_has_a_row(self):
        path = os.path.join(SOURCE_DIR, "docs", "guide-conformance.md")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        wanted = set(guide.variables())
        wanted |= {f"{code} {name}" for code, name, _ in table("Message Types")}
        for heading in (STATUS, MASTER_STATS, REPLICA_STATS, SNAPSHOT):
            wanted |= set(example(heading))
        wanted |= set(example(REPLICAS)["replicas"][0])
        missing = [name for name in sorted(wanted) if f"`{name}`" not in text]
        self.assertEqual(missing, [])


if __name__ == "__main__":
    unittest.main()
