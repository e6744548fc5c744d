"""The postmaster at work: children that die, signals, stops, starts that must not succeed."""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import unittest

import load
from nexus_test import NexusTestCase, Node, free_port, is_alive, wait_until

PERMANENT = ("walwriter", "checkpointer", "http")


def answers(node):
    """True when the node takes a write."""
    try:
        return node.request("PUT", "/kv/probe", b"x", timeout=5)[0] in (200, 201)
    except (OSError, http.client.HTTPException):
        return False


class Deaths(NexusTestCase):
    def replaced(self, node, kind):
        """The row of a process of this kind that has been started again, or None."""
        try:
            rows = node.processes(kind)
        except (OSError, http.client.HTTPException):
            return None
        return next((row for row in rows if row["restarts"] > 0 and row["pid"] > 0), None)

    def test_a_killed_child_is_replaced_and_counted(self):
        node = self.node("master")
        for kind in PERMANENT:
            with self.subTest(kind):
                old = node.kill_child(kind)
                row = wait_until(lambda: self.replaced(node, kind), what=f"another {kind}")
                self.assertNotEqual(row["pid"], old)
                self.assertIn("signal 9", row["last_exit"])
                wait_until(lambda: answers(node), 10, "an answer")
                self.assertRegex(node.log(), rf"{kind}.*{old}.*signal 9")

    def test_one_killed_child_leaves_the_others_alone(self):
        node = self.node("master", settings={"http.workers": 2})
        before = {row["pid"] for row in node.processes()}
        old = node.kill_child("http")
        wait_until(lambda: self.replaced(node, "http"), what="another http worker")
        self.assertEqual(before - {row["pid"] for row in node.processes()}, {old})

    def test_a_crashed_child_brings_fresh_memory_and_recovery(self):
        node = self.node("master", crashable=True)
        offset = node.put("k", b"v")
        before = {row["pid"] for row in node.processes()}
        node.kill_child("http", signal.SIGSEGV)
        wait_until(lambda: answers(node), 10, "an answer after the crash")
        self.assertEqual(before & {row["pid"] for row in node.processes()}, set())
        self.assertEqual(node.get("k"), b"v")
        self.assertGreater(node.status()["wal_offset"], offset)
        self.assertEqual(len(node.log().split("recovered to offset")), 3)

    def test_writes_go_on_over_repeated_deaths(self):
        node = self.node("master")
        writers = load.AckedPuts(node.http_port).start()
        try:
            for kind in PERMANENT * 2:
                before = writers.count()
                old = node.kill_child(kind)
                node.wait_replaced(kind, old)
                wait_until(lambda: writers.count() > before + 50, 20, f"writes after the end of {kind}")
        finally:
            writers.stop()
        found = node.versions()
        lost = [key for key, offset in writers.acked.items() if found.get(key) != offset]
        self.assertEqual(lost, [])

    def test_children_follow_their_postmaster_within_a_second(self):
        node = self.node("master")
        node.put("k", b"v")
        pids = [process.pid for process in node.children()]
        self.assertGreaterEqual(len(pids), 4)
        os.kill(node.pid, signal.SIGKILL)
        begin = time.monotonic()
        wait_until(lambda: not any(map(is_alive, pids)), what="the end of all children")
        self.assertLess(time.monotonic() - begin, 3)  # a second, and what a busy machine adds
        node.wait_exit()
        node.start()
        self.assertEqual(node.get("k"), b"v")

    def test_one_that_cannot_start_stops_the_server(self):
        """LMDB's file replaced by something that is none: no restart can mend that."""
        node = self.node("master")
        node.stop()
        path = os.path.join(node.data_dir, "current", "state", "data.mdb")
        with open(path, "r+b") as file:
            file.write(b"\xff" * 8192)
        node.launch()
        self.assertEqual(node.wait_exit(timeout=30), 1)
        self.assertIn(os.path.dirname(os.path.realpath(path)), node.log())


class Signals(NexusTestCase):
    def test_orderly_stops(self):
        node = self.node("master")
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            with self.subTest(sig):
                node.put("k", sig.name.encode())
                node.drop_connections()
                node.stop(sig, expect=0)
                self.assertIn("stopped", node.log()[-200:])
                node.start()
                self.assertEqual(node.get("k"), sig.name.encode())

    def test_an_immediate_stop_is_recovered_from(self):
        node = self.node("master")
        node.put("k", b"v")
        node.stop(signal.SIGQUIT, expect=None)
        node.start()
        self.assertEqual(node.get("k"), b"v")

    def test_a_smart_stop_waits_for_open_requests_and_a_fast_one_does_not(self):
        node = self.node("master", settings={"http.request_timeout_ms": 60000})
        with socket.create_connection(("127.0.0.1", node.http_port)) as sock:
            sock.sendall(b"PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nsl")
            time.sleep(0.3)
            os.kill(node.pid, signal.SIGUSR2)
            wait_until(lambda: "stopping" in node.log(), what="the beginning of the stop")
            time.sleep(0.3)
            self.assertTrue(node.is_running())
            sock.sendall(b"ow")
            self.assertTrue(sock.recv(4096).startswith(b"HTTP/1.1 201"))
        self.assertEqual(node.wait_exit(), 0)
        node.start()
        self.assertEqual(node.get("slow"), b"slow")
        with socket.create_connection(("127.0.0.1", node.http_port)) as sock:
            sock.sendall(b"PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nsl")
            time.sleep(0.3)
            node.stop(signal.SIGTERM, timeout=8)

    def test_a_stop_loses_no_answered_write(self):
        node = self.node("master")
        acked = {}
        for number in range(3):
            writers = load.AckedPuts(node.http_port, prefix=f"round{number}").start()
            wait_until(lambda: writers.count() > 300, what="writes")
            node.stop()
            writers.stop()
            acked.update(writers.acked)
            node.start()
        found = node.versions()
        self.assertEqual([key for key, offset in acked.items() if found.get(key) != offset], [])

    def test_a_walwriter_that_dies_during_a_stop_ends_it(self):
        """A smart stop waits for an open request without a limit; this one can't be answered any more."""
        node = self.node("master", settings={"http.request_timeout_ms": 60000})
        (walwriter,) = node.pids("walwriter")
        with socket.create_connection(("127.0.0.1", node.http_port)) as sock:
            sock.sendall(b"PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
                         b"Expect: 100-continue\r\n\r\n")
            self.assertIn(b"100 Continue", sock.recv(4096))
            os.kill(node.pid, signal.SIGUSR2)
            node.wait_log("stopping")
            os.kill(walwriter, signal.SIGKILL)
            self.assertEqual(node.wait_exit(), 2)
        self.assertRegex(node.log(), r"walwriter .*signal 9.* during the stop")
        node.start()

    def test_a_stop_names_the_one_that_does_not_end(self):
        master, replica = self.pair(replica_settings={"replication.stop_drain_ms": 0})
        pid = replica.pids("walreceiver")[0]
        os.kill(pid, signal.SIGSTOP)
        replica.stop(timeout=30, expect=2)
        replica.wait_log(f"walreceiver {pid} did not end in time, so all processes that are left ")

    def test_signals_to_children_do_no_harm(self):
        node = self.node("master")
        for kind in PERMANENT:
            for sig in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
                node.kill_child(kind, sig, wait=False)
        self.assertTrue(answers(node))
        for kind in PERMANENT:
            self.assertEqual([row["restarts"] for row in node.processes(kind) if row["restarts"]], [])
        for kind in PERMANENT:
            pid = node.kill_child(kind, signal.SIGSTOP)
            wait_until(lambda: any(p.pid == pid and p.state == "T" for p in node.children()),
                       what=f"the {kind} to be stopped")
            os.kill(pid, signal.SIGCONT)
        self.assertTrue(answers(node))
        old = node.kill_child("checkpointer", signal.SIGTERM)
        node.wait_replaced("checkpointer", old)
        self.assertTrue(answers(node))

    def test_a_reload_applies_what_can_be_applied(self):
        node = self.node("standalone", start=False)
        os.makedirs(node.data_dir, mode=0o700)
        path = os.path.join(node.data_dir, "nexus.conf")

        def configure(*lines):
            with open(path, "w", encoding="ascii") as file:
                file.write("[http]\n" + "\n".join(lines) + "\n")

        configure("max_value_size = 10")
        node.start()
        self.assertEqual(node.request("PUT", "/kv/k", b"x" * 11)[0], 413)
        configure("max_value_size = 20", "workers = 1")
        mark = node.log_mark()
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log("wait for a restart: http.workers", since=mark)
        node.wait_written("k", b"x" * 11)
        configure("max_value_size = banana")
        mark = node.log_mark()
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log("banana", since=mark)
        self.assertEqual(node.request("PUT", "/kv/k", b"x" * 20)[0], 200)


class ReadOnly(Node):
    """Finds its data directory on a disk that is mounted for reading, where that is asked for."""

    read_only = False

    def arguments(self):
        if not self.read_only:
            return super().arguments()
        script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
        return ["unshare", "-m", "sh", "-c", script, self.data_dir, *super().arguments()]


class DataDirectory(NexusTestCase):
    def test_a_server_whose_directory_is_taken_away_stops(self):
        for how in ("moved", "replaced", "removed"):
            with self.subTest(how):
                node = self.node("master")
                node.put("k", b"v")
                if how == "removed":
                    # More than once where the checkpointer makes a segment in it meanwhile.
                    wait_until(lambda: shutil.rmtree(node.data_dir, ignore_errors=True)
                               or not os.path.exists(node.data_dir), what="its removal")
                else:
                    os.rename(node.data_dir, node.data_dir + ".away")
                if how == "replaced":
                    os.mkdir(node.data_dir, 0o700)
                self.assertEqual(node.wait_exit(), 1)
                self.assertIn("was removed, moved or replaced", node.log())
                if how == "moved":
                    os.rename(node.data_dir + ".away", node.data_dir)
                    node.start()
                    self.assertEqual(node.get("k"), b"v")

    def test_a_directory_on_a_read_only_disk_is_refused_and_left_as_it_is(self):
        if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
            self.skipTest("a mount namespace can't be made here")
        node = self.adopt(ReadOnly("master"))
        node.start()
        node.put("k", b"v")
        node.stop()
        node.read_only = True
        node.launch()
        self.assertEqual(node.wait_exit(), 1)
        self.assertIn(f"data directory {node.data_dir}: opening nexus.lock: Read-only file system", node.log())
        node.read_only = False
        node.start()
        self.assertEqual(node.get("k"), b"v")


class Starts(NexusTestCase):
    def test_a_second_server_on_the_same_directory_is_refused(self):
        node = self.node("master")
        result = node.run("-D", node.data_dir, f"--http.bind_addr=127.0.0.1:{free_port()}")
        self.assertEqual(result.returncode, 1)
        self.assertIn(str(node.pid), result.stderr)
        self.assertTrue(answers(node))

    def test_a_port_in_use_is_named(self):
        node = self.node("master")
        other = self.node("standalone", start=False)
        result = other.run("-D", other.data_dir, f"--http.bind_addr={node.addr}")
        self.assertEqual(result.returncode, 1)
        self.assertIn(node.addr, result.stderr)
        self.assertTrue(answers(node))

    def test_a_stop_during_recovery_ends_soon_and_loses_nothing(self):
        node = self.node("master", settings={"state.checkpoint_interval": "1h"})
        make = lambda rng, client, number: load.put(f"k{client}-{number}", b"v" * 400)
        self.assertEqual(load.Writers(node.http_port, 40000, clients=4, make=make).start().join(), [])
        node.kill_all()
        node.launch()
        wait_until(lambda: any("walwriter" in p.title for p in node.all_processes()), what="a walwriter")
        self.assertIn(node.stop(expect=None), (0, 1))
        node.start()
        self.assertEqual(node.status()["wal_offset"], 40000)

    def test_what_stands_in_the_status_file_is_valid(self):
        node = self.node("master")

        def lines():
            with open(os.path.join(node.data_dir, "nexus.pid"), encoding="ascii") as file:
                return file.read().splitlines()

        wait_until(lambda: lines()[-1] == "ready", what="the state ready")
        self.assertEqual(lines()[0], str(node.pid))
        self.assertEqual(lines()[3:5], [node.addr, node.replication_addr])
        self.assertEqual(json.loads(node.request("GET", "/health")[2])["ok"], True)


if __name__ == "__main__":
    unittest.main()
