"""Writers over raw sockets: many requests a second from few lines of python.

Each connection pipelines a window of requests and reads the answers in order, so every request is known
to be answered (with its status and offset), or not.
"""
import random
import socket
import threading


class Connection:
    """One keep-alive connection that pipelines requests."""

    def __init__(self, port, timeout=30):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, requests):
        self.sock.sendall(b"".join(requests))

    def read_more(self):
        data = self.sock.recv(262144)
        if not data:
            raise ConnectionError("closed by the server")
        self.buffer += data

    def answer(self):
        """The next answer: (status, headers, body)."""
        while b"\r\n\r\n" not in self.buffer:
            self.read_more()
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers[name.strip().lower().decode()] = value.strip().decode()
        length = int(headers.get("content-length", "0"))
        self.buffer = rest
        while len(self.buffer) < length:
            self.read_more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(lines[0].split()[1]), headers, body


def put(key, value, headers=""):
    return (f"PUT /kv/{key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(value)}\r\n"
            f"{headers}\r\n").encode() + value


def delete(key):
    return f"DELETE /kv/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def batch(ops):
    """A batch of puts and deletes, from (key, value or None)."""
    parts = []
    for key, value in ops:
        if value is None:
            parts.append('{"delete":{"key":"%s"}}' % key)
        else:
            parts.append('{"put":{"key":"%s","value":"%s"}}' % (key, value))
    body = ('{"ops":[' + ",".join(parts) + "]}").encode()
    return (f"POST /batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode() + body


def mixed(rng, client, number):
    """One request of a mix: puts mostly, deletes, small batches. Keys are shared by all clients."""
    key = "k%06d" % rng.randrange(20000)
    value = ("%d-%d-" % (client, number)).encode() + b"x" * rng.randrange(200)
    dice = rng.random()
    if dice < 0.8:
        return put(key, value)
    if dice < 0.9:
        return delete(key)
    ops = [("k%06d" % rng.randrange(20000), None if rng.random() < 0.2 else "b%d" % number)
           for _ in range(rng.randrange(1, 6))]
    return batch(ops)


class Writers:
    """`clients` threads that send `total` mixed requests between them; errors are collected."""

    def __init__(self, port, total, clients=8, seed=1, window=32, make=mixed):
        self.port = port
        self.share = total // clients
        self.window = window
        self.make = make
        self.failures = []
        self.threads = [threading.Thread(target=self.run, args=(i, random.Random(f"{seed}/{i}")))
                        for i in range(clients)]

    def run(self, client, rng):
        try:
            with Connection(self.port) as connection:
                self.send_all(connection, client, rng)
        except OSError as error:
            self.failures.append(error)

    def send_all(self, connection, client, rng):
        number = 0
        while number < self.share:
            count = min(self.window, self.share - number)
            connection.send([self.make(rng, client, number + i) for i in range(count)])
            for _ in range(count):
                status, _, body = connection.answer()
                if status not in (200, 201):
                    self.failures.append((status, body))
            number += count

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def join(self):
        for thread in self.threads:
            thread.join()
        return self.failures


class AckedPuts:
    """A background writer of fresh keys that remembers exactly which puts were answered, across
    connections that die: for kill tests. Unanswered ones are unknown, never counted as lost."""

    def __init__(self, port, clients=4, prefix="acked", on_ack=None, size=20):
        self.port = port
        self.prefix = prefix
        self.on_ack = on_ack or (lambda key, offset: None)
        self.size = size
        self.acked = {}
        self.refused = set()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(clients)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def count(self):
        with self.lock:
            return len(self.acked)

    def run(self, client):
        number = 0
        while not self.stopping.is_set():
            try:
                with Connection(self.port, timeout=10) as connection:
                    while not self.stopping.is_set():
                        number += 1
                        self.one(connection, "%s-%d-%d" % (self.prefix, client, number))
            except OSError:
                self.stopping.wait(0.02)

    def assert_kept(self, node):
        """What was answered stands in the node as that write left it, and what was refused doesn't."""
        found = node.versions()
        lost = sorted(key for key in self.acked if found.get(key) != self.acked[key])
        there = sorted(key for key in self.refused if key in found)
        if lost or there:
            raise AssertionError(node.describe(
                f"of {len(self.acked)} answered writes {len(lost)} are lost: {lost[:20]}; "
                f"of {len(self.refused)} refused ones {len(there)} are there: {there[:20]}"))

    def assert_kept_over_a_kill(self, node):
        """Now, and when the node is started again behind a kill of all its processes."""
        self.assert_kept(node)
        node.kill_all()
        node.start()
        node.wait_status(state=lambda state: state != "starting")
        self.assert_kept(node)

    def one(self, connection, key):
        connection.send([put(key, key.encode() + b"." * self.size)])
        status, headers, _ = connection.answer()
        if status in (200, 201):
            offset = int(headers["nexus-offset"])
            self.on_ack(key, offset)
            with self.lock:
                self.acked[key] = offset
        elif status in (403, 503, 507):
            with self.lock:
                self.refused.add(key)
            self.stopping.wait(0.02)
