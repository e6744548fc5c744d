# build: release
# timeout: 300
"""A machine that has no more memory, shared memory, processes or descriptors to give: clear errors, or a crash that is
recovered from; nothing that was answered is lost, and once there is some again, all is as before."""

import contextlib
import os
import resource
import socket
import subprocess
import unittest

import load
from disk_faults import Faults
from nexus_test import HOST, NexusTestCase, Node, is_alive, shm_objects

MIB = 1 << 20
BUSY = {"state.checkpoint_interval": "1s", "wal.segment_size": "64KiB", "wal.shm_size": "32MiB", "http.workers": 1}


class Memory(NexusTestCase):
    def test_01_an_allocation_that_fails_in_any_process(self):
        """At the n-th one: the process says so and goes on, or ends and is started again."""
        node = self.node("master", start=False, settings=BUSY)
        faults = Faults(node)
        node.start()
        writers = load.AckedPuts(node.http_port, size=500).start()
        try:
            for kind, numbers in (("http", (0, 7, 40)), ("checkpointer", (0, 11)), ("walwriter", (0, 1))):
                for number in numbers:
                    faults.set(f"malloc - ENOMEM after={number} count=1 in={kind}")
                    faults.wait_touched()
                    before = writers.count()
                    node.wait_until(lambda least=before: writers.count() > least + 20,
                                    what=f"writes behind {kind} {number}")
        finally:
            writers.stop()
        faults.clear()
        node.wait_status(state="streaming")
        writers.assert_kept_over_a_kill(node)

    def test_02_address_space(self):
        """Of an http worker that runs: what is too large for it is refused, or costs that worker alone."""
        node = self.node("master", settings={**BUSY, "http.max_value_size": "15MiB"})
        node.put("k", "v")
        pid = node.pids("http")[0]
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (used + 2 * MIB, resource.RLIM_INFINITY))
        with contextlib.suppress(OSError):
            client = node.client(timeout=10)
            status = client.request("PUT", "/kv/large", b"x" * (14 * MIB))[0]
            self.assertIn(status, (200, 201, 500, 503))
        if is_alive(pid):
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        node.wait_until(lambda: node.get("k") == b"v", what="an answer")
        node.wait_written()

    def test_03_whom_the_kernel_chooses(self):
        """The postmaster last, where that may be asked for; a child is as likely as any other process."""
        path = "/proc/self/oom_score_adj"
        with open(path, encoding="ascii") as file:
            own = int(file.read())
        node = self.node("master", settings=BUSY)
        scores = {process.pid: self.score(process.pid) for process in node.all_processes()}
        postmaster = scores.pop(node.pid)
        self.assertLessEqual(set(scores.values()), {own, 0})
        if self.may_lower(path, own):
            self.assertLess(postmaster, own)
        else:
            self.assertEqual(postmaster, own)
        pid = node.kill_child("http")  # as the kernel does
        self.assertIn(self.score(node.wait_replaced("http", pid)), {own, 0})

    def may_lower(self, path, own):
        """Whether a process that we start can make itself a less likely choice."""
        command = ["sh", "-c", f"echo {own - 1} > {path}"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def score(self, pid):
        with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as file:
            return int(file.read())

    def test_04_no_more_processes(self):
        """The server goes on with those that it has, and starts the others when it can."""
        master = self.node("master", start=False, settings=BUSY)
        faults = Faults(master)
        master.start()
        faults.set("fork - EAGAIN count=2")
        pid = master.kill_child("checkpointer")
        faults.wait_touched()
        master.put("k", "v")
        master.wait_log("no process for checkpointer 0: Resource temporarily unavailable; trying again")
        master.wait_replaced("checkpointer", pid)
        faults.set("fork - EAGAIN count=1")
        replica = self.node("replica", settings={**BUSY, "replication.master_addr": master.replication_addr})
        faults.wait_touched()
        replica.wait_offset(master.status()["wal_offset"])


class LittleShm(Node):
    """Has a /dev/shm of its own, of so many bytes."""

    size = 0

    def arguments(self):
        script = f'mount -t tmpfs -o size={self.size} tmpfs /dev/shm && exec "$@"'
        return ["unshare", "-m", "sh", "-c", script, "sh", *super().arguments()]


class SharedMemory(NexusTestCase):
    def node_in(self, size, **settings):
        if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
            self.skipTest("a mount namespace can't be made here")
        node = LittleShm("master", settings=settings)
        node.size = size
        return self.adopt(node)

    def test_01_too_small(self):
        node = self.node_in(MIB, **{"wal.shm_size": "32MiB"})
        node.launch()
        self.assertEqual(node.wait_exit(), 1)
        self.assertRegex(node.log(), r"not enough shared memory: 33554432 bytes are wanted, \d+ are free in /dev/shm; "
                                     "lower wal.shm_size or enlarge that filesystem")

    def test_02_too_small_for_the_size_of_the_servers_own_choice(self):
        node = self.node_in(MIB)
        node.start()
        node.wait_log(r"WARN .*/dev/shm has only \d+ bytes free: \d+ bytes of anonymous memory are used instead")
        node.put("k", "v")
        self.assertEqual(node.get("k"), b"v")

    def test_03_nothing_is_there_to_be_removed(self):
        """As systemd-logind's RemoveIPC does: the object has lost its name before the first child began."""
        before = shm_objects()
        node = self.node("master", settings=BUSY)
        self.assertEqual(shm_objects() - before, set())
        for pid in (node.pid, *node.pids("http")):
            with open(f"/proc/{pid}/maps", encoding="ascii") as file:
                self.assertRegex(file.read(), r"/dev/shm/nexus-\S+ \(deleted\)")
        node.kill_child("walwriter")  # it is made afresh in place
        node.wait_log("shared memory is made afresh")
        node.drop_connections()
        node.wait_status(state="streaming")
        node.put("k", "v")


class Descriptors(NexusTestCase):
    def take(self, pid):
        """A process may open no more than it has; -> what gives it back its limit"""
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        least = next(number for number in range(hard) if number not in used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (least, hard))

        def give_back():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

        return give_back

    def test_01_of_an_http_worker(self):
        """Open connections go on; new ones wait, and are served when there are some again."""
        node = self.node("master", settings=BUSY)
        node.put("k", "v")
        pid = node.pids("http")[0]
        give_back = self.take(pid)
        more = [socket.create_connection((HOST, node.http_port), 10) for _ in range(8)]
        self.addCleanup(lambda: [sock.close() for sock in more])
        node.put("k2", "v")  # on the connection that was there
        before = self.cpu(pid)
        self.assertIn(b"200", self.ask_later(node, more, give_back))
        self.assertLess(self.cpu(pid) - before, 2.0, "it has spun")
        self.assertTrue(is_alive(pid))

    def ask_later(self, node, more, give_back):
        for sock in more:
            sock.sendall(b"GET /kv/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        node.put("k3", "v")
        give_back()
        more[-1].settimeout(20)
        return more[-1].recv(4096)

    def cpu(self, pid):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def refused(self, node, pid, mark):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may have ended over it
            self.take(pid)  # again: it may have had one open for a moment only when it was looked at
        return "Too many open files" in node.log()[mark:]

    def test_02_of_the_walwriter_and_the_checkpointer(self):
        node = self.node("master", settings=BUSY)
        writers = load.AckedPuts(node.http_port, size=500).start()
        try:
            for kind in ("checkpointer", "walwriter"):
                mark = node.log_mark()
                pid = node.pids(kind)[0]
                give_back = self.take(pid)
                node.wait_until(lambda pid=pid, mark=mark: self.refused(node, pid, mark), what=f"a full {kind}")
                give_back()
                before = writers.count()
                node.wait_until(lambda least=before: writers.count() > least + 20, what=f"writes behind {kind}")
        finally:
            writers.stop()
        node.wait_status(state="streaming")
        writers.assert_kept(node)

    def test_03_of_the_postmaster(self):
        """It can't start another process then; what runs goes on."""
        node = self.node("master", settings=BUSY)
        give_back = self.take(node.pid)
        pid = node.kill_child("checkpointer")
        node.put("k", "v")
        give_back()
        node.wait_replaced("checkpointer", pid)


if __name__ == "__main__":
    unittest.main()
