# timeout: 240
"""The table of requests about keys, and what holds for every request, row by row: here is what no other
test asks for. Elsewhere:

PUT, POST: ttl              test_expiry_http.py Put, Post; with an epoch: test_promote_http.py Epochs
GET: Nexus-Expires-At       test_expiry_http.py Expired; bad ?wait=: test_http_hostile.py Access.test_queries
DELETE by prefix            test_expiry_http.py DeletePrefix
list: bad parameters        test_http_hostile.py Access.test_queries, test_queries_that_say_the_same
batch, import: expiry       test_expiry_http.py Members; lost quorum: test_sync.py Answers
import: lines that delete   test_diverged.py
export: committed state     test_sync.py Reads; HTTP/1.0: test_http_hostile.py Connections; slow: test_curl.py
framing, limits, 100        test_http_hostile.py Framing, Connections
paths that are refused      test_http_hostile.py Framing (IN_ORDER); queries: Access
408, no total limit         test_http_hostile.py Limits; test_curl.py Streams; test_snapshot_http.py Making
access, Host, Origin, CORS  test_http_hostile.py Access, Strangers; snapshots: test_snapshot_http.py
N@E                         test_promote_http.py Epochs; test_http_history.c
Unix socket                 test_http_hostile.py Access, Limits; test_curl.py; nexus-ctl: test_nexus_ctl.py
Min-Offset, Durability, Read  test_sync.py; 403 and its master: test_guide.py Limits
"""

import base64
import json
import os
import socket
import threading
import unittest
from urllib.parse import quote

from nexus_test import HOST, NexusTestCase, Node, key_path, wait_until

MAX_OPS = 10000
MAX_TAGS = 64
MAX_VALUE = 8 << 20  # http.max_value_size by default
PAGE_BYTES = 4 << 20


def put_op(key, value="v"):
    return {"put": {"key": key, "value": value}}


def raw_request(line, *fields, body=b""):
    """The bytes of a request that ends the connection."""
    head = [line + " HTTP/1.1", "Host: localhost", "Connection: close", *fields]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def raw_answer(answer):
    """status, headers (lower case names), body of raw bytes"""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    return int(line.split(" ")[1]), {name.lower(): headers[name] for name in headers}, body


class TableCase(NexusTestCase):
    """One node for a class; tests have keys of their own, by their own prefix."""

    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.server = Node(settings=cls.settings)
        cls.addClassCleanup(cls.server.cleanup)
        cls.server.start()
        cls.server.put("first", b"")  # so that no other key has version 1
        cls.server.delete("first")

    def ask(self, method, path, body=None, headers=None):
        return self.server.request(method, path, body, headers)

    def refused(self, status, code, method, path, body=None, headers=None):
        return self.assert_problem(self.ask(method, path, body, headers), status, code)

    def offset(self):
        return self.server.status()["wal_offset"]

    def assert_offsets(self, headers, offset, etag=None):
        """Of a read or write that saw, or made, that entry."""
        self.assertEqual((headers["Nexus-Offset"], headers["Nexus-Epoch"]), (str(offset), "1"))
        self.assertEqual(headers["ETag"], None if etag is None else f'"{etag}"')
        self.assertEqual(headers["X-Content-Type-Options"], "nosniff")


class Puts(TableCase):
    def test_a_new_key_is_201_and_an_old_one_200(self):
        for status, value in ((201, b"1"), (200, b"2"), (200, b"")):
            before = self.offset()
            got, headers, body = self.ask("PUT", "/kv/put", value)
            self.assertEqual((got, json.loads(body)), (status, {"offset": before + 1}))
            self.assertEqual(headers["Content-Type"], "application/json")
            self.assert_offsets(headers, before + 1, before + 1)
            self.assertEqual(self.server.get("put"), value)
        self.server.delete("put")
        self.assertEqual(self.ask("PUT", "/kv/put", b"3")[0], 201)

    def test_if_match_in_every_form(self):
        for form in ('"{0}"', "{0}", 'W/"{0}"', ' "{0}" ', '"1", "{0}"', "1,2,{0}", "*",
                     '"abc", "{0}"', ",,{0},"):
            version = self.server.put("match", b"old")
            header = form.format(version)
            status, headers, _ = self.ask("PUT", "/kv/match", b"new", {"If-Match": header})
            self.assertEqual(status, 200, header)
            self.assertEqual(headers["ETag"], f'"{version + 1}"')

    def test_if_match_that_fails_names_the_version(self):
        version = self.server.put("mismatch", b"old")
        for header in (f'"{version + 1}"', f"{version - 1}", "0", '"abc"', "1, 2", '""'):
            problem = self.refused(412, "precondition_failed", "PUT", "/kv/mismatch", b"new",
                                   {"If-Match": header})
            self.assertEqual(problem["offset"], version, header)
        for header in ('"1"', "*"):
            problem = self.refused(412, "precondition_failed", "PUT", "/kv/mismatch-none", b"new",
                                   {"If-Match": header})
            self.assertEqual(problem["offset"], 0, header)
        self.assertEqual(self.server.get("mismatch"), b"old")
        self.assertIsNone(self.server.get("mismatch-none"))

    def test_if_none_match(self):
        version = self.server.put("none", b"old")
        for header in ("*", f'"{version}"', f"0, {version}", f'W/"{version}"'):
            problem = self.refused(412, "precondition_failed", "PUT", "/kv/none", b"new",
                                   {"If-None-Match": header})
            self.assertEqual(problem["offset"], version)
        self.refused(412, "precondition_failed", "PUT", "/kv/none-2", b"new", {"If-None-Match": "0"})
        for key, header in (("none", "0"), ("none-2", "*"), ("none-3", "5"), ("none-4", '"abc"')):
            self.assertIn(self.ask("PUT", f"/kv/{key}", b"new", {"If-None-Match": header})[0], (200, 201))

    def test_both_must_hold(self):
        version = self.server.put("both", b"old")
        both = lambda match, none: {"If-Match": match, "If-None-Match": none}
        for headers in (both("*", f"{version}"), both("1", "1"), both("0", "*")):
            self.refused(412, "precondition_failed", "PUT", "/kv/both", b"new", headers)
        self.assertEqual(self.ask("PUT", "/kv/both", b"new", both(f"{version}", "1"))[0], 200)

    def test_tags_that_are_none(self):
        for name in ("If-Match", "If-None-Match"):
            for header in ("x", "", ",", "-1", "1.5", '"1', "1 2", "5@", "5@0", "5@x", "18446744073709551616",
                           ",".join(["1"] * (MAX_TAGS + 1))):
                for method in ("PUT", "POST", "DELETE", "GET"):
                    path = "/kv/tags?ttl=5" if method == "POST" else "/kv/tags"
                    body = b"v" if method == "PUT" else None
                    self.refused(400, "bad_parameter", method, path, body, {name: header})
            answer = self.server.raw_http(raw_request(
                "PUT /kv/tags", f"{name}: 1", f"{name}: 1", "Content-Length: 1", body=b"v"))
            status, _, body = raw_answer(answer)
            self.assertEqual((status, json.loads(body)["code"]), (400, "bad_parameter"))
        self.assertIsNone(self.server.get("tags"))
        most = ",".join(["0"] * MAX_TAGS)
        self.assertEqual(self.ask("PUT", "/kv/tags", b"v", {"If-Match": most})[0], 201)

    def test_one_of_many_that_agree_on_a_version_wins(self):
        version = self.server.put("race", b"0")
        statuses = []

        def write(n):
            client = self.server.client()
            statuses.append(client.request("PUT", "/kv/race", b"%d" % n, {"If-Match": f"{version}"})[0])

        threads = [threading.Thread(target=write, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(statuses), [200] + [412] * 11)

    def test_the_largest_value_and_key(self):
        value = os.urandom(MAX_VALUE)
        self.server.put(b"\xff" * 511, value)
        self.assertEqual(self.server.get(b"\xff" * 511), value)
        self.refused(413, "value_too_large", "PUT", "/kv/large", value + b"x")
        self.assertIsNone(self.server.get("large"))


class Gets(TableCase):
    def test_the_bytes_and_what_is_known_of_them(self):
        value = bytes(range(256))
        version = self.server.put("get", value)
        later = self.server.put("get-other", b"")
        for method in ("GET", "HEAD"):
            status, headers, body = self.ask(method, "/kv/get")
            self.assertEqual((status, body), (200, value if method == "GET" else b""))
            self.assertEqual(headers["Content-Type"], "application/octet-stream")
            self.assertEqual(headers["Content-Length"], "256")
            self.assert_offsets(headers, later, version)
            self.assertIsNone(headers["Nexus-Expires-At"])
        status, headers, body = self.ask("GET", "/kv/get-other")
        self.assertEqual((status, headers["Content-Length"], body), (200, "0", b""))

    def test_absent(self):
        before = self.server.put("absent-other", b"v")
        answer = self.ask("GET", "/kv/absent")
        self.assertEqual(self.assert_problem(answer, 404, "key_not_found")["offset"], before)
        self.assert_offsets(answer[1], before)
        status, headers, body = self.ask("HEAD", "/kv/absent")
        self.assertEqual((status, body), (404, b""))
        self.assertEqual(headers["Content-Length"], answer[1]["Content-Length"])

    def test_if_none_match(self):
        version = self.server.put("known", b"v")
        for method in ("GET", "HEAD"):
            for header in (f'"{version}"', f"{version}", f'W/"{version}"', f'"1", "{version}"', "*"):
                status, headers, body = self.ask(method, "/kv/known", headers={"If-None-Match": header})
                self.assertEqual((status, body), (304, b""), header)
                self.assertEqual(headers["ETag"], f'"{version}"')
                self.assertIsNone(headers["Content-Type"])
            for header in (f'"{version + 1}"', "0", '"abc"'):
                self.assertEqual(self.ask(method, "/kv/known", headers={"If-None-Match": header})[0], 200)
        self.refused(404, "key_not_found", "GET", "/kv/known-not", headers={"If-None-Match": "*"})

    def test_if_match(self):
        version = self.server.put("meant", b"v")
        for header in (f'"{version}"', "*", f"1,{version}"):
            self.assertEqual(self.ask("GET", "/kv/meant", headers={"If-Match": header})[0], 200)
        answer = self.ask("GET", "/kv/meant", headers={"If-Match": f"{version + 1}"})
        self.assertEqual(self.assert_problem(answer, 412, "precondition_failed")["offset"], version)
        problem = self.refused(412, "precondition_failed", "GET", "/kv/meant-not", headers={"If-Match": "*"})
        self.assertEqual(problem["offset"], 0)

    def waiting(self, key, version, seconds=30):
        """A socket on which a wait for another version has been asked for."""
        sock = socket.create_connection((HOST, self.server.http_port), timeout=60)
        self.addCleanup(sock.close)
        sock.sendall(raw_request(f"GET /kv/{key}?wait={seconds}", f'If-None-Match: "{version}"'))
        return sock

    def end_of(self, sock):
        return raw_answer(b"".join(iter(lambda: sock.recv(65536), b"")))

    def test_a_wait_ends_with_the_next_version(self):
        version = self.server.put("watched", b"1")
        waiters = [self.waiting("watched", version) for _ in range(5)]
        self.server.put("watched-not", b"another key")
        changed = self.server.put("watched", b"2")
        for sock in waiters:
            status, headers, body = self.end_of(sock)
            self.assertEqual((status, headers["etag"], body), (200, f'"{changed}"', b"2"))

    def test_a_wait_ends_with_the_key(self):
        version = self.server.put("watched-end", b"1")
        sock = self.waiting("watched-end", version)
        self.server.delete("watched-end")
        self.assertEqual(self.end_of(sock)[0], 404)

    def test_a_wait_for_a_key_that_comes(self):
        sock = self.waiting("watched-new", 0)
        self.server.put("watched-new", b"here")
        self.assertEqual(self.end_of(sock)[::2], (200, b"here"))

    def test_a_wait_without_a_change_ends_as_it_began(self):
        version = self.server.put("still", b"v")
        status, headers, body = self.ask("GET", "/kv/still?wait=1", headers={"If-None-Match": f"{version}"})
        self.assertEqual((status, headers["ETag"], body), (304, f'"{version}"', b""))
        self.refused(404, "key_not_found", "GET", "/kv/still-not?wait=1", headers={"If-None-Match": "0"})

    def test_another_version_is_answered_at_once(self):
        version = self.server.put("moved", b"v")
        status, _, body = self.ask("GET", "/kv/moved?wait=300", headers={"If-None-Match": f"{version - 1}"})
        self.assertEqual((status, body), (200, b"v"))

    def test_keys_are_taken_as_sent(self):
        typed = {"a//b": b"a//b", "a/../b": b"a/../b", "a/./b": b"a/./b", "a%2F%2fb": b"a//b", "%2e%2e": b"..",
                 "/": b"/", "a+b": b"a+b", "a%2Bb": b"a+b", "%25": b"%", "%00": b"\0", "a%3Fb": b"a?b",
                 "%E4": b"\xe4", "\x7e": b"~", ":@!$&'()*,;=": b":@!$&'()*,;="}
        for path, key in typed.items():
            value = path.encode()
            status, _, body = raw_answer(self.server.raw_http(raw_request(
                f"PUT /kv/{path}", f"Content-Length: {len(value)}", body=value)))
            self.assertIn(status, (200, 201), body)
            self.assertEqual(self.server.get(key), value, path)


class Deletes(TableCase):
    def test_present_and_absent(self):
        version = self.server.put("del", b"v")
        status, headers, body = self.ask("DELETE", "/kv/del")
        self.assertEqual((status, json.loads(body)), (200, {"offset": version + 1, "deleted": True}))
        self.assert_offsets(headers, version + 1)
        self.assertIsNone(self.server.get("del"))
        for _ in range(2):
            status, headers, body = self.ask("DELETE", "/kv/del")
            self.assertEqual((status, json.loads(body)), (200, {"offset": version + 1, "deleted": False}))
            self.assert_offsets(headers, version + 1)

    def test_conditions(self):
        version = self.server.put("del-if", b"v")
        for headers in ({"If-Match": "1"}, {"If-Match": "0"}, {"If-None-Match": "*"},
                        {"If-None-Match": f"{version}"}):
            problem = self.refused(412, "precondition_failed", "DELETE", "/kv/del-if", headers=headers)
            self.assertEqual(problem["offset"], version)
        self.assertTrue(self.server.delete("del-if", {"If-Match": f'"{version}"'})["deleted"])
        for header in ("*", f"{version}"):
            problem = self.refused(412, "precondition_failed", "DELETE", "/kv/del-if",
                                   headers={"If-Match": header})
            self.assertEqual(problem["offset"], 0)
        for headers in ({"If-Match": "0"}, {"If-None-Match": "*"}):
            self.assertFalse(self.server.delete("del-if", headers)["deleted"])


class Lists(TableCase):
    KEYS = sorted([b"l/a", b"l/a\0", b"l/a\0b", b"l/ab", b"l/b", b"l/\xff", b"l/\xff\xff", b"l/A", b"l",
                   b"l/", b"l0", "l/ü".encode()])

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for key in cls.KEYS:
            cls.server.put(key, b"<" + key + b">")

    def page(self, **params):
        query = "&".join(f"{name}={quote(value, safe='') if isinstance(value, (str, bytes)) else value}"
                         for name, value in params.items())
        return self.server.json("GET", "/kv?" + query)

    def keys(self, **params):
        return [self.bytes_of(item, "key") for item in self.page(**params)["items"]]

    def bytes_of(self, item, name):
        if name in item:
            self.assertNotIn(name + "_base64", item)
            return item[name].encode()
        return base64.b64decode(item[name + "_base64"], validate=True)

    def test_items_in_byte_order_with_all_that_is_known(self):
        offset = self.offset()
        for path in ("/kv", "/kv/"):
            status, headers, body = self.ask("GET", path + "?start=l&end=l1")
            self.assertEqual((status, headers["Content-Type"]), (200, "application/json"))
            self.assert_offsets(headers, offset)
            page = json.loads(body)
            self.assertEqual(sorted(page), ["items", "next"])
            self.assertIsNone(page["next"])
            self.assertEqual([self.bytes_of(item, "key") for item in page["items"]], self.KEYS)
            for item in page["items"]:
                key = self.bytes_of(item, "key")
                self.assertEqual(self.bytes_of(item, "value"), b"<" + key + b">")
                self.assertEqual(f'"{item["offset"]}"', self.ask("GET", key_path(key))[1]["ETag"])
                self.assertNotIn("expires_at", item)
        status, headers, nothing = self.ask("HEAD", "/kv?start=l&end=l1")
        self.assertEqual((status, headers["Content-Length"], nothing), (200, str(len(body)), b""))

    def test_start_end_and_prefix(self):
        among = lambda low, high: [key for key in self.KEYS if low <= key < high]
        self.assertEqual(self.keys(start="l/a", end="l/b"), among(b"l/a", b"l/b"))
        self.assertEqual(self.keys(start="l/a"), among(b"l/a", b"m"))
        self.assertEqual(self.keys(end="l/a"), among(b"", b"l/a"))
        self.assertEqual(self.keys(prefix="l/"), [key for key in self.KEYS if key.startswith(b"l/")])
        self.assertEqual(self.keys(prefix=b"l/\xff"), [b"l/\xff", b"l/\xff\xff"])
        self.assertEqual(self.keys(prefix="l/a", start="l/a\0b", end="l/z"), [b"l/a\0b", b"l/ab"])
        self.assertEqual(self.keys(prefix="l/a", start="a", end="z"), among(b"l/a", b"l/b"))
        for empty in ({"start": "l/b", "end": "l/a"}, {"start": "l/a", "end": "l/a"},
                      {"prefix": "l/a", "start": "l/b"}, {"prefix": "l/b", "end": "l/a"}, {"prefix": "zz"}):
            self.assertEqual(self.keys(**empty), [], empty)
        self.assertEqual(self.keys(prefix="", start="", end=""), self.KEYS)

    def test_pages_go_on_behind_their_last_key(self):
        for limit in (1, 2, 3, 11, 12, 13):
            for more in ({}, {"prefix": "l/"}, {"start": "l/A", "end": b"l/\xff\xff"}, {"keys_only": 1}):
                found, cursor = [], {}
                while True:
                    page = self.page(limit=limit, **more, **cursor)
                    self.assertLessEqual(len(page["items"]), limit)
                    found += [self.bytes_of(item, "key") for item in page["items"]]
                    if page["next"] is None:
                        break
                    self.assertEqual(len(page["items"]), limit)
                    cursor = {"cursor": page["next"]}
                self.assertEqual(found, self.keys(**more), (limit, more))

    def test_pages_of_the_longest_keys(self):
        self.addCleanup(self.server.json, "DELETE", "/kv?prefix=kk")
        keys = [b"k" * 511, b"k" * 510 + b"\xff", b"kl"]
        for key in keys:
            self.server.put(key, b"v")
        for merged in (False, True):  # in memory first, then in the state too
            if merged:
                self.server.export("kk")
            found, cursor = [], {}
            while cursor != {"cursor": None}:
                page = self.page(prefix="k", limit=1, **cursor)
                found += [self.bytes_of(item, "key") for item in page["items"]]
                cursor = {"cursor": page["next"]}
            self.assertEqual(found, keys)
        self.server.delete("kl")

    def test_a_cursor_outlives_its_key(self):
        for key in ("gone/1", "gone/2", "gone/3"):
            self.server.put(key, b"v")
        self.addCleanup(self.server.json, "DELETE", "/kv?prefix=gone/")
        cursor = self.page(prefix="gone/", limit=2)["next"]
        self.server.delete("gone/2")
        self.assertEqual(self.keys(prefix="gone/", cursor=cursor), [b"gone/3"])

    def test_bad_parameters(self):
        for query in ("cursor=!", "cursor=", "cursor=A", "cursor=" + "A" * 800, "prefix=" + "k" * 512,
                      "start=" + "k" * 512, "end=" + "k" * 512, "offset=5"):
            self.refused(400, "bad_parameter", "GET", "/kv?" + query)

    def test_100_items_unless_asked_for_more(self):
        self.server.batch([put_op(f"n/{n:05}") for n in range(MAX_OPS)])
        self.addCleanup(self.server.json, "DELETE", "/kv?prefix=n/")
        self.assertEqual(len(self.keys(prefix="n/")), 100)
        page = self.page(prefix="n/", limit=10000)
        self.assertEqual((len(page["items"]), page["next"]), (MAX_OPS, None))

    def test_a_page_ends_behind_4_mib_of_values(self):
        self.addCleanup(self.server.json, "DELETE", "/kv?prefix=v/")
        for n, size in enumerate((PAGE_BYTES - 10, 10, 1, MAX_VALUE, 0)):
            self.server.put(f"v/{n}", b"x" * size)
        pages, cursor = [], {}
        while True:
            page = self.page(prefix="v/", **cursor)
            pages.append([item["key"] for item in page["items"]])
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
        # The one above the bound comes too, alone.
        self.assertEqual(pages, [["v/0", "v/1"], ["v/2"], ["v/3"], ["v/4"]])
        page = self.page(prefix="v/", keys_only=1)
        self.assertEqual((len(page["items"]), page["next"]), (5, None))
        self.assertNotIn("value", page["items"][0])

    def test_a_page_is_one_view(self):
        # The two halves of a pair are always written together, far from each other.
        self.addCleanup(self.server.json, "DELETE", "/kv?prefix=w")
        stop = threading.Event()
        names = [f"w{half}/{n:03}" for half in (1, 2) for n in range(100)]
        write = lambda client, n: client.batch([put_op(name, f"{n}") for name in names])
        write(self.server, 0)

        def writer():
            client, n = self.server.client(), 0
            while not stop.is_set():
                n += 1
                write(client, n)

        thread = threading.Thread(target=writer)
        thread.start()
        try:
            for _ in range(50):
                items = self.page(prefix="w", limit=1000)["items"]
                self.assertEqual(len(items), 200)
                self.assertEqual(len({(item["value"], item["offset"]) for item in items}), 1)
        finally:
            stop.set()
            thread.join()


class Batches(TableCase):
    def batch(self, ops, conditions=None):
        body = {"ops": ops} if conditions is None else {"if": conditions, "ops": ops}
        return self.ask("POST", "/batch", json.dumps(body))

    def bad(self, text, code="bad_json", status=400):
        before = self.offset()
        message = self.refused(status, code, "POST", "/batch", text)["message"]
        self.assertIn("Nothing was written", message)
        self.assertEqual(self.offset(), before)
        return message

    def test_all_in_one_entry_in_order(self):
        self.server.put("b/old", b"v")
        before = self.offset()
        status, headers, body = self.batch(
            [put_op("b/1", "first"), {"delete": {"key": "b/old"}}, {"delete": {"key": "b/never"}},
             put_op("b/1", "second"), put_op("b/2"), {"delete": {"key": "b/2"}}, {"delete": {"key": "b/2"}},
             {"delete": {"key": "b/3"}}, put_op("b/3", "there")])
        # Deletes that hit: b/old, and b/2 once.
        self.assertEqual((status, json.loads(body)), (200, {"offset": before + 1, "puts": 4, "deletes": 2}))
        self.assert_offsets(headers, before + 1)
        self.assertEqual(self.server.get("b/1"), b"second")
        self.assertEqual(self.server.get("b/3"), b"there")
        self.assertEqual([self.server.get(key) for key in ("b/old", "b/2")], [None, None])
        self.assertEqual(self.server.versions("b/"), {"b/1": before + 1, "b/3": before + 1})
        self.assertEqual(self.offset(), before + 1)

    def test_nothing_to_do_is_no_entry(self):
        before = self.server.put("b/other", b"v")
        for ops in ([], [{"delete": {"key": "b/none"}}, {"delete": {"key": "b/none"}}]):
            answer = self.batch(ops)
            self.assertEqual((answer[0], json.loads(answer[2])),
                             (200, {"offset": before, "puts": 0, "deletes": 0}))
        self.assertEqual(self.offset(), before)

    def test_conditions_that_hold(self):
        one, two = self.server.put("c/1", b"v"), self.server.put(b"c/\xff", b"v")
        answer = self.batch([put_op("c/1", "new")],
                            [{"key": "c/1", "offset": one}, {"key_base64": "Yy//", "offset": f"{two}@1"},
                             {"key": "c/none", "offset": 0}])
        self.assertEqual(answer[0], 200, answer[2])
        self.assertEqual(self.server.get("c/1"), b"new")

    def test_every_condition_that_fails_is_named_and_nothing_is_written(self):
        one, two = self.server.put("f/1", b"v"), self.server.put(b"f/\xff", b"v")
        before = self.offset()
        conditions = [{"key": "f/1", "offset": one}, {"key_base64": "Zi//", "offset": 1},
                      {"key": "f/none", "offset": one}, {"key": "f/1", "offset": 0}]
        for ops in ([put_op("f/new")], []):
            answer = self.batch(ops, conditions)
            problem = self.assert_problem(answer, 412, "precondition_failed")
            self.assertEqual(problem["failed"], [
                {"key_base64": "Zi//", "expected": 1, "actual": two},
                {"key": "f/none", "expected": one, "actual": 0},
                {"key": "f/1", "expected": 0, "actual": one}])
            self.assert_offsets(answer[1], before)
        self.assertIsNone(self.server.get("f/new"))
        self.assertEqual(self.offset(), before)

    def test_members(self):
        put = '{"key":"m","value":"v"}'
        for text, place in (
            ("", ""), ("null", ""), ("[]", ""), ('{"ops":[]', ""), ('{"ops":[]} x', ""), ("{}", '"ops"'),
            ('{"ops":{}}', '"ops"'), ('{"ops":[],"if":{}}', '"if"'), ('{"ops":[],"fi":[]}', '"fi"'),
            ('{"ops":[],"ops":[]}', '"ops"'), ('{"ops":[{}]}', "ops[0]"), ('{"ops":["put"]}', "ops[0]"),
            (f'{{"ops":[{{"put":{put}}},{{"putt":{put}}}]}}', "ops[1]"),
            (f'{{"ops":[{{"put":{put},"delete":{{"key":"m"}}}}]}}', "ops[0]"),
            ('{"ops":[{"put":{"key":"m","value":"v","vaule":"v"}}]}', "ops[0].put"),
            ('{"ops":[{"put":{"key":"m","key":"m","value":"v"}}]}', '"key"'),
            ('{"ops":[{"put":{"key":"m"}}]}', "ops[0].put"), ('{"ops":[{"put":{"value":"m"}}]}', "ops[0].put"),
            ('{"ops":[{"put":{"key":5,"value":"v"}}]}', "ops[0].put"),
            ('{"ops":[{"put":{"key":"m","value":"v","value_base64":"dg=="}}]}', "ops[0].put"),
            ('{"ops":[{"put":{"key":"m","key_base64":"bQ==","value":"v"}}]}', "ops[0].put"),
            ('{"ops":[{"put":{"key":"m","value_base64":"?"}}]}', "ops[0].put"),
            ('{"ops":[{"delete":{"key":"m","value":"v"}}]}', "ops[0].delete"),
            ('{"ops":[{"delete":"m"}]}', "ops[0].delete"),
            ('{"if":[{"key":"m"}],"ops":[]}', "if[0]"), ('{"if":[{"offset":1}],"ops":[]}', "if[0]"),
            ('{"if":[{"key":"m","offset":-1}],"ops":[]}', "if[0]"),
            ('{"if":[{"key":"m","offset":1.5}],"ops":[]}', "if[0]"),
            ('{"if":[{"key":"m","offset":"1@"}],"ops":[]}', "if[0]"),
            ('{"if":[{"key":"m","offset":1,"value":"v"}],"ops":[]}', "if[0]"),
        ):
            self.assertIn(place, self.bad(text), text)
        self.assertIn("UTF-8", self.bad(b'{"ops":[{"put":{"key":"\xff","value":"v"}}]}'))
        for key in ("", "k" * 512):
            self.assertIn("ops[0]", self.bad(json.dumps({"ops": [put_op(key)]}), "bad_key"))
        self.assertIsNone(self.server.get("m"))

    def test_bytes_in_either_form(self):
        # Padding may be left out; NUL and the like may stand in plain text.
        text = ('{"ops":[{"put":{"key_base64":"/w","value_base64":"AP8"}},'
                '{"put":{"key":"nul\\u0000","value":"\\ud83d\\ude00"}},'
                '{"put":{"key_base64":"Yg==","value_base64":""}}]}')
        self.assertEqual(self.ask("POST", "/batch", text)[0], 200)
        self.assertEqual(self.server.get(b"\xff"), b"\x00\xff")
        self.assertEqual(self.server.get(b"nul\0"), "😀".encode())
        self.assertEqual(self.server.get(b"b"), b"")
        self.assertEqual(self.server.delete(b"\xff")["deleted"], True)

    def test_how_much_a_batch_holds(self):
        most = [put_op(f"most/{n}") for n in range(MAX_OPS)]
        answer = self.batch(most, [{"key": f"most/{n}", "offset": 0} for n in range(MAX_OPS)])
        self.assertEqual((answer[0], json.loads(answer[2])["puts"]), (200, MAX_OPS))
        self.assertIn("ops", self.bad(json.dumps({"ops": [*most, put_op("more")]}), "batch_too_large", 413))
        conditions = [{"key": "x", "offset": 0}] * (MAX_OPS + 1)
        self.assertIn("if", self.bad(json.dumps({"if": conditions, "ops": []}), "batch_too_large", 413))
        # 16 MiB decoded: two values of 8 MiB are above it with their keys.
        value = "x" * (MAX_VALUE - 100)
        self.assertEqual(self.batch([put_op("big/1", value), put_op("big/2", value)])[0], 200)
        value = "x" * MAX_VALUE
        self.assertIn("ops[1]", self.bad(json.dumps({"ops": [put_op("big/3", value), put_op("big/4", value)]}),
                                         "batch_too_large", 413))
        self.assertIn("ops[0].put", self.bad(json.dumps({"ops": [put_op("big/5", value + "x")]}),
                                             "value_too_large", 413))


class Imports(TableCase):
    def load(self, lines):
        status, headers, body = self.ask("POST", "/import", lines)
        answer = json.loads(body)
        self.assertEqual(status, 200, body)
        self.assert_offsets(headers, answer["offset"])
        return answer

    def line(self, key, value="v"):
        return json.dumps({"key": key, "value": value}).encode() + b"\n"

    def test_lines_become_entries(self):
        for prefix, count, entries in (("i0/", 0, 0), ("i1/", 1, 1), ("i2/", 1000, 1), ("i3/", 1001, 2),
                                       ("i4/", 2500, 3)):
            before = self.offset()
            answer = self.load(b"".join(self.line(f"{prefix}{n}") for n in range(count)))
            self.assertEqual(answer, {"imported": count, "entries": entries, "offset": before + entries})
            self.assertEqual(len(self.server.versions(prefix)), count)

    def test_an_entry_ends_at_1_mib(self):
        before = self.offset()
        answer = self.load(b"".join(self.line(f"m/{n}", "x" * 500000) for n in range(5)))
        self.assertEqual(answer, {"imported": 5, "entries": 3, "offset": before + 3})
        answer = self.load(self.line("m/5", "x" * (3 << 20)) + self.line("m/6"))
        self.assertEqual(answer, {"imported": 2, "entries": 2, "offset": before + 5})

    def test_blank_lines_and_crlf(self):
        text = (b"\n\r\n  \t\n" + self.line("n/1").replace(b"\n", b"\r\n") + b"\n" + self.line("n/2")
                + b"\r\n" + self.line("n/3").rstrip(b"\n"))
        self.assertEqual(self.load(text)["imported"], 3)
        self.assertEqual(sorted(self.server.versions("n/")), ["n/1", "n/2", "n/3"])
        for nothing in (b"", b"\n\n", b" \r\n"):
            before = self.offset()
            self.assertEqual(self.load(nothing), {"imported": 0, "entries": 0, "offset": before})

    def test_a_bad_line_stops_it(self):
        good = [self.line(f"s/{n}") for n in range(1500)]
        for bad, code, status in (
            (b"nonsense\n", "bad_json", 400), (b"[]\n", "bad_json", 400), (b'{"key":"x"}\n', "bad_json", 400),
            (b'{"key":"x","value":"v","valeu":"v"}\n', "bad_json", 400),
            (b'{"key":"x","key":"x","value":"v"}\n', "bad_json", 400),
            (b'{"key":"\xff","value":"v"}\n', "bad_json", 400), (b'{"key":"","value":"v"}\n', "bad_key", 400),
            (self.line("x") + self.line("x", "x" * (MAX_VALUE + 1)), "value_too_large", 413),
        ):
            before = self.offset()
            more = bad.count(b"\n") - 1  # good ones that stand before it
            text = b"\n" + b"".join(good) + bad + self.line("s/behind")
            answer = self.ask("POST", "/import", text)
            problem = self.assert_problem(answer, status, code)
            self.assertEqual(
                (problem["line"], problem["imported"], problem["entries"], problem["offset"]),
                (1502 + more, 1500 + more, 2, before + 2))
            self.assertIn("Nexus-Offset", answer[1])
            self.assertIsNone(self.server.get("s/behind"))
            self.server.json("DELETE", "/kv?prefix=s/")

    def test_a_line_that_comes_in_pieces(self):
        line = self.line("pieces", "ü" * 1000)
        self.assertEqual(self.load(line[n:n + 1] for n in range(len(line)))["imported"], 1)
        self.assertEqual(self.server.get("pieces"), ("ü" * 1000).encode())

    def test_content_type_is_ignored(self):
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for headers in (form, {"Content-Type": "text/plain; charset=latin-1"}, {"Content-Type": "nonsense"}):
            self.assertEqual(self.ask("POST", "/import", self.line("type"), headers)[0], 200)
            self.assertEqual(self.ask("POST", "/batch", json.dumps({"ops": [put_op("type")]}), headers)[0], 200)
            self.assertEqual(self.ask("PUT", "/kv/type", b"a=b&c=%20", headers)[0], 200)
            self.assertEqual(self.server.get("type"), b"a=b&c=%20")


class Exports(TableCase):
    def test_lines_in_byte_order(self):
        keys = [b"e/", b"e/\0", b"e/a", "e/ü".encode(), b"e/\xff", b"e/\xff\xff"]
        for key in reversed(keys):
            self.server.put(key, key + b"\xfe" if key == b"e/a" else key)
        offset = self.server.put("f", b"v")
        status, headers, body = self.ask("GET", "/export?prefix=e/")
        self.assertEqual((status, headers["Content-Type"]), (200, "application/x-ndjson"))
        self.assert_offsets(headers, offset)
        rows = [json.loads(line) for line in body.splitlines()]
        self.assertEqual([row["key"].encode() if "key" in row else base64.b64decode(row["key_base64"])
                          for row in rows], keys)
        self.assertEqual(rows[2], {"key": "e/a", "value_base64": base64.b64encode(b"e/a\xfe").decode()})
        self.assertEqual(rows[1], {"key": "e/\0", "value": "e/\0"})
        self.assertEqual(self.server.export("e/\0"), b'{"key":"e/\\u0000","value":"e/\\u0000"}\n')
        self.assertEqual(self.server.export("none"), b"")
        status, headers, body = self.ask("HEAD", "/export")
        self.assertEqual((status, body, headers["Nexus-Offset"]), (200, b"", str(offset)))
        self.refused(400, "bad_parameter", "GET", "/export?prefix=" + "k" * 512)
        self.refused(400, "bad_parameter", "GET", "/export", headers={"Nexus-Read": "local"})

    def begin(self):
        """An export that has begun and of which nothing more is taken; its socket."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.addCleanup(sock.close)
        sock.settimeout(30)
        sock.connect((HOST, self.server.http_port))
        sock.sendall(raw_request("GET /export?prefix=large/"))
        self.assertTrue(sock.recv(12, socket.MSG_WAITALL).startswith(b"HTTP/1.1 200"))
        return sock

    def fill(self):
        """More than sockets hold."""
        for n in range(24):
            self.server.put(f"large/{n:02}", b"x" * (1 << 20))

    def test_an_export_is_one_view(self):
        self.fill()
        sock = self.begin()
        for n in range(24):
            self.server.put(f"large/{n:02}", b"y")
        self.server.json("DELETE", "/kv?prefix=large/1")
        rest = b"".join(iter(lambda: sock.recv(1 << 20), b""))
        self.assertEqual(rest.count(b'"value":"x'), 24)
        self.assertNotIn(b'"y"', rest)
        self.assertTrue(rest.endswith(b"\r\n0\r\n\r\n"))

    def test_four_at_a_time(self):
        self.fill()
        socks = [self.begin() for _ in range(4)]
        answer = self.ask("GET", "/export")
        self.assert_problem(answer, 429, "too_many_requests")
        for sock in socks:
            sock.close()
        wait_until(lambda: self.ask("GET", "/export?prefix=none")[0] == 200, what="a place for an export")

    def test_a_cut_one_lacks_the_final_chunk(self):
        self.fill()
        sock = self.begin()
        pids = self.server.pids("http")
        for index, pid in enumerate(pids):
            self.server.kill_child("http", index=self.server.pids("http").index(pid))
            self.server.wait_until(lambda: len(self.server.pids("http")) == len(pids), what=f"worker {index}")
        got = bytearray()
        try:
            while piece := sock.recv(1 << 20):
                got += piece
        except ConnectionResetError:
            pass
        self.assertLess(len(got), 24 << 20)
        self.assertFalse(got.endswith(b"\r\n0\r\n\r\n"))


class EveryRequest(TableCase):
    def test_problems_have_one_shape(self):
        members = {"status", "title", "code", "success", "message"}
        for method, path, body, more in (
            ("GET", "/kv/none", None, {"offset", "epoch"}),
            ("GET", "/none", None, set()),
            ("PATCH", "/kv/k", None, set()),
            ("PUT", "/kv/k?tll=5", b"v", set()),
            ("PUT", "/kv/%zz", b"v", set()),
            ("POST", "/batch", b"x", set()),
            ("POST", "/import", b"x", {"offset", "epoch", "line", "imported", "entries"}),
            ("GET", "/replication/replicas", None, set()),
            ("GET", "/kv?cursor=x", None, set()),
        ):
            status, headers, content = self.ask(method, path, body)
            problem = json.loads(content)
            self.assertEqual(set(problem), members | more, path)
            self.assertEqual((problem["status"], problem["success"]), (status, False))
            self.assertEqual(headers["Content-Type"], "application/problem+json")
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(status == 405, headers["Allow"] is not None)

    def test_options_elsewhere(self):
        for path, allowed in (("/kv", "GET, HEAD, DELETE, OPTIONS"), ("/kv/", "GET, HEAD, OPTIONS"),
                              ("/batch", "POST, OPTIONS"), ("/import", "POST, OPTIONS"),
                              ("/export", "GET, HEAD, OPTIONS")):
            status, headers, body = self.ask("OPTIONS", path)
            self.assertEqual((status, headers["Allow"], body), (204, allowed, b""))
            self.assertEqual(self.ask("PATCH", path)[1]["Allow"], allowed)
        self.refused(404, "no_such_endpoint", "OPTIONS", "/none")

    def test_every_endpoint_is_listed(self):
        rows = {(row["method"], row["path"]) for row in self.server.json("GET", "/")["endpoints"]}
        for row in (("PUT", "/kv/{key}"), ("POST", "/kv/{key}"), ("DELETE", "/kv/{key}"), ("DELETE", "/kv"),
                    ("GET", "/kv[/]"), ("POST", "/batch"), ("POST", "/import"), ("GET", "/export")):
            self.assertIn(row, rows)

    def test_no_headers_for_other_sites(self):
        for method, path in (("GET", "/kv/none"), ("OPTIONS", "/kv/k"), ("GET", "/health")):
            headers = self.ask(method, path, headers={"Origin": f"http://{self.server.addr}"})[1]
            self.assertEqual([name for name in headers if name.lower().startswith("access-control")], [])


if __name__ == "__main__":
    unittest.main()
