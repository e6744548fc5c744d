"""A client of GET /changes: server-sent events over a raw socket, so that a test can be slow, cut off, or half
closed."""

import base64
import http.client
import json
import socket
import threading
import urllib.parse

from nexus_test import HOST, TIMEOUT, _bytes


class Event:
    """One event: kind ("message" or "progress"), id, and its data, decoded."""

    def __init__(self, kind, identity, data):
        self.kind = kind
        self.id = identity
        self.data = data

    @property
    def offset(self):
        return self.data["offset"]

    @property
    def ops(self):
        """[(key, value)] with text or bytes; value None: deleted."""
        return [op_of(op) for op in self.data["ops"]]

    def __repr__(self):
        return f"{self.kind} {self.id} {self.data}"


def op_of(op):
    (kind, members), = op.items()
    return member(members, "key"), member(members, "value") if kind == "put" else None


def member(members, name):
    if name in members:
        return members[name]
    return base64.b64decode(members[name + "_base64"])


def path_of(since=None, prefix=None):
    query = {}
    if since is not None:
        query["since"] = str(since)
    if prefix is not None:
        query["prefix"] = _bytes(prefix)
    return "/changes" + ("?" + urllib.parse.urlencode(query) if query else "")


class Follower:
    """One request. status and headers are there once it is made; `body` of a refusal too.

    events come by next(); a stream that ends in order ends the iteration, one that is cut raises
    ConnectionError."""

    def __init__(
        self, port, since=None, prefix=None, headers=None, version="1.1", path=None, receive=None
    ):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.raw = b""
        self.text = b""
        self.last_id = None
        self.ended = False
        lines = [f"GET {path or path_of(since, prefix)} HTTP/{version}", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        try:
            self.sock.settimeout(TIMEOUT)
            self.sock.connect((HOST, port))
            self.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            self._read_head()
        except BaseException:
            self.close()
            raise

    def _receive(self):
        """More bytes, or none at the connection's end."""
        data = self.sock.recv(262144)
        self.raw += data
        return data

    def _read_head(self):
        while b"\r\n\r\n" not in self.raw:
            if not self._receive():
                raise ConnectionError("closed before the head")
        head, _, self.raw = self.raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = http.client.HTTPMessage()
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name] = value.strip()
        self.chunked = self.headers.get("Transfer-Encoding") == "chunked"
        self.body = None
        if "Content-Length" in self.headers:
            length = int(self.headers["Content-Length"])
            while len(self.raw) < length:
                if not self._receive():
                    raise ConnectionError("closed in the body")
            self.body, self.raw = self.raw[:length], self.raw[length:]

    def answer(self):
        """As Client.request returns it."""
        return self.status, self.headers, self.body

    def _take_chunks(self):
        """Moves whole chunks from raw to text."""
        while not self.ended:
            size, mark, rest = self.raw.partition(b"\r\n")
            length = int(size, 16) if mark else 0
            if not mark or len(rest) < length + 2:
                return
            assert rest[length : length + 2] == b"\r\n", rest[:80]
            self.text += rest[:length]
            self.raw = rest[length + 2 :]
            self.ended = length == 0

    def _take(self):
        if self.chunked:
            self._take_chunks()
        else:
            self.text += self.raw
            self.raw = b""

    def next(self, timeout=TIMEOUT):
        """The next event of whatever kind, None at the end. TimeoutError when none comes."""
        self.sock.settimeout(timeout)
        self._take()
        while b"\n\n" not in self.text:
            if self.ended:
                return None
            if not self._receive():
                if self.chunked:
                    raise ConnectionError("cut within the stream")
                self.ended = True
            self._take()
        text, _, self.text = self.text.partition(b"\n\n")
        return self._parse(text.decode())

    def _parse(self, text):
        fields = dict(line.split(": ", 1) for line in text.split("\n"))
        event = Event(fields.pop("event", "message"), fields.pop("id"), json.loads(fields.pop("data")))
        assert not fields, text
        self.last_id = event.id
        return event

    def change(self, timeout=TIMEOUT):
        """The next one that is no progress."""
        while (event := self.next(timeout)) is not None and event.kind == "progress":
            pass
        return event

    def changes(self, count, timeout=TIMEOUT):
        return [self.change(timeout) for _ in range(count)]

    def progress(self, timeout=TIMEOUT):
        event = self.next(timeout)
        assert event.kind == "progress", event
        return event

    def wait_end(self, timeout=TIMEOUT):
        """-> the events up to the end of the stream, which is in order."""
        events = []
        while (event := self.next(timeout)) is not None:
            events.append(event)
        return events

    def wait_cut(self, timeout=TIMEOUT):
        """Until the connection ends within the stream; -> the number of bytes that came."""
        count = len(self.raw) + len(self.text)
        self.sock.settimeout(timeout)
        try:
            while data := self.sock.recv(262144):
                count += len(data)
                assert not data.endswith(b"0\r\n\r\n"), "ended in order"
        except ConnectionResetError:
            pass
        return count

    def shut(self):
        """Sends no more, and listens."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Resumer(threading.Thread):
    """Follows, breaks off after a few events, and resumes by Last-Event-ID, again and again; `port` may be changed
    meanwhile. seen: every event that is no progress, in the order in which they came."""

    def __init__(self, port, rng, since="0@1", prefix=None):
        super().__init__(daemon=True)
        self.port = port
        self.rng = rng
        self.last_id = since
        self.prefix = prefix
        self.seen = []
        self.resumed = 0
        self.refused = None
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set() and self.refused is None:
            try:
                self.follow_once()
            except OSError:
                self.stopping.wait(0.05)

    def follow_once(self):
        headers = {"Last-Event-ID": self.last_id}
        with Follower(self.port, prefix=self.prefix, headers=headers) as follower:
            if follower.status == 503:
                self.stopping.wait(0.05)
                return
            if follower.status != 200:
                self.refused = follower.answer()
                return
            self.resumed += 1
            for _ in range(self.rng.randrange(1, 60)):
                event = self.next_of(follower)
                if event is None:
                    return
                if event.kind != "progress":
                    self.seen.append(event)
                self.last_id = event.id

    def next_of(self, follower):
        while not self.stopping.is_set():
            try:
                return follower.next(0.2)
            except TimeoutError:
                pass
        return None

    def last_offset(self):
        return int(self.last_id.split("@")[0])

    def stop(self):
        self.stopping.set()
        self.join()
