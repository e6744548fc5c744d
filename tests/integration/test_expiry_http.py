"""Expiry and deletion by prefix as HTTP clients see them: how a key's end is given, shown and changed,
that a key behind it is absent everywhere, and what DELETE /kv?prefix= does.

That the server deletes what has expired, and judges conditions by it, is another file's matter."""
import json
import signal
import socket
import threading
import time
import unittest
from urllib.parse import quote

from nexus_test import HOST, NexusTestCase, Node, key_path, wait_until

MOST_TTL = 3153600000
FAR = 32503680000000  # the year 3000, Unix ms
PAST = 1000  # a second after 1970


def now_ms():
    return int(time.time() * 1000)


class HttpCase(NexusTestCase):
    """One node for the tests of a class."""

    @classmethod
    def setUpClass(cls):
        cls.server = Node()
        cls.addClassCleanup(cls.server.cleanup)
        cls.server.start()

    def ask(self, method, path, body=None, headers=None):
        return self.server.request(method, path, body, headers)

    def refused(self, method, path, code="bad_parameter", status=400, body=None, headers=None):
        """The problem's message."""
        answer = self.ask(method, path, body, headers)
        return self.assert_problem(answer, status, code)["message"]

    def items(self, prefix, **params):
        query = "".join(f"&{name}={value}" for name, value in params.items())
        return self.server.json("GET", f"/kv?prefix={quote(prefix)}{query}")["items"]

    def expires_at(self, key):
        """As GET, HEAD, a 304 and the list tell it, all the same."""
        path = key_path(key)
        _, got, _ = self.ask("GET", path)
        _, head, _ = self.ask("HEAD", path)
        status, unchanged, _ = self.ask("GET", path, headers={"If-None-Match": got["ETag"]})
        self.assertEqual(status, 304)
        found = {answer["Nexus-Expires-At"] for answer in (got, head, unchanged)}
        self.assertEqual(len(found), 1, found)
        text = found.pop()
        listed = next(item for item in self.items(key) if item["key"] == key).get("expires_at")
        self.assertEqual(None if text is None else int(text), listed)
        return listed


class Put(HttpCase):
    def test_a_ttl_becomes_a_moment(self):
        before = now_ms()
        status, headers, body = self.ask("PUT", "/kv/put-ttl?ttl=60", b"v")
        self.assertEqual(status, 201)
        self.assertEqual(headers["ETag"], f'"{json.loads(body)["offset"]}"')
        self.assertEqual(self.server.get("put-ttl"), b"v")
        # A log clock is the wall clock at its start and keeps to another one's pace: some leeway.
        self.assertLess(abs(self.expires_at("put-ttl") - before - 60000), 30000)

    def test_the_value_is_whole_beside_its_expiry(self):
        for length in (0, 1, 511, 4096, 1 << 20):
            for key in ("k", "k" * 511):
                value = bytes(range(256)) * (length // 256 + 1)
                value = value[:length]
                self.server.put(key, value, ttl=MOST_TTL)
                self.assertEqual(self.server.get(key), value)
                self.assertGreater(self.expires_at(key), now_ms())

    def test_a_put_without_ttl_removes_the_expiry(self):
        self.server.put("put-plain", b"1", ttl=60)
        self.assertIsNotNone(self.expires_at("put-plain"))
        self.server.put("put-plain", b"2")
        self.assertIsNone(self.expires_at("put-plain"))

    def test_bad_ttls_are_refused_and_nothing_is_stored(self):
        for ttl in ("0", "-1", "", "1.5", "1e3", "x", "+5", "%205", "0x10", str(MOST_TTL + 1), "9" * 30):
            message = self.refused("PUT", f"/kv/put-bad?ttl={ttl}", body=b"v")
            self.assertIn("'ttl'", message)
            self.assertIn("3153600000", message)
        self.refused("PUT", "/kv/put-bad?ttl", body=b"v")
        self.refused("PUT", "/kv/put-bad?expires_at=5", body=b"v")
        self.assertIsNone(self.server.get("put-bad"))

    def test_conditions_go_with_a_ttl(self):
        offset = self.server.put("put-if", b"1")
        headers = {"If-Match": f'"{offset}"'}
        self.assertEqual(self.ask("PUT", "/kv/put-if?ttl=60", b"2", headers)[0], 200)
        self.refused("PUT", "/kv/put-if?ttl=60", "precondition_failed", 412, b"3", headers)
        self.assertEqual(self.server.get("put-if"), b"2")


class Post(HttpCase):
    """POST /kv/{key}?ttl=S"""

    def test_it_changes_the_expiry_and_keeps_the_value(self):
        first = self.server.put("post", b"value")
        status, headers, body = self.ask("POST", "/kv/post?ttl=6000")
        answer = json.loads(body)
        self.assertEqual((status, answer), (200, {"offset": first + 1}))
        self.assertEqual(headers["ETag"], f'"{first + 1}"')
        self.assertEqual(headers["Nexus-Offset"], str(first + 1))
        self.assertEqual(self.server.get("post"), b"value")
        soon = self.expires_at("post")
        self.assertEqual(self.ask("POST", f"/kv/post?ttl={MOST_TTL}")[0], 200)
        self.assertGreater(self.expires_at("post"), soon)
        self.assertEqual(self.ask("POST", "/kv/post?ttl=0")[0], 200)
        self.assertIsNone(self.expires_at("post"))
        self.assertEqual(self.server.get("post"), b"value")

    def test_an_absent_key_is_not_made(self):
        before = self.server.put("post-other", b"v")
        answer = self.ask("POST", "/kv/post-none?ttl=6000")
        problem = self.assert_problem(answer, 404, "key_not_found")
        self.assertEqual((answer[1]["Nexus-Offset"], problem["offset"]), (str(before), before))
        self.assertIsNone(self.server.get("post-none"))

    def test_conditions_are_judged(self):
        offset = self.server.put("post-if", b"v")
        path = "/kv/post-if?ttl=6000"
        for headers in ({"If-Match": f'"{offset + 1}"'}, {"If-None-Match": f"{offset}"},
                        {"If-None-Match": "*"}):
            problem = self.assert_problem(
                self.ask("POST", path, headers=headers), 412, "precondition_failed")
            self.assertEqual(problem["offset"], offset)
        self.assertIsNone(self.expires_at("post-if"))
        for headers in ({"If-Match": "*"}, {"If-None-Match": "0"}):
            self.assertEqual(self.ask("POST", path, headers=headers)[0], 200)

    def test_without_ttl_it_says_what_it_is_for(self):
        for body in (None, b""):
            message = self.refused("POST", "/kv/post-plain", body=body)
            self.assertIn("PUT", message)
            self.assertIn("ttl=S", message)
            self.assertIn("--data-binary", message)

    def test_a_body_is_refused_so_that_nobody_takes_it_for_stored(self):
        self.server.put("post-body", b"old")
        for path in ("/kv/post-body?ttl=6000", "/kv/post-body", "/kv/post-new?ttl=6000"):
            for body in (b"v", b"v" * 200000, iter([b"v"])):
                message = self.refused("POST", path, body=body)
                self.assertIn("nothing was stored", message)
                self.assertIn("PUT", message)
        self.assertEqual(self.server.get("post-body"), b"old")
        self.assertIsNone(self.expires_at("post-body"))
        self.assertIsNone(self.server.get("post-new"))
        # An empty one is none, in chunks too.
        self.assertEqual(self.ask("POST", "/kv/post-body?ttl=6000", iter([]))[0], 200)

    def test_bad_ttls(self):
        self.server.put("post-bad", b"v")
        for ttl in ("-1", "", "1.5", "x", str(MOST_TTL + 1)):
            self.assertIn("'ttl'", self.refused("POST", f"/kv/post-bad?ttl={ttl}"))
        self.assertIsNone(self.expires_at("post-bad"))
        self.refused("POST", "/kv/?ttl=5", "bad_key")
        self.refused("POST", "/kv/" + "k" * 512 + "?ttl=5", "bad_key")

    def test_options_name_it(self):
        allowed = "GET, HEAD, PUT, POST, DELETE, OPTIONS"
        status, headers, _ = self.ask("OPTIONS", "/kv/k")
        self.assertEqual((status, headers["Allow"]), (204, allowed))
        self.assertEqual(self.ask("PATCH", "/kv/k")[1]["Allow"], allowed)


class Expired(HttpCase):
    """What an item is behind its end: as if it weren't there. `gone` has expired from the start."""

    def setUp(self):
        # Of one entry, so that nothing is deleted between the two.
        self.server.batch([
            {"put": {"key": "e/1", "value": "v"}},
            {"put": {"key": "e/2", "value": "gone", "expires_at": PAST}},
            {"put": {"key": "e/3", "value": "v", "expires_at": FAR}},
            {"put": {"key": "e/4", "value": "gone", "expires_at": now_ms()}},
            {"put": {"key": "e/5", "value": "v", "ttl": MOST_TTL}},
        ])

    def test_get_and_head_are_404(self):
        for key in ("e/2", "e/4"):
            answer = self.ask("GET", key_path(key))
            self.assert_problem(answer, 404, "key_not_found")
            self.assertIsNone(answer[1]["Nexus-Expires-At"])
            self.assertEqual(self.ask("HEAD", key_path(key))[0], 404)
        self.assertEqual(self.server.get("e/3"), b"v")

    def test_conditions_of_a_read_see_an_absent_key(self):
        path = key_path("e/2")
        problem = self.assert_problem(
            self.ask("GET", path, headers={"If-Match": "*"}), 412, "precondition_failed")
        self.assertEqual(problem["offset"], 0)
        self.assertEqual(self.ask("GET", path, headers={"If-None-Match": "*"})[0], 404)
        self.assertEqual(self.ask("GET", path, headers={"If-Match": "0"})[0], 404)

    def test_a_wait_begins_and_ends_with_an_absent_key(self):
        with socket.create_connection((HOST, self.server.http_port), timeout=30) as sock:
            sock.sendall(b"GET /kv/e/2?wait=30 HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: 0\r\n"
                         b"Connection: close\r\n\r\n")
            offset = self.server.put("e/2", b"back")
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.assertIn(f'ETag: "{offset}"\r\n'.encode(), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nback"), answer)

    def test_a_wait_is_told_that_a_key_has_expired(self):
        offset = self.server.json("PUT", "/kv/e/wait?ttl=1", b"v", expect=(200, 201))["offset"]
        wait_until(lambda: self.server.get("e/wait") is None, what="the key's end")
        answer = self.ask("GET", "/kv/e/wait?wait=20", headers={"If-None-Match": f'"{offset}"'})
        self.assert_problem(answer, 404, "key_not_found")

    def test_a_ttl_ends(self):
        self.server.put("e/short", b"v", ttl=1)
        wait_until(lambda: self.server.get("e/short") is None, what="the key's end")
        self.assertNotIn("e/short", [item["key"] for item in self.items("e/")])

    def test_lists_pass_over_it(self):
        self.assertEqual([item["key"] for item in self.items("e/", end="e/6")], ["e/1", "e/3", "e/5"])
        self.assertEqual([item["key"] for item in self.items("e/", limit=2)], ["e/1", "e/3"])
        page = self.server.json("GET", "/kv?prefix=e/&end=e/6&limit=3")
        self.assertEqual((len(page["items"]), page["next"]), (3, None))
        items = self.items("e/", keys_only=1)
        self.assertNotIn("e/2", [item["key"] for item in items])
        self.assertEqual(next(item for item in items if item["key"] == "e/3")["expires_at"], FAR)

    def test_its_bytes_do_not_count_for_a_page(self):
        big = "x" * (1 << 20)
        self.server.batch([{"put": {"key": f"big/{n}", "value": big, "expires_at": PAST}}
                           for n in range(6)])
        self.server.batch([{"put": {"key": f"big/{n}", "value": big}} for n in range(6, 9)])
        page = self.server.json("GET", "/kv?prefix=big/")
        self.assertEqual([item["key"] for item in page["items"]], ["big/6", "big/7", "big/8"])
        self.assertIsNone(page["next"])

    def test_exports_leave_it_out(self):
        lines = [json.loads(line) for line in self.server.export("e/").splitlines()]
        keys = [line["key"] for line in lines if line["key"] < "e/6"]
        self.assertEqual(keys, ["e/1", "e/3", "e/5"])
        self.assertEqual(next(line for line in lines if line["key"] == "e/3")["expires_at"], FAR)
        self.assertNotIn("expires_at", lines[0])

    def test_an_export_of_expired_keys_alone_is_empty_and_whole(self):
        self.server.batch([{"put": {"key": f"all/{n}", "value": "v" * 1000, "expires_at": PAST}}
                           for n in range(1000)])
        self.assertEqual(self.server.export("all/"), b"")

    def test_a_failed_batch_shows_it_as_absent(self):
        offset = self.server.put("e/live", b"v")
        # Without operations the conditions are judged by reading alone.
        body = {"if": [{"key": "e/2", "offset": 1}, {"key": "e/live", "offset": offset},
                       {"key": "e/1", "offset": 10**9}], "ops": []}
        problem = self.assert_problem(
            self.ask("POST", "/batch", json.dumps(body)), 412, "precondition_failed")
        self.assertEqual([(row["key"], row["actual"] == 0) for row in problem["failed"]],
                         [("e/2", True), ("e/1", False)])
        body = {"if": [{"key": "e/2", "offset": 0}, {"key": "e/live", "offset": offset}], "ops": []}
        self.assertEqual(self.ask("POST", "/batch", json.dumps(body))[0], 200)


BAD_NUMBERS = ("0", "-1", "1.0", "1.5", "1e3", '"5"', "null", "true", "[1]", "{}")


class Members(HttpCase):
    """ttl and expires_at in /batch and /import."""

    def test_both_are_taken_by_both(self):
        self.server.batch([{"put": {"key": "m/b1", "value": "v", "ttl": 60}},
                           {"put": {"key": "m/b2", "value": "v", "expires_at": FAR}},
                           {"put": {"key": "m/b3", "value": "v"}}])
        answer = self.server.import_lines(b'{"key":"m/i1","value":"v","ttl":60}\n'
                                          b'{"key":"m/i2","value":"v","expires_at":32503680000000}\n'
                                          b'{"key":"m/i3","value":"v"}\n')
        self.assertEqual(answer["imported"], 3)
        for way in "bi":
            self.assertLess(abs(self.expires_at(f"m/{way}1") - now_ms() - 60000), 30000)
            self.assertEqual(self.expires_at(f"m/{way}2"), FAR)
            self.assertIsNone(self.expires_at(f"m/{way}3"))

    def test_bad_members_are_named_with_their_place(self):
        for member in ("ttl", "expires_at"):
            for number in (*BAD_NUMBERS, "3153600001" if member == "ttl" else "9223372036854775808"):
                put = f'{{"key":"m/bad","value":"v","{member}":{number}}}'
                message = self.refused(
                    "POST", "/batch", "bad_json",
                    body=f'{{"ops":[{{"delete":{{"key":"m/x"}}}},{{"put":{put}}}]}}')
                self.assertIn("ops[1].put", message)
                self.assertIn(f'"{member}"', message)
                problem = self.assert_problem(
                    self.ask("POST", "/import", f'\n{{"key":"m/good","value":"v"}}\n{put}\n'),
                    400, "bad_json")
                self.assertEqual((problem["line"], problem["imported"]), (3, 1))
                self.assertIn("Line 3", problem["message"])
                self.assertIn(f'"{member}"', problem["message"])
        self.assertIsNone(self.server.get("m/bad"))

    def test_not_both_of_them(self):
        put = '{"key":"m/two","value":"v","ttl":60,"expires_at":32503680000000}'
        self.assertIn("ops[0].put", self.refused(
            "POST", "/batch", "bad_json", body=f'{{"ops":[{{"put":{put}}}]}}'))
        self.assertIn("Line 1", self.refused("POST", "/import", "bad_json", body=put))
        self.assertIsNone(self.server.get("m/two"))

    def test_a_delete_takes_neither(self):
        for member in ("ttl", "expires_at"):
            self.refused("POST", "/batch", "bad_json",
                         body=f'{{"ops":[{{"delete":{{"key":"m/d","{member}":5}}}}]}}')
            self.refused("POST", "/import", "bad_json",
                         body=f'{{"key":"m/d","delete":true,"{member}":5}}')

    def test_an_export_comes_back_unchanged(self):
        keys = [b"plain", b"\x00\xff\x80", "ü€".encode(), b'"\\/', b"k" * 500]
        ops = []
        for n, key in enumerate(keys):
            self.server.put(b"round/" + key, bytes([n]) * n, ttl=1000 * n + 1000)
        for n in range(2500):
            ops.append({"put": {"key": f"round/n{n}", "value": f"{n}", "expires_at": FAR + n}})
            ops.append({"put": {"key": f"round/p{n}", "value": f"{n}"}})
        self.server.batch(ops)
        exported = self.server.export("round/")
        self.assertEqual(exported.count(b"\n"), 5000 + len(keys))
        other = self.node()
        answer = other.import_lines(exported)
        self.assertEqual(answer["imported"], 5000 + len(keys))
        self.assertEqual(other.export(), exported)
        self.assertEqual(other.import_lines(exported)["imported"], 5000 + len(keys))
        self.assertEqual(other.export(), exported)

    def test_lines_of_diverged_entries_are_taken(self):
        # As storage/diverged.c writes them.
        lines = (
            b'{"key":"session","value":"1","expires_at":32503680000000}\n'
            b'{"key_base64":"/wA=","value_base64":"gA=="}\n'
            b'{"key":"session","delete":true}\n'
            b'{"key_base64":"/wA=","delete":true}\n'
            b'{"key":"session","value":"2","expires_at":1000}\n')
        self.assertEqual(self.server.import_lines(lines)["imported"], 5)
        self.assertIsNone(self.server.get("session"))
        self.assertIsNone(self.server.get(b"\xff\x00"))


class DeletePrefix(HttpCase):
    """DELETE /kv?prefix="""

    def fill(self, prefix, count):
        ops = [{"put": {"key": f"{prefix}{n:06}", "value": "v"}} for n in range(count)]
        for begin in range(0, count, 10000):
            self.server.batch(ops[begin:begin + 10000])

    def drop(self, prefix, **headers):
        status, answer_headers, body = self.ask("DELETE", f"/kv?prefix={quote(prefix, safe='')}",
                                                headers=headers)
        self.assertEqual(status, 200, body)
        answer = json.loads(body)
        self.assertEqual(sorted(answer), ["deleted", "offset"])
        self.assertEqual(answer_headers["Nexus-Offset"], str(answer["offset"]))
        self.assertIsNone(answer_headers["ETag"])
        return answer

    def count(self, prefix):
        return len(self.server.versions(prefix))

    def offset(self):
        return self.server.status()["wal_offset"]

    def test_nothing_to_delete_makes_no_entry(self):
        self.server.put("d0x", b"v")
        before = self.offset()
        self.assertEqual(self.drop("d0/"), {"deleted": 0, "offset": before})
        self.assertEqual(self.offset(), before)

    def test_one_key(self):
        self.server.put("d1/only", b"v")
        offset = self.server.put("d1", b"stays")
        self.assertEqual(self.drop("d1/"), {"deleted": 1, "offset": offset + 1})
        self.assertIsNone(self.server.get("d1/only"))
        self.assertEqual(self.server.get("d1"), b"stays")

    def test_the_prefix_itself_is_a_key_with_it(self):
        self.server.put("dself", b"v")
        offset = self.server.put("dself2", b"v")
        self.assertEqual(self.drop("dself"), {"deleted": 2, "offset": offset + 1})
        self.assertEqual(self.count("dself"), 0)

    def test_entries_of_up_to_1000_keys(self):
        for count, entries in ((999, 1), (1000, 1), (1001, 2), (2500, 3)):
            self.fill("many/", count)
            self.fill("manx/", 3)
            self.fill("many0", 3)
            before = self.offset()
            self.assertEqual(self.drop("many/"), {"deleted": count, "offset": before + entries})
            self.assertEqual(self.offset(), before + entries)
            self.assertEqual(self.count("many/"), 0)
            self.assertEqual((self.count("manx/"), self.count("many0")), (3, 3))

    def test_more_than_a_page_that_was_merged_into_the_state(self):
        self.fill("merged/", 12000)
        self.server.export("merged/")  # waits for the merge
        self.fill("merged/x", 500)
        self.assertEqual(self.drop("merged/")["deleted"], 12500)
        self.assertEqual(self.server.export("merged/"), b"")

    def test_prefixes_of_any_bytes(self):
        rows = [b"\x00", b"\x00\x00", b"\x00\xff", b"\xfe\xff", b"\xff", b"\xff\xff", b"\xff\xff\x00",
                b"\xff" * 511, b"b\xff", b"b\xff\xff", b"c", "ü".encode()]
        for prefix in (b"\x00", b"\xff", b"\xff\xff", b"\xff" * 511, b"b\xff", b"\xc3"):
            for key in rows:
                self.server.put(key, b"v")
            gone = [key for key in rows if key.startswith(prefix)]
            self.assertEqual(self.drop(prefix)["deleted"], len(gone), prefix)
            for key in rows:
                self.assertEqual(self.server.get(key), None if key in gone else b"v", (prefix, key))

    def test_a_prefix_with_plus_and_space(self):
        self.server.put("a b", b"v")
        self.server.put("a+b", b"v")
        status, _, body = self.ask("DELETE", "/kv?prefix=a+b")
        self.assertEqual((status, json.loads(body)["deleted"]), (200, 1))
        self.assertIsNone(self.server.get("a b"))
        self.assertEqual(self.server.get("a+b"), b"v")

    def test_all_needs_to_be_said(self):
        self.server.put("kept", b"v")
        for query in ("", "?", "?prefix=", "?prefix", "?all=0", "?prefix=&all=false"):
            self.assertIn("all=1", self.refused("DELETE", "/kv" + query))
        self.assertIn("all=1", self.refused("DELETE", "/kv?prefix=k&all=1"))
        self.assertIn("'all'", self.refused("DELETE", "/kv?all=yes"))
        self.assertIn("'prefix'", self.refused("DELETE", "/kv?perfix=k"))
        self.assertIn("longer", self.refused("DELETE", "/kv?prefix=" + "k" * 512))
        self.refused("DELETE", "/kv?prefix=k&prefix=k")
        self.refused("DELETE", "/kv?start=a&end=b")
        for path in ("/kv/", "/kv/?prefix=k", "/kv/?all=1"):
            self.assertIn("/kv?prefix=P", self.refused("DELETE", path, "bad_key"))
        self.assertEqual(self.server.get("kept"), b"v")

    def test_it_takes_no_conditions(self):
        self.server.put("cond/1", b"v")
        for name in ("If-Match", "If-None-Match"):
            self.assertIn("If-Match", self.refused("DELETE", "/kv?prefix=cond/", headers={name: "*"}))
        self.assertEqual(self.count("cond/"), 1)

    def test_it_ends_while_others_write_keys_with_the_prefix(self):
        self.fill("busy/", 5000)
        stop = threading.Event()
        written = [0, 0]

        def write(writer):
            # Always behind what is there, so that a run that went on with them would not end.
            client = self.server.client()
            while not stop.is_set():
                first = written[writer]
                client.batch([{"put": {"key": f"busy/z{writer}{n:09}", "value": "v"}}
                              for n in range(first, first + 500)])
                written[writer] = first + 500

        threads = [threading.Thread(target=write, args=(writer,)) for writer in (0, 1)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: min(written) > 0, what="writes")
            answer = self.drop("busy/")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertGreaterEqual(answer["deleted"], 5000)
        left = self.server.versions("busy/")
        self.assertEqual([key for key in left if not key.startswith("busy/z")], [])
        self.assertEqual(len(left) + answer["deleted"], 5000 + sum(written))
        self.drop("busy/")
        self.assertEqual(self.count("busy/"), 0)

    def test_a_hot_key_is_deleted_or_there_and_nothing_else_is_lost(self):
        self.fill("hot/", 3000)
        stop = threading.Event()

        def write():
            client = self.server.client()
            while not stop.is_set():
                client.put("hot/001500", b"new")

        thread = threading.Thread(target=write)
        thread.start()
        try:
            answer = self.drop("hot/")
        finally:
            stop.set()
            thread.join()
        self.assertIn(answer["deleted"], (2999, 3000))
        self.assertLessEqual(set(self.server.versions("hot/")), {"hot/001500"})

    def test_a_client_that_goes_away_stops_it(self):
        self.fill("away/", 100000)
        # The client ends its side at once; a run of that length can't be over by then.
        answer = self.server.raw_http(b"DELETE /kv?prefix=away/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                      timeout=20, shutdown=True)
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertIn(b" 400 ", head.split(b"\r\n")[0])
        problem = json.loads(body)
        self.assertEqual(problem["code"], "bad_request")
        self.assertEqual(problem["deleted"] + self.count("away/"), 100000)
        self.assertEqual(problem["deleted"] % 1000, 0)
        self.assertIn(f"Nexus-Offset: {problem['offset']}\r\n".encode(), head + b"\r\n")
        before = self.offset()
        self.assertEqual(self.drop("away/")["deleted"], 100000 - problem["deleted"])
        self.assertGreater(self.offset(), before)


class DeleteOnNodesOfTheirOwn(NexusTestCase):
    def test_keys_that_have_expired_are_not_counted(self):
        node = self.node()
        node.batch([{"put": {"key": "exp/1", "value": "v", "expires_at": PAST}},
                    {"put": {"key": "exp/2", "value": "v"}},
                    {"put": {"key": "exp/3", "value": "v", "ttl": 1000}}])
        self.assertEqual(node.json("DELETE", "/kv?prefix=exp/")["deleted"], 2)

    def test_all_keys(self):
        node = self.node()
        self.assertEqual(node.json("DELETE", "/kv?all=1"), {"deleted": 0, "offset": 0})
        keys = [b"\x00", b"a", b"\xff" * 511]
        for key in keys:
            node.put(key, b"v")
        self.assertEqual(node.json("DELETE", "/kv?all=1&prefix="), {"deleted": 3, "offset": 4})
        self.assertEqual(node.json("DELETE", "/kv?all=true"), {"deleted": 0, "offset": 4})
        self.assertEqual(node.export(), b"")

    def test_a_stop_ends_it_after_the_entry_that_is_under_way(self):
        node = self.node()
        count = 200000
        for begin in range(0, count, 10000):
            node.batch([{"put": {"key": f"h/{n:06}", "value": ""}} for n in range(begin, begin + 10000)])
        before = node.status()["wal_offset"]
        answers = []
        client = node.client(timeout=120)
        run = threading.Thread(target=lambda: answers.append(client.request("DELETE", "/kv?prefix=h/")))
        run.start()
        node.wait_offset(before + 3)
        node.stop()
        run.join()
        problem = self.assert_problem(answers[0], 503, "role_change")
        node.start()
        self.assertEqual(node.status()["wal_offset"], problem["offset"])
        self.assertEqual(problem["deleted"], (problem["offset"] - before) * 1000)
        self.assertEqual(len(node.versions("h/")), count - problem["deleted"])


class OverReplicas(NexusTestCase):
    def test_expiries_and_deletes_by_prefix_are_the_same_on_a_replica(self):
        master, replica = self.pair()
        master.put("x", b"v", ttl=1000)
        master.batch([{"put": {"key": f"p/{n}", "value": "v", "expires_at": FAR}} for n in range(1500)])
        offset = master.json("DELETE", "/kv?prefix=p/1")["offset"]
        replica.wait_offset(offset)
        self.assertEqual(replica.export(), master.export())
        ask = lambda node: node.request("GET", "/kv/x")[1]["Nexus-Expires-At"]
        self.assertEqual(ask(replica), ask(master))
        for method, path in (("DELETE", "/kv?prefix=p"), ("POST", "/kv/x?ttl=5")):
            self.assert_problem(replica.request(method, path), 403, "read_only_replica")

    def test_in_sync_mode_each_entry_is_confirmed(self):
        sync = {"replication.mode": "sync", "replication.sync_timeout_ms": "2000"}
        master, replica = self.pair(settings=sync)
        for begin in (0, 1500):
            master.batch([{"put": {"key": f"s/{n:04}", "value": "v"}}
                          for n in range(begin, begin + 1500)])
        status, headers, body = master.request("DELETE", "/kv?prefix=s/")
        self.assertEqual((status, json.loads(body)["deleted"]), (200, 3000))
        self.assertEqual(headers["Nexus-Durability-Achieved"], "2/2")
        master.put("s/1", b"v")
        replica.stop()
        # Nothing can be confirmed: neither that the key is gone nor that there is none.
        for prefix in ("s/", "none/"):
            problem = self.assert_problem(
                master.request("DELETE", f"/kv?prefix={prefix}"), 503, "quorum_unavailable")
            self.assertEqual(problem["deleted"], 0)
        answer = master.json("DELETE", "/kv?prefix=s/", headers={"Nexus-Durability": "local"})
        self.assertEqual(answer["deleted"], 1)

    def test_a_quorum_that_is_lost_half_way_is_told_with_what_was_done(self):
        sync = {"replication.mode": "sync", "replication.sync_timeout_ms": "2000"}
        master, replica = self.pair(settings=sync)
        count = 200000
        for begin in range(0, count, 10000):
            master.batch([{"put": {"key": f"h/{n:06}", "value": ""}} for n in range(begin, begin + 10000)])
        before = master.status()["wal_offset"]
        answers = []
        client = master.client(timeout=120)
        run = threading.Thread(target=lambda: answers.append(client.request("DELETE", "/kv?prefix=h/")))
        run.start()
        master.wait_offset(before + 3)
        replica.kill_child("walreceiver", signal.SIGSTOP)
        run.join()
        replica.kill_child("walreceiver", signal.SIGCONT)
        problem = self.assert_problem(answers[0], 504, "quorum_timeout")
        self.assertGreater(problem["deleted"], 0)
        self.assertEqual(problem["deleted"], (problem["offset"] - before) * 1000)
        self.assertIn(f"{problem['deleted']} keys", problem["message"])
        # The entry behind it stands in the log, and comes to its quorum with the replica.
        self.assertIn(f"/replication/entry/{problem['offset'] + 1}?", problem["check"])
        master.wait_until(lambda: master.json("GET", problem["check"])["state"] == "quorum")
        self.assertEqual(len(master.versions("h/")), count - problem["deleted"] - 1000)
        answer = master.json("DELETE", "/kv?prefix=h/", timeout=120)
        self.assertEqual(answer["deleted"], count - problem["deleted"] - 1000)


if __name__ == "__main__":
    unittest.main()
