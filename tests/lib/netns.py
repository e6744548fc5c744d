"""Nodes in network namespaces of their own, joined by a bridge in another one: what a real network does to them, by
nftables (packets that are dropped) and tbf (lines that are slow). Root only."""

import contextlib
import ctypes
import os
import shutil
import subprocess

from nexus_test import TIMEOUT, Client, Node

CLONE_NEWNET = 0x40000000
HTTP, REPLICATION = 15474, 15475
_libc = ctypes.CDLL(None, use_errno=True)


def available():
    tools = all(shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") for name in ("ip", "nft", "tc"))
    if os.geteuid() != 0 or not tools:
        return False
    probe = ["unshare", "-n", "sh", "-c", "ip link add v0 type veth peer name v1 && nft add table inet t"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def run(*arguments):
    subprocess.run(arguments, check=True, capture_output=True)


@contextlib.contextmanager
def inside(name):
    """Sockets that this thread makes meanwhile are in that namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if _libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _libc.setns(home, CLONE_NEWNET)
        os.close(there)
        os.close(home)


class Network:
    """A bridge, and one namespace a host: its address is prefix.N."""

    def __init__(self, hosts, prefix="10.77.0"):
        self.prefix = prefix
        self.hub = f"nx{os.getpid()}hub"
        self.names = [f"nx{os.getpid()}n{number}" for number in range(1, hosts + 1)]
        run("ip", "netns", "add", self.hub)
        run("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.hub, "link", "set", "br0", "up")
        for number, name in enumerate(self.names, 1):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{number}", "netns", self.hub)
            run("ip", "-n", self.hub, "link", "set", f"p{number}", "master", "br0", "up")
            run("ip", "-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "netns", "exec", name, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; }")

    def address(self, number):
        return f"{self.prefix}.{number}"

    def drop(self, number, *others):
        """Nothing that comes from these hosts arrives there."""
        for other in others:
            rule = f"add rule inet t in ip saddr {self.address(other)} drop"
            run("ip", "netns", "exec", self.names[number - 1], "nft", rule)

    def cut(self, number, *others):
        """In both directions."""
        self.drop(number, *others)
        for other in others:
            self.drop(other, number)

    def heal(self):
        for name in self.names:
            run("ip", "netns", "exec", name, "nft", "flush chain inet t in")

    def slow(self, number, rate):
        """What this host is sent, in tbf's words ("1mbit")."""
        tbf = ["tbf", "rate", rate, "burst", "32kb", "latency", "400ms"]
        run("ip", "netns", "exec", self.hub, "tc", "qdisc", "replace", "dev", f"p{number}", "root", *tbf)

    def fast(self, number):
        run("ip", "netns", "exec", self.hub, "tc", "qdisc", "del", "dev", f"p{number}", "root")

    def close(self):
        for name in [*self.names, self.hub]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class _Client(Client):
    """From a namespace."""

    def __init__(self, namespace, *arguments, **options):
        super().__init__(*arguments, **options)
        self.namespace = namespace

    def _connect(self):
        with inside(self.namespace):
            super()._connect()


class Host(Node):
    """A node in its namespace, at the ports that are the defaults. The test asks it from there, over its loopback."""

    def __init__(self, network, number, role="standalone", **settings):
        self.namespace = network.names[number - 1]
        self.address = network.address(number)
        super().__init__(
            role,
            name=self.namespace,
            settings={
                "http.bind_addr": f"0.0.0.0:{HTTP}",
                "replication.bind_addr": f"0.0.0.0:{REPLICATION}",
                "http.workers": 1,
                "wal.shm_size": "32MiB",
                **settings,
            },
            ports=(HTTP, REPLICATION),
        )

    def _at(self, port):
        return f"{self.address}:{port}"

    def arguments(self):
        return ["ip", "netns", "exec", self.namespace, *super().arguments()]

    def client(self, timeout=TIMEOUT, to=None):
        """to: another host, over the network."""
        client = _Client(self.namespace, HTTP, to.address if to else self.host, timeout=timeout)
        self._clients.append(client)
        return client

    def wait_status(self, timeout=60.0, **fields):
        return super().wait_status(timeout, **fields)
