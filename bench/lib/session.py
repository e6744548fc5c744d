"""A session of benchmarks: where its data is, how long and how often it measures, and the servers that it has started."""
import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
import time
from typing import Dict, FrozenSet, List

from . import generators, machine, peers_etcd, peers_nexus, peers_postgres, peers_redis

PEERS = ("redis", "postgres", "etcd")


@dataclasses.dataclass
class Result:
    """What a row's handler returns: the runs of each side, how each was set up, and remarks for the reader."""

    sides: Dict[str, List[dict]]
    setup: Dict[str, str] = dataclasses.field(default_factory=dict)
    remarks: List[str] = dataclasses.field(default_factory=list)


class Bench:
    def __init__(self, pairs=5, quick=False, peers=PEERS, base=None):
        self.pairs = pairs
        self.quick = quick
        self.peers: FrozenSet[str] = frozenset(peers)
        self.settle_seconds = 0.5 if quick else 15
        self.directory = tempfile.mkdtemp(prefix="nexus-bench-", dir=base)
        os.chmod(self.directory, 0o711)  # PostgreSQL's user has a directory in it
        tempfile.tempdir = self.directory  # whatever makes a directory makes it here

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory, ignore_errors=True)

    @staticmethod
    def say(text):
        print(text, file=sys.stderr, flush=True)

    def seconds(self, usual):
        """Length of a run."""
        return min(usual, 1) if self.quick else usual

    def keys(self, usual=1_000_000):
        """Number of keys, or of entries."""
        return max(usual // 50, 1000) if self.quick else usual

    @contextlib.contextmanager
    def servers(self):
        """Those of one row: they and their data are gone at its end."""
        servers = Servers(self)
        try:
            yield servers
        finally:
            servers.end()


class Servers:
    """Starts servers for a row. A peer that isn't wanted, or isn't there, is None."""

    def __init__(self, bench):
        self.bench = bench
        self.stack = contextlib.ExitStack()
        self.directory = tempfile.mkdtemp(prefix="row-", dir=bench.directory)
        os.chmod(self.directory, 0o711)
        self.count = 0
        self.setup = {}

    def end(self):
        try:
            self.stack.close()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def name(self, kind):
        self.count += 1
        return os.path.join(os.path.basename(self.directory), f"{kind}-{self.count}")

    def add(self, server, label=None):
        """To be ended with the row."""
        self.stack.callback(server.end)
        if label:
            self.setup[label] = server.setup
        return server

    def wants(self, peer):
        return peer in self.bench.peers

    def nexus(self, label="Nexus", master=None, fill=None, value=100, **settings):
        """settings: section__key=value. fill: so many keys of that value."""
        given = {key.replace("__", "."): value_ for key, value_ in settings.items()}
        node = self.add(peers_nexus.Nexus(self.bench, self.name("nexus"), "master", master, given), label)
        node.start("/ready", 120)
        if fill:
            generators.fill(node.addr, fill, value)
            node.wait_merged()
        return node

    def new_replica(self, master, **settings):
        """Not started yet, with no data."""
        given = {key.replace("__", "."): value for key, value in settings.items()}
        return self.add(peers_nexus.Nexus(self.bench, self.name("nexus"), "replica", master, given))

    def redis(self, label="Redis", master=None, fill=None, value=100, **settings):
        if not self.wants("redis"):
            return None
        given = {key.replace("_", "-"): value_ for key, value_ in settings.items()}
        server = self.add(peers_redis.Redis(self.bench, self.name("redis"), master, given), label)
        server.wait_serving()
        if fill:
            generators.fill(server.addr, fill, value, "redis")
        if master is not None:
            server.wait_level()
        return server

    def etcd(self, size=1, label="etcd", fill=None, value=100):
        if not self.wants("etcd"):
            return None
        cluster = self.add(peers_etcd.Etcd(self.bench, self.directory, size), label)
        cluster.wait_serving()
        if fill:
            generators.fill(cluster.addr, fill, value, "etcd")
        return cluster

    def postgres(self, label="PostgreSQL", primary=None, fill=None, value=100, **settings):
        if not self.wants("postgres"):
            return None
        server = self.add(peers_postgres.Postgres(self.bench, self.name("postgres"), primary, settings), label)
        server.wait_serving()
        if primary is None:
            server.create()
            if fill:
                server.fill(fill, value)
                server.sql("VACUUM ANALYZE kv")
                server.sql("CHECKPOINT")
        else:
            server.wait_level()
        return server


def versions():
    """Of what is measured and what measures."""
    from . import program

    tools = peers_postgres.tools()
    return machine.versions({
        "Nexus": [program("nexus-server"), "--version"],
        "nexus-bench": [program("nexus-bench"), "--version"],
        "Redis": ["redis-server", "--version"],
        "redis-benchmark": ["redis-benchmark", "--version"],
        "PostgreSQL": [f"{tools}/postgres", "--version"],
        "pgbench": [f"{tools}/pgbench", "--version"],
        "etcd": ["etcd", "--version"],
        "compiler": ["cc", "--version"],
        "commit": ["git", "-C", os.path.dirname(os.path.dirname(__file__)), "describe", "--always", "--dirty", "--abbrev=12"],
    })


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
