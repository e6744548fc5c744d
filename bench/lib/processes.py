"""Programs that a benchmark starts. Each is ended by its pid, whatever happens."""
import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time

from . import SOURCE, machine


class CommandFailed(RuntimeError):
    """A program that measures has ended badly; the text has what it said."""


def shown(text):
    """Paths as they mean something elsewhere: from the source folder on, and DIR, the directory of the servers' data."""
    return text.replace(f"{SOURCE}/", "").replace(tempfile.gettempdir(), "DIR")


class Server:
    """A program in a session of its own, with its log in a file."""

    process = None  # of one that has not been started

    def __init__(self, command, directory, log, user=None):
        self.command = command
        options = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=directory,
                start_new_session=True,
                **options,
            )
        self.log = log

    @property
    def pid(self):
        return self.process.pid

    def pids(self):
        return machine.descendants(self.pid) if self.is_running() else []

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def check(self):
        if not self.is_running():
            with open(self.log, encoding="utf-8", errors="replace") as file:
                tail = "".join(file.readlines()[-20:])
            raise CommandFailed(f"{self.command[0]} has ended with status {self.process.returncode}:\n{tail}")

    def send(self, number):
        """To the program and all that it has started."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, number=signal.SIGTERM, timeout=20):
        """In order; what has not ended then is killed."""
        if not self.is_running():
            return
        self.send(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        """SIGKILL to all of them at once; returns when they are gone."""
        pids = self.pids()
        self.send(signal.SIGKILL)
        if pids:
            self.process.wait()
        while any(_is_alive(pid) for pid in pids):
            time.sleep(0.002)


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


class Run:
    """A program that measures and ends by itself."""

    def __init__(self, command, cwd=None, stdin=None):
        self.command = [str(word) for word in command]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            start_new_session=True,
        )
        self.stdin = stdin

    @property
    def text(self):
        """The command, as it can be given in the source folder."""
        return shown(shlex.join(self.command))

    def output(self, timeout=1800):
        """What it has printed, once it has ended well."""
        try:
            out, err = self.process.communicate(self.stdin, timeout)
        except BaseException:
            self.end()
            raise
        if self.process.returncode != 0:
            raise CommandFailed(f"{self.text}: status {self.process.returncode}: {(err or out).strip()[-2000:]}")
        return out

    def end(self):
        with contextlib.suppress(ProcessLookupError):  # its children too: a wrapper's are not itself
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ValueError):  # its pipes are closed
            self.process.communicate()


def run(command, cwd=None, stdin=None, timeout=1800):
    return Run(command, cwd, stdin).output(timeout)


@contextlib.contextmanager
def beside(command, cwd=None):
    """A program that runs while the block does, and is ended with it."""
    started = Run(command, cwd)
    try:
        yield started
    finally:
        started.end()
