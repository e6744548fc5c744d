"""PostgreSQL from Debian, with synchronous_commit = on. It won't run as root: then it is run as the user postgres."""
import glob
import os
import re
import shutil
import signal
import socket
import struct
import time

from . import processes

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "wal_keep_size": "6GB",
    "synchronous_commit": "on",
    "dynamic_shared_memory_type": "mmap",  # in its directory, where a killed server leaves nothing behind
}


def tools():
    """The directory of the newest version's programs; None: it isn't installed."""
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    return os.path.dirname(max(found, key=lambda path: int(re.findall(r"/(\d+)/bin", path)[0]))) if found else None


class SqlError(RuntimeError):
    pass


class Session:
    """One connection that asks simple queries; a probe that takes less time than psql's start."""

    def __init__(self, port, timeout=600):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")
        body = struct.pack("!I", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
        self.sock.sendall(struct.pack("!I", len(body) + 4) + body)
        self._answer()

    def _message(self):
        head = self.file.read(5)
        if len(head) < 5:
            raise ConnectionError("closed by the server")
        return head[:1], self.file.read(struct.unpack("!I", head[1:])[0] - 4)

    def _answer(self):
        rows, error = [], None
        while True:
            kind, body = self._message()
            if kind == b"E":
                error = b" ".join(part[1:] for part in body.split(b"\0") if part[:1] in b"CM" and part).decode()
                if body.startswith((b"SFATAL", b"SPANIC")):
                    raise SqlError(error)
            elif kind == b"D":
                rows.append(self._row(body))
            elif kind == b"Z":
                if error is not None:
                    raise SqlError(error)
                return rows

    @staticmethod
    def _row(body):
        count, at, row = struct.unpack("!H", body[:2])[0], 2, []
        for _ in range(count):
            size = struct.unpack("!i", body[at : at + 4])[0]
            at += 4
            row.append(None if size < 0 else body[at : at + size].decode())
            at += max(size, 0)
        return row

    def query(self, text):
        body = text.encode() + b"\0"
        self.sock.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)
        return self._answer()

    def close(self):
        self.file.close()
        self.sock.close()


class Postgres(processes.Server):
    """A primary, or with one a standby that is made by pg_basebackup."""

    def __init__(self, bench, name="postgres", primary=None, settings=None):
        from nexus_test import free_port

        self.bench = bench
        self.keys = 1_000_000
        self.primary = primary
        self.port = free_port()
        self.user = "postgres" if os.geteuid() == 0 else None
        self.directory = os.path.join(bench.directory, name)
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        if self.user:
            shutil.chown(self.directory, self.user, self.user)
        self.data = os.path.join(self.directory, "data")
        self.given = {**SETTINGS, **(settings or {})}
        self.setup = ", ".join(f"{key} = {value}" for key, value in self.given.items())
        self.base_backup_seconds = None
        if primary is None:
            self.run_tool("initdb", "-D", self.data, "-E", "UTF8", "--locale=C", "-A", "trust", "-U", "postgres", "-N")
        else:
            began = time.monotonic()
            self.run_tool("pg_basebackup", "-d", f"host=127.0.0.1 port={primary.port} user=postgres", "-D", self.data,
                          "-R", "-X", "stream", "-c", "fast")
            self.base_backup_seconds = time.monotonic() - began
            self.keys = primary.keys
        self.launch()

    def tool(self, name):
        return os.path.join(tools(), name)

    def run_tool(self, name, *words):
        as_user = ["runuser", "-u", self.user, "--"] if self.user else []
        return processes.run([*as_user, self.tool(name), *words], cwd=self.directory)

    def launch(self):
        command = [self.tool("postgres"), "-D", self.data, "-p", str(self.port), "-k", self.directory]
        for key, value in self.given.items():
            command += ["-c", f"{key}={value}"]
        super().__init__(command, self.directory, os.path.join(self.directory, "log"), self.user)

    def session(self, timeout=120):
        """Once it takes connections."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return Session(self.port)
            except (OSError, SqlError):
                self.check()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def sql(self, text):
        session = self.session()
        try:
            return session.query(text)
        finally:
            session.close()

    def wait_serving(self):
        self.sql("SELECT 1")
        return self

    def create(self):
        self.sql("CREATE EXTENSION IF NOT EXISTS pgcrypto")
        self.sql("CREATE TABLE kv(k text PRIMARY KEY, v bytea) WITH (fillfactor=90)")

    def fill(self, keys, value):
        """Half random, half constant."""
        self.keys = keys
        self.sql(
            f"INSERT INTO kv SELECT lpad(i::text,16,'0'), gen_random_bytes({value // 2}) || "
            f"decode(repeat('78',{value - value // 2}),'hex') FROM generate_series(0,{keys - 1}) i "
            "ON CONFLICT (k) DO UPDATE SET v=EXCLUDED.v"
        )

    def write_backlog(self, rows, value=100):
        """As many single rows of random keys, in transactions of 1,000."""
        for first in range(0, rows, 100_000):
            count = min(100_000, rows - first)
            self.sql(
                f"DO $$ BEGIN FOR t IN 1..{max(count // 1000, 1)} LOOP INSERT INTO kv SELECT DISTINCT ON (k) "
                f"lpad((random()*{self.keys - 1})::int::text,16,'0') k, gen_random_bytes({value // 2}) || "
                f"decode(repeat('78',{value - value // 2}),'hex') FROM generate_series(1,{min(count, 1000)}) "
                "ON CONFLICT (k) DO UPDATE SET v=EXCLUDED.v; COMMIT; END LOOP; END $$"
            )

    def lsn(self):
        return self.sql("SELECT pg_current_wal_lsn()")[0][0]

    def wait_replayed(self, lsn, timeout=600):
        """Of a standby: until it has all up to there; -> the moment from which on it served."""
        deadline = time.monotonic() + timeout
        session = self.session()
        serving = time.monotonic()
        while session.query(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn")[0][0] != "t":
            if time.monotonic() > deadline:
                raise TimeoutError("the PostgreSQL standby is not level")
            time.sleep(0.005)
        session.close()
        return serving

    def wait_level(self):
        return self.wait_replayed(self.primary.lsn())

    def set_synchronous(self, on):
        """Commits wait for the standby's disk too."""
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{'*' if on else ''}'")
        self.sql("SELECT pg_reload_conf()")
        while on and [row[0] for row in self.sql("SELECT sync_state FROM pg_stat_replication")] != ["sync"]:
            time.sleep(0.05)

    def end(self, number=signal.SIGQUIT, timeout=20):
        """At once; SIGINT: in order."""
        super().end(number, timeout)
        self._remove_segment()

    def _remove_segment(self):
        """The one of System V that a killed server leaves behind; it is named in the file that it leaves too."""
        try:
            with open(os.path.join(self.data, "postmaster.pid"), encoding="ascii") as file:
                words = file.read().splitlines()[6].split()
        except (OSError, IndexError):
            return
        processes.run(["ipcrm", "-m", words[1]])
