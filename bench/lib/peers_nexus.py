"""Nexus itself: the nodes of tests/lib/nexus_test.py in the benchmark's directory."""
import contextlib
import http.client
import os
import signal
import time

import nexus_test

from . import machine

SETTINGS = {
    "wal.fsync": "always",
    "snapshot.interval": 0,  # nobody asks the others for backups
    "server.log_level": "warning",
}
IDLE_TITLE = "nexus: checkpointer idle at "


class Nexus(nexus_test.Node):
    def __init__(self, bench, name="nexus", role="master", master=None, settings=None):
        directory = os.path.join(bench.directory, name)
        os.makedirs(directory, exist_ok=True)
        given = {**SETTINGS, **(settings or {})}
        if master is not None:
            role = "replica"
            given["replication.master_addr"] = master.replication_addr
        given = {key: value for key, value in given.items() if value is not None}
        super().__init__(role, name=name, settings=given, directory=directory)
        self.configuration = os.path.join(directory, "nexus.conf")
        self._configure("")
        self.bench = bench
        self.master = master
        self.setup = " ".join(f"--{key}={value}" for key, value in given.items())

    def _configure(self, text):
        with open(self.configuration, "w", encoding="ascii") as file:
            file.write(text)

    def arguments(self):
        return [*super().arguments(), "-c", self.configuration]

    def pids(self):
        return [process.pid for process in self.all_processes()]

    def cpu_seconds(self):
        return machine.cpu_seconds(self.pids())

    def end(self):
        """In order; a node that is stopped (SIGSTOP) too. Nothing of it is left."""
        self.cleanup()

    def freeze(self):
        self._signal_session(signal.SIGSTOP)

    def resume(self):
        self._signal_session(signal.SIGCONT)

    def state_offset(self):
        """Up to where the log is merged into the state, by the title of the checkpointer; None: it is at work."""
        for process in self.all_processes():
            if process.title.startswith(IDLE_TITLE):
                return int(process.title[len(IDLE_TITLE) :].split()[0])
        return None

    @contextlib.contextmanager
    def merging_soon(self):
        """The interval is a second meanwhile, unless the row has set one."""
        own = "state.checkpoint_interval" in self.settings
        if not own:
            self._configure("[state]\ncheckpoint_interval = 1s\n")
            os.kill(self.process.pid, signal.SIGHUP)
        try:
            yield
        finally:
            if not own:
                self._configure("")
                os.kill(self.process.pid, signal.SIGHUP)

    def wait_merged(self, timeout=600):
        offset = self.status()["wal_offset"]
        with self.merging_soon():
            self.wait_until(lambda: (self.state_offset() or 0) >= offset, timeout, "the merge of all into the state")

    def wait_applied(self, offset, timeout=600):
        """Polls at short intervals, for times that are measured."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                status = self.status()
                if status["state"] == "streaming" and (status["applied_offset"] or 0) >= offset:
                    return
            except (OSError, http.client.HTTPException, nexus_test.HttpError):
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(self.describe(f"entry {offset}"))
            time.sleep(0.005)

    def wait_level(self, timeout=600):
        self.wait_applied(self.master.status()["wal_offset"], timeout)

    def wait_serving(self):
        self.wait_answer("/ready", 600)
        return self
