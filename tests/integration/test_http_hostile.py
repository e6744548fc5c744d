"""Clients that break HTTP, exceed its limits, dawdle, or ask where they may not: each gets the status and
the code that are promised, nobody else notices, and nothing is left behind."""

import itertools
import json
import os
import re
import resource
import socket
import struct
import time
import unittest

from nexus_test import HOST, SANITIZED, Node, NexusTestCase, memory_of, wait_until

TARGET_MOST = 16 << 10
HEADERS_MOST = 32 << 10
FIELDS_MOST = 100
VALUE_MOST = 4096
KEY_MOST = 511
STATUS = "/replication/status"
PATIENCE = 10.0  # seconds for an answer

BAD = (400, "bad_request")
AFTER = b"GET /primary HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def request(line, *fields, body=b"", host="localhost"):
    """The bytes of a request; line without version gets HTTP/1.1."""
    if isinstance(line, str):
        line = line.encode()
    if b" HTTP/" not in line:
        line += b" HTTP/1.1"
    lines = [line]
    if host is not None:
        lines.append(b"Host: " + host.encode())
    lines += [field.encode() if isinstance(field, str) else field for field in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def put(key, body, *fields):
    return request(f"PUT /kv/{key}", f"Content-Length: {len(body)}", *fields, body=body)


def chunked(body, line="PUT /kv/chunked"):
    return request(line, "Transfer-Encoding: chunked", body=body)


def head_of(size):
    """GET /health whose header lines, with the empty one, have `size` bytes."""
    fields = b"Host: localhost\r\nX: \r\n\r\n"
    return b"GET /health HTTP/1.1\r\n" + fields.replace(
        b"X: ", b"X: " + b"x" * (size - len(fields))
    )


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def code(self):
        """Of a problem; None for all else."""
        if self.headers.get("content-type") != "application/problem+json" or not self.body:
            return None
        return json.loads(self.body)["code"]

    @property
    def message(self):
        return json.loads(self.body)["message"]

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:300]!r}"


class RawClient:
    """A socket, and a strict reader of answers."""

    def __init__(self, where):
        if isinstance(where, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(where)
        else:
            self.sock = socket.create_connection((HOST, where), timeout=PATIENCE)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = b""
        self.ended = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        """Sends all that the server takes."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # its answer may be there
        return self

    def end(self):
        """No more from this side."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def reset(self):
        """Goes away without a word."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _more(self):
        piece = b"" if self.ended else self.sock.recv(65536)
        self.ended = self.ended or not piece
        self.pending += piece
        return bool(piece)

    def _take(self, n):
        while len(self.pending) < n:
            if not self._more():
                raise AssertionError(f"the answer ends within its body: {self.pending[:300]!r}")
        taken, self.pending = self.pending[:n], self.pending[n:]
        return taken

    def answer(self, head_only=False):
        """The next answer, None at the connection's end."""
        while b"\r\n\r\n" not in self.pending:
            if not self._more():
                if self.pending:
                    raise AssertionError(f"the answer ends within its head: {self.pending!r}")
                return None
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        line, *fields = head.decode("ascii").split("\r\n")
        version, status, _ = line.split(" ", 2)
        if version != "HTTP/1.1" or not 100 <= int(status) <= 599:
            raise AssertionError(f"no status line: {line!r}")
        headers = {}
        for field in fields:
            name, value = field.split(": ", 1)
            if name.lower() in headers:
                raise AssertionError(f"{name} comes twice")
            headers[name.lower()] = value
        if head_only or int(status) in (100, 204, 304):
            return Answer(int(status), headers, b"")
        return Answer(int(status), headers, self._take(int(headers["content-length"])))

    def answers(self):
        """All answers until the server ends the connection."""
        return list(iter(self.answer, None))


class HostileCase(NexusTestCase):
    """One server for the class. After each request that is out of the ordinary another client is served
    as ever and no process was replaced; after each test the http worker has the descriptors that it
    had before."""

    settings = {}
    node = None

    @classmethod
    def setUpClass(cls):
        cls.node = Node(settings={"http.workers": 1, **cls.settings})
        cls.addClassCleanup(cls.node.cleanup)
        cls.node.start()
        cls.node.put("kept", b"as ever")
        cls.unix = os.path.join(cls.node.data_dir, "nexus.sock")
        cls.witness = cls.node.unix_client()
        cls.pid = cls.node.pids("http")[0]
        cls.only_witness()
        cls.descriptors = cls.settled_descriptors()

    @classmethod
    def assert_served(cls):
        """A client that behaves is served, on a connection that it has kept, by the first processes."""
        if cls.witness.get("kept") != b"as ever":
            raise AssertionError("another client does not get its value")
        processes = cls.witness.json("GET", STATUS)["processes"]
        restarted = [process for process in processes if process["restarts"] > 0]
        if restarted:
            raise AssertionError(cls.node.describe(f"restarted: {restarted}"))

    @classmethod
    def only_witness(cls):
        """Leaves no connection of this test but the witness's, which is new."""
        cls.node.drop_connections()
        cls.assert_served()

    @classmethod
    def count_descriptors(cls):
        return len(os.listdir(f"/proc/{cls.pid}/fd"))

    @classmethod
    def settled_descriptors(cls):
        """The count, once it has been the same for ten looks."""
        looks = []

        def settled():
            looks.append(cls.count_descriptors())
            return len(looks) >= 10 and len(set(looks[-10:])) == 1

        wait_until(settled, what="a number of descriptors that stays")
        return looks[-1]

    def setUp(self):
        self.clients = []
        self.addCleanup(self._show_log, self.node)

    def end_clients(self):
        """Until the server has ended its side of them too."""
        for client in self.clients:
            client.sock.close()
        self.clients = []
        self.assert_served()
        self.only_witness()
        wait_until(
            lambda: self.count_descriptors() == self.descriptors,
            what=lambda: f"{self.descriptors} descriptors again, now {self.count_descriptors()}",
        )

    def tearDown(self):
        self.end_clients()
        pids = [row["pid"] for row in self.witness.json("GET", STATUS)["processes"]]
        self.assertIn(self.pid, pids)

    def client(self, where=None):
        client = RawClient(where or self.node.http_port)
        self.clients.append(client)
        return client

    def ask(self, data, where=None):
        """All answers to these bytes until the server ends the connection."""
        with RawClient(where or self.node.http_port) as client:
            return client.send(data).answers()

    def assert_problem_answer(self, answer, status, code):
        self.assertIsNotNone(answer, "the connection ended without an answer")
        self.assertEqual((answer.status, answer.code), (status, code), answer)
        problem = json.loads(answer.body)
        self.assertEqual((problem["status"], problem["success"]), (status, False))
        self.assertTrue(problem["message"] and problem["title"])
        self.assertEqual(answer.headers["x-content-type-options"], "nosniff")

    def assert_refused(self, data, status, code, closes=True):
        """The first request of `data` gets this problem. closes: the answer says that it is the last,
        nothing behind it is looked at. Else a request behind it is answered."""
        answers = self.ask(data + AFTER)
        self.assertEqual(len(answers), 1 if closes else 2, answers)
        self.assert_problem_answer(answers[0], status, code)
        self.assertEqual(answers[0].headers.get("connection"), "close" if closes else None)
        self.assert_served()
        return answers[0]

    def assert_table(self, table, closes):
        for name, (data, (status, code)) in table.items():
            with self.subTest(name):
                self.assert_refused(data, status, code, closes)


# ---- what is malformed ends the connection ----

SMUGGLED = b"GET /kv/kept HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMUGGLED_PUT = put("body", b"smuggled")

MALFORMED = {
    "both lengths": (
        request("PUT /kv/a", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        BAD,
    ),
    "both lengths, the other way round": (
        request("PUT /kv/a", "Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n"),
        BAD,
    ),
    "two lengths": (
        request("PUT /kv/a", "Content-Length: 1", "Content-Length: 2", body=b"xx"),
        BAD,
    ),
    "the same length twice": (
        request("PUT /kv/a", "Content-Length: 1", "Content-Length: 1", body=b"x"),
        BAD,
    ),
    "two lengths in a line": (request("PUT /kv/a", "Content-Length: 1, 1", body=b"x"), BAD),
    "length with a plus": (request("PUT /kv/a", "Content-Length: +1", body=b"x"), BAD),
    "length with a minus": (request("PUT /kv/a", "Content-Length: -1", body=b"x"), BAD),
    "length in hexadecimal": (request("PUT /kv/a", "Content-Length: 0x1", body=b"x"), BAD),
    "length with a space in it": (request("PUT /kv/a", "Content-Length: 1 0", body=b"x" * 10), BAD),
    "length with a fraction": (request("PUT /kv/a", "Content-Length: 1.0", body=b"x"), BAD),
    "no digits of a length": (request("PUT /kv/a", "Content-Length: ", body=b"x"), BAD),
    "length of 2^64": (request("PUT /kv/a", "Content-Length: 18446744073709551616"), BAD),
    "length of 2^64 + 1, 1 when it wraps": (
        request("PUT /kv/a", "Content-Length: 18446744073709551617", body=b"x"),
        BAD,
    ),
    "coding gzip": (request("PUT /kv/a", "Transfer-Encoding: gzip", body=b"x"), BAD),
    "coding identity": (request("PUT /kv/a", "Transfer-Encoding: identity", body=b"x"), BAD),
    "codings gzip, chunked": (
        request("PUT /kv/a", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        BAD,
    ),
    "coding chunked twice": (
        request("PUT /kv/a", *["Transfer-Encoding: chunked"] * 2, body=b"0\r\n\r\n"),
        BAD,
    ),
    "coding xchunked": (request("PUT /kv/a", "Transfer-Encoding: xchunked", body=b"x"), BAD),
    "coding behind a vertical tab": (
        request("PUT /kv/a", "Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
        BAD,
    ),
    "coding in HTTP/1.0": (
        request("PUT /kv/a HTTP/1.0", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        BAD,
    ),
    "bare LF behind the request line": (b"GET /health HTTP/1.1\nHost: localhost\r\n\r\n", BAD),
    "bare LF behind a header": (b"GET /health HTTP/1.1\r\nHost: localhost\n\r\n", BAD),
    "bare LF for the empty line": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\n", BAD),
    "bare CR in a value": (request("GET /health", "X: a\rb"), BAD),
    "bare CR in the target": (request("GET /hea\rlth"), BAD),
    "bare CR behind the request line": (b"GET /health HTTP/1.1\rHost: localhost\r\n\r\n", BAD),
    "CR twice": (b"GET /health HTTP/1.1\r\r\nHost: localhost\r\n\r\n", BAD),
    "NUL in a value": (request("GET /health", b"X: a\0b"), BAD),
    "NUL in a name": (request("GET /health", b"X\0: a"), BAD),
    "NUL in the target": (request(b"GET /kv/a\0b"), BAD),
    "NUL in the method": (request(b"GE\0T /health"), BAD),
    "DEL in a value": (request("GET /health", b"X: a\x7fb"), BAD),
    "folded with a space": (request("GET /health", "X: a", " b"), BAD),
    "folded with a tab": (request("GET /health", "X: a", "\tb"), BAD),
    "folded before the first header": (b"GET /health HTTP/1.1\r\n Host: localhost\r\n\r\n", BAD),
    "obs-text in a name": (request("GET /health", b"X\xe4: a"), BAD),
    "space before the colon": (request("PUT /kv/a", "Content-Length : 1", body=b"x"), BAD),
    "tab before the colon": (request("PUT /kv/a", "Content-Length\t: 1", body=b"x"), BAD),
    "no colon": (request("GET /health", "Content-Length"), BAD),
    "no name": (request("GET /health", ": a"), BAD),
    "a slash in a name": (request("GET /health", "X/Y: a"), BAD),
    "no method": (b" /health HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD),
    "brackets in the method": (request("G(E)T /health"), BAD),
    "method of 33 bytes": (request("G" * 33 + " /health"), BAD),
    "no target": (b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD),
    "two spaces": (b"GET  /health HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD),
    "a tab for a space": (b"GET\t/health HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD),
    "a space in the target": (b"GET /kv/a b HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD),
    "a space behind the version": (b"GET /health HTTP/1.1 \r\nHost: localhost\r\n\r\n", BAD),
    "no version": (b"GET /health\r\nHost: localhost\r\n\r\n", BAD),
    "HTTP/0.9": (request("GET /health HTTP/0.9"), BAD),
    "HTTP/1.2": (request("GET /health HTTP/1.2"), BAD),
    "HTTP/1.": (request("GET /health HTTP/1."), BAD),
    "HTTP/1.10": (request("GET /health HTTP/1.10"), BAD),
    "HTTP/3.0": (request("GET /health HTTP/3.0"), BAD),
    "http/1.1": (request(b"GET /health http/1.1 HTTP/1.1"), BAD),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), BAD),
    "no Host": (request("GET /health", host=None), BAD),
    "two Hosts": (request("GET /health", "Host: localhost"), BAD),
    "a target of somebody else": (request("GET http://localhost/health"), BAD),
    "an asterisk to GET": (request("GET *"), BAD),
    "CONNECT": (request("CONNECT localhost:80"), BAD),
    "a fragment": (request("GET /health#top"), BAD),
    "empty lines": (b"\r\n\r\n" + request("GET /health"), BAD),
}

# ---- what is too much ends it too ----

TOO_MUCH = {
    "a target of 16 KiB and a byte": (
        request("GET /" + "x" * TARGET_MOST),
        (414, "uri_too_long"),
    ),
    "a target of 1 MiB": (request("GET /" + "x" * (1 << 20)), (414, "uri_too_long")),
    "headers of 32 KiB and a byte": (head_of(HEADERS_MOST + 1), (431, "headers_too_large")),
    "a header of 1 MiB": (head_of(1 << 20), (431, "headers_too_large")),
    "a name of 1 MiB": (request("GET /health", "x" * (1 << 20)), (431, "headers_too_large")),
    "101 headers": (
        request("GET /health", *[f"X-{i}: y" for i in range(FIELDS_MOST)]),
        (431, "headers_too_large"),
    ),
    "100,000 headers": (request("GET /health", *["X:"] * 100000), (431, "headers_too_large")),
    "a length far above max_value_size": (
        request("PUT /kv/a", "Content-Length: 999999999999999999"),
        (413, "value_too_large"),
    ),
    "a value just above what is read past": (
        put("a", b"x" * ((64 << 10) + 1)),
        (413, "value_too_large"),
    ),
    "a batch above 64 MiB": (
        request("POST /batch", f"Content-Length: {(64 << 20) + 1}"),
        (413, "batch_too_large"),
    ),
    "a value in chunks, above": (
        chunked(b"%x\r\n" % (VALUE_MOST + 1) + b"x" * (VALUE_MOST + 1) + b"\r\n0\r\n\r\n"),
        (413, "value_too_large"),
    ),
    "PUT without a length": (request("PUT /kv/a"), (411, "length_required")),
    "batch without a length": (request("POST /batch"), (411, "length_required")),
    "import without a length": (request("POST /import"), (411, "length_required")),
    "a method that nobody knows": (request("BREW /kv/a"), (405, "method_not_allowed")),
    "a method in small letters": (request("get /kv/a"), (405, "method_not_allowed")),
    "an unknown method with a body": (
        request("BREW /kv/a", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        (405, "method_not_allowed"),
    ),
}

# ---- what is refused in order leaves the connection alone ----

IN_ORDER = {
    "a value above, but short": (put("a", b"x" * (VALUE_MOST + 1)), (413, "value_too_large")),
    "gzip": (put("a", b"x", "Content-Encoding: gzip"), (415, "unsupported_encoding")),
    "gzip behind identity": (
        put("a", b"x", "Content-Encoding: identity", "Content-Encoding: gzip"),
        (415, "unsupported_encoding"),
    ),
    "a form": (
        put("a", b"x", "Content-Type: multipart/form-data; boundary=b"),
        (415, "unsupported_encoding"),
    ),
    "a form in capitals": (
        put("a", b"x", "Content-Type: Multipart/Mixed"),
        (415, "unsupported_encoding"),
    ),
    "a gzipped batch": (
        request("POST /batch", "Content-Encoding: gzip", "Content-Length: 2", body=b"{}"),
        (415, "unsupported_encoding"),
    ),
    "no such endpoint": (request("GET /no"), (404, "no_such_endpoint")),
    "no such endpoint, with a body": (
        request("POST /no", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        (404, "no_such_endpoint"),
    ),
    "a slash behind an endpoint": (request("GET /health/"), (404, "no_such_endpoint")),
    "two slashes": (request("GET //health"), (404, "no_such_endpoint")),
    "dots are not folded": (request("GET /kv/../health"), (404, "key_not_found")),
    "NUL behind an endpoint": (request("GET /health%00"), (404, "no_such_endpoint")),
    "a known method in the wrong place": (
        request("DELETE /health"),
        (405, "method_not_allowed"),
    ),
    "a method of others": (request("PROPFIND /kv/a"), (405, "method_not_allowed")),
    "an empty key": (put("", b"x"), (400, "bad_key")),
    "a key of 512 bytes": (put("k" * (KEY_MOST + 1), b"x"), (400, "bad_key")),
    "a key of 512 bytes, encoded": (put("%41" * (KEY_MOST + 1), b"x"), (400, "bad_key")),
    "a target of 16 KiB": (
        request("GET /kv/" + "k" * (TARGET_MOST - len("/kv/"))),
        (400, "bad_key"),
    ),
    "a percent sign at the end of a key": (request("GET /kv/a%"), (400, "bad_key")),
    "a percent sign and one digit": (request("GET /kv/a%4"), (400, "bad_key")),
    "a percent sign and letters": (request("GET /kv/a%zz"), (400, "bad_key")),
    "a percent sign and a sign": (request("GET /kv/a%+1"), (400, "bad_key")),
    "a percent sign before the query": (request("GET /kv/a%4?wait=1"), (400, "bad_key")),
}

# ---- chunks: body -> what is stored, or None: 400 and the connection's end ----

CHUNKED = {
    "whole": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "two chunks, one upper case": (b"2\r\nhe\r\nA\r\nllo, world\r\n0\r\n\r\n", b"hello, world"),
    "empty": (b"0\r\n\r\n", b""),
    "leading zeros": (b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "an extension": (b"5;a=b\r\nhello\r\n0;c\r\n\r\n", b"hello"),
    "a quoted extension": (b'5;a="b;\t\xe4"\r\nhello\r\n0\r\n\r\n', b"hello"),
    "trailers": (b"5\r\nhello\r\n0\r\nX: y\r\nZ: 1\r\n\r\n", b"hello"),
    "lengths in trailers": (
        b"5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"hello",
    ),
    "a plus": (b"+5\r\nhello\r\n0\r\n\r\n", None),
    "a minus": (b"-5\r\nhello\r\n0\r\n\r\n", None),
    "0x": (b"0x5\r\nhello\r\n0\r\n\r\n", None),
    "a space before": (b" 5\r\nhello\r\n0\r\n\r\n", None),
    "a space behind": (b"5 \r\nhello\r\n0\r\n\r\n", None),
    "no size": (b"\r\nhello\r\n0\r\n\r\n", None),
    "a semicolon without a size": (b";a\r\nhello\r\n0\r\n\r\n", None),
    "no digits": (b"five\r\nhello\r\n0\r\n\r\n", None),
    "2^64 + 5, 5 when it wraps": (b"10000000000000005\r\nhello\r\n0\r\n\r\n", None),
    "2^64 - 1": (b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", None),
    "2^63": (b"8000000000000000\r\nhello\r\n0\r\n\r\n", None),
    "a thousand zeros": (b"0" * 1000 + b"5\r\nhello\r\n0\r\n\r\n", None),
    "bare LF behind a size": (b"5\nhello\r\n0\r\n\r\n", None),
    "bare CR behind a size": (b"5\rhello\r\n0\r\n\r\n", None),
    "bare LF in an extension": (b"5;a\nhello\r\n0\r\n\r\n", None),
    "bare CR in an extension": (b"5;a\rb\r\nhello\r\n0\r\n\r\n", None),
    "NUL in an extension": (b"5;\0\r\nhello\r\n0\r\n\r\n", None),
    "a long extension": (b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n", None),
    "bare LF behind the data": (b"5\r\nhello\n0\r\n\r\n", None),
    "more data than its size": (b"3\r\nhello\r\n0\r\n\r\n", None),
    "less data than its size": (b"7\r\nhello\r\n0\r\n\r\n", None),
    "a folded trailer": (b"0\r\n X: y\r\n\r\n", None),
    "a trailer folded later": (b"0\r\nX: y\r\n z\r\n\r\n", None),
    "a trailer with a bare LF": (b"0\r\nX: y\n\r\n", None),
    "a trailer with NUL": (b"0\r\nX: \0\r\n\r\n", None),
    "a trailer without a colon": (b"0\r\nX\r\n\r\n", None),
    "a trailer without a name": (b"0\r\n: y\r\n\r\n", None),
    "a slash in a trailer's name": (b"0\r\nX/Y: y\r\n\r\n", None),
    "a space before a trailer's colon": (b"0\r\nX : y\r\n\r\n", None),
    "trailers above 4 KiB": (b"0\r\n" + b"X: y\r\n" * 1000 + b"\r\n", None),
    "bare LF at the end": (b"5\r\nhello\r\n0\r\n\n", None),
}

# ---- a body that looks like a request is a body ----

NO_SECOND_ANSWER = {
    "a value": (put("body", SMUGGLED), [200, 200]),
    "chunks": (chunked(b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n"), [200, 200]),
    "the body of a GET": (
        request("GET /health", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        [200, 200],
    ),
    "the chunks of a GET": (
        chunked(b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n", "GET /health"),
        [200, 200],
    ),
    "the body of a DELETE": (
        request("DELETE /kv/body", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        [200, 200],
    ),
    "a refused body": (
        request("POST /health", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        [405, 200],
    ),
    "refused chunks": (
        chunked(b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n", "POST /no"),
        [404],
    ),
    "a body that a proxy would end at its chunks (CL.TE)": (
        request(
            "PUT /kv/body",
            "Content-Length: 6",
            "Transfer-Encoding: chunked",
            body=b"0\r\n\r\nG" + SMUGGLED,
        ),
        [400],
    ),
    "TE.CL": (
        request(
            "PUT /kv/body",
            "Transfer-Encoding: chunked",
            "Content-Length: 3",
            body=b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n",
        ),
        [400],
    ),
    "behind a chunk that lies about its size": (
        chunked(b"1\r\nx" + SMUGGLED + b"\r\n0\r\n\r\n"),
        [400],
    ),
    "behind a header with a bare LF": (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: y\n\r\n" + SMUGGLED,
        [400],
    ),
    "behind a change of protocol": (
        request(
            "PUT /kv/body",
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            f"Content-Length: {len(SMUGGLED)}",
            body=SMUGGLED,
        ),
        [200, 200],
    ),
    "the body of a CONNECT, which has none for the parser": (
        request("CONNECT /kv/body", f"Content-Length: {len(SMUGGLED_PUT)}", body=SMUGGLED_PUT),
        [405],
    ),
    "the chunks of a CONNECT": (
        chunked(b"%x\r\n" % len(SMUGGLED_PUT) + SMUGGLED_PUT + b"\r\n0\r\n\r\n", "CONNECT /kv/body"),
        [405],
    ),
    "a CONNECT to where there is nothing, its body a request": (
        request("CONNECT /no", f"Content-Length: {len(SMUGGLED_PUT)}", body=SMUGGLED_PUT),
        [404],
    ),
    "a CONNECT that changes the protocol": (
        request(
            "CONNECT /health",
            "Connection: Upgrade",
            "Upgrade: h2c",
            f"Content-Length: {len(SMUGGLED_PUT)}",
            body=SMUGGLED_PUT,
        ),
        [405],
    ),
}


class Framing(HostileCase):
    """Requests that are malformed or too large."""

    settings = {"http.max_value_size": VALUE_MOST}

    def test_malformed_requests_end_the_connection(self):
        self.assertGreaterEqual(len(MALFORMED), 40)
        self.assert_table(MALFORMED, closes=True)
        self.assertIsNone(self.node.get("a"))

    def test_requests_above_the_limits_end_the_connection(self):
        self.assert_table(TOO_MUCH, closes=True)
        self.assertIsNone(self.node.get("a"))

    def test_requests_refused_in_order_keep_the_connection(self):
        self.assert_table(IN_ORDER, closes=False)
        self.assertIsNone(self.node.get("a"))

    def test_405_names_the_methods(self):
        for line in ("BREW /kv/a", "PATCH /kv/a"):
            answer = self.ask(request(line) + AFTER)[0]
            self.assertEqual(answer.status, 405)
            self.assertEqual(
                set(answer.headers["allow"].split(", ")) & {"GET", "HEAD", "PUT", "DELETE"},
                {"GET", "HEAD", "PUT", "DELETE"},
            )

    def test_the_limits_themselves_are_within(self):
        for name, data in {
            "32 KiB of headers": head_of(HEADERS_MOST),
            "100 headers": request("GET /health", *[f"X-{i}: y" for i in range(FIELDS_MOST - 1)]),
            "obs-text in a value": request("GET /health", b"X: \xe4\xff\x80"),
            "an empty line before": b"\r\n" + request("GET /health"),
            "no white space around a value": request("GET /health", "X:y", "Y:", "Z: \t z \t"),
            "every byte of a token": request("GET /health", "!#$%&'*+-.^_`|~09azAZ: y"),
            "a key of 511 bytes": put("k" * KEY_MOST, b"x"),
            "a value of max_value_size": put("most", b"x" * VALUE_MOST),
            "a key with raw UTF-8": request("PUT /kv/ä".encode(), "Content-Length: 0"),
            "identity is no coding": put("plain", b"x", "Content-Encoding: identity"),
        }.items():
            with self.subTest(name):
                statuses = [answer.status for answer in self.ask(data + AFTER)]
                self.assertEqual(len(statuses), 2)
                self.assertIn(statuses[0], (200, 201))
                self.assert_served()
        self.assertEqual(self.node.get("k" * KEY_MOST), b"x")
        self.assertEqual(self.node.get("ä"), b"")

    def test_chunks(self):
        for name, (body, stored) in CHUNKED.items():
            with self.subTest(name):
                self.node.delete("chunked")
                if stored is None:
                    self.assert_refused(chunked(body), *BAD)
                else:
                    statuses = [answer.status for answer in self.ask(chunked(body) + AFTER)]
                    self.assertEqual(statuses, [201, 200])
                self.assertEqual(self.node.get("chunked"), stored)
                self.assert_served()

    def test_a_malformed_chunk_ends_an_import(self):
        line = b'{"key": "imported", "value": "x"}\n'
        body = b"%x\r\n" % len(line) + line + b"\r\n+1\r\n"
        self.assert_refused(chunked(body, "POST /import"), *BAD)

    def test_never_a_second_answer_out_of_a_body(self):
        self.node.put("chunked", b"x")
        for name, (data, statuses) in NO_SECOND_ANSWER.items():
            with self.subTest(name):
                self.node.put("body", b"x")
                answers = self.ask(data + AFTER)
                self.assertEqual([answer.status for answer in answers], statuses)
                self.assertNotIn(b"as ever", b"".join(answer.body for answer in answers))
                self.assertNotEqual(self.node.get("body"), b"smuggled")
                self.assert_served()

    def test_bytes_that_come_one_by_one(self):
        with self.client() as client:
            for byte in put("slowly", b"value") + chunked(CHUNKED["trailers"][0]) + AFTER:
                client.send(bytes([byte]))
            statuses = [answer.status for answer in client.answers()]
        self.assertEqual(statuses[0], 201)
        self.assertIn(statuses[1], (200, 201))
        self.assertEqual(statuses[2:], [200])
        self.assertEqual(self.node.get("slowly"), b"value")


class Connections(HostileCase):
    """Keeping, ending and pipelining of connections that are well-formed."""

    settings = {"http.max_value_size": VALUE_MOST}

    def test_100_pipelined_requests_are_answered_in_order(self):
        requests = []
        for i in range(50):
            requests += [put(f"pipe{i}", b"%d" % i), request(f"GET /kv/pipe{i}")]
        answers = self.ask(b"".join(requests) + AFTER)
        self.assertEqual(len(answers), 101)
        for i in range(50):
            self.assertEqual(answers[2 * i].status, 201)
            self.assertEqual(answers[2 * i + 1].body, b"%d" % i)
        offsets = [json.loads(answer.body)["offset"] for answer in answers[0:100:2]]
        self.assertEqual(offsets, list(range(offsets[0], offsets[0] + 50)))

    def test_1000_pipelined_requests_of_a_client_that_reads_late(self):
        self.node.put("large", b"x" * VALUE_MOST)
        with self.client() as client:
            client.send(request("GET /kv/large") * 1000 + AFTER)
            self.assert_served()
            answers = client.answers()
        self.assertEqual(len(answers), 1001)
        self.assertEqual({len(answer.body) for answer in answers[:-1]}, {VALUE_MOST})

    def test_what_is_pipelined_behind_an_error_is_dropped(self):
        data = request("GET /health") + request("GET /health", host=None) + put("dropped", b"x")
        self.assertEqual([answer.status for answer in self.ask(data + AFTER)], [200, 400])
        self.assertIsNone(self.node.get("dropped"))

    def test_what_is_pipelined_behind_the_last_request_is_dropped(self):
        data = request("GET /health", "Connection: close") + put("dropped", b"x")
        self.assertEqual([answer.status for answer in self.ask(data)], [200])
        self.assertIsNone(self.node.get("dropped"))

    def test_head_is_get_without_a_body(self):
        for path in ("/kv/kept", "/kv/none", "/no", "/health", "/kv", "/replication/status"):
            with self.subTest(path), self.client() as client:
                client.send(request(f"GET {path}") + request(f"HEAD {path}") + AFTER)
                got = client.answer()
                head = client.answer(head_only=True)
                self.assertEqual(head.status, got.status)
                if path != "/replication/status":  # whose numbers change
                    self.assertEqual(head.headers["content-length"], str(len(got.body)))
                self.assertEqual([answer.status for answer in client.answers()], [200])

    def test_not_modified_has_no_body(self):
        forged = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npwned"
        self.node.put("forged", forged)
        with self.client() as client:
            client.send(request("GET /kv/forged", "If-None-Match: *") + request("GET /kv/forged") + AFTER)
            self.assertEqual(client.answer().status, 304)
            self.assertEqual(client.answer().body, forged)
            self.assertEqual([answer.status for answer in client.answers()], [200])

    def test_keep_alive_and_close(self):
        for line, field, kept, says in (
            ("GET /health", "X: y", True, None),
            ("GET /health", "Connection: keep-alive", True, None),
            ("GET /health", "Connection: close", False, "close"),
            ("GET /health", "connection: CLOSE", False, "close"),
            ("GET /health", "Connection: x, close", False, "close"),
            ("GET /health HTTP/1.0", "X: y", False, "close"),
            ("GET /health HTTP/1.0", "Connection: keep-alive", True, "keep-alive"),
        ):
            with self.subTest(f"{line}, {field}"):
                answers = self.ask(request(line, field) + AFTER)
                self.assertEqual(len(answers), 2 if kept else 1)
                self.assertEqual(answers[0].headers.get("connection"), says)

    def test_http_1_0_needs_no_host(self):
        answers = self.ask(b"GET /kv/kept HTTP/1.0\r\n\r\n")
        self.assertEqual([answer.body for answer in answers], [b"as ever"])

    def test_an_export_to_http_1_0_has_no_chunks(self):
        with self.client() as client:
            client.send(b"GET /export?prefix=kept HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            while client._more():
                pass
        head, body = client.pending.split(b"\r\n\r\n", 1)
        self.assertNotIn(b"Transfer-Encoding", head)
        self.assertIn(b"Connection: close", head)
        self.assertEqual(json.loads(body)["key"], "kept")

    def test_expect_100_continue(self):
        expect = "Expect: 100-continue"
        with self.client() as client:
            client.send(request("PUT /kv/expected", "Content-Length: 5", expect))
            self.assertEqual(client.answer().status, 100)
            client.send(b"hello" + AFTER)
            self.assertEqual([answer.status for answer in client.answers()], [201, 200])
        self.assertEqual(self.node.get("expected"), b"hello")

    def test_expect_100_continue_for_a_body_that_is_not_wanted(self):
        for line, field, status, code in (
            ("PUT /kv/a", f"Content-Length: {VALUE_MOST + 1}", 413, "value_too_large"),
            ("PUT /kv/a", "Content-Encoding: gzip", 415, "unsupported_encoding"),
            ("PUT /kv/a?tll=1", "X: y", 400, "bad_parameter"),
            ("PUT /no", "X: y", 404, "no_such_endpoint"),
        ):
            fields = [field, "Expect: 100-continue"]
            if "Length" not in field:
                fields.append("Content-Length: 1")
            with self.subTest(line + field):
                answers = self.ask(request(line, *fields))  # the body never comes
                self.assertEqual(len(answers), 1, answers)
                self.assert_problem_answer(answers[0], status, code)
                self.assertEqual(answers[0].headers["connection"], "close")
                self.assert_served()

    def test_announced_bodies_take_no_room_from_others(self):
        for _ in range(20):
            self.client().send(request("POST /batch", f"Content-Length: {64 << 20}", body=b"{"))
        self.assert_served()
        self.node.put("room", b"x" * VALUE_MOST)
        self.node.batch([{"put": {"key": "room", "value": "y"}}])

    def test_expect_100_continue_with_the_body_at_hand(self):
        answers = self.ask(put("expected2", b"x", "Expect: 100-continue") + AFTER)
        self.assertEqual([answer.status for answer in answers], [201, 200])

    def test_a_client_that_ends_its_side_gets_its_answers(self):
        with self.client() as client:
            client.send(put("half", b"x") + request("GET /kv/half") * 3).end()
            answers = client.answers()
        self.assertEqual([answer.status for answer in answers], [201, 200, 200, 200])

    def test_a_client_that_ends_within_a_request_is_told(self):
        for name, data in {
            "the request line": b"GET /hea",
            "the headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
            "the body": request("PUT /kv/cut", "Content-Length: 10", body=b"half"),
            "no body at all": request("PUT /kv/cut", "Content-Length: 10"),
            "a chunk": chunked(b"5\r\nhel"),
            "the trailers": chunked(b"5\r\nhello\r\n0\r\n"),
            "an import": chunked(b'5\r\n{"key', "POST /import"),
        }.items():
            with self.subTest(name), self.client() as client:
                answers = client.send(data).end().answers()
                self.assertEqual(len(answers), 1, answers)
                self.assert_problem_answer(answers[0], *BAD)
                self.assert_served()
        self.assertIsNone(self.node.get("cut"))
        self.assertIsNone(self.node.get("chunked"))

    def test_a_client_that_ends_between_requests_is_told_nothing(self):
        with self.client() as client:
            self.assertEqual(client.end().answers(), [])
        with self.client() as client:
            client.send(request("GET /health")).end()
            self.assertEqual(len(client.answers()), 1)
        with self.client() as client:  # answered already, what is missing is only read past
            client.send(request("POST /no", "Content-Length: 10", body=b"half")).end()
            self.assertEqual([answer.status for answer in client.answers()], [404])

    def test_clients_that_vanish(self):
        for data in (
            b"",
            b"GET /hea",
            request("PUT /kv/cut", "Content-Length: 10", body=b"half"),
            request("GET /kv/kept"),
            request("GET /kv/kept?wait=1", 'If-None-Match: "1"'),
            put("gone", b"x"),
            chunked(b'20\r\n{"key": "a', "POST /import"),
            request("GET /export"),
            request("GET /health", host=None),
        ):
            for _ in range(3):
                self.client().send(data).reset()
            self.assert_served()
        self.assertIsNone(self.node.get("cut"))


# ---- access ----

# Host -> whether it is served without a token
HOSTS = {
    "localhost": True,
    "LOCALHOST:15474": True,
    "127.0.0.1": True,
    "127.0.0.1:15474": True,
    "10.1.2.3:80": True,
    "[::1]": True,
    "[::1]:15474": True,
    "db-1": True,
    "db-1:15474": True,
    "nexus.example.com": True,  # allowed_hosts
    "Other.Example.com:443": True,
    "evil.example.com": False,
    "nexus.example.com.evil.net": False,
    "xnexus.example.com": False,
    "127.0.0.1.evil.net": False,
    "evil.net:127": False,
    "localhost.": False,
    "[::1": False,
    "[evil.net]": False,
    "[::1].evil.net": False,
    "[::1]evil.net:80": False,
    "localhost:80@evil.net": False,
    "127.0.0.1:abc": False,
    "evil:evil.net": False,
    "localhost:": True,
    "": False,
    "a." * 300: False,
}

# method, Host, Origin -> whether it is let pass
ORIGINS = (
    ("PUT", "localhost", "http://localhost", True),
    ("PUT", "localhost:80", "http://localhost", True),
    ("PUT", "localhost", "https://localhost:443", True),
    ("PUT", "localhost:15474", "http://LOCALHOST:15474", True),
    ("PUT", "localhost:15474", "http://localhost:15475", False),
    ("PUT", "localhost:15474", "http://localhost", False),
    ("PUT", "localhost", "http://evil.net", False),
    ("PUT", "localhost", "http://localhost.evil.net", False),
    ("PUT", "localhost", "null", False),
    ("PUT", "localhost", "", False),
    ("PUT", "localhost", "localhost", False),
    ("DELETE", "localhost", "http://evil.net", False),
    ("OPTIONS", "localhost", "http://evil.net", False),
    ("GET", "localhost", "http://evil.net", True),
    ("HEAD", "localhost", "null", True),
)

# target -> code and a word of the message
QUERIES = {
    "PUT /kv/q?tll=60": ("bad_parameter", "did you mean 'ttl'"),
    "PUT /kv/q?TTL=60": ("bad_parameter", "did you mean 'ttl'"),
    "PUT /kv/q?tt%6C%6C=60": ("bad_parameter", "did you mean 'ttl'"),
    "PUT /kv/q?ttl=1&ttl=1": ("bad_parameter", "twice"),
    "PUT /kv/q?ttl=1&t%74l=1": ("bad_parameter", "twice"),
    "PUT /kv/q?=1": ("bad_parameter", "did you mean"),
    "PUT /kv/q?ttl=%": ("bad_parameter", "%25"),
    "PUT /kv/q?ttl=%4": ("bad_parameter", "%25"),
    "PUT /kv/q?ttl=%4&x": ("bad_parameter", "%25"),
    "PUT /kv/q?%zz=1": ("bad_parameter", "%25"),
    "GET /kv?limits=1": ("bad_parameter", "did you mean 'limit'"),
    "GET /kv?prefx=a": ("bad_parameter", "did you mean 'prefix'"),
    "GET /kv?key_only=1": ("bad_parameter", "did you mean 'keys_only'"),
    "GET /kv?limit=1&limit=2": ("bad_parameter", "twice"),
    "GET /kv?limit=0": ("bad_parameter", "limit"),
    "GET /kv?limit=10001": ("bad_parameter", "limit"),
    "GET /kv?limit=-1": ("bad_parameter", "limit"),
    "GET /kv?limit=+1": ("bad_parameter", "limit"),
    "GET /kv?limit=1e3": ("bad_parameter", "limit"),
    "GET /kv?limit=": ("bad_parameter", "limit"),
    "GET /kv?limit": ("bad_parameter", "limit"),
    "GET /kv?limit=18446744073709551617": ("bad_parameter", "limit"),
    "GET /kv?keys_only=yes": ("bad_parameter", "keys_only"),
    "GET /kv?keys_only=TRUE": ("bad_parameter", "keys_only"),
    "GET /kv?" + "&".join(f"p{i}=1" for i in range(2000)): ("bad_parameter", "Unknown"),
    "GET /kv?" + "x" * 15000: ("bad_parameter", "Unknown"),
    "GET /kv?%00%ff%0a=1": ("bad_parameter", "Unknown"),
    "GET /replication/status?verbose=1": ("bad_parameter", "takes none"),
    "GET /kv/kept?wait=301": ("bad_parameter", "wait"),
    "GET /kv/kept?wait=1": ("bad_parameter", "If-None-Match"),
}


class Access(HostileCase):
    """Who may ask, and what a query may say."""

    settings = {"http.allowed_hosts": "nexus.example.com, other.example.com"}

    def test_host(self):
        for host, allowed in HOSTS.items():
            with self.subTest(host):
                first, last = self.ask(request("GET /kv/kept", host=host) + AFTER)
                self.assertEqual(last.status, 200)
                if allowed:
                    self.assertEqual((first.status, first.body), (200, b"as ever"))
                else:
                    self.assert_problem_answer(first, 403, "cross_origin")
                self.assert_served()

    def test_a_strange_host_may_ask_for_health(self):
        for path in ("/", "/health", "/ready", "/primary", "/replica"):
            first = self.ask(request(f"GET {path}", host="evil.net") + AFTER)[0]
            self.assertNotEqual(first.status, 403, path)

    def test_a_strange_host_may_not_write(self):
        answers = self.ask(
            request("PUT /kv/rebound", "Content-Length: 1", host="evil.net", body=b"x") + AFTER
        )
        self.assertEqual([answer.status for answer in answers], [403, 200])
        self.assertIsNone(self.node.get("rebound"))

    def test_the_unix_socket_asks_for_no_host(self):
        for host in ("evil.net", ""):
            answers = self.ask(request("GET /kv/kept", host=host) + AFTER, self.unix)
            self.assertEqual([answer.status for answer in answers], [200, 200])

    def test_the_unix_socket_is_as_strict(self):
        answers = self.ask(MALFORMED["both lengths"][0] + AFTER, self.unix)
        self.assertEqual([answer.status for answer in answers], [400])
        self.assertEqual(os.stat(self.unix).st_mode & 0o777, 0o600)

    def test_origin(self):
        for method, host, origin, allowed in ORIGINS:
            with self.subTest(f"{method} {host} {origin}"), self.client() as client:
                fields = [f"Origin: {origin}", "Content-Length: 0"]
                client.send(request(f"{method} /kv/origin", *fields, host=host) + AFTER)
                first = client.answer(head_only=method == "HEAD")
                if allowed:
                    self.assertIn(first.status, (200, 201, 404))
                else:
                    self.assert_problem_answer(first, 403, "cross_origin")
                self.assertNotIn("access-control-allow-origin", first.headers)
                self.assertEqual([answer.status for answer in client.answers()], [200])

    def test_two_origins(self):
        fields = ["Origin: http://localhost", "Origin: http://evil.net", "Content-Length: 0"]
        first = self.ask(request("PUT /kv/origin2", *fields) + AFTER)[0]
        self.assert_problem_answer(first, 403, "cross_origin")

    def test_an_unknown_method_is_of_another_site_too(self):
        first = self.ask(request("BREW /kv/a", "Origin: http://evil.net") + AFTER)[0]
        self.assert_problem_answer(first, 403, "cross_origin")

    def test_queries(self):
        for line, (code, words) in QUERIES.items():
            with self.subTest(line[:60]):
                fields = ["Content-Length: 1"] if line.startswith("PUT") else []
                answer = self.assert_refused(
                    request(line, *fields, body=b"x" if fields else b""), 400, code, closes=False
                )
                self.assertIn(words, answer.message)
        self.assertIsNone(self.node.get("q"))

    def test_queries_that_say_the_same(self):
        for query in ("prefix=kept", "&&prefix=kept&", "prefix=%6bept&", "prefix=kept&keys_only=true"):
            answer = self.ask(request(f"GET /kv?{query}") + AFTER)[0]
            self.assertEqual([item["key"] for item in json.loads(answer.body)["items"]], ["kept"])

    def test_plus_is_a_space_in_a_query_alone(self):
        self.node.put("a b", b"space")
        self.node.put("a+b", b"plus")
        answers = self.ask(
            request("GET /kv/a+b")
            + request("GET /kv/a%20b")
            + request("GET /kv?prefix=a+b&keys_only=1")
            + request("GET /kv?prefix=a%2Bb&keys_only=1")
            + AFTER
        )
        self.assertEqual([answer.body for answer in answers[:2]], [b"plus", b"space"])
        keys = [json.loads(answer.body)["items"][0]["key"] for answer in answers[2:4]]
        self.assertEqual(keys, ["a b", "a+b"])
        self.node.delete("a b")
        self.node.delete("a+b")


class Strangers(NexusTestCase):
    def test_without_tokens_none_is_served_but_over_the_unix_socket(self):
        node = self.node(settings={"http.allow_without_token": "none"})
        with RawClient(node.http_port) as client:
            client.send(request("GET /kv/a") + put("a", b"x") + AFTER)
            answers = client.answers()
        self.assertEqual([answer.status for answer in answers], [403, 403, 200])
        self.assertEqual(answers[0].code, "token_required")
        self.assertIsNone(node.unix_client().get("a"))
        node.unix_client().put("a", b"x")


# ---- slow clients, and too many ----

TIMEOUT_MS = 1000
MOST = 12


class Limits(HostileCase):
    """A server that has little patience and few places."""

    settings = {"http.request_timeout_ms": TIMEOUT_MS, "http.max_connections": MOST}

    def assert_408(self, client, least=TIMEOUT_MS / 1000 * 0.8):
        begun = time.monotonic()
        answers = client.answers()
        self.assertEqual(len(answers), 1, answers)
        self.assert_problem_answer(answers[0], 408, "request_timeout")
        self.assertEqual(answers[0].headers["connection"], "close")
        self.assertGreater(time.monotonic() - begun, least)
        self.assert_served()

    def test_silence_within_a_request(self):
        clients = [
            self.client().send(data)
            for data in (
                b"G",
                b"\r",
                b"GET /health HTTP/1.1\r\n",
                b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r",
                request("PUT /kv/slow", "Content-Length: 2"),
                request("PUT /kv/slow", "Content-Length: 2", body=b"x"),
                chunked(b"5\r\nhel", "PUT /kv/slow"),
                chunked(b"5\r\nhello\r\n0\r\nX:", "PUT /kv/slow"),
                chunked(b'9\r\n{"key"', "POST /import"),
            )
        ]
        self.assert_408(clients[0])
        for client in clients[1:]:
            self.assert_408(client, least=0)
        self.assertIsNone(self.node.get("slow"))

    def test_silence_behind_an_answer_that_needs_no_body(self):
        with self.client() as client:
            client.send(request("POST /no", "Content-Length: 10", body=b"half"))
            self.assertEqual([answer.status for answer in client.answers()], [404])

    def test_silence_within_the_second_request(self):
        with self.client() as client:
            client.send(request("GET /health"))
            self.assertEqual(client.answer().status, 200)
            client.send(b"GET /hea")
            self.assert_408(client)

    def test_an_idle_connection_is_kept(self):
        idle, used = self.client(), self.client()
        used.send(request("GET /health"))
        self.assertEqual(used.answer().status, 200)
        self.assert_408(self.client().send(b"G"))  # passes the time
        self.assert_408(self.client().send(b"G"))
        for client in (idle, used):
            client.send(AFTER)
            self.assertEqual([answer.status for answer in client.answers()], [200])

    def drip(self, client, byte, seconds):
        """A byte now and then until the server answers or the time is over."""
        client.sock.settimeout(TIMEOUT_MS / 1000 / 8)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            client.send(byte)
            try:
                client._more()
                break
            except TimeoutError:
                pass
        client.sock.settimeout(PATIENCE)

    def test_dripped_headers_have_the_same_time(self):
        with self.client() as client:
            client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
            self.drip(client, b"x", PATIENCE)
            self.assert_408(client, least=0)
        with self.client() as client:
            client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            self.drip(client, b"X: y\r\n", PATIENCE)
            self.assert_408(client, least=0)

    def test_a_dripped_body_has_all_the_time(self):
        with self.client() as client:
            client.send(request("PUT /kv/dripped", "Content-Length: 1000"))
            self.drip(client, b"x", 2.5 * TIMEOUT_MS / 1000)
            client.send(b"x" * 1000)
            self.assertEqual(client.answer().status, 201)
        self.assertEqual(self.node.get("dripped"), b"x" * 1000)

    def test_a_read_that_waits(self):
        with self.client() as client:
            client.send(request("GET /kv/kept", "Nexus-Min-Offset: 1000000") + AFTER)
            first, last = client.answers()
        self.assert_problem_answer(first, 504, "min_offset_timeout")
        self.assertEqual(last.status, 200)

    def test_one_connection_too_many(self):
        clients = [self.client() for _ in range(MOST)]
        for client in clients:
            client.send(request("GET /health"))
            self.assertEqual(client.answer().status, 200)
        for data in (b"", AFTER, put("over", b"x") + AFTER, b"\0"):
            answers = self.ask(data)
            self.assertEqual(len(answers), 1, answers)
            self.assert_problem_answer(answers[0], 503, "overloaded")
            self.assertEqual(answers[0].headers["connection"], "close")
            self.assertGreater(int(answers[0].headers["retry-after"]), 0)
            self.assert_served()  # over the Unix socket
        for client in clients:  # those that are in stay in
            client.send(request("GET /kv/kept"))
            self.assertEqual(client.answer().body, b"as ever")
        clients[0].sock.close()
        wait_until(lambda: self.ask(AFTER)[0].status == 200, what="a place that has become free")
        self.assertIsNone(self.witness.get("over"))

    def test_connections_that_were_turned_away_take_no_place(self):
        clients = [self.client() for _ in range(MOST)]
        for client in clients:
            client.send(request("GET /health"))
            self.assertEqual(client.answer().status, 200)
        over = [self.client() for _ in range(MOST)]  # and they stay
        for client in over:
            self.assertEqual(client.answer().status, 503)
        for client in clients:
            client.sock.close()
        wait_until(
            lambda: self.ask(AFTER)[0].status == 200, 3, "a place, though others linger"
        )

    def test_a_flood_of_connections(self):
        flood = [self.client() for _ in range(MOST + 300)]
        self.assert_served()
        statuses = []
        for client in flood[MOST:]:
            try:
                statuses += [answer.status for answer in client.answers()]
            except ConnectionResetError:
                pass  # too many even to be told
        self.assertEqual(set(statuses), {503})
        self.assert_served()
        for client in flood:
            client.sock.close()
        wait_until(lambda: self.ask(AFTER)[0].status == 200, what="service after the flood")


LARGE = 15 << 20  # bytes of a value
BUDGET = 256 << 20  # of answers that wait in a worker
DEAF = 40  # clients that would take more than twice that
AHEAD = 12  # requests of one of them


class Unread(HostileCase):
    """Clients that ask for much and don't read it."""

    settings = {"http.max_value_size": LARGE}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.value = os.urandom(LARGE)
        cls.node.put("large", cls.value)
        assert cls.witness.get("large") == cls.value

    def deaf(self):
        """A client that has asked, and whose kernel takes next to nothing for it."""
        client = self.client()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return client.send(request("GET /kv/large"))

    def count_served(self, clients):
        """How many of them get the value; the others must be told that it is too much."""
        served = 0
        for client in clients:
            while b"\r\n" not in client.pending:
                self.assertTrue(client._more(), "an answer's beginning")
            if client.pending.startswith(b"HTTP/1.1 200 "):
                served += 1
            else:
                answer = client.answer()
                self.assert_problem_answer(answer, 503, "overloaded")
                self.assertGreater(int(answer.headers["retry-after"]), 0)
                client.send(AFTER)  # and may go on
                self.assertEqual(client.answer().status, 200)
        return served

    def assert_bounded(self, before, most):
        if not SANITIZED:
            self.assertLess(memory_of(self.pid) - before, most)

    def test_answers_that_nobody_takes(self):
        before = memory_of(self.pid)
        counts = []
        for _ in range(2):  # when they are gone, all of it is free again
            clients = [self.deaf() for _ in range(DEAF)]
            counts.append(self.count_served(clients))
            self.assert_bounded(before, BUDGET + 3 * LARGE)
            self.assert_served()
            self.node.put("small", b"x")
            with self.client() as client:
                client.send(request("HEAD /kv/large"))
                self.assertEqual(client.answer(head_only=True).status, 200)
            for client in clients[::2]:
                client.reset()
            self.end_clients()
            self.assertEqual(self.node.get("large"), self.value)
        # What is on its way in the kernel's buffers doesn't wait here.
        self.assertTrue(all(BUDGET // LARGE <= count < DEAF for count in counts), counts)

    def test_answers_to_requests_that_were_sent_ahead(self):
        before = memory_of(self.pid)
        client = self.client().send(request("GET /kv/large") * AHEAD + AFTER)
        self.assertTrue(client._more())
        self.assert_served()
        self.assert_bounded(before, 5 * LARGE)
        pieces = [client.pending]
        while piece := client.sock.recv(1 << 20):
            pieces.append(piece)
        taken, at = b"".join(pieces), 0
        for _ in range(AHEAD):
            at = taken.index(b"\r\n\r\n", at) + 4
            self.assertEqual(taken[at : at + LARGE], self.value)
            at += LARGE
        self.assertTrue(taken[at:].startswith(b"HTTP/1.1 200 "))


KEYS = 128
PIECE = 64 << 10  # of their values: more than the kernel's buffers take of an export of all

CUT = re.compile("WARN .* an export to 127.0.0.1:[0-9]+ at offset [0-9]+ is cut after [0-9]+ s: .* can't take more")


class SlowExport(HostileCase):
    """Somebody who reads an export for ever, on a node that is written to."""

    settings = {
        "state.map_size": "64MiB",
        "wal.shm_size": "32MiB",
        "wal.segment_size": "1MiB",
        "wal.max_size": "16MiB",
        "wal.fsync": "off",
        "state.checkpoint_interval": "1s",
    }

    def write(self, number):
        status, _, body = self.node.request("PUT", f"/kv/k{number % KEYS}", os.urandom(PIECE))
        if status not in (200, 201):
            self.assertIn((status, json.loads(body)["code"]), ((507, "map_full"), (503, "overloaded")))
        return status in (200, 201)

    def test_writes_go_on(self):
        for number in range(KEYS):
            self.assertTrue(self.write(number))
        slow = self.client()
        slow.send(request("GET /export"))
        self.assertEqual(slow.sock.recv(12), b"HTTP/1.1 200")
        numbers = itertools.count()

        def is_cut():
            slow.sock.recv(4096)
            all(self.write(next(numbers)) for _ in range(16))  # or until one is refused
            return CUT.search(self.node.log())

        wait_until(is_cut, 60, lambda: self.node.describe("the end of the slow export"))
        self.assertFalse(self.ends_whole(slow.sock), "its client takes it for whole")
        for key in range(KEYS):  # all over again
            wait_until(lambda: self.write(key), 30, "a write that is taken")
        self.assertEqual(len(self.node.export().splitlines()), KEYS + 1)
        self.assertEqual(len(CUT.findall(self.node.log())), 1)

    @staticmethod
    def ends_whole(sock):
        end = b""
        try:
            while piece := sock.recv(1 << 20):
                end = (end + piece)[-7:]
        except ConnectionResetError:
            pass
        return end == b"\r\n0\r\n\r\n"


IDLE = 10000
FOR_EACH = 4 << 10  # bytes of the worker's memory that an idle connection may cost


class Idle(HostileCase):
    """As many idle connections as are served by default, and one that works."""

    settings = {"http.max_connections": IDLE + 10}

    def test_ten_thousand_idle_connections(self):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limits[1] < IDLE + 500:
            self.skipTest(f"at most {limits[1]} descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        before = memory_of(self.pid)
        for number in range(IDLE):
            client = self.client()
            if number % 1000 == 0:  # also one that was used and is kept
                client.send(request("GET /health"))
                self.assertEqual(client.answer().status, 200)
                self.assert_served()
        wait_until(lambda: self.count_descriptors() >= IDLE, what="connections that are all taken")
        if not SANITIZED:
            self.assertLess(memory_of(self.pid) - before, IDLE * FOR_EACH)
        self.assertEqual([answer.status for answer in self.ask(put("busy", b"x") + AFTER)], [201, 200])
        self.clients[0].send(request("GET /kv/kept"))
        self.assertEqual(self.clients[0].answer().body, b"as ever")


if __name__ == "__main__":
    unittest.main()
