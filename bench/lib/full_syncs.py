"""The time that a new replica takes until it has all that its master has: shared by bench/full_sync.py and the rows."""
import base64
import http.client
import json
import os
import time

import nexus_test


def value(size):
    """Half random, half constant."""
    noise = base64.b64encode(os.urandom(size * 3 // 8 + 3)).decode()[: size // 2]
    return noise + "x" * (size - len(noise))


def fill(master, keys, size):
    batch = 20_000
    for first in range(0, keys, batch):
        lines = "".join(
            json.dumps({"key": f"key-{i:012d}", "value": value(size)}) + "\n"
            for i in range(first, min(first + batch, keys))
        )
        master.import_lines(lines)


def bring_into_state(master):
    """All that was written: a snapshot needs it there."""
    last = master.json("POST", "/replication/snapshot", timeout=600)
    forget_snapshot(master, last["id"])


def forget_snapshot(master, number=None):
    """So that the next replica has to wait for a new one."""
    number = number or master.json("GET", "/replication/snapshot")["id"]
    master.json("DELETE", f"/replication/snapshot/{number}")


def memory_of(node):
    """Anonymous memory of each process, in MiB, by its title's first word."""
    sizes = {}
    for process in node.all_processes():
        kind = process.title.split()[1] if " " in process.title else "?"
        sizes[kind] = max(sizes.get(kind, 0), nexus_test.memory_of(process.pid) / (1 << 20))
    return sizes


def full_sync(master, replica, offset, peaks=None):
    """Seconds from the start of a new replica until it has all and streams. peaks: most memory, by kind of process."""
    began = looked = time.monotonic()
    replica.launch()
    while True:
        if peaks is not None and time.monotonic() - looked > 0.5:  # looking takes time of the same cores
            looked = time.monotonic()
            for node in (master, replica):
                for kind, size in memory_of(node).items():
                    peaks[kind] = max(peaks.get(kind, 0), size)
        try:
            status = replica.json("GET", "/replication/status")
            if status["wal_offset"] >= offset and status["state"] == "streaming":
                return time.monotonic() - began
        except (OSError, nexus_test.HttpError, http.client.HTTPException):
            pass
        if not replica.is_running():
            raise nexus_test.NodeError(replica.describe("has ended before it was synced"))
        time.sleep(0.02)
