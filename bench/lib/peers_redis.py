"""Redis from Debian, with an append-only file that is synced for every write."""
import os
import signal
import socket
import time

from . import processes

SETTINGS = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "auto-aof-rewrite-percentage": "0",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "0",
    "repl-timeout": "600",
    "client-output-buffer-limit": "replica 0 0 0",
}


class Resp:
    """One connection, one command at a time."""

    def __init__(self, port, wait=0.0):
        deadline = time.monotonic() + wait
        while True:
            try:
                self.sock = socket.create_connection(("127.0.0.1", port), 600)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.002)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")

    def command(self, *words):
        words = [str(word).encode() for word in words]
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        line = self.file.readline().strip()
        if not line:
            raise ConnectionError("closed by the server")
        if line[:1] == b"$":
            size = int(line[1:])
            return None if size < 0 else self.file.read(size + 2)[:-2].decode()
        return line.decode()

    def info(self, section):
        lines = self.command("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def close(self):
        self.file.close()
        self.sock.close()


class Redis(processes.Server):
    def __init__(self, bench, name="redis", master=None, settings=None):
        from nexus_test import free_port

        self.bench = bench
        self.port = free_port()
        self.directory = os.path.join(bench.directory, name)
        os.makedirs(self.directory, exist_ok=True)
        given = {**SETTINGS, "port": self.port, "dir": self.directory, **(settings or {})}
        if master is not None:
            given["replicaof"] = f"127.0.0.1 {master.port}"
        self.master = master
        self.arguments = ["redis-server"]
        for key, value in given.items():
            self.arguments += [f"--{key}", *(str(value).split() or [""])]
        self.setup = " ".join(f"--{key} {value or repr('')}" for key, value in given.items() if key != "dir")
        self.launch()

    @property
    def addr(self):
        return f"127.0.0.1:{self.port}"

    def launch(self):
        super().__init__(self.arguments, self.directory, os.path.join(self.directory, "log"))

    def wait_serving(self, timeout=600):
        """Answers, with all of its data loaded."""
        self.check()
        connection = Resp(self.port, timeout)
        while connection.command("PING") != "+PONG":
            time.sleep(0.002)
        connection.close()
        return self

    def ask(self, *words):
        connection = Resp(self.port, 10)
        answer = connection.command(*words)
        connection.close()
        return answer

    def wait_level(self, timeout=600):
        """Of a replica: until it has what its master has now."""
        deadline = time.monotonic() + timeout
        master, own = Resp(self.master.port, 10), Resp(self.port, 60)
        wanted = int(master.info("replication")["master_repl_offset"])
        while True:
            info = own.info("replication")
            if info.get("master_link_status") == "up" and int(info["slave_repl_offset"]) >= wanted:
                break
            if time.monotonic() > deadline:
                raise TimeoutError("the Redis replica is not level")
            time.sleep(0.005)
        master.close()
        own.close()

    def freeze(self):
        self.send(signal.SIGSTOP)
        self.master.ask("CLIENT", "KILL", "TYPE", "replica")

    def resume(self):
        self.send(signal.SIGCONT)
