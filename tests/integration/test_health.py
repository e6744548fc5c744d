# timeout: 400
"""Who is alive, and who is told to be silent: the replica's judgment of its master, failover_command, lag in
time, POST /replication/stop, and cuts of the network that nobody announces."""
import json
import os
import re
import signal
import socket
import threading
import time
import unittest

import nexus_wire as wire
from full_sync import FullSyncCase, random_pairs
from nexus_test import NexusTestCase, is_alive
from proxy import Proxy

QUICK = {"replication.heartbeat_ms": 100, "replication.missed_heartbeats_threshold": 4}
CALM = {"replication.heartbeat_ms": 300, "replication.missed_heartbeats_threshold": 5}
DEAD = r"master \S+ appears dead: nothing was heard of it for (\d+) ms"
HEARD = r"master \S+ is heard again, after (\d+) ms of silence"
STOPPED = "replication was stopped on this master by POST /replication/stop"


class HealthCase(NexusTestCase):
    def synced_pair(self, settings=None, **options):
        """-> (master, replica), with an entry on both."""
        master, replica = self.pair(settings=settings or QUICK, **options)
        replica.wait_offset(master.put("k", b"v"))
        return master, replica

    def wait_alive(self, replica):
        return replica.wait_status(master_alive=True, promotable=False, connected=True)

    def deaths(self, replica):
        return len(re.findall(DEAD, replica.log()))

    def row(self, master):
        """The one replica of the master, or None."""
        rows = master.replicas()
        return rows[0] if rows else None


class MasterDeath(HealthCase):
    def test_01_a_dead_master_and_its_return(self):
        master, replica = self.synced_pair()
        self.wait_alive(replica)
        master.kill9()
        replica.wait_status(master_alive=False, promotable=True, connected=False)
        line = replica.wait_log(r"appears dead.*").group()
        for text in (
            "the limit is 400 ms (heartbeat_ms 100, which is this node's own, x "
            "missed_heartbeats_threshold 4)",
            "raise heartbeat_ms or missed_heartbeats_threshold",
            "Master Appears Dead (False Positive)",
            "POST /replication/promote",
        ):
            self.assertIn(text, line)
        self.assertGreaterEqual(int(replica.wait_log(DEAD).group(1)), 400)
        self.assertEqual(replica.get("k"), b"v")
        master.start()
        self.wait_alive(replica)
        self.assertGreaterEqual(int(replica.wait_log(HEARD).group(1)), 400)
        replica.wait_offset(master.put("k", b"w"))
        self.assertEqual(self.deaths(replica), 1)

    def test_02_a_frozen_walreceiver_declares_nobody_dead(self):
        master, replica = self.synced_pair(CALM)
        receiver = replica.kill_child("walreceiver", signal.SIGSTOP)
        try:
            master.wait_log("the replica appears dead")
            master.wait_status(replica_count=0)
            status = replica.status()
            self.assertEqual((status["master_alive"], status["promotable"]), (True, False))
        finally:
            os.kill(receiver, signal.SIGCONT)
        replica.wait_offset(master.put("k", b"w"))
        self.wait_alive(replica)
        self.assertEqual(self.deaths(replica), 0)

    def test_03_the_longer_heartbeat_of_the_master_counts(self):
        with wire.RawMaster() as raw:
            settings = {**QUICK, "replication.master_addr": raw.addr}
            replica = self.node("replica", settings=settings)
            raw.welcome(heartbeat_ms=400)  # and then not a word
            line = replica.wait_log(r"appears dead.*").group()
            self.assertIn("the limit is 1600 ms (heartbeat_ms 400, which is the master's", line)
            self.assertGreaterEqual(int(replica.wait_log(DEAD).group(1)), 1600)

    def test_04_silence_while_reading_is_held_back_is_none(self):
        small = {"wal.shm_size": "32MiB", "wal.segment_size": "16MiB"}
        master, replica = self.synced_pair({**CALM, **small})
        checkpointer = replica.kill_child("checkpointer", signal.SIGSTOP)
        try:
            for i in range(400):
                master.put(f"k{i % 50}", b"%d" % i * 25000)
            replica.wait_status(lag=lambda lag: lag > 0)
            held = self.row(master)["lag_seconds"]
            # longer than the limit of 1.5 s, by the master's clock
            master.wait_until(
                lambda: self.row(master)["lag_seconds"] > held + 3, what="a lag of seconds"
            )
            status = replica.status()
            self.assertEqual(
                (status["master_alive"], status["promotable"], status["connected"]),
                (True, False, True),
            )
        finally:
            os.kill(checkpointer, signal.SIGCONT)
        replica.wait_offset(401, 60)
        self.assertEqual(self.deaths(replica), 0)
        self.assertEqual(replica.stats()["reconnects"], 0)

    def test_05_another_node_in_its_place_is_no_sign_of_life(self):
        master, replica = self.synced_pair()
        port = master.replication_port
        master.kill9()
        replica.wait_status(promotable=True)
        listener = socket.create_server(("127.0.0.1", port))
        self.addCleanup(listener.close)
        listener.settimeout(20)
        for _ in range(2):
            sock, _ = listener.accept()
            with wire.RawPeer(sock=sock) as peer:
                peer.recv_type(wire.HELLO)
                peer.send(wire.build_error(wire.ERROR_NOT_MASTER, "this node is a replica"))
                replica.wait_log("the master says Error 5")
        self.assertTrue(replica.status()["promotable"])
        self.assertNotRegex(replica.log(), HEARD)
        sock, _ = listener.accept()
        with wire.RawPeer(sock=sock) as peer:  # but a master that can't serve us now is one
            peer.recv_type(wire.HELLO)
            peer.send(wire.build_error(wire.ERROR_SHUTDOWN, "this master is shutting down"))
            replica.wait_log(HEARD)

    def test_06_a_restarted_walreceiver_goes_on_counting(self):
        slow = {"replication.heartbeat_ms": 2000}  # x 3
        master, replica = self.synced_pair(slow)
        master.kill9()
        replica.wait_until(lambda: replica.stats()["lag_seconds"] > 4, what="4 s of silence")
        replica.wait_replaced("walreceiver", replica.kill_child("walreceiver"))
        began = time.monotonic()
        replica.wait_status(promotable=True)
        self.assertLess(time.monotonic() - began, 6)  # from the beginning it would be so long

    def test_07_started_with_a_dead_master(self):
        master, replica = self.synced_pair()
        replica.stop()
        master.kill9()
        replica.start("/health")
        status = replica.wait_status(promotable=True)
        self.assertFalse(status["master_alive"])
        line = replica.wait_log(r"appears dead.*").group()
        self.assertIn("since this node's start", line)

    def test_075_a_master_that_turns_us_away_is_heard_often_enough(self):
        with wire.RawMaster(timeout=20) as master:
            replica = self.node(
                "replica", settings={**CALM, "replication.master_addr": master.addr}
            )
            for _ in range(12):
                with master.accept() as peer:
                    peer.recv_type(wire.HELLO)
                    peer.send(wire.build_error(wire.ERROR_SHUTDOWN, "replication is stopped"))
                    peer.recv_end()
            replica.wait_status(master_alive=True)
            self.assertEqual(self.deaths(replica), 0)

    def test_08_without_auto_failover_it_is_dead_but_not_promotable(self):
        master, replica = self.synced_pair({**QUICK, "replication.auto_failover": "off"})
        self.wait_alive(replica)
        master.kill9()
        replica.wait_log(DEAD)
        status = replica.status()
        self.assertEqual((status["master_alive"], status["promotable"]), (False, False))


class FailoverCommand(HealthCase):
    def pair_with(self, command, **options):
        return self.synced_pair(replica_settings={"replication.failover_command": command}, **options)

    def output(self, replica):
        return os.path.join(replica.data_dir, "out")

    def lines(self, path):
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def test_01_what_it_gets(self):
        command = (
            "for i in /proc/$$/fd/*; do [ -e $i ] && echo fd=${i##*/}; done;"
            " { env; echo pwd=$(pwd); echo pid=$$; cat /proc/self/status; cat; } >out;"
            " echo printed by the command; exit 3"
        )
        master, replica = self.pair_with(command)
        status = self.wait_alive(replica)
        master.kill9()
        replica.wait_log(r"failover_command \(process \d+\) exited with status 3")
        replica.wait_log(r"^printed by the command$")
        lines = self.lines(self.output(replica))
        for line in (
            "NEXUS_EVENT=master_dead",
            f"NEXUS_NODE_ID={status['node_id']}",
            f"NEXUS_MASTER_ADDR={master.replication_addr}",
            f"NEXUS_DATA_DIR={replica.data_dir}",
            f"NEXUS_HTTP_ADDR={replica.addr}",
            f"NEXUS_WAL_OFFSET={status['wal_offset']}",
            "NEXUS_EPOCH=1",
            f"pwd={replica.data_dir}",
        ):
            self.assertIn(line, lines)
        self.assertEqual(re.findall(r"^fd=(\d+)$", replica.log(), re.M), ["0", "1", "2"])
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        for name in ("SigIgn", "SigBlk"):
            self.assertEqual(int(fields[name], 16), 0, name)
        pid = next(line for line in lines if line.startswith("pid="))[4:]
        self.assertIn(f"runs as process {pid}", replica.log())
        self.assertEqual(fields["NSsid"].split()[-1], pid)

    def test_02_a_wildcard_address_is_dialled_as_loopback(self):
        master, replica = self.cluster(
            settings=QUICK,
            replica_settings={"replication.failover_command": "echo $NEXUS_HTTP_ADDR"},
            start=False,
        ).nodes
        replica.settings["http.bind_addr"] = f":{replica.http_port}"
        master.start()
        replica.start("/ready")
        master.kill9()
        replica.wait_log(rf"^127\.0\.0\.1:{replica.http_port}$")

    def test_03_once_a_death(self):
        master, replica = self.pair_with("echo ran >>out")
        path = self.output(replica)
        self.wait_alive(replica)
        master.kill9()
        replica.wait_until(lambda: len(self.lines(path)) == 1, what="the command")
        replica.wait_log(r"failover_command \(process \d+\) exited with status 0")
        # neither a new walreceiver nor a crash of all processes is another death
        mark = replica.log_mark()
        replica.wait_replaced("walreceiver", replica.kill_child("walreceiver"))
        replica.wait_log("can't connect", since=mark)
        self.assertTrue(replica.status()["promotable"])
        mark = replica.log_mark()
        replica.kill_child("walwriter")
        replica.wait_log("^.*ready: role replica", since=mark)
        replica.wait_log("can't connect", since=mark)
        replica.wait_status(promotable=True)
        self.assertEqual(len(self.lines(path)), 1)
        # but one after a return is
        master.start()
        self.wait_alive(replica)
        self.assertEqual(len(self.lines(path)), 1)
        master.kill9()
        replica.wait_until(lambda: len(self.lines(path)) == 2, what="the command again")
        self.assertEqual(self.deaths(replica), 2)

    def die_twice(self, master, replica, path):
        """The master's second death comes while the command of the first runs, whose pid this returns."""
        self.wait_alive(replica)
        master.kill9()
        replica.wait_until(lambda: self.lines(path), what="the command")
        pid = int(self.lines(path)[0])
        self.addCleanup(self.end, pid)
        master.start()
        self.wait_alive(replica)
        master.kill9()
        replica.wait_log(f"that of an earlier death still runs, as process {pid}")
        return pid

    def test_04_never_two_at_a_time(self):
        master, replica = self.pair_with("echo $$ >>out; [ -e once ] || { : >once; exec sleep 1000; }")
        path = self.output(replica)
        pid = self.die_twice(master, replica, path)
        self.assertEqual(len(self.lines(path)), 1)
        os.kill(pid, signal.SIGTERM)
        replica.wait_log(rf"failover_command \(process {pid}\) was ended by signal 15")
        # The death that came meanwhile has its turn.
        replica.wait_until(lambda: len(self.lines(path)) == 2, what="the command of the second death")
        replica.wait_log(r"failover_command \(process \d+\) exited with status 0")
        self.assertEqual(self.deaths(replica), 2)

    def test_045_none_for_a_master_that_is_back_meanwhile(self):
        master, replica = self.pair_with("echo $$ >>out; exec sleep 1000")
        path = self.output(replica)
        pid = self.die_twice(master, replica, path)
        master.start()
        self.wait_alive(replica)
        os.kill(pid, signal.SIGTERM)
        replica.wait_log(rf"failover_command \(process {pid}\) was ended by signal 15")
        mark = replica.log_mark()
        os.kill(replica.pid, signal.SIGHUP)  # a later turn of the postmaster
        replica.wait_log("configuration reloaded", since=mark)
        self.assertEqual(len(self.lines(path)), 1)

    @staticmethod
    def end(pid):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)

    def test_05_it_may_stop_the_server_and_outlive_it(self):
        command = "echo $$ >out; kill -TERM $(head -n 1 nexus.pid); exec sleep 1000"
        master, replica = self.pair_with(command)
        self.wait_alive(replica)
        master.kill9()
        self.assertEqual(replica.wait_exit(), 0)
        pid = int(self.lines(self.output(replica))[0])
        self.addCleanup(self.end, pid)
        self.assertTrue(is_alive(pid))
        # it holds neither the lock nor a port
        replica.settings["replication.failover_command"] = ""
        replica.start("/health")
        self.assertEqual(replica.get("k"), b"v")
        self.assertTrue(is_alive(pid))

    def test_06_not_without_auto_failover(self):
        master, replica = self.pair_with("echo ran >>out", settings={
            **QUICK, "replication.auto_failover": "off"
        })
        self.wait_alive(replica)
        master.kill9()
        replica.wait_log(DEAD)
        mark = replica.log_mark()
        os.kill(replica.pid, signal.SIGHUP)  # behind the walreceiver's message in the same loop
        replica.wait_log("configuration reloaded", since=mark)
        self.assertNotIn("failover_command runs", replica.log())
        self.assertEqual(self.lines(self.output(replica)), [])

    def test_07_not_on_a_node_that_was_never_synced(self):
        master = self.node("master", start=False)
        replica = self.node(
            "replica",
            settings={
                **QUICK,
                "replication.master_addr": master.replication_addr,
                "replication.failover_command": "echo ran >>out",
            },
        )
        replica.wait_log("failover_command is not run: this node was never synced")
        self.assertFalse(replica.status()["promotable"])
        self.assertEqual(self.lines(self.output(replica)), [])

    def test_08_a_reload_changes_it(self):
        master, replica = self.synced_pair()
        with open(os.path.join(replica.data_dir, "nexus.conf"), "w", encoding="utf-8") as file:
            file.write("[replication]\nfailover_command = echo from the file >>out\n")
        os.kill(replica.pid, signal.SIGHUP)
        replica.wait_log("configuration reloaded: 1 key changed: replication.failover_command")
        master.kill9()
        path = self.output(replica)
        replica.wait_until(lambda: self.lines(path) == ["from the file"], what="the command")


class Lag(HealthCase):
    def test_01_after_a_long_idle_time_it_counts_from_the_write(self):
        master, replica = self.synced_pair({"replication.heartbeat_ms": 60000})
        master.wait_until(lambda: self.row(master)["connected_seconds"] >= 2, what="an idle time")
        self.assertEqual(self.row(master)["lag_seconds"], 0)
        self.assertEqual(replica.stats()["lag_seconds"], 0)
        receiver = replica.kill_child("walreceiver", signal.SIGSTOP)
        try:
            before = time.monotonic()
            size = 10000
            master.put("k", b"x" * size)
            row = self.row(master)
            self.assertLessEqual(row["lag_seconds"], time.monotonic() - before + 0.01)
            self.assertEqual(row["lag"], 1)
            master.wait_until(lambda: self.row(master)["lag_seconds"] >= 0.5, what="growing")
            row = self.row(master)
            self.assertLessEqual(row["lag_seconds"], time.monotonic() - before + 0.01)
            self.assertGreater(row["lag_bytes"], size)
        finally:
            os.kill(receiver, signal.SIGCONT)
        master.wait_until(lambda: self.row(master)["lag"] == 0, what="the ack")
        row = self.row(master)
        self.assertEqual((row["lag_seconds"], row["lag_bytes"]), (0, 0))
        stats = replica.stats()
        self.assertEqual((stats["lag"], stats["lag_seconds"], stats["lag_bytes"]), (0, 0, 0))

    def test_02_a_replica_that_was_never_level(self):
        with wire.RawMaster() as raw:
            settings = {**CALM, "replication.master_addr": raw.addr}
            replica = self.node("replica", settings=settings)
            before = time.monotonic()
            peer, _ = raw.welcome(current_wal_offset=10)
            stop = threading.Event()

            def ping():
                while not stop.wait(0.2):
                    peer.send(wire.build_ping(current_wal_offset=10))

            thread = threading.Thread(target=ping)
            thread.start()
            try:
                replica.wait_status(connected=True)
                self.assertEqual(replica.stats()["lag"], 10)
                replica.wait_until(lambda: replica.stats()["lag_seconds"] >= 1, what="growing")
                self.assertLessEqual(
                    replica.stats()["lag_seconds"], time.monotonic() - before + 0.01
                )
                self.assertEqual(replica.status()["lag"], 10)
            finally:
                stop.set()
                thread.join()

    def test_03_a_peer_that_never_acks(self):
        master = self.node("master")
        for i in range(10):
            master.put(f"k{i}", b"v")
        before = time.monotonic()
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake()
            row = self.row(master)
            self.assertEqual(row["lag"], 10)
            peer.recv_entries(10)
            master.wait_until(lambda: self.row(master)["lag_seconds"] >= 0.3, what="growing")
            self.assertLessEqual(
                self.row(master)["lag_seconds"], time.monotonic() - before + 0.01
            )
            peer.send(wire.build_ack(10))
            master.wait_until(lambda: self.row(master)["lag_seconds"] == 0, what="level")
            self.assertEqual(self.row(master)["lag"], 0)

    def test_04_cut_off_it_grows_and_the_lag_stays(self):
        master, replica = self.synced_pair()
        self.assertEqual(replica.stats()["lag_seconds"], 0)
        before = time.monotonic()
        master.kill9()
        replica.wait_until(lambda: replica.stats()["lag_seconds"] >= 1, what="growing")
        stats = replica.stats()
        self.assertEqual((stats["lag"], stats["connected"]), (0, False))
        # the last frame may have come a heartbeat before the kill
        self.assertLess(stats["lag_seconds"], time.monotonic() - before + 2)


class Silence(HealthCase):
    def test_01_a_frozen_replica_is_unhealthy_and_then_gone(self):
        master, replica = self.synced_pair()
        receiver = replica.kill_child("walreceiver", signal.SIGSTOP)
        sender = master.kill_child("walsender", signal.SIGSTOP)  # so that it still stands there
        try:
            master.wait_until(lambda: not self.row(master)["healthy"], what="unhealthy")
            stats = master.stats()
            self.assertEqual((stats["connected_replicas"], stats["healthy_replicas"]), (1, 0))
            os.kill(sender, signal.SIGCONT)
            master.wait_log("no frame for 400 ms .*the replica appears dead")
            master.wait_status(replica_count=0)
        finally:
            os.kill(receiver, signal.SIGCONT)
        master.wait_until(lambda: self.row(master) and self.row(master)["healthy"], what="back")
        replica.wait_offset(master.put("k", b"w"))

    def proxied(self):
        master = self.node("master", settings=QUICK)
        proxy = Proxy(master.replication_port)
        self.addCleanup(proxy.close)
        settings = {
            **QUICK,
            "replication.master_addr": proxy.addr,
            "replication.connect_timeout_ms": 500,
        }
        replica = self.node("replica", settings=settings, wait="/ready")
        replica.wait_offset(master.put("before", b"x"))
        self.wait_alive(replica)
        return master, replica, proxy

    def check_cut(self, down, up):
        master, replica, proxy = self.proxied()
        old = self.row(master)["connected_seconds"]
        proxy.pause(down=down, up=up)
        offset = master.put("meanwhile", b"y")
        if not (down and not up):  # then the replica, which still can, says that it goes
            master.wait_log("the replica appears dead|the connection broke|replica says|closed")
        master.wait_status(replica_count=0)
        status = replica.wait_status(master_alive=False, promotable=True, connected=False)
        self.assertLessEqual(status["applied_offset"], offset)
        replica.wait_until(lambda: replica.stats()["lag_seconds"] > 0.4, what="a growing lag")
        proxy.resume()
        replica.wait_offset(offset)
        self.wait_alive(replica)
        master.wait_status(replica_count=1)
        master.wait_until(lambda: self.row(master)["lag"] == 0, what="level")
        self.assertEqual(self.row(master)["lag_seconds"], 0)
        self.assertLessEqual(self.row(master)["connected_seconds"], old + 60)
        self.assertEqual(replica.stats()["lag_seconds"], 0)
        self.assertEqual(self.deaths(replica), 1)

    def test_02_a_cut_both_ways(self):
        self.check_cut(down=True, up=True)

    def test_03_a_cut_towards_the_replica(self):
        self.check_cut(down=True, up=False)

    def test_04_a_cut_towards_the_master(self):
        self.check_cut(down=False, up=True)


class Stop(FullSyncCase, HealthCase):
    BODY = {"success": True, "message": "Replication stopped"}

    def stop_replication(self, node):
        self.assertEqual(node.json("POST", "/replication/stop"), self.BODY)

    def test_01_standalone_has_none(self):
        node = self.node()
        self.assert_problem(node.request("POST", "/replication/stop"), 409, "wrong_role")
        self.assert_problem(node.request("GET", "/replication/stop"), 405, "method_not_allowed")

    def test_02_on_a_replica(self):
        master, replica = self.synced_pair()
        self.wait_alive(replica)
        pid = replica.pids("walreceiver")[0]
        self.stop_replication(replica)
        status = replica.wait_status(state="stopped", running=False, connected=False)
        self.assertEqual((status["master_alive"], status["promotable"]), (False, False))
        self.stop_replication(replica)
        replica.wait_until(lambda: not is_alive(pid), what="the walreceiver's end")
        master.wait_status(replica_count=0)
        replica.wait_log("replication is stopped, as POST /replication/stop asked.*a restart")
        master.wait_log(r"this replica was told to stop \(POST /replication/stop\)")
        master.put("k", b"w")
        self.assertEqual(replica.get("k"), b"v")
        self.assertEqual(replica.status()["lag"], 0)
        self.assert_problem(replica.request("PUT", "/kv/x", b"y"), 403, "read_only_replica")
        # neither does a crash of all processes bring it back
        mark = replica.log_mark()
        replica.kill_child("walwriter")
        replica.wait_log("ready: role replica", since=mark)
        status = replica.wait_status(state="stopped", running=False)
        self.assertEqual(replica.pids("walreceiver"), [])
        self.assertEqual(self.deaths(replica), 0)
        replica.stop()
        replica.start("/ready")
        self.assertEqual(replica.get("k"), b"w")
        self.wait_alive(replica)
        replica.wait_status(running=True, state="streaming")

    def test_03_on_a_master(self):
        master, replica = self.synced_pair()
        offset = master.put("k", b"w")
        self.stop_replication(master)
        status = master.status()
        self.assertEqual(
            (status["running"], status["connected"], status["state"]), (False, False, "stopped")
        )
        replica.wait_offset(offset)
        master.wait_status(replica_count=0)
        replica.wait_log(f"Error 9 .*{STOPPED}")
        self.stop_replication(master)
        with wire.RawPeer(master.replication_port) as peer:
            peer.send(wire.build_hello())
            self.assertIn(STOPPED, peer.recv_error(wire.ERROR_SHUTDOWN).message)
        # writes go on, and stay here
        late = master.put("k", b"x")
        self.assertEqual(replica.get("k"), b"w")
        # it is no dead master: it says why it doesn't serve
        self.assertTrue(replica.wait_status(connected=False)["master_alive"])
        master.stop()
        master.start()
        replica.wait_offset(late)
        self.assertEqual(master.wait_status(running=True)["state"], "streaming")

    def test_04_a_master_brings_replicas_to_where_it_stood(self):
        master = self.node("master")
        for i in range(3):
            master.put(f"k{i}", b"v")
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake()
            self.assertEqual([entry.offset for entry in peer.recv_entries(3)], [1, 2, 3])
            self.stop_replication(master)
            master.wait_log("replication is stopped")
            master.wait_until(
                lambda: self.put_is_held(master, peer), what="an entry that is not sent any more"
            )
            self.assertEqual(master.status()["replica_count"], 1)  # its ack is waited for
            peer.send(wire.build_ack(self.last))
            error = peer.recv_error(wire.ERROR_SHUTDOWN)
            self.assertIn(STOPPED, error.message)
            self.assertIn(f"everything up to offset {self.last}", error.message)
        master.wait_status(replica_count=0)

    last = 3

    def put_is_held(self, master, peer):
        """Writes an entry; False when the walsender, which had not heard of the stop yet, sends it."""
        offset = master.put("late", b"v")
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            try:
                message = peer.recv(max(deadline - time.monotonic(), 0.001))
            except TimeoutError:
                break
            if message.type == wire.WAL_ENTRY:
                self.last = offset
                return False
        return True

    def test_05_a_replica_that_never_acks_is_not_waited_for_longer(self):
        master = self.node("master", settings={"replication.stop_drain_ms": 300})
        master.put("k", b"v")
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake()
            peer.recv_entries(1)
            self.stop_replication(master)
            error = peer.recv_error(wire.ERROR_SHUTDOWN)
            self.assertIn("has acknowledged 0, the last offset here is 1", error.message)

    def test_06_during_a_full_sync(self):
        for stopped in ("replica", "master"):
            with self.subTest(stopped):
                master = self.master(random_pairs(stopped, 300, 10000))
                proxy = self.proxy(master, rate=500_000)
                replica = self.replica(proxy.addr, name=f"{stopped}-stops")
                replica.wait_answer("/health")
                replica.wait_status(state="snapshot")
                replica.wait_until(lambda: replica.pids("restore"), what="the restore process")
                node = replica if stopped == "replica" else master
                self.stop_replication(node)
                master.wait_status(replica_count=0)
                if stopped == "replica":
                    replica.wait_status(state="stopped")
                    replica.wait_until(
                        lambda: not replica.pids("restore") + replica.pids("walreceiver"),
                        what="the end of both",
                    )
                    self.assertEqual(replica.request("GET", "/kv/x")[0], 503)
                else:
                    replica.wait_log(f"Error 9 .*{STOPPED}")
                proxy.rate = None
                node.stop()
                node.start("/health")
                replica.wait_answer("/ready")
                self.assert_level(master, replica)
                self.assert_tidy(replica)

    def test_07_asked_by_many_at_once(self):
        master, replica = self.synced_pair()
        answers = []

        def ask():
            client = replica.client()
            for _ in range(5):
                answers.append(client.json("POST", "/replication/stop"))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [self.BODY] * 40)
        self.assertEqual(replica.log().count("replication is stopped, as"), 1)
        self.assertEqual(json.loads(replica.request("GET", "/health")[2])["ok"], True)

    def test_08_a_stopped_replica_stops_and_reloads_in_order(self):
        master, replica = self.synced_pair()
        self.stop_replication(replica)
        replica.wait_status(state="stopped")
        mark = replica.log_mark()
        os.kill(replica.pid, signal.SIGHUP)
        replica.wait_log("configuration reloaded", since=mark)
        master.wait_status(replica_count=0)
        replica.wait_until(
            lambda: replica.pids("walreceiver") == [], what="the walreceiver's end"
        )
        replica.stop()
        master.stop()


if __name__ == "__main__":
    unittest.main()
