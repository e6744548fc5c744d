"""What is measured beside servers: one that does nothing, and programs that take a share of the processors."""
import contextlib
import os
import socket
import time

from . import processes, program


class EmptyHttp(processes.Server):
    """libevent's HTTP server, which answers each request 200 with no body."""

    def __init__(self, bench):
        from nexus_test import free_port

        self.port = free_port()
        self.addr = f"127.0.0.1:{self.port}"
        self.setup = "nexus-bench-limits http, one process"
        log = os.path.join(bench.directory, "empty-http.log")
        super().__init__([program("nexus-bench-limits"), "http", str(self.port)], bench.directory, log)

    def wait_serving(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                self.check()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


TAKERS = 16  # as many processes as eight replicas have that work: two each
TAKE_EVERY_US = 1000


@contextlib.contextmanager
def takers(bench, share):
    """Programs that take together a share of all processors, in slices, while the block runs. -> the programs"""
    slice_us = max(1, int(share * os.cpu_count() * TAKE_EVERY_US / TAKERS))
    command = [program("nexus-bench-limits"), "take", str(slice_us), str(TAKE_EVERY_US)]
    log = os.path.join(bench.directory, "takers.log")
    with contextlib.ExitStack() as started:
        all_of_them = []
        for _ in range(TAKERS):
            all_of_them.append(processes.Server(command, bench.directory, log))
            started.callback(all_of_them[-1].kill)
        yield all_of_them
