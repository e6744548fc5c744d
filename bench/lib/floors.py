"""A server that does nothing: what the event library and the network cost by themselves."""
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
