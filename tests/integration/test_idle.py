# build: release
# serial: yes
"""What a node costs that nobody asks anything, and one that is asked by a peer who never reads."""
import os
import time
import unittest

import nexus_wire as wire
from nexus_test import NexusTestCase, session_processes

HEARTBEAT_MS = 500
WATCHED_S = 4


def memory(process, field):
    """Bytes of one field of /proc/PID/smaps_rollup."""
    with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) << 10
    raise AssertionError(f"no {field} for {process}")


def wake_ups(process):
    """How often a process has gone to sleep of its own will."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("voluntary_ctxt_switches:"):
                return int(line.split()[1])
    raise AssertionError(f"no context switches for {process}")


def processor_seconds(process):
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Idle(NexusTestCase):
    def spent(self, node):
        """process -> (seconds of processor, wake-ups) in WATCHED_S seconds of nobody asking."""
        node.drop_connections()
        time.sleep(1)  # what the last request has left to do
        before = {p.pid: (processor_seconds(p), wake_ups(p)) for p in node.all_processes()}
        time.sleep(WATCHED_S)
        return {
            repr(p): (processor_seconds(p) - before[p.pid][0], wake_ups(p) - before[p.pid][1])
            for p in node.all_processes()
        }

    def assert_idle(self, node, most_wake_ups):
        spent = self.spent(node)
        self.assertGreaterEqual(len(spent), 5)
        self.assertLess(sum(seconds for seconds, _ in spent.values()), 0.01 * WATCHED_S, spent)
        for name, (_, count) in spent.items():
            kind = name.split("nexus: ")[1].split()[0]
            self.assertLessEqual(count, most_wake_ups.get(kind, 0), spent)

    def test_a_standalone_node_never_wakes_up(self):
        node = self.node("standalone")
        for i in range(100):
            node.put(f"k{i}", b"v")
        self.assert_idle(node, {})

    def test_a_pair_wakes_up_for_heartbeats_alone(self):
        master, replica = self.pair(settings={"replication.heartbeat_ms": HEARTBEAT_MS})
        for i in range(100):
            master.put(f"k{i}", b"v")
        replica.wait_offset(100)
        # A Ping each way an interval: each side sends one and receives one.
        beats = 2 * (WATCHED_S * 1000 // HEARTBEAT_MS + 2)
        self.assert_idle(master, {"walsender": beats})
        self.assert_idle(replica, {"walreceiver": beats})

    def test_an_idle_node_is_small(self):
        master, replica = self.pair()
        for i in range(100):
            master.put(f"k{i}", b"v")
        replica.wait_offset(100)
        for node in (master, replica):
            sizes = {repr(p): memory(p, "Pss") for p in node.all_processes()}
            self.assertLess(sum(sizes.values()), 40 << 20, sizes)

    def test_a_replica_that_never_reads_costs_one_buffer(self):
        master = self.node("master")
        with wire.RawPeer(master.replication_port) as peer:
            peer.handshake()
            sender = next(p for p in session_processes(master.pid) if "walsender" in p.title)
            before = memory(sender, "Private_Dirty")
            for i in range(40):
                master.put(f"large{i}", b"x" * (1 << 20))
            self.assertLess(memory(sender, "Private_Dirty"), before + (8 << 20))
            self.assertEqual(len(master.replicas()), 1)


if __name__ == "__main__":
    unittest.main()
