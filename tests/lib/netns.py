"""Nodes in network namespaces of their own, joined by a bridge in another one: what a real network does to them, by
nftables (packets that are dropped) and tbf (lines that are slow). Root only."""

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile

from nexus_test import SERVER, wait_until

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


class Host:
    """A node in its namespace. The test asks it from there, over the loopback of that one."""

    def __init__(self, network, number, **settings):
        self.network = network
        self.number = number
        self.name = network.names[number - 1]
        self.addr = f"{network.address(number)}:{HTTP}"
        self.replication_addr = f"{network.address(number)}:{REPLICATION}"
        self.settings = {"http.workers": 1, "wal.shm_size": "32MiB", **settings}
        self.directory = tempfile.mkdtemp(prefix=f"nexus-{self.name}-")
        self.process = None

    def start(self):
        options = [f"--{key}={value}" for key, value in self.settings.items()]
        command = ["ip", "netns", "exec", self.name, SERVER, "-D", os.path.join(self.directory, "data"), *options]
        env = {key: value for key, value in os.environ.items() if not key.startswith("NEXUS_")}
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
        wait_until(lambda: self.request("GET", "/health")[0] == 200, 30, self.log)
        return self

    def log(self):
        with open(os.path.join(self.directory, "log"), encoding="utf-8") as file:
            return file.read()

    def request(self, method, path, body=None, to=None, timeout=20):
        """-> (status, JSON); (0, {}): no answer. to: another host, over the network."""
        with inside(self.name):
            connection = http.client.HTTPConnection((to or self).network.address(to.number) if to else "127.0.0.1", HTTP, timeout=timeout)
            try:
                connection.connect()
            except OSError:
                return 0, {}
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
            is_json = "json" in (response.headers.get("Content-Type") or "")
            return response.status, json.loads(content) if is_json else content
        except (OSError, http.client.HTTPException):
            return 0, {}
        finally:
            connection.close()

    def status(self):
        return self.request("GET", "/replication/status")[1]

    def wait_status(self, timeout=60, **fields):
        wait_until(lambda: all(self.status().get(key) == value for key, value in fields.items()), timeout,
                   lambda: f"{fields} of {self.name}: {self.status()}\n{self.log()[-4000:]}")

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def kill(self):
        self.process.kill()
        self.process.wait(30)

    def close(self):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
