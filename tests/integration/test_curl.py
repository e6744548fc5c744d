"""curl's habits against a real node: what a person types works, or is refused with a sentence that says
what to type instead, and bytes stay what they were."""

import json
import os
import subprocess
import tempfile
import unittest

from nexus_test import Node, NexusTestCase

BYTES = bytes(range(256)) * 20  # NUL, CR, LF, '@', '%', '&', all of them
LARGE = os.urandom(3 << 20)  # above what curl sends without asking
LIMIT = 120  # seconds for one call


class Call:
    """What a call of curl came to; its options are those of a person without a ~/.curlrc or proxy."""

    def __init__(self, *arguments, stdin=b"", cwd=None):
        done = subprocess.run(
            ["curl", "-q", "-sS", "--noproxy", "*", *arguments],
            input=stdin,
            capture_output=True,
            timeout=LIMIT,
            cwd=cwd,
            check=False,
        )
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr.decode("utf-8", "replace")

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"curl: {self.code}, {self.out[:500]!r}, {self.err}"


class CurlCase(NexusTestCase):
    settings = {}

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="nexus-curl-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.server = Node(settings=cls.settings)
        cls.addClassCleanup(cls.server.cleanup)
        cls.server.start()
        cls.url = f"http://{cls.server.addr}"

    def curl(self, *arguments, stdin=b""):
        """Every / at the beginning of an argument is a path on the node."""
        return Call(*[self.url + part if part.startswith("/kv") or part.startswith("/re") or part in
                      ("/batch", "/import", "/export") else part for part in arguments],
                    stdin=stdin, cwd=self.folder)

    def file(self, name, content):
        """A file in curl's directory; its name."""
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(content)
        return name

    def content(self, name):
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read()

    def done(self, *arguments, stdin=b""):
        """A call that succeeds, by curl -f."""
        call = self.curl("-f", *arguments, stdin=stdin)
        self.assertEqual(call.code, 0, call)
        return call

    def refused(self, status, code, *arguments, stdin=b""):
        """The message of a problem, which is all that curl prints without further options."""
        call = self.curl(*arguments, "-w", "\n%{http_code}", stdin=stdin)
        self.assertEqual(call.code, 0, call)
        body, _, got = call.out.rpartition(b"\n")
        problem = json.loads(body)
        self.assertEqual((int(got), problem["code"]), (status, code), call)
        return problem["message"]


class Values(CurlCase):
    def test_d_with_put_stores_what_it_says(self):
        self.done("-X", "PUT", "-d", "a=b&c", "/kv/d")
        self.assertEqual(self.done("/kv/d").out, b"a=b&c")

    def test_d_alone_is_a_post_and_says_what_to_type(self):
        for path in ("/kv/posted", "/kv/posted?ttl=60"):
            for value in ("value", "x" * 100000):
                message = self.refused(400, "bad_parameter", "-d", value, path)
                self.assertIn("nothing was stored", message)
                self.assertIn("-X PUT --data-binary", message)
                self.assertIn("-T FILE", message)
        self.assertIn("ttl=S", self.refused(400, "bad_parameter", "-d", "", "/kv/posted"))
        self.refused(404, "key_not_found", "/kv/posted")
        for method in ([], ["-X", "PUT"]):
            message = self.refused(405, "method_not_allowed", *method, "-d", "value", "/kv")
            self.assertIn("PUT /kv/{key}", message)

    def test_post_of_a_ttl(self):
        self.done("-X", "PUT", "-d", "v", "/kv/touched")
        for body in ([], ["-d", ""]):
            self.done("-X", "POST", *body, "/kv/touched?ttl=1000")
        self.assertIn(b"Nexus-Expires-At: ", self.done("-i", "/kv/touched").out)

    def test_t_file_is_a_put_of_its_bytes(self):
        name = self.file("a file", BYTES)
        self.done("-T", name, "/kv/uploaded")
        self.assertEqual(self.done("/kv/uploaded").out, BYTES)
        self.done("-T", name, "/kv/uploaded?ttl=1000")
        self.assertEqual(self.done("/kv/uploaded").out, BYTES)

    def test_t_to_a_folder_takes_the_names_of_the_files(self):
        self.file("one.txt", b"1")
        self.file("two.txt", b"2")
        self.done("-T", "{one.txt,two.txt}", "/kv/")
        self.assertEqual(self.done("/kv/one.txt").out + self.done("/kv/two.txt").out, b"12")

    def test_t_from_a_pipe_comes_in_chunks(self):
        for content in (b"", b"x", BYTES, LARGE):
            call = self.done("-v", "-T", "-", "/kv/piped", stdin=content)
            self.assertIn("Transfer-Encoding: chunked", call.err)
            self.assertEqual(self.done("/kv/piped").out, content)

    def test_data_binary_keeps_every_byte_and_d_does_not(self):
        name = self.file("binary", BYTES)
        self.done("-X", "PUT", "--data-binary", "@" + name, "/kv/binary")
        self.assertEqual(self.done("/kv/binary").out, BYTES)
        # curl's own doing, so that nobody looks for it here: -d leaves out line ends.
        self.done("-X", "PUT", "-d", "@" + self.file("lines", b"1\r\n2\n"), "/kv/binary")
        self.assertEqual(self.done("/kv/binary").out, b"12")

    def test_data_binary_from_a_pipe(self):
        self.done("-X", "PUT", "--data-binary", "@-", "/kv/binary", stdin=BYTES)
        self.assertEqual(self.done("/kv/binary").out, BYTES)

    def test_a_large_body_is_asked_for(self):
        name = self.file("large", LARGE)
        for way in (["-T", name], ["-X", "PUT", "--data-binary", "@" + name]):
            call = self.done("-v", "--expect100-timeout", "60", *way, "/kv/large")
            self.assertIn("> Expect: 100-continue", call.err)
            self.assertIn("< HTTP/1.1 100 Continue", call.err)
            self.assertEqual(self.done("/kv/large").out, LARGE)

    def test_a_large_body_without_asking(self):
        name = self.file("large", LARGE)
        call = self.done("-v", "-H", "Expect:", "-T", name, "/kv/unasked")
        self.assertNotIn("100 Continue", call.err)
        self.assertEqual(self.done("/kv/unasked").out, LARGE)

    def test_a_body_that_is_too_large_is_not_sent(self):
        name = self.file("too large", b"x" * (17 << 20))
        call = self.curl("-T", name, "--expect100-timeout", "60", "-o", "problem",
                         "-w", "%{http_code} %{size_upload}", "/kv/no")
        self.assertEqual((call.code, call.out), (0, b"413 0"), call)
        self.assertEqual(json.loads(self.content("problem"))["code"], "value_too_large")
        # Nor is its client left without the answer when it doesn't ask.
        self.refused(413, "value_too_large", "-H", "Expect:", "-T", name, "/kv/no")

    def test_f_is_refused_with_advice(self):
        name = self.file("form", b"value")
        for method in ([], ["-X", "PUT"]):
            message = self.refused(415, "unsupported_encoding", *method, "-F", "f=@" + name,
                                   "/kv/form")
            self.assertIn("--data-binary", message)
        self.refused(404, "key_not_found", "/kv/form")

    def test_delete(self):
        self.done("-X", "PUT", "-d", "v", "/kv/deleted")
        self.assertIs(self.done("-X", "DELETE", "/kv/deleted").json["deleted"], True)
        self.assertIs(self.done("-X", "DELETE", "/kv/deleted").json["deleted"], False)
        self.assertEqual(self.curl("-f", "/kv/deleted").code, 22)

    def test_head(self):
        self.done("-X", "PUT", "-d", "value", "/kv/head")
        head = self.done("-I", "/kv/head").out
        self.assertIn(b"HTTP/1.1 200 OK\r\n", head)
        self.assertIn(b"Content-Length: 5\r\n", head)
        self.assertTrue(head.endswith(b"\r\n\r\n"))
        # Nothing is left on the connection that the next answer could be taken for.
        call = self.done("-I", "/kv/head", "/kv/head", "/kv?prefix=head")
        self.assertEqual(call.out.count(b"HTTP/1.1 200 OK\r\n"), 3)
        self.assertIn(b"HTTP/1.1 404", self.curl("-I", "/kv/none").out)

    def test_the_status_alone(self):
        call = self.curl("-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "-d", "1", "/kv/status")
        self.assertEqual(call.out, b"201")
        call = self.curl("-o", "/dev/null", "-w", "%{http_code}", "/kv/no-such-key")
        self.assertEqual(call.out, b"404")

    def test_two_urls_in_one_call_share_a_connection(self):
        self.done("-X", "PUT", "-d", "1", "/kv/two-1")
        self.done("-X", "PUT", "-d", "2", "/kv/two-2")
        call = self.done("-w", "(%{num_connects})", "/kv/two-1", "/kv/two-2")
        self.assertEqual(call.out, b"1(1)2(0)")
        # Behind a refusal too, and behind one of a body that was sent.
        call = self.curl("-w", "(%{num_connects})", "-o", "/dev/null", "-d", "v", "/kv/posted",
                         "--next", "-sS", "-w", "(%{num_connects})", "/kv/two-2")
        self.assertEqual(call.out, b"(1)2(0)", call)

    def test_compressed_is_no_surprise(self):
        self.done("-X", "PUT", "--data-binary", "x" * 100000, "/kv/compressed")
        call = self.done("--compressed", "-i", "/kv/compressed")
        self.assertNotIn(b"content-encoding", call.out.lower())
        self.assertTrue(call.out.endswith(b"\r\n\r\n" + b"x" * 100000))

    def test_http_1_0(self):
        self.done("--http1.0", "-T", self.file("old", BYTES), "/kv/old")
        self.assertEqual(self.done("--http1.0", "/kv/old").out, BYTES)
        self.assertEqual(self.done("--http1.0", "/kv/old", "/kv/old").out, BYTES * 2)
        self.refused(404, "key_not_found", "--http1.0", "/kv/none")
        self.assertEqual(self.done("--http1.0", "/export").out, self.done("/export").out)

    def test_an_offer_of_http_2_is_passed_over(self):
        for content in (b"short", LARGE):
            self.done("--http2", "-X", "PUT", "--data-binary", "@-", "/kv/h2c", stdin=content)
            self.assertEqual(self.done("--http2", "/kv/h2c").out, content)
        call = self.done("--http2", "-w", "(%{http_version})", "-X", "PUT", "-d", "1", "/kv/h2c")
        self.assertTrue(call.out.endswith(b"(1.1)"), call)

    def test_etags_are_kept_and_compared(self):
        self.done("-X", "PUT", "-d", "1", "/kv/etag")
        self.done("--etag-save", "etag", "/kv/etag")
        compare = ["--etag-compare", "etag", "-w", "%{http_code}", "-o", "/dev/null", "/kv/etag"]
        self.assertEqual(self.done(*compare).out, b"304")
        self.done("-X", "PUT", "-d", "2", "/kv/etag")
        self.assertEqual(self.done(*compare).out, b"200")

    def test_a_range_of_a_value_is_all_of_it(self):
        self.done("-X", "PUT", "-d", "value", "/kv/range")
        self.assertEqual(self.done("-r", "1-2", "-w", "%{http_code}", "/kv/range").out, b"value200")

    def test_keys_as_they_are_typed(self):
        for typed, key in (("a/b", b"a/b"), ("a%2Fc", b"a/c"), ("%00", b"\0"), ("a+b", b"a+b"),
                           ("a%20b", b"a b"), ("%C3%BC", "ü".encode())):
            self.done("-X", "PUT", "-d", typed, f"/kv/{typed}")
            self.assertEqual(self.server.get(key), typed.encode(), key)
        # curl folds dots unless it is told not to; the server never does.
        self.done("--path-as-is", "-X", "PUT", "-d", "dots", "/kv/x/../y")
        self.assertEqual(self.server.get(b"x/../y"), b"dots")

    def test_the_unix_socket(self):
        sock = os.path.join(self.server.data_dir, "nexus.sock")
        call = Call("-f", "--unix-socket", sock, "-T", "-", "http://localhost/kv/unix", stdin=LARGE)
        self.assertEqual(call.code, 0, call)
        call = Call("-f", "--unix-socket", sock, "http://localhost/kv/unix")
        self.assertEqual((call.code, call.out), (0, LARGE))


class Lists(CurlCase):
    def test_a_prefix_is_encoded_by_curl(self):
        keys = ["g/a b&c=d/1", "g/a b&c=d/2", "g/ü+%/1"]
        for key in keys:
            self.server.put(key, b"v")
        for prefix, found in (("g/a b&c=d/", keys[:2]), ("g/ü+%", keys[2:]), ("g/none", [])):
            call = self.done("-G", "--data-urlencode", "prefix=" + prefix, "/kv")
            self.assertEqual([item["key"] for item in call.json["items"]], found)
            call = self.done("-G", "--data-urlencode", "prefix=" + prefix, "/export")
            self.assertEqual(call.out.count(b"\n"), len(found))

    def test_delete_by_a_prefix_that_curl_encodes(self):
        for key in ("p/a b&c/1", "p/a b&c/2", "p/a b"):
            self.server.put(key, b"v")
        call = self.done("-X", "DELETE", "-G", "--data-urlencode", "prefix=p/a b&c/", "/kv")
        self.assertEqual(call.json["deleted"], 2)
        # Without -G the prefix is a body, which must not mean all keys.
        self.assertIn("all=1", self.refused(
            400, "bad_parameter", "-X", "DELETE", "--data-urlencode", "prefix=p/", "/kv"))
        self.assertEqual(self.server.get("p/a b"), b"v")

    def test_a_batch_in_json(self):
        batch = '{"ops":[{"put":{"key":"b/1","value":"v"}},{"put":{"key":"b/2","value":"v"}}]}'
        for way in ("--json", "-d", "--data-binary"):
            self.assertEqual(self.done(way, batch, "/batch").json["puts"], 2)


class Streams(CurlCase):
    """Bodies that take their time, in and out: longer together than a client may be silent."""

    settings = {"http.request_timeout_ms": 2000}

    def lines(self, mib, name):
        line = '{"key":"%s/%06d","value":"' + "v" * 1000 + '"}\n'
        return "".join(line % (name, n) for n in range(mib << 10)).encode()

    def test_import_of_a_file(self):
        lines = self.lines(3, "file")
        name = self.file("lines", lines)
        for way in (["--data-binary", "@" + name], ["-X", "POST", "-T", name],
                    ["--data-binary", "@" + name, "-H", "Transfer-Encoding: chunked"],
                    ["--data-binary", "@" + name, "-H", "Expect:"]):
            self.assertEqual(self.done(*way, "/import").json["imported"], 3 << 10)
        self.assertEqual(self.server.export("file/"), lines)

    def test_import_of_a_pipe(self):
        lines = self.lines(3, "pipe")
        call = self.done("-v", "-X", "POST", "-T", "-", "/import", stdin=lines)
        self.assertIn("Transfer-Encoding: chunked", call.err)
        self.assertEqual(call.json["imported"], 3 << 10)
        self.assertEqual(self.server.export("pipe/"), lines)

    def test_import_of_a_slow_client(self):
        lines = self.lines(1, "slow")
        name = self.file("slow", lines)
        for way in (["-X", "POST", "-T", name], ["-X", "POST", "-T", "-"]):
            call = self.done("--limit-rate", "300k", *way, "/import", stdin=lines)
            self.assertEqual(call.json["imported"], 1 << 10)
        self.assertEqual(self.server.export("slow/"), lines)

    def test_import_by_d_is_refused_at_its_first_line(self):
        name = self.file("few", b'{"key":"d/1","value":"1"}\n' * 2)
        message = self.refused(400, "bad_json", "-d", "@" + name, "/import")
        self.assertIn("--data-binary", message)
        self.assertEqual(self.server.export("d/"), b"")

    def test_export_to_a_slow_client(self):
        self.server.import_lines(self.lines(12, "out"))
        whole = self.server.export("out/")
        self.done("--limit-rate", "3M", "-o", "slow export", "/export")
        self.assertIn(whole, self.content("slow export"))

    def test_an_export_goes_into_another_import(self):
        self.server.import_lines(self.lines(1, "again"))
        whole = self.done("-G", "-d", "prefix=again/", "/export").out
        self.done("-X", "DELETE", "/kv?prefix=again/")
        self.assertEqual(self.done("--data-binary", "@-", "/import", stdin=whole).json["imported"],
                         1 << 10)
        self.assertEqual(self.server.export("again/"), whole)


class Downloads(CurlCase):
    """A backup by one curl."""

    def test_a_snapshot_is_resumed_where_it_was_cut(self):
        for number in range(8):
            self.server.put(f"random/{number}", os.urandom(1 << 20))
        made = self.done("-X", "POST", "/replication/snapshot").json
        for name in ("last", made["id"]):
            path = f"/replication/snapshot/{name}/file"
            self.done("-o", "whole", path)
            whole = self.content("whole")
            self.assertEqual(len(whole), made["compressed_size"])
            for length in (1, len(whole) // 2, len(whole) - 1):
                self.file("part", whole[:length])
                self.done("-C", "-", "-o", "part", path)
                self.assertEqual(self.content("part"), whole)
            # Nothing is missing: curl is told so, and the file stays as it is.
            self.curl("-C", "-", "-o", "part", path)
            self.assertEqual(self.content("part"), whole)

    def test_the_server_names_the_file(self):
        self.server.put("k", b"v")
        made = self.done("-X", "POST", "/replication/snapshot").json
        self.done("-OJ", "/replication/snapshot/last/file")
        name = os.path.basename(made["path"])
        self.assertEqual(len(self.content(name)), made["compressed_size"])


if __name__ == "__main__":
    unittest.main()
