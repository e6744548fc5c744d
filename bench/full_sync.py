#!/usr/bin/env python3
"""How long a full sync takes, beside pg_basebackup of as much data, both in turn on this machine.

    bench/full_sync.py [--keys N] [--value BYTES] [--rounds N] [--build DIR] [--no-postgres]

A master is filled with N keys whose values are half random and half constant; then a new replica is started
again and again, and timed from its start until it has all of it and streams. PostgreSQL gets a table of as many
rows of the same values, and pg_basebackup (plain format, WAL streamed, fast checkpoint) copies it from the same
machine. Times are taken A B A B ..., and what counts is the ratio of their medians. Needs the release build, and
the packages postgresql and zstd of Debian 12 for the other side; as root, since PostgreSQL won't run as root.
"""
import argparse
import base64
import json
import os
import pwd
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(HERE)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--build", default=os.path.join(SOURCE, "build"))
    parser.add_argument("--no-postgres", action="store_true")
    return parser.parse_args()


def value(size):
    """Half random, half constant."""
    noise = base64.b64encode(os.urandom(size * 3 // 8 + 3)).decode()[: size // 2]
    return noise + "x" * (size - len(noise))


# ---- Nexus ----


def fill(master, keys, size):
    batch = 20_000
    for first in range(0, keys, batch):
        lines = "".join(
            json.dumps({"key": f"key-{i:012d}", "value": value(size)}) + "\n"
            for i in range(first, min(first + batch, keys))
        )
        master.import_lines(lines)


def memory_of(node):
    """Anonymous memory of each process, in MiB, by its title's first word."""
    sizes = {}
    for process in node.all_processes():
        try:
            with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                for line in status:
                    if line.startswith("RssAnon:"):
                        kind = process.title.split()[1] if " " in process.title else "?"
                        sizes[kind] = max(sizes.get(kind, 0), int(line.split()[1]) / 1024)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return sizes


def full_sync(nexus_test, master, offset, peaks):
    """Seconds from the start of a new replica until it has all and streams."""
    settings = {
        "replication.master_addr": master.replication_addr,
        "wal.shm_size": "128MiB",
    }
    replica = nexus_test.Node("replica", settings=settings)
    try:
        began = looked = time.monotonic()
        replica.launch()
        while True:
            if time.monotonic() - looked > 0.5:  # looking takes time of the same cores
                looked = time.monotonic()
                for node in (master, replica):
                    for kind, size in memory_of(node).items():
                        peaks[kind] = max(peaks.get(kind, 0), size)
            try:
                status = replica.json("GET", "/replication/status")
                if status["wal_offset"] >= offset and status["state"] == "streaming":
                    break
            except (OSError, nexus_test.HttpError, nexus_test.http.client.HTTPException):
                pass
            time.sleep(0.05)
        took = time.monotonic() - began
        for line in replica.log().splitlines():
            if "full sync" in line:
                print("   ", line[11:], file=sys.stderr)
        return took
    finally:
        replica.stop()
        replica.cleanup()


# ---- PostgreSQL ----


class Postgres:
    def __init__(self, nexus_test):
        self.bin = "/usr/lib/postgresql/15/bin"
        if not os.path.exists(f"{self.bin}/initdb"):
            subprocess.run(
                ["apt-get", "install", "-y", "-qq", "postgresql"],
                check=True,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
        self.nexus_test = nexus_test
        self.user = pwd.getpwnam("postgres")
        self.dir = tempfile.mkdtemp(prefix="pg-bench-")
        os.chown(self.dir, self.user.pw_uid, self.user.pw_gid)
        self.data = os.path.join(self.dir, "data")
        self.run(f"{self.bin}/initdb", "-D", self.data, "-A", "trust", "-N")
        self.port = nexus_test.free_port()
        self.start(self.data, self.port)

    def start(self, data, port):
        options = (f"-k {self.dir} -p {port} -c listen_addresses=127.0.0.1 -c max_wal_size=8GB"
                   " -c shared_buffers=2GB")
        self.run(f"{self.bin}/pg_ctl", "-D", data, "-w", "-s", "-l", f"{data}.log", "-o", options,
                 "start")

    def run(self, *command, stdin=None):
        return subprocess.run(
            ["runuser", "-u", "postgres", "--", *command],
            check=True,
            stdin=stdin,
            stdout=subprocess.PIPE,
            cwd=self.dir,
        ).stdout

    def sql(self, text, port=None):
        port = str(port or self.port)
        return self.run("psql", "-h", self.dir, "-p", port, "-qAtc", text, "postgres").decode().strip()

    def fill(self, keys, size):
        self.sql("create table kv (key text primary key, value text)")
        command = ["runuser", "-u", "postgres", "--", "psql", "-h", self.dir, "-p", str(self.port),
                   "-qc", "copy kv from stdin", "postgres"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=self.dir) as copy:
            for i in range(keys):
                copy.stdin.write(f"key-{i:012d}\t{value(size)}\n")
            copy.stdin.close()
            if copy.wait() != 0:
                raise RuntimeError("copy failed")
        self.sql("vacuum analyze kv")
        self.sql("checkpoint")

    def backup(self):
        """Seconds of pg_basebackup, and until a standby started on it answers."""
        target = os.path.join(self.dir, "backup")
        port = self.nexus_test.free_port()
        began = time.monotonic()
        self.run("pg_basebackup", "-d", f"host=127.0.0.1 port={self.port} user=postgres", "-D", target,
                 "-R", "-X", "stream", "-c", "fast")
        copied = time.monotonic() - began
        self.start(target, port)
        while self.sql("select pg_is_in_recovery()", port) != "t":
            time.sleep(0.05)
        serving = time.monotonic() - began
        self.run(f"{self.bin}/pg_ctl", "-D", target, "-s", "-m", "immediate", "stop")
        shutil.rmtree(target)
        return copied, serving

    def close(self):
        self.run(f"{self.bin}/pg_ctl", "-D", self.data, "-m", "immediate", "stop")
        shutil.rmtree(self.dir)


def main():
    args = arguments()
    os.environ["NEXUS_BUILD_DIR"] = args.build
    os.environ["NEXUS_SOURCE_DIR"] = SOURCE
    sys.path.insert(0, os.path.join(SOURCE, "tests", "lib"))
    import nexus_test  # pylint: disable=import-outside-toplevel

    master = nexus_test.Node("master", settings={"snapshot.interval": 0})
    postgres = None
    try:
        master.start()
        fill(master, args.keys, args.value)
        # It brings all that was written into the state.
        last = master.json("POST", "/replication/snapshot", timeout=600)
        master.json("DELETE", f"/replication/snapshot/{last['id']}")
        idle = memory_of(master)
        offset = master.status()["wal_offset"]
        if not args.no_postgres:
            postgres = Postgres(nexus_test)
            postgres.fill(args.keys, args.value)
            print("bytes in PostgreSQL:", postgres.sql("select pg_database_size('postgres')"))
        ours, theirs, standby, peaks = [], [], [], {}
        for number in range(args.rounds):
            os.sync()
            ours.append(full_sync(nexus_test, master, offset, peaks))
            for row in [master.json("GET", "/replication/snapshot")]:
                master.json("DELETE", f"/replication/snapshot/{row['id']}")
            line = f"round {number + 1}: full sync {ours[-1]:.2f} s"
            if postgres is not None:
                os.sync()
                for times, took in zip((theirs, standby), postgres.backup()):
                    times.append(took)
                line += f", pg_basebackup {theirs[-1]:.2f} s, its standby serves after {standby[-1]:.2f} s"
            print(line)
        print(f"full sync: median {statistics.median(ours):.2f} s")
        if theirs:
            print(f"pg_basebackup: median {statistics.median(theirs):.2f} s")
            print(f"ratio of medians: {statistics.median(ours) / statistics.median(theirs):.2f}, to a standby "
                  f"that serves {statistics.median(ours) / statistics.median(standby):.2f}")
        print("own memory, MiB: at most", {k: round(v, 1) for k, v in sorted(peaks.items())},
              "idle", {k: round(v, 1) for k, v in sorted(idle.items())})
    finally:
        master.cleanup()
        if postgres is not None:
            postgres.close()
    print("children's cpu:", round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, 1), "s")


if __name__ == "__main__":
    main()
