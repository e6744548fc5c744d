# build: release
# timeout: 400
# serial: yes
"""A large state under write load over a slow line that is cut twice: one full sync, an exact result, and no process
grows with it. NEXUS_LARGE_MB (512): its size; 1024 takes a minute and a half."""

import base64
import json
import os
import threading
import time
import unittest

from full_sync import FullSyncCase
from nexus_test import wait_until

SIZE = int(os.environ.get("NEXUS_LARGE_MB", "512")) << 20
VALUE = 1024
RATE = 30_000_000  # bytes a second
MEMORY = 64 << 20  # beyond what it is when idle
SMALL_LOG = {  # so small that only a pin can hold what the replica will lack
    "replication.max_log_size": 500,
    "wal.segment_size": "1MiB",
    "wal.max_size": "8MiB",
    "snapshot.interval": 0,
}


def half_random(number):
    noise = base64.b64encode(os.urandom(VALUE // 2 * 3 // 4)).decode()
    return json.dumps({"key": f"key-{number:09d}", "value": noise + "x" * (VALUE // 2)}) + "\n"


def fill(node):
    count = SIZE // VALUE
    for first in range(0, count, 20_000):
        last = min(first + 20_000, count)
        node.import_lines("".join(half_random(number) for number in range(first, last)))


def own_memory(node):
    """Anonymous memory by kind of process, the most where there are several."""
    sizes = {}
    for process in node.all_processes():
        try:
            with open(f"/proc/{process.pid}/status", encoding="ascii", errors="replace") as status:
                fields = dict(line.split(":", 1) for line in status)
            kind = process.title.split()[1]
            sizes[kind] = max(sizes.get(kind, 0), int(fields["RssAnon"].split()[0]) << 10)
        except (OSError, KeyError, IndexError):
            pass
    return sizes


class Load(threading.Thread):
    """Writes until it is stopped."""

    def __init__(self, node):
        super().__init__()
        self.node = node
        self.ended = threading.Event()
        self.count = 0

    def run(self):
        client = self.node.client()
        while not self.ended.wait(0.002):
            client.put(f"load-{self.count % 5000}", os.urandom(200))
            self.count += 1

    def stop(self):
        self.ended.set()
        self.join()


class Large(FullSyncCase):
    def test_one_full_sync_under_load_over_a_line_that_is_cut_twice(self):
        master = self.node("master", settings=SMALL_LOG)
        fill(master)
        proxy = self.proxy(master, rate=RATE)
        idle = own_memory(master)
        replica = self.node(
            "replica", settings={**SMALL_LOG, "replication.master_addr": proxy.addr}
        )
        idle.update({kind: max(size, idle.get(kind, 0)) for kind, size in own_memory(replica).items()})
        load = Load(master)
        load.start()
        try:
            self.cut_twice(proxy, replica, master, idle)
        finally:
            load.stop()
        self.assertGreater(load.count, 1000)
        self.assert_exact(master, replica)
        self.assertEqual(master.stats()["snapshot_transfers"], 1)
        self.assertEqual(replica.log().count("the full sync is complete"), 1)
        self.assertGreaterEqual(replica.stats()["bytes_received"], SIZE // 4)
        self.assert_tidy(replica)

    def cut_twice(self, proxy, replica, master, idle):
        """Until it streams; meanwhile nobody's memory may grow."""
        cuts = [SIZE // 10, SIZE // 5]
        until = time.monotonic() + 300
        while replica.status()["state"] != "streaming":
            if cuts and proxy.down >= cuts[0]:
                proxy.cut()
                cuts.pop(0)
            for node in (master, replica):
                for kind, size in own_memory(node).items():
                    self.assertLess(size, idle.get(kind, 0) + MEMORY, kind)
            self.assertLess(time.monotonic(), until, replica.describe("the end of the full sync"))
            time.sleep(0.1)
        self.assertEqual(cuts, [])
        proxy.rate = None

    def assert_exact(self, master, replica):
        offset = master.status()["wal_offset"]
        replica.wait_offset(offset, 60)
        wait_until(lambda: replica.status()["applied_offset"] == offset, 10)
        self.assertTrue(master.export() == replica.export(), "the exports differ")


if __name__ == "__main__":
    unittest.main()
