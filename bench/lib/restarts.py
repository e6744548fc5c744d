"""A node that is killed whole and started again: shared by bench/recovery.py and the rows."""
import http.client
import os
import time

import load

VALUE = 16 << 10
READY = "k0"


def fill(node, mib, value=VALUE, until_full=False):
    """So many MiB of values that can't be compressed, in single writes, and a key to ask for. until_full: or as
    many as the log takes, where nothing is merged."""
    count = mib * (1 << 20) // value
    full = False
    with load.Connection(node.http_port, timeout=120) as connection:
        for at in range(0, count, 64):
            requests = [load.put(f"k{number}", os.urandom(value)) for number in range(at, min(at + 64, count))]
            connection.send(requests)
            for _ in requests:
                status, _, body = connection.answer()
                full = full or (until_full and status == 503)
                if status not in (200, 201) and not full:
                    raise RuntimeError(f"{status} {body!r}")
            if full:
                return


def restart(node, key=READY, said=None):
    """SIGKILL to all processes of the node, then a start: -> seconds until a read is answered. said: gathers what it
    answers meanwhile."""
    node.kill_all()
    began = time.monotonic()
    node.launch()
    while True:
        try:
            status, _, body = node.request("GET", f"/kv/{key}", timeout=5)
        except (OSError, http.client.HTTPException):
            continue
        if status == 200:
            return time.monotonic() - began
        if said is not None:
            said.add(body[:200])
