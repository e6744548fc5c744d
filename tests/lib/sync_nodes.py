"""Clusters in sync mode. A replica whose walwriter is stopped (SIGSTOP) goes on answering heartbeats, so it
counts as healthy, and confirms nothing."""

import os
import signal

from nexus_test import NexusTestCase

SYNC = {"replication.mode": "sync"}
SHORT = {"replication.sync_timeout_ms": 1500}


class SyncTestCase(NexusTestCase):
    def sync_cluster(self, replicas=1, quorum=1, replica_settings=None, **settings):
        """A cluster whose quorum has confirmed a first write; settings are the master's."""
        cluster = self.cluster(
            replicas,
            master_settings={**SYNC, "replication.sync_quorum": quorum, **settings},
            replica_settings=replica_settings,
        )
        cluster.master.wait_written()
        return cluster

    def pause(self, node, kind="walwriter"):
        """Stops one process of a node; it is continued at the end, or by resume()."""
        pid = node.pids(kind)[0]
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(self.resume, pid)
        return pid

    def resume(self, pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def offset(self, node):
        return node.status()["wal_offset"]
