"""Drives real Nexus servers for integration tests.

A Node is one nexus-server in a session, a directory and ports of its own; a Cluster is a master and
its replicas. Whatever a test does, cleanup() ends all processes that its nodes started, by pid, and
says so when something was left behind.

    class Writes(NexusTestCase):
        def test_put_is_read_on_the_replica(self):
            cluster = self.cluster()
            cluster.master.put("k", b"v")
            cluster.wait_level()
            self.assertEqual(cluster.replica.get("k"), b"v")

    if __name__ == "__main__":
        unittest.main()

Environment: NEXUS_BUILD_DIR (default build/ of the source tree), NEXUS_SOURCE_DIR, NEXUS_SANITIZE
(asan when the server is sanitized), NEXUS_TEST_KEEP=1 keeps the directories and names them.
"""

import atexit
import contextlib
import glob
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse

SOURCE_DIR = os.environ.get("NEXUS_SOURCE_DIR") or os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)
BUILD_DIR = os.environ.get("NEXUS_BUILD_DIR") or os.path.join(SOURCE_DIR, "build")
SERVER = os.path.join(BUILD_DIR, "nexus-server")
PASSED_ON = ("NEXUS_FAILPOINT_USED", "NEXUS_PLANT")  # of test builds, src/common/failpoint.h
SANITIZED = os.environ.get("NEXUS_SANITIZE", "") != ""
VALGRIND = bool(os.environ.get("NEXUS_VALGRIND"))  # whose processes have its title, and its memory

HOST = "127.0.0.1"
# Seconds; for conditions that a healthy server meets in a fraction of one.
TIMEOUT = 120.0 if VALGRIND else 20.0
POLL = 0.01
LOG_TAIL = 60  # lines shown when something goes wrong

# Signals that a sanitizer would catch and report, unless the node was made with crashable=True.
CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
SHM_DIR = "/dev/shm"


class NodeError(AssertionError):
    """A node did not do what the test needs of it; the text has the end of its log."""


class HttpError(AssertionError):
    """An answer of another status than the caller expects."""

    def __init__(self, method, path, status, body):
        super().__init__(f"{method} {path}: {status} {body[:500]!r}")
        self.status = status
        self.body = body

    @property
    def problem(self):
        """The problem document ({} when the body is none)."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def code(self):
        return self.problem.get("code")


# ---- conditions, ports, processes ----


def wait_until(condition, timeout=TIMEOUT, what="the condition", poll=POLL):
    """Calls condition() until it is true and returns what it returned; AssertionError at the end of
    `timeout` seconds. what: a text, or a function that makes one."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {timeout:g} s: {text}")
        time.sleep(poll)


_living = set()  # nodes that were started and not cleaned up


def _end_living():
    """Of a test program that is ended before its cleanups."""
    for node in list(_living):
        with contextlib.suppress(Exception):
            node.cleanup()


def _be_interrupted(*_):
    raise KeyboardInterrupt


atexit.register(_end_living)
if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # else the program has its own way
    signal.signal(signal.SIGTERM, _be_interrupted)

_reserved_ports = []
atexit.register(lambda: [mark.close() for mark in _reserved_ports])
_FIXED_PORTS = {15474, 15475, 25474, 25475}  # the defaults and the quick start's


def free_port():
    """A TCP port of 127.0.0.1 that nothing uses, kept from all other tests while this process lives.

    The ports lie below those that the kernel gives to outgoing connections, and a name in the
    abstract socket namespace marks each as taken: it goes away with its process."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            top = min(int(file.read().split()[0]), 32768)
    except OSError:
        top = 32768
    bottom = 16500 if top > 18000 else 1024
    for _ in range(2000):
        port = random.randrange(bottom, top) if top > bottom else random.randrange(61000, 65500)
        if port in _FIXED_PORTS:
            continue
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0nexus-test-port-{port}")
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.bind(("0.0.0.0", port))
        except OSError:
            mark.close()
            continue
        _reserved_ports.append(mark)
        return port
    raise RuntimeError("no free port found")


def secret_file(path, text, mode=0o600, user=None):
    """A new file that only its owner can read; -> its path. user: to whom it is given (root only)."""
    if os.path.exists(path):
        os.unlink(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
        if user is not None:
            shutil.chown(path, user)
    return path


class Process:
    """A line of the process table."""

    def __init__(self, pid):
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
        name_end = text.rindex(b")")
        fields = text[name_end + 2 :].split()
        self.pid = pid
        self.name = text[text.index(b"(") + 1 : name_end].decode("utf-8", "replace")
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        self.session = int(fields[3])

    @property
    def title(self):
        """The command line, which is the process title once the process has set one."""
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb") as file:
                return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def runs_in(self, directory):
        """Whether it was started there; True too where that can't be seen."""
        try:
            place = os.readlink(f"/proc/{self.pid}/cwd")
        except OSError:
            return True
        return f"{place}/".startswith(f"{os.path.realpath(directory)}/")

    def __repr__(self):
        return f"{self.pid} {self.state} {self.title or self.name}"


def memory_of(pid):
    """Private bytes of a process; 0 of one that has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            lines = [line for line in file if line.startswith("RssAnon:")]
    except FileNotFoundError:
        return 0
    return int(lines[0].split()[1]) << 10 if lines else 0


def session_processes(session):
    """The living processes of a session (zombies are dead)."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            process = Process(int(entry))
        except (OSError, ValueError):
            continue
        if process.session == session and process.state not in "ZX":
            found.append(process)
    return found


def is_alive(pid):
    try:
        return Process(pid).state not in "ZX"
    except (OSError, ValueError):
        return False


def shm_objects():
    """Names in the shared memory filesystem that a Nexus server has made (src/common/shm.c)."""
    try:
        return {name for name in os.listdir(SHM_DIR) if re.fullmatch("nexus-[0-9]+-[0-9a-f]{16}", name)}
    except OSError:
        return set()


# ---- HTTP ----


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.unix_path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_path)


class Client:
    """A keep-alive HTTP connection to (port) or (unix_path); for one thread at a time. ca: HTTPS, with a
    certificate that this authority's (a file) has signed.

    A GET or HEAD on a kept connection that the server has closed meanwhile is sent once more on a
    new one; anything else is never sent twice, so that a test knows what it has written."""

    def __init__(self, port=None, host=HOST, unix_path=None, timeout=TIMEOUT, ca=None):
        self.port = port
        self.tls = ca and ssl.create_default_context(cafile=ca)
        self.host = host
        self.unix_path = unix_path
        self.timeout = timeout
        self._connection = None

    def _connect(self):
        if self.unix_path:
            self._connection = _UnixConnection(self.unix_path, self.timeout)
        elif self.tls:
            self._connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=self.timeout, context=self.tls
            )
        else:
            self._connection = http.client.HTTPConnection(
                self.host, self.port, timeout=self.timeout
            )
        self._connection.connect()
        if not self.unix_path:
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(self, method, path, body=None, headers=None, timeout=None):
        """-> (status, headers, bytes). headers looks names up in any case. An iterable body is sent
        chunked. OSError or http.client.HTTPException when there is no answer."""
        fresh = self._connection is None
        try:
            return self._request_once(method, path, body, headers, timeout)
        except (ConnectionError, http.client.BadStatusLine):
            if fresh or method not in ("GET", "HEAD"):
                raise
        return self._request_once(method, path, body, headers, timeout)

    def _request_once(self, method, path, body, headers, timeout):
        try:
            if self._connection is None:
                self._connect()
            self._connection.sock.settimeout(self.timeout if timeout is None else timeout)
            try:
                self._connection.request(method, path, body=body, headers=headers or {})
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before it was sent whole: the answer may be there
            response = self._connection.getresponse()
            content = response.read()
        except BaseException:
            self.close()
            raise
        if response.will_close:
            self.close()
        return response.status, response.headers, content

    def json(self, method, path, body=None, headers=None, expect=(200,), timeout=None):
        """The decoded answer; HttpError when its status isn't among `expect`."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        status, _, content = self.request(method, path, body, headers, timeout)
        if status not in expect:
            raise HttpError(method, path, status, content)
        return json.loads(content)

    def put(self, key, value, ttl=None, headers=None):
        """Writes a key and returns its offset; HttpError for any other answer than 200 or 201."""
        query = "" if ttl is None else f"?ttl={ttl}"
        return self.json("PUT", key_path(key) + query, _bytes(value), headers, (200, 201))["offset"]

    def get(self, key, headers=None):
        """The value, or None where there is none."""
        status, _, content = self.request("GET", key_path(key), headers=headers)
        if status == 404:
            return None
        if status != 200:
            raise HttpError("GET", key_path(key), status, content)
        return content

    def delete(self, key, headers=None):
        """-> {"offset", "deleted"}"""
        return self.json("DELETE", key_path(key), headers=headers)

    def batch(self, ops, conditions=None, headers=None):
        """ops: [{"put": {...}}, {"delete": {...}}] -> {"offset", "puts", "deletes"}"""
        body = {"ops": ops}
        if conditions is not None:
            body["if"] = conditions
        return self.json("POST", "/batch", body, headers)

    def import_lines(self, lines, headers=None):
        """lines: bytes of NDJSON, or an iterable of pieces of it -> {"imported", ...}"""
        return self.json("POST", "/import", lines, headers, timeout=120)

    def export(self, prefix=None):
        """The whole of /export as bytes."""
        query = "" if prefix is None else "?prefix=" + urllib.parse.quote(_bytes(prefix), safe="")
        status, _, content = self.request("GET", "/export" + query, timeout=120)
        if status != 200:
            raise HttpError("GET", "/export", status, content)
        return content

    def versions(self, prefix=""):
        """key -> offset of its last change, by the pages of GET /kv."""
        found, cursor = {}, None
        while True:
            path = "/kv?keys_only=1&limit=10000&prefix=" + urllib.parse.quote(prefix, safe="")
            if cursor is not None:
                path += "&cursor=" + urllib.parse.quote(cursor, safe="")
            page = self.json("GET", path, timeout=120)
            found.update((item["key"], item["offset"]) for item in page["items"])
            cursor = page["next"]
            if cursor is None:
                return found


def _bytes(value):
    return value.encode() if isinstance(value, str) else value


def key_path(key):
    """/kv/... of a key, text or any bytes."""
    return "/kv/" + urllib.parse.quote(_bytes(key), safe="")


def raw_http(port, data, timeout=5.0, host=HOST, shutdown=False):
    """Sends bytes as they are and returns all that comes back until the peer closes or is silent for
    `timeout` seconds. shutdown: ends the sending side after the data. A peer that resets the
    connection ends it too."""
    answer = bytearray()
    with socket.create_connection((host, port), timeout=timeout) as sock:
        try:
            sock.sendall(_bytes(data))
            if shutdown:
                sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered already, perhaps
        try:
            while piece := sock.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return bytes(answer)


# ---- nodes ----


class Node:
    """One nexus-server.

    role       standalone, master or replica
    settings   {"section.key": value}: given as --section.key=value
    env        further environment of the server; of the caller's NEXUS_* only PASSED_ON reach it
    directory  an existing base directory (kept at the end) instead of a temporary one; the data
               directory is `data` in it, the log `log`
    preload    shared libraries for LD_PRELOAD; names without a slash are looked up in build/tests
    crashable  the test sends SIGSEGV and its like: sanitizers leave these to the kernel
    ports      (HTTP, replication) instead of two free ones
    """

    def __init__(
        self,
        role="standalone",
        name=None,
        settings=None,
        env=None,
        directory=None,
        preload=(),
        crashable=False,
        ports=None,
    ):
        self.role = role
        self.name = name or role
        self.settings = dict(settings or {})
        self.env = dict(env or {})
        self.preload = list(preload)
        self.crashable = crashable
        self.ca = None  # of its HTTPS
        self.host = HOST
        self.http_port, self.replication_port = ports or (free_port(), free_port())
        self.own_directory = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix=f"nexus-{self.name}-")
        self.data_dir = os.path.join(self.directory, "data")
        self.log_path = os.path.join(self.directory, "log")
        self.process = None  # of the last start; None before the first
        self._end_is_known = True  # the test has seen or caused the end of the last start
        self.sessions = []  # one a start
        self._threads = threading.local()
        self._clients = []
        self._shm_before = shm_objects()

    # -- starting --

    @property
    def addr(self):
        return self._at(self.http_port)

    @property
    def replication_addr(self):
        return self._at(self.replication_port)

    def _at(self, port):
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    @property
    def wal_dir(self):
        return os.path.join(self.data_dir, "current", "wal")

    def arguments(self):
        settings = {
            "http.bind_addr": self.addr,
            "replication.bind_addr": self.replication_addr,
            "replication.role": self.role,
        }
        if VALGRIND:
            settings["state.map_size"] = "1GiB"  # more address space than that isn't to be had there
        settings.update(self.settings)
        options = [f"--{key}={value}" for key, value in settings.items() if value is not None]
        return [*self.valgrind(), SERVER, "-D", self.data_dir, *options]

    def valgrind(self):
        """What goes before the command where valgrind is to watch (scripts/valgrind.sh)."""
        if not VALGRIND:
            return []
        log = os.path.join(self.directory, "valgrind.%p")
        return ["valgrind", "--quiet", "--run-libc-freeres=no", "--leak-check=full", "--show-leak-kinds=definite", f"--log-file={log}"]

    def _valgrind_reports(self):
        reports = []
        for path in glob.glob(os.path.join(self.directory, "valgrind.*")):
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
            if text.strip():
                reports.append(f"valgrind reports:\n{text[:3000]}")
        return reports

    def environment(self):
        env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("NEXUS_") or key in PASSED_ON
        }
        if self.preload:
            paths = [
                path if "/" in path else os.path.join(BUILD_DIR, "tests", path)
                for path in self.preload
            ]
            env["LD_PRELOAD"] = ":".join(paths)
            if SANITIZED:  # which wants to be the first of all libraries
                env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        # Leaks are the unit tests' business: where many servers' processes end at one moment, the tracer
        # of the leak check waits for ever now and then.
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        if self.crashable:
            off = "handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:handle_abort=0"
            for variable in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
                env[variable] = ":".join(filter(None, [env.get(variable), off]))
        env.update({key: str(value) for key, value in self.env.items()})
        return env

    def launch(self):
        """Starts the server and returns at once."""
        if self.is_running():
            raise NodeError(f"{self.name} runs already")
        self.drop_connections()
        _living.add(self)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.arguments(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment(),
                start_new_session=True,
            )
        self.sessions.append(self.process.pid)
        self._end_is_known = False
        return self

    def start(self, wait="/health", timeout=TIMEOUT):
        """Starts the server and waits until GET `wait` answers 200 (None: doesn't wait)."""
        self.launch()
        if wait is not None:
            self.wait_answer(wait, timeout)
        return self

    def wait_answer(self, path="/ready", timeout=TIMEOUT):
        """Waits until GET path answers 200; NodeError when the server ends before, or never does."""
        last = ["no answer"]

        def answers():
            status = self.process.poll()
            if status is not None:
                self._end_is_known = True
                raise NodeError(self.describe(f"ended with status {status} before {path} was 200"))
            try:
                code, _, body = self.request("GET", path, timeout=timeout)
            except (OSError, http.client.HTTPException) as error:
                last[0] = repr(error)
                return False
            last[0] = f"{code} {body[:300]!r}"
            return code == 200

        wait_until(answers, timeout, lambda: self.describe(f"GET {path} = 200, last {last[0]}"))
        return self

    def run(self, *arguments, timeout=TIMEOUT):
        """Runs the server program to its end with these arguments instead of the node's own:
        -> subprocess.CompletedProcess with text output."""
        return subprocess.run(
            [SERVER, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self.environment(),
            timeout=timeout,
            check=False,
        )

    def run_to(self, path, *arguments, timeout=TIMEOUT):
        """The same with what it prints going to a file: -> the exit status."""
        with open(path, "w", encoding="utf-8") as output:
            return subprocess.run(
                [SERVER, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                cwd=self.directory,
                env=self.environment(),
                timeout=timeout,
                check=False,
            ).returncode

    # -- ending --

    @property
    def pid(self):
        """The postmaster's."""
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def wait_exit(self, timeout=TIMEOUT):
        """Waits for the server to end by itself, its children too, and returns its exit status
        (negative: the signal that ended it)."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NodeError(self.describe(f"still runs after {timeout:g} s")) from None
        self._end_is_known = True
        self.wait_children_gone()
        self.drop_connections()
        return status

    def stop(self, sig=signal.SIGTERM, timeout=TIMEOUT, expect=0):
        """Sends the signal and waits for the end; NodeError when the exit status isn't `expect`
        (None: any). Does nothing when the server doesn't run."""
        if not self.is_running():
            return None
        self.process.send_signal(sig)
        status = self.wait_exit(timeout)
        if expect is not None and status != expect:
            raise NodeError(self.describe(f"ended with status {status}, expected {expect}"))
        return status

    def kill9(self, timeout=TIMEOUT):
        """SIGKILL to the postmaster; returns once it and all its children are gone."""
        if self.is_running():
            self.process.kill()
        return self.wait_exit(timeout)

    def kill_all(self, timeout=TIMEOUT):
        """SIGKILL to the postmaster and all its children at once, as by a crash of the machine but
        for the page cache."""
        if self.is_running():
            # Stopped first: it must not react to the death of the first child.
            self.process.send_signal(signal.SIGSTOP)
            self._signal_session(signal.SIGKILL)
        return self.wait_exit(timeout)

    def wait_children_gone(self, timeout=TIMEOUT):
        wait_until(
            lambda: not self.all_processes(),
            timeout,
            lambda: self.describe(f"the end of all processes, left: {self.all_processes()}"),
        )

    def all_processes(self):
        """Living processes of every start of this node, the postmaster included. (The number of a session that has
        ended may be another node's by now.)"""
        return [
            process
            for session in self.sessions
            for process in session_processes(session)
            if process.runs_in(self.directory)
        ]

    def children(self):
        """Living processes but the postmaster."""
        return [process for process in self.all_processes() if process.pid not in self.sessions]

    def _signal_session(self, sig):
        for process in self.all_processes():
            try:
                os.kill(process.pid, sig)
            except ProcessLookupError:
                pass

    # -- single children --

    def processes(self, kind=None):
        """`processes` of /replication/status, of one kind or all: [{"kind", "pid", ...}]"""
        rows = self.status()["processes"]
        return [row for row in rows if kind is None or row["kind"] == kind]

    def pids(self, kind):
        return [row["pid"] for row in self.processes(kind) if row["pid"] > 0]

    def kill_child(self, kind, sig=signal.SIGKILL, index=0, wait=True):
        """Sends a signal to a child of that kind and returns its pid; for a signal that ends it,
        waits until it is gone (wait=False: doesn't)."""
        pids = self.pids(kind)
        if len(pids) <= index:
            raise NodeError(self.describe(f"no {kind} {index} to send a signal to, pids {pids}"))
        pid = pids[index]
        if pid not in {process.pid for process in self.children()}:
            raise NodeError(self.describe(f"{kind} {pid} is no child of this node"))
        if sig in CRASH_SIGNALS and SANITIZED and not self.crashable:
            raise NodeError("sanitizers report this signal: make the node with crashable=True")
        os.kill(pid, sig)
        if wait and sig not in (signal.SIGSTOP, signal.SIGCONT, signal.SIGHUP, signal.SIGUSR1):
            wait_until(lambda: not is_alive(pid), what=lambda: self.describe(f"end of {kind} {pid}"))
        return pid

    def wait_replaced(self, kind, old_pid, timeout=TIMEOUT):
        """Waits until a child of that kind other than old_pid runs; returns its pid."""

        def replaced():
            try:
                return next((pid for pid in self.pids(kind) if pid != old_pid), None)
            except (OSError, http.client.HTTPException, HttpError):
                return None

        return wait_until(
            replaced, timeout, lambda: self.describe(f"a new {kind} instead of {old_pid}")
        )

    # -- asking --

    def client(self, timeout=TIMEOUT):
        """A connection of its own, closed with the node."""
        client = Client(self.http_port, self.host, timeout=timeout, ca=self.ca)
        self._clients.append(client)
        return client

    def unix_client(self, timeout=TIMEOUT):
        """The same over the data directory's socket."""
        client = Client(unix_path=os.path.join(self.data_dir, "nexus.sock"), timeout=timeout)
        self._clients.append(client)
        return client

    @property
    def http(self):
        """This thread's kept connection."""
        if getattr(self._threads, "client", None) is None:
            self._threads.client = self.client()
        return self._threads.client

    def drop_connections(self):
        """Closes all client connections; each opens again at its next request."""
        for client in self._clients:
            client.close()

    def request(self, method, path, body=None, headers=None, timeout=None):
        return self.http.request(method, path, body, headers, timeout)

    def json(self, method, path, body=None, headers=None, expect=(200,), timeout=None):
        return self.http.json(method, path, body, headers, expect, timeout)

    def put(self, key, value, ttl=None, headers=None):
        return self.http.put(key, value, ttl, headers)

    def get(self, key, headers=None):
        return self.http.get(key, headers)

    def delete(self, key, headers=None):
        return self.http.delete(key, headers)

    def batch(self, ops, conditions=None, headers=None):
        return self.http.batch(ops, conditions, headers)

    def import_lines(self, lines, headers=None):
        return self.http.import_lines(lines, headers)

    def export(self, prefix=None):
        return self.http.export(prefix)

    def versions(self, prefix=""):
        return self.http.versions(prefix)

    def raw_http(self, data, timeout=5.0, shutdown=False):
        return raw_http(self.http_port, data, timeout, shutdown=shutdown)

    def status(self):
        return self.json("GET", "/replication/status")

    def stats(self):
        """The statistics of this node's role."""
        kind = "replica" if self.role == "replica" else "master"
        return self.json("GET", f"/replication/{kind}/stats")

    def replicas(self):
        return self.json("GET", "/replication/replicas")["replicas"]

    def wait_until(self, condition, timeout=TIMEOUT, what="the condition"):
        """wait_until, with this node's log in the failure."""
        return wait_until(condition, timeout, lambda: self.describe(what))

    def wait_status(self, timeout=TIMEOUT, **fields):
        """Waits until /replication/status has these values (functions: until they are true of
        them); returns it."""
        last = {}

        def matches():
            last.clear()
            try:
                last.update(self.status())
            except (OSError, http.client.HTTPException, HttpError) as error:
                last["error"] = repr(error)
                return None
            for name, wanted in fields.items():
                value = last.get(name)
                if not (wanted(value) if callable(wanted) else value == wanted):
                    return None
            return dict(last)

        return wait_until(
            matches, timeout, lambda: self.describe(f"status {fields}; last was {last}")
        )

    def wait_offset(self, offset, timeout=TIMEOUT):
        """Waits until reads of this node see that offset. What it has applied is not enough: a replica
        in sync mode shows an entry when it has heard that the quorum has it."""
        status = self.wait_status(timeout, applied_offset=lambda value: (value or 0) >= offset)

        def seen():
            answer, headers, _ = self.request("GET", "/kv?limit=1")
            return answer == 200 and int(headers["Nexus-Offset"]) >= offset

        self.wait_until(seen, timeout, f"a read at offset {offset}")
        return status

    def wait_written(self, key="writable", value=b"x", timeout=TIMEOUT, over_crashes=False):
        """Puts until a write is taken, in sync mode confirmed: one that was not may stand in the log all the same.
        over_crashes: no answer is waited out too."""

        def is_written():
            try:
                return self.request("PUT", key_path(key), value)[0] in (200, 201)
            except (OSError, http.client.HTTPException):
                if not over_crashes:
                    raise
                return False

        self.wait_until(is_written, timeout, "a write that is taken")

    # -- log --

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def log_mark(self):
        """The log's present end, for wait_log(since=)."""
        return len(self.log())

    def wait_log(self, pattern, timeout=TIMEOUT, since=0):
        """Waits for a match of a regular expression (^ and $ at lines) in the log; returns it."""
        expression = re.compile(pattern, re.MULTILINE)
        return wait_until(
            lambda: expression.search(self.log(), since),
            timeout,
            lambda: self.describe(f"/{pattern}/ in the log"),
        )

    def describe(self, text):
        """The text with the node's name and the end of its log."""
        tail = "\n    ".join(self.log().splitlines()[-LOG_TAIL:])
        return f"{self.name} ({self.addr}): {text}\n  its log ends with:\n    {tail}"

    # -- cleaning up --

    def cleanup(self):
        """Ends everything that this node started and removes its directory. AssertionError when the
        server would not stop, or left a process or a shared memory object behind."""
        _living.discard(self)
        faults = self._end_server()
        self.drop_connections()
        faults += self._end_left_processes()
        try:
            wait_until(lambda: not self._shm_left(), 3, "the removal of shared memory")
        except AssertionError:
            faults.append(f"left in {SHM_DIR}: {sorted(self._shm_left())}")
        faults += self._valgrind_reports()
        text = self.describe("; ".join(faults)) if faults else ""
        self._remove_directory()
        if faults:
            raise NodeError(text)

    def _end_server(self):
        if not self.is_running():
            if self._end_is_known:
                return []
            return [f"had ended by itself, with status {self.process.returncode}"]
        self._signal_session(signal.SIGCONT)  # what a test has stopped
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return [f"did not stop by SIGTERM within {TIMEOUT:g} s"]
        return [f"stopped by SIGTERM with status {status}"] if status else []

    def _end_left_processes(self):
        """Children have a second to notice that their postmaster is gone; a sanitizer looks for leaks
        meanwhile."""
        try:
            wait_until(lambda: not self.all_processes(), 5, "the end of all processes")
            return []
        except AssertionError:
            left = self.all_processes()
        self._signal_session(signal.SIGKILL)
        wait_until(lambda: not self.all_processes(), 5, "the end of killed processes")
        return [f"left processes behind: {left}"]

    def _shm_left(self):
        return shm_objects() - self._shm_before

    def _remove_directory(self):
        if not self.own_directory:
            return
        if os.environ.get("NEXUS_TEST_KEEP"):
            print(f"kept: {self.directory}")
            return
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cleanup()


class Cluster:
    """A master and its replicas, all started and streaming.

    settings go to every node; master_settings and replica_settings to those."""

    def __init__(
        self, replicas=1, settings=None, master_settings=None, replica_settings=None, **node_options
    ):
        common = {"replication.heartbeat_ms": 500, **(settings or {})}
        self.master = Node(
            "master", settings={**common, **(master_settings or {})}, **node_options
        )
        self.replicas = [
            Node(
                "replica",
                name=f"replica{number}" if replicas > 1 else "replica",
                settings={
                    **common,
                    "replication.master_addr": self.master.replication_addr,
                    **(replica_settings or {}),
                },
                **node_options,
            )
            for number in range(1, replicas + 1)
        ]

    @property
    def replica(self):
        return self.replicas[0]

    @property
    def nodes(self):
        return [self.master, *self.replicas]

    def start(self, timeout=TIMEOUT):
        self.master.start(timeout=timeout)
        for replica in self.replicas:
            replica.launch()
        for replica in self.replicas:
            replica.wait_answer("/ready", timeout)
        return self

    def wait_level(self, timeout=60.0, replicas=None):
        """Waits until the replicas have applied all that the master has now; returns its offset."""
        offset = self.master.status()["wal_offset"]
        for replica in self.replicas if replicas is None else replicas:
            replica.wait_offset(offset, timeout)
        return offset

    def cleanup(self):
        """Replicas first: a master that ends waits for them."""
        faults = []
        for node in reversed(self.nodes):
            try:
                node.cleanup()
            except AssertionError as error:
                faults.append(str(error))
        if faults:
            raise NodeError("\n".join(faults))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cleanup()


def pair(**options):
    """A started Cluster of a master and one replica, to be used in `with` or cleaned up."""
    cluster = Cluster(1, **options)
    try:
        return cluster.start()
    except BaseException:
        cluster.cleanup()
        raise


class NexusTestCase(unittest.TestCase):
    """Ends the nodes that a test made, and shows their logs when it failed."""

    maxDiff = 4000

    def node(self, role="standalone", start=True, wait="/health", **options):
        """A Node, started unless start=False."""
        node = Node(role, **options)
        self.adopt(node)
        if start:
            node.start(wait)
        return node

    def cluster(self, replicas=1, start=True, **options):
        cluster = Cluster(replicas, **options)
        for node in cluster.nodes:  # the last adopted is cleaned up first
            self.adopt(node)
        if start:
            cluster.start()
        return cluster

    def pair(self, **options):
        """-> (master, replica), streaming"""
        cluster = self.cluster(1, **options)
        return cluster.master, cluster.replica

    def adopt(self, node):
        """Cleans the node up after the test."""
        self.addCleanup(node.cleanup)
        self.addCleanup(self._show_log, node)
        return node

    def _show_log(self, node):
        result = getattr(getattr(self, "_outcome", None), "result", None)
        failed = [test for test, _ in getattr(result, "failures", []) + getattr(result, "errors", [])]
        # A failed subtest is an object of its own that names its test.
        if any(getattr(test, "test_case", test) is self for test in failed):
            print(node.describe(f"{self.id()} failed"), flush=True)

    def assert_not_started(self, pattern, **settings):
        """The server refuses these settings in such words, before it makes anything."""
        node = self.node("master", start=False)
        options = [f"--{key}={value}" for key, value in settings.items()]
        result = node.run("-D", node.data_dir, *options)
        self.assertEqual(result.returncode, 1, result)
        self.assertRegex(result.stderr, pattern)
        self.assertFalse(os.path.exists(node.data_dir))

    def assert_problem(self, answer, status, code):
        """An answer of Client.request is this problem document; returns it."""
        got, headers, body = answer
        self.assertEqual(got, status, body)
        self.assertEqual(headers.get_content_type(), "application/problem+json")
        problem = json.loads(body)
        self.assertEqual((problem["status"], problem["code"]), (status, code))
        self.assertIs(problem["success"], False)
        self.assertTrue(problem["message"])
        return problem
