"""Three nodes, what can be asked of them, and the hand that leads them: it promotes when there is no master, and has
all others follow the one that there is."""

import http.client
import json
import os
import signal
import struct
import time

from disk_faults import Faults
from failover_rounds import Mesh
from full_sync import child_pids
from nexus_test import HOST, SANITIZED, Client, HttpError

ANSWER_S = 3
LEAD_S = 60
FRAIL_S = 10  # from the end of a disk's failure to the end of a node by it

SETTINGS = {
    "replication.heartbeat_ms": 100,
    "replication.missed_heartbeats_threshold": 5,
    "replication.sync_timeout_ms": 400,
    "replication.connect_timeout_ms": 1000,
    "http.request_timeout_ms": 2000,
    "state.checkpoint_interval": "1s",
    "snapshot.interval": "0",
    "wal.segment_size": "256KiB",
    "wal.shm_size": "32MiB",
    "http.workers": 2,
}
class Clock:
    """A node's wall clock (tests/preload/wallclock.c)."""

    def __init__(self, node):
        self.path = os.path.join(node.directory, "clock")
        self.set(0)
        node.preload = [*node.preload, "libwallclock.so"]
        node.env["NX_WALL_CLOCK"] = self.path

    def set(self, seconds):
        """Ahead of the machine's."""
        with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as file:
            file.write(struct.pack("=q", seconds))


ERRORS = (OSError, http.client.HTTPException, HttpError, ValueError)


class Cluster:
    def __init__(self, sync, log, plant=None):
        mode = {"replication.mode": "sync", "replication.sync_quorum": 1} if sync else {}
        self.mesh = Mesh({**SETTINGS, **mode})
        self.nodes = self.mesh.nodes
        self.log = log
        for node in self.nodes:
            node.crashable = True
            if not SANITIZED:  # which the libraries don't go with
                node.disk = Faults(node)
                node.clock = Clock(node)
            if plant:
                node.env["NEXUS_PLANT"] = plant
        self.followed = {}  # node -> the master that it was told to follow
        self.away = set()  # nodes that are down, stopped or cut off
        self.frail = {}  # nodes whose disk fails (None), or did so up to then: they may end by themselves
        self.deaths = []  # of others, which must not
        self.promotions = 0

    def start(self):
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_answer("/ready", 60)

    # -- asking --

    def ask(self, node, method, path, body=None, timeout=ANSWER_S):
        """-> (status, answer) or (0, {}): none"""
        client = Client(node.http_port, HOST, timeout=timeout)
        try:
            text = None if body is None else json.dumps(body)
            status, _, content = client.request(method, path, text)
            return status, json.loads(content)
        except ERRORS:
            return 0, {}
        finally:
            client.close()

    def status(self, node):
        status, answer = self.ask(node, "GET", "/replication/status", timeout=1)
        return answer if status == 200 else None

    def pids(self, node, kind):
        """Living ones, by the node itself."""
        status = self.status(node) or {"processes": []}
        return [row["pid"] for row in status["processes"] if row["kind"] == kind and row["pid"] > 0]

    def kinds(self, node):
        status = self.status(node) or {"processes": []}
        return sorted({row["kind"] for row in status["processes"] if row["pid"] > 0})

    def signal(self, pid, sig):
        try:
            os.kill(pid, sig)
            return True
        except ProcessLookupError:
            return False

    def freeze(self, node, sig):
        """SIGSTOP or SIGCONT to all of a node; the postmaster is stopped first and continued last."""
        pids = [node.pid, *child_pids(node.pid)]
        for pid in pids if sig == signal.SIGSTOP else reversed(pids):
            self.signal(pid, sig)

    # -- leading --

    def leaders(self):
        """[(epoch, node)] of those that take writes, the highest epoch last."""
        found = []
        for node in self.nodes:
            status = None if node in self.away else self.status(node)
            if status and status["role"] == "master" and status["state"] != "fenced":
                found.append((status["epoch"], node))
        return sorted(found, key=lambda each: each[0])

    def master(self):
        leaders = self.leaders()
        return leaders[-1][1] if leaders else None

    def promote(self, node, query=""):
        """-> (status, answer)"""
        status, answer = self.ask(node, "POST", "/replication/promote" + query, timeout=20)
        if status == 200:
            self.promotions += 1
            self.log.fault(f"promoted {node.name}: epoch {answer['epoch']} from offset {answer['offset']}")
        return status, answer

    def candidates(self):
        """Replicas, the most advanced first."""
        found = []
        for node in self.nodes:
            status = None if node in self.away else self.status(node)
            if status and (status["role"] == "replica" or status["state"] == "fenced"):
                found.append(((status["epoch"], status["wal_offset"]), node))
        return [node for _, node in sorted(found, key=lambda each: each[0], reverse=True)]

    def revive(self):
        """Starts those again that have ended by themselves, as a failing disk makes them."""
        for node in self.nodes:
            if node in self.away or node.is_running():
                continue
            text = f"{node.name} had ended, with status {node.wait_exit()}"
            until = self.frail.get(node, 0)
            if until is not None and time.monotonic() - until > FRAIL_S:
                self.deaths.append(text)
            self.log.fault(text)
            node.launch()

    def lead(self, timeout=LEAD_S):
        """Until there is a master, which all others that can be reached follow; -> it, or None"""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.revive()
            master = self.master()
            if master is None:
                for node in self.candidates():
                    if self.promote(node)[0] == 200:
                        break
                time.sleep(0.1)
                continue
            if self.follow_all(master):
                return master
            time.sleep(0.1)
        return None

    def follow_all(self, master):
        """Has those follow it that don't. True: all do."""
        epoch = (self.status(master) or {"epoch": 0})["epoch"]
        level = True
        for node in self.nodes:
            if node is master or node in self.away:
                continue
            status = self.status(node)
            if status is None:
                level = False
                continue
            own = status["role"] == "replica" and status["connected"] and status["epoch"] == epoch
            if own:
                continue
            level = False
            if self.followed.get(node) != (master, epoch) or status["state"] == "fenced":
                body = {"master_addr": self.mesh.address(node, master)}
                if self.ask(node, "POST", "/replication/follow", body, timeout=10)[0] == 200:
                    self.followed[node] = (master, epoch)
        return level

    # -- rest --

    def heal_all(self):
        self.revive()
        for node in self.nodes:
            self.mesh.heal(node, drop=True)
            if not SANITIZED:
                node.disk.clear()
                node.clock.set(0)
            if node.is_running():
                self.freeze(node, signal.SIGCONT)
            else:
                node.launch()
        self.away.clear()

    def converged(self):
        """All stand at the same place, which nobody leaves."""
        found = [self.status(node) for node in self.nodes]
        if None in found:
            return False
        places = {(status["wal_offset"], status["last_crc"], status["epoch"]) for status in found}
        return len(places) == 1 and all(status["applied_offset"] == status["wal_offset"] for status in found)

    def wait_converged(self, timeout):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.lead(1) and self.converged():
                return True
            time.sleep(0.1)
        return False

    def exports(self):
        return [node.export() for node in self.nodes]

    def cleanup(self):
        self.mesh.close()
        faults = []
        for node in self.nodes:
            if node.is_running():
                self.freeze(node, signal.SIGCONT)
            try:
                node.cleanup()
            except AssertionError as error:
                faults.append(str(error))
        return faults
