# timeout: 300
"""Each case of the guide's troubleshooting, made with real servers: the log has a line that says what is wrong,
with whom, by both sides' numbers, and leads to the guide's paragraph in its own words."""

import os
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

import nexus_wire as wire
from full_sync import FullSyncCase, put_many, random_pairs
from guide import SECTIONS, GuideCase
from nexus_test import HOST, SOURCE_DIR, NexusTestCase, free_port, wait_until
from proxy import Proxy

TROUBLES = (
    "Replica Can't Connect",
    "High Replication Lag",
    "Snapshot Transfer Fails",
    "Master Appears Dead (False Positive)",
)


class Talker:
    """Something else that listens: says its banner, or nothing, and keeps what comes unread."""

    def __init__(self, banner=b""):
        self.banner = banner
        self.connections = []
        self.listener = socket.create_server((HOST, 0))
        self.addr = f"{HOST}:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            try:
                connection.sendall(self.banner)
            except OSError:
                pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for connection in self.connections:
            connection.close()


class TroubleCase(GuideCase):
    def replica_of(self, addr, **env):
        """The guide's replica, with less patience."""
        env = {"NEXUS_REPLICATION_CONNECT_TIMEOUT_MS": "700", **env}
        return self.guide_replica(addr, env=env)

    def assert_words(self, line, *words):
        for word in words:
            self.assertIn(word, line)

    def line(self, node, pattern, since=0):
        """The whole line that matches, which must be a warning."""
        line = node.wait_log(f"^.*{pattern}.*$", since=since)[0]
        self.assertRegex(line, r" (WARN|ERROR) ")
        return line


class CannotConnect(TroubleCase):
    """`Replica Can't Connect`: network connectivity, a master that runs, a firewall, the port."""

    def test_00_the_guide_has_these_cases(self):
        for heading in TROUBLES:
            self.assertIn(heading, SECTIONS)

    def test_01_nothing_listens(self):
        addr = f"{HOST}:{free_port()}"
        line = self.line(self.replica_of(addr), f"can't connect to master {addr}")
        self.assert_words(
            line,
            "Connection refused",
            "verify that the master is running",
            "15475",
            "firewall rules",
            "trying again",
        )

    def test_02_a_name_that_cannot_be_resolved(self):
        replica = self.replica_of("no-such-host.invalid:15475")
        line = self.line(replica, "(can't resolve|not resolved).*|the name of no-such-host")
        self.assert_words(line, "no-such-host.invalid:15475", "name servers")

    def test_03_another_cluster(self):
        first, second = self.guide_master(), self.guide_master()
        for master in (first, second):
            master.put("k", b"v")
        replica = self.replica_of(first.replication_addr)
        replica.wait_offset(1)
        replica.stop()
        replica.block = replica.block.replace(first.replication_addr, second.replication_addr)
        replica.start()
        clusters = [master.status()["cluster_id"] for master in (first, second)]
        advice = "point it at its own master, or give it an empty data directory"
        for node in (replica, second):
            line = self.line(node, r"Error 2 \(another cluster\)")
            self.assert_words(line, *clusters, advice)
        self.assertIn(replica.status()["node_id"], line)  # the master says who it was

    def test_04_the_master_is_a_replica(self):
        master, replica = self.guide_pair()
        second = self.replica_of(replica.replication_addr)
        line = self.line(second, r"Error 5 \(not a master\)")
        self.assert_words(
            line, f"its master is {master.replication_addr}", "point replication.master_addr there"
        )

    def test_05_a_port_that_speaks_something_else(self):
        master = self.guide_master()
        banner = Talker(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
        self.addCleanup(banner.close)
        for addr, fault in (
            (master.addr, "unknown message type 0x48"),  # H of HTTP
            (banner.addr, "unknown message type 0x53"),  # S of SSH
        ):
            with self.subTest(addr):
                line = self.line(self.replica_of(addr), fault)
                self.assert_words(
                    line, f"is {addr} a master's replication port (15475 by default)?"
                )

    def test_06_a_port_that_closes_at_once(self):
        listener = socket.create_server((HOST, 0))
        self.addCleanup(listener.close)
        addr = f"{HOST}:{listener.getsockname()[1]}"
        replica = self.replica_of(addr)
        listener.settimeout(20)
        connection, _ = listener.accept()
        wire.RawPeer(sock=connection).recv_type(wire.HELLO)
        connection.close()
        line = self.line(replica, "closed the connection before its Welcome")
        self.assert_words(line, addr, "replication port (15475 by default)?")

    def test_07_a_port_that_accepts_and_never_answers(self):
        talker = Talker()
        self.addCleanup(talker.close)
        line = self.line(self.replica_of(talker.addr), "answered no Welcome")
        self.assert_words(
            line, talker.addr, "connect_timeout_ms (700)", "replication port (15475 by default)?"
        )

    def test_08_packets_that_are_dropped(self):
        """As by a firewall: a listener whose queue is full drops them too."""
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind((HOST, 0))
        listener.listen(0)
        addr = f"{HOST}:{listener.getsockname()[1]}"
        for _ in range(4):
            filler = socket.socket()
            self.addCleanup(filler.close)
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        line = self.line(self.replica_of(addr), f"can't connect to master {addr}")
        self.assert_words(
            line, "no answer within connect_timeout_ms (700)", "firewall rules allow this port"
        )

    def test_09_a_look_at_the_port_leaves_no_warning(self):
        """`telnet master-host 15475`: connect and close, on any port of either role."""
        master, replica = self.guide_pair()
        marks = [(node, node.log_mark()) for node in (master, replica)]
        for node in (master, replica):
            for port in (node.replication_port, node.http_port):
                for _ in range(5):
                    socket.create_connection((HOST, port), 5).close()
        for node, mark in marks:
            with wire.RawPeer(node.replication_port) as peer:  # comes behind those
                peer.send(wire.build_hello())
                self.assertIn(peer.recv().type, (wire.WELCOME, wire.ERROR))
            node.wait_log("a peer at|replica .* is here|refused", since=mark)
            lines = node.log()[mark:].splitlines()
            warnings = [line for line in lines if " WARN " in line or " ERROR " in line]
            own = [line for line in warnings if "Error 5 (not a master)" in line]  # that Hello
            self.assertEqual(warnings, own)


class HighLag(TroubleCase):
    """`High Replication Lag`: bandwidth, max_log_size, the write load; the log says which."""

    FAST = {
        "NEXUS_REPLICATION_HEARTBEAT_MS": "500",
        "NEXUS_REPLICATION_MAX_READY_LAG": "99",
        "NEXUS_WAL_SHM_SIZE": "32MiB",
    }

    def pair_behind(self, proxy=None, **env):
        master = self.guide_master(env={**self.FAST, **env})
        addr = proxy(master).addr if proxy else master.replication_addr
        replica = self.guide_replica(addr, env={**self.FAST, **env})
        replica.wait_answer("/ready")
        return master, replica

    def assert_lag_line(self, master, replica, since, *words):
        line = self.line(master, "lags by", since)
        self.assert_words(
            line,
            f"replica {replica.status()['node_id']} at {HOST}:",
            "sent and not acknowledged",
            "replication.max_log_size (1000000 entries)",
            *words,
        )
        self.assertRegex(line, r"lags by \d+ entries, for \d+ s now \(this master \d+, replica \d+\)")
        return line

    def test_01_the_disk_of_the_replica(self):
        master, replica = self.pair_behind()
        mark = master.log_mark()
        walwriter = replica.kill_child("walwriter", signal.SIGSTOP)
        try:
            put_many(master, [(f"k{number}", b"v") for number in range(100)])
            line = self.assert_lag_line(
                master, replica, mark, "check that disk", "reducing the write load"
            )
            self.assertIn("lags by 100 entries", line)
            self.assertIn(": 0 not yet sent, 100 sent and not acknowledged", line)
        finally:
            os.kill(walwriter, signal.SIGCONT)
        end = master.wait_log("^.*is up again.*$", since=mark)[0]
        self.assert_words(end, "it lags by", "was 100 behind at most")
        self.assertEqual(master.log()[mark:].count("lags by 100 entries"), 1)

    def test_02_the_line(self):
        """It takes less than is written."""
        proxies = []

        def slow(master):
            proxies.append(self.new_proxy(master))
            return proxies[0]

        master, replica = self.pair_behind(slow)
        mark = master.log_mark()
        proxies[0].rate = 20_000
        put_many(master, random_pairs("k", 1200, 10_000))
        line = self.assert_lag_line(master, replica, mark, "not yet sent")
        # What a proxy doesn't read, the kernel can't tell from what a replica doesn't.
        self.assertRegex(line, "check network bandwidth|the proxy between")
        proxies[0].rate = None
        master.wait_log("is up again", since=mark)

    def new_proxy(self, master):
        proxy = Proxy(master.replication_port)
        self.addCleanup(proxy.close)
        return proxy

    def test_03_one_that_was_away_for_more_than_max_log_size(self):
        env = {
            "NEXUS_REPLICATION_MAX_LOG_SIZE": "50",
            "NEXUS_WAL_SEGMENT_SIZE": "64KiB",
            "NEXUS_STATE_CHECKPOINT_INTERVAL": "1s",
        }
        master, replica = self.pair_behind(**env)
        put_many(master, random_pairs("k", 10, 10))
        replica.wait_offset(10)
        replica.stop()
        put_many(master, random_pairs("k", 200, 1000))
        mark = master.log_mark()
        replica.start("/ready")
        line = master.wait_log("^.*needs a full sync.*$", since=mark)[0]
        self.assert_words(
            line,
            replica.status()["node_id"],
            "asks for entry 11",
            "the oldest kept here is 161",
            "replication.max_log_size is 50",
        )


class SnapshotFails(FullSyncCase):
    """`Snapshot Transfer Fails`: disk space on the replica, the size's limits, the network."""

    def line(self, node, pattern, since=0):
        return node.wait_log(f"^.*{pattern}.*$", since=since)[0]

    def test_01_larger_than_the_replica_takes(self):
        master = self.master(random_pairs("k", 400, 5000))
        replica = self.replica(master.replication_addr, **{"snapshot.max_size": "1MiB"})
        line = self.line(replica, "WARN.*snapshot.max_size of this replica")
        self.assertRegex(line, r"has \d+ bytes or more, .* is 1048576: raise it and reload")
        line = self.line(master, "snapshot.max_size of this replica is 1048576")
        self.assertIn(replica.status()["node_id"], line)

    def test_02_larger_than_the_master_makes(self):
        master = self.master(random_pairs("k", 400, 5000), **{"snapshot.max_size": "1MiB"})
        replica = self.replica(master.replication_addr)
        for node in (master, replica):
            line = self.line(node, "(WARN|ERROR).*larger than snapshot.max_size")
            self.assertRegex(line, r"snapshot.max_size \(1048576 bytes, compressed\); raise it")

    def test_03_the_network_is_cut(self):
        master = self.master(random_pairs("k", 400, 5000))
        proxy = self.proxy(master, rate=600_000)
        proxy.cut_after(500_000)
        replica = self.replica(proxy.addr)
        line = self.line(replica, "WARN.*during a full sync")
        self.assertRegex(line, r"[1-9]\d*( of \d+)? bytes of snapshot \S+ are here")
        self.assertIn("check network stability", line)
        line = self.line(master, "its full sync had sent")
        self.assertRegex(line, r"replica \S+ at 127.0.0.1:\d+ disconnected: .* sent [1-9]\d*( of \d+)? bytes")
        proxy.rate = None
        replica.wait_answer("/ready", 60)
        self.assert_level(master, replica)

    def test_04_the_disk_of_the_replica_is_full(self):
        directory = tempfile.mkdtemp(prefix="nexus-full-")
        self.addCleanup(os.rmdir, directory)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", directory],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            self.skipTest(f"a filesystem can't be mounted here: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", directory], check=True)
        master = self.master(random_pairs("k", 60, 1 << 20))
        settings = {"replication.master_addr": master.replication_addr, "wal.shm_size": "32MiB"}
        replica = self.node("replica", wait=None, directory=directory, settings=settings)
        line = self.line(replica, "WARN.*full sync: .*(disk|space)")
        self.assertRegex(line, "free disk space on this replica|free some space")
        self.assertIn(directory, line)
        line = self.line(master, r"the replica says Error 10 \(.*full sync: ")
        self.assertIn(replica.status()["node_id"], line)


class AppearsDead(TroubleCase):
    """`Master Appears Dead (False Positive)`: the threshold, the latency, the interval."""

    def test_a_master_that_says_nothing(self):
        env = {"NEXUS_REPLICATION_HEARTBEAT_MS": "200"}
        master = self.guide_master(env=env)
        replica = self.guide_replica(master.replication_addr, env=env)
        replica.wait_answer("/ready")
        mark = replica.log_mark()
        stopped = [process.pid for process in master.all_processes()]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            line = self.line(replica, "appears dead", mark)
            self.assert_words(
                line, master.replication_addr, "missed_heartbeats_threshold", "heartbeat_ms", "200"
            )
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: replica.stats()["connected"], what="that it is back")

    def test_the_hint_helps(self):
        """A higher threshold outlasts the same silence."""
        for threshold, dead in (("2", True), ("500", False)):
            with self.subTest(threshold=threshold):
                env = {
                    "NEXUS_REPLICATION_HEARTBEAT_MS": "100",
                    "NEXUS_REPLICATION_MISSED_HEARTBEATS_THRESHOLD": threshold,
                }
                raw = wire.RawMaster(timeout=20)
                self.addCleanup(raw.close)
                replica = self.guide_replica(raw.addr, env=env)
                peer, _ = raw.welcome(heartbeat_ms=100)
                if dead:
                    self.line(replica, "appears dead")
                else:
                    for _ in range(10):  # its own heartbeats: a second and more of our silence
                        self.assertEqual(peer.recv().type, wire.PING)
                    self.assertNotIn("appears dead", replica.log())
                    self.assertTrue(replica.stats()["connected"])


class Advice(NexusTestCase):
    """What the documentation adds to the guide's hints."""

    def test_the_corrections_stand_in_the_document(self):
        path = os.path.join(SOURCE_DIR, "docs", "guide-conformance.md")
        with open(path, encoding="utf-8") as file:
            text = " ".join(file.read().split())
        self.assertIn("raise `heartbeat_ms` or the threshold", text)
        self.assertIn("avoids full syncs, not disconnects", text)


if __name__ == "__main__":
    unittest.main()
