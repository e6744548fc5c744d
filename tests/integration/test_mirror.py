# timeout: 400
"""nexus-mirror: one cluster is kept a copy of another, whatever dies meanwhile.

That each operation is done once, and in order, is read in the target's log, which has all that was ever done there.

NEXUS_MIRROR_KILLS=n: so often the mirror is killed, or loses an answer, in the tests of that; 7 by default.
"""

import base64
import contextlib
import http.client
import http.server
import importlib.machinery
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import wal_files
from failover import Cut, FailoverCase
from full_sync import put_many, random_pairs
from nexus_test import HOST, SOURCE_DIR, HttpError, NexusTestCase, free_port, key_path, wait_until
from proxy import Proxy

MIRROR = os.path.join(SOURCE_DIR, "scripts", "nexus-mirror")
POSITION = "_mirror/default"
PUT, DELETE = 1, 2
KILLS = int(os.environ.get("NEXUS_MIRROR_KILLS", "7"))


def load_module():
    """The program as a module, for its parts."""
    loader = importlib.machinery.SourceFileLoader("nexus_mirror", MIRROR)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("nexus_mirror", loader))
    loader.exec_module(module)
    return module


mirror = load_module()


class Run:
    """A nexus-mirror that runs, or is started again."""

    def __init__(self, sources, target, *options):
        self.arguments = [sys.executable, "-B", MIRROR]
        for source in sources:
            self.arguments += ["--from", source if isinstance(source, str) else f"http://{source.addr}"]
        self.arguments += ["--to", target if isinstance(target, str) else f"http://{target.addr}", *options]
        self.file = tempfile.NamedTemporaryFile(prefix="nexus-mirror-")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.arguments, stdin=subprocess.DEVNULL, stdout=self.file, stderr=self.file
        )
        return self

    def said(self):
        with open(self.file.name, encoding="utf-8", errors="replace") as file:
            return file.read()

    def mark(self):
        return len(self.said())

    def wait_said(self, pattern, since=0, timeout=30):
        expression = re.compile(pattern, re.MULTILINE)
        return wait_until(
            lambda: expression.search(self.said(), since),
            timeout,
            lambda: f"/{pattern}/ in what it says:\n{self.said()}",
        )

    def wait_exit(self, timeout=30):
        return self.process.wait(timeout)

    def kill9(self):
        self.process.kill()
        self.process.wait()

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.wait_exit()

    def cleanup(self):
        if self.process is not None and self.process.poll() is None:
            self.kill9()
        self.file.close()


def operations(frames):
    """[(kind, key, value)] of a log, in order; without positions."""
    return [
        (op.kind, op.key, op.value if op.kind == PUT else None)
        for frame in frames
        for op in frame.entry().ops
        if op.kind in (PUT, DELETE) and not op.key.startswith(b"_mirror/")
    ]


def lines_without_positions(export):
    return [line for line in export.splitlines() if not json.loads(line).get("key", "").startswith("_mirror/")]


class MirrorCase(NexusTestCase):
    def mirror(self, sources, target, *options):
        run = Run(sources if isinstance(sources, (list, tuple)) else [sources], target, *options)
        self.addCleanup(run.cleanup)
        return run.start()

    def refused(self, sources, target, *options):
        """-> what it says as it ends with 1."""
        run = self.mirror(sources, target, *options)
        self.assertEqual(run.wait_exit(), 1, run.said())
        return run.said()

    def position(self, target, key=POSITION):
        content = target.get(key)
        return None if content is None else json.loads(content)

    def wait_copied(self, run, target):
        target.wait_until(
            lambda: (self.position(target) or {}).get("at"), what=f"a complete copy; {run.said()}"
        )

    def assert_equal(self, source, target, prefix=None):
        self.assertEqual(
            lines_without_positions(target.export(prefix)), lines_without_positions(source.export(prefix))
        )

    def wait_equal(self, run, source, target, prefix=None, timeout=60):
        """What is there now has come over; nobody writes any more."""

        def equal():
            if run.process.poll() is not None:
                raise AssertionError(f"it has ended:\n{run.said()}")
            return lines_without_positions(target.export(prefix)) == wanted

        wanted = lines_without_positions(source.export(prefix))
        wait_until(equal, timeout, lambda: f"the same keys in both; it says:\n{run.said()}", poll=0.1)

    def target(self, **settings):
        return self.node("standalone", name="target", settings=settings)

    @contextlib.contextmanager
    def writes(self, leader):
        """Somebody writes all the time. leader: a node, or a function that says which one leads now: what it
        refuses, or leaves unanswered, is nothing."""
        stop = threading.Event()
        fixed = not callable(leader)

        def write(client, number):
            client.put(f"k{number % 50}", b"%d" % number)
            if number % 7 == 0:
                client.delete(f"k{number % 11}")
            if number % 13 == 0:
                client.batch([{"put": {"key": f"k{number % 17}", "value": f"{n}"}} for n in range(5)])

        def work():
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    write((leader if fixed else leader()).http, number)
                except (OSError, http.client.HTTPException, HttpError):
                    if fixed:
                        raise
                stop.wait(0.002)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


# ---- its parts ----


class Source(http.server.BaseHTTPRequestHandler):
    """Stands in for GET /changes: `answer` of the server is (status, bytes, how large their chunks are, whether the
    last one comes; None: no chunks, it ends with the connection)."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        status, content, size, whole = self.server.answer
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(status)
        if status != 200:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.close_connection = True
        if whole is None:
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(content), size):
            piece = content[at : at + size]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if whole:
            self.wfile.write(b"0\r\n\r\n")


class Parts(unittest.TestCase):
    def setUp(self):
        self.server = http.server.ThreadingHTTPServer((HOST, 0), Source)
        self.server.daemon_threads = True
        self.server.asked = []
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def answer(self, content, status=200, size=1 << 16, whole=True):
        self.server.answer = (status, content, size, whole)

    def changes(self, since="7@2", prefix=b"", token=None):
        server = mirror.Server(f"http://{HOST}:{self.server.server_port}", token)
        changes = mirror.Changes(server, since, prefix)
        self.addCleanup(changes.close)
        return changes

    def taken(self, changes):
        """All of it, and why it ended."""
        taken = []
        while True:
            try:
                taken += changes.take(5)
            except mirror.Unavailable as error:
                return taken, str(error)

    def entry(self, offset, *ops, end=b"\n"):
        data = json.dumps({"offset": offset, "epoch": 2, "timestamp": 1, "ops": ops}).encode()
        return end.join([b"id: %d@2" % offset, b"data: " + data, b"", b""])

    def test_01_events_in_pieces_of_any_size(self):
        put = {"put": {"key": "k", "value": "v\n\u20ac", "expires_at": 5}}
        binary = {"put": {"key_base64": "/w==", "value_base64": "AAE"}}
        expired = {"delete": {"key": "k", "expired": True}}
        content = (
            b": hello\n\n" + self.entry(8, put, binary) + b"event: progress\nid: 9@2\ndata: {}\n\n"
            + self.entry(10, expired, end=b"\r\n")
        )
        for size in (1, 2, 3, 7, 64, 1 << 16):
            with self.subTest(size=size):
                self.answer(content, size=size)
                taken, _ = self.taken(self.changes())
                self.assertEqual(
                    [(each.at, each.progress) for each in taken],
                    [("8@2", False), ("9@2", True), ("10@2", False)],
                )
                first, second = taken[0].ops
                self.assertEqual((first.key, first.json()), (b"k", put))
                self.assertEqual((second.key, second.json()), (b"\xff", binary))
                self.assertEqual(
                    first.json(base64_only=True),
                    {"put": {"key_base64": "aw==", "value_base64": "dgrigqw=", "expires_at": 5}},
                )
                self.assertEqual(taken[2].ops[0].json(), {"delete": {"key_base64": "aw=="}})

    def test_02_rules_of_server_sent_events(self):
        def events(*lines):
            return list(mirror.events_of(lines))

        self.assertEqual(events(b"id: 1", b"data: a", b"data:b", b""), [("message", "1", b"a\nb")])
        self.assertEqual(
            events(b"id: 1", b"data: a", b"", b"data: b", b""),
            [("message", "1", b"a"), ("message", "1", b"b")],
        )
        self.assertEqual(
            events(b"event: progress", b"id: 1", b"", b"data", b""),
            [("progress", "1", b""), ("message", "1", b"")],
        )
        self.assertEqual(events(b"", b": c", b"", b"retry: 5", b""), [])
        self.assertEqual(events(b"id: 1", b"data: cut off"), [])

    def test_03_a_cut_stream_ends_behind_its_last_whole_event(self):
        whole = self.entry(8, {"delete": {"key": "k"}})
        for content in (whole, whole + self.entry(9, {"delete": {"key": "l"}})[:-1]):
            for end in (False, None):  # without chunks nobody can tell that it is whole
                self.answer(content, size=100, whole=end)
                taken, why = self.taken(self.changes())
                self.assertEqual([each.at for each in taken], ["8@2"])
                self.assertIn("the connection was cut", why)

    def test_04_what_it_asks(self):
        self.answer(b"")
        self.taken(self.changes(prefix=b"a +\xff", token="secret"))
        self.assertEqual(self.server.asked, [("/changes?since=7%402&prefix=a+%2B%FF", "Bearer secret")])

    def test_05_refusals(self):
        for status, code, kind in (
            (410, "history_gone", mirror.Gone),
            (410, "history_changed", mirror.Gone),
            (503, "role_change", mirror.Unavailable),
            (429, "too_many_requests", mirror.Unavailable),
            (401, "unauthorized", mirror.Fatal),
            (400, "bad_parameter", mirror.Fatal),
        ):
            with self.subTest(code=code):
                self.answer(json.dumps({"code": code, "message": "because"}).encode(), status)
                with self.assertRaisesRegex(kind, "because"):
                    self.changes()
        self.answer(b"<html>", 404)
        with self.assertRaisesRegex(mirror.Fatal, "not as Nexus does"):
            self.changes()
        self.answer(b"id: 1@1\ndata: {}\n\n")
        self.assertIn("can't be read", self.taken(self.changes())[1])

    def test_06_a_token(self):
        self.answer(json.dumps({"code": "unauthorized", "message": "because"}).encode(), 401)
        url = f"http://{HOST}:{self.server.server_port}"
        with tempfile.NamedTemporaryFile("w", prefix="nexus-token-") as file:
            file.write("secret\n")
            file.flush()
            run = Run([url], url, "--token-file", file.name).start()
            self.addCleanup(run.cleanup)
            self.assertEqual(run.wait_exit(), 1)
        self.assertIn("because Give a file with the token", run.said())
        self.assertEqual(self.server.asked, [("/replication/status", "Bearer secret")])

    def test_07_what_comes_fast_is_taken_together(self):
        op = {"put": {"key": "k", "value": "v" * 100}}
        self.answer(b"".join(self.entry(n, op) for n in range(8, 2508)))
        changes = self.changes()
        wait_until(lambda: changes._end, what="the end of the stream")
        sizes = [len(changes.take(1)) for _ in range(3)]
        self.assertEqual(sizes, [mirror.BATCH_OPS, mirror.BATCH_OPS, 500])

    def test_08_read_ahead_is_bounded(self):
        op = {"put": {"key": "k", "value": "v" * (1 << 20)}}
        self.answer(b"".join(self.entry(n, op) for n in range(8, 48)))
        changes = self.changes()
        wait_until(lambda: changes._memory > mirror.READ_AHEAD - (2 << 20), what="a full buffer")
        time.sleep(0.2)
        self.assertLessEqual(changes._memory, mirror.READ_AHEAD)
        self.assertEqual(len(self.taken(changes)[0]), 40)

    def test_09_a_lag_is_said_once(self):
        said = []
        voice = mirror.Voice()
        voice.say = said.append
        parts = mirror.Mirror([], None, b"", voice)
        lags = ((1, True), (20, False), (20, True), (30, True), (8, True), (1, True), (1, False))
        for number, (seconds, more) in enumerate(lags):
            change = mirror.Change("message", f"{number}@1", b'{"ops": [], "timestamp": 0}')
            change.timestamp = (time.time() - seconds) * 1e6  # Unix us, as events have it
            parts._tell_lag(change, more)
        self.assertEqual(said, ["behind by 20 s, at 2@1", "level at 6@1"])


# ---- the first copy ----


class Copying(MirrorCase):
    def test_01_the_target_becomes_a_copy(self):
        source, target = self.node("master"), self.target()
        for key in ("a", "m", "z", b"\xff\xfe", "euro \u20ac", "_mirror"):
            source.put(key, b"source")
        source.put("bytes", bytes(range(256)))
        source.put("empty", b"")
        source.put("_mirror/other", b"a mirror's into the source")
        source.put("lasting", b"v", ttl=1000)
        for key in ("a", "b", "zz", b"\x00", b"\xff\xff", "_mirrors"):
            target.put(key, b"target")
        target.put("_mirror/other", b"another mirror's")
        run = self.mirror(source, target)
        self.wait_copied(run, target)
        self.assert_equal(source, target)
        self.assertEqual(target.get("_mirror/other"), b"another mirror's")
        run.wait_said(r"^nexus-mirror: copied 9 keys, deleted 5, at \d+@\d+$")

    def test_02_more_than_a_page_of_surplus_keys(self):
        source, target = self.node("master"), self.target()
        random.seed(2)
        names = [f"{number:06}" for number in range(9000)]
        for node, number in ((source, 3000), (target, 7000)):
            lines = [json.dumps({"key": key, "value": node.name}) for key in random.sample(names, number)]
            node.import_lines("\n".join(lines).encode())
        run = self.mirror(source, target)
        self.wait_copied(run, target)
        self.assert_equal(source, target)

    def test_03_only_a_prefix(self):
        source, target = self.node("master"), self.target()
        for node in (source, target):
            for key in ("a", "p/", "p/same", f"p/{node.name}", "p0", "q"):
                node.put(key, node.name.encode())
        run = self.mirror(source, target, "--prefix", "p/")
        self.wait_copied(run, target)
        self.assert_equal(source, target, "p/")
        self.assertEqual(sorted(target.versions()), [POSITION, "a", "p/", "p/master", "p/same", "p0", "q"])
        for key in ("a", "p0", "q"):
            self.assertEqual(target.get(key), b"target")

    def test_04_an_interrupted_copy_begins_again(self):
        source, target = self.node("master"), self.target()
        put_many(source, random_pairs("k", 400, 20_000))
        target.put("surplus", b"v")
        proxy = self.proxy(target)
        proxy.pause(down=True, up=False)
        run = self.mirror(source, f"http://{proxy.addr}")
        proxy.resume()
        for _ in range(3):
            before = proxy.up
            wait_until(lambda: proxy.up > before + 2_000_000, what=f"some of the copy; {run.said()}")
            run.kill9()
            self.assertIsNone((self.position(target) or {}).get("at"))
            run.start()
        self.wait_copied(run, target)
        self.assert_equal(source, target)
        self.assertEqual(run.said().count("copying http"), 4)

    def test_05_the_target_dies_while_it_is_copied_to(self):
        source, target = self.node("master"), self.target()
        put_many(source, random_pairs("k", 400, 20_000))
        proxy = self.proxy(target)
        run = self.mirror(source, f"http://{proxy.addr}")
        wait_until(lambda: proxy.up > 2_000_000, what=f"some of the copy; {run.said()}")
        target.kill9()
        run.wait_said("waiting for the target")
        target.start()
        self.wait_copied(run, target)
        self.assert_equal(source, target)
        self.assertIn("the target answers again", run.said())

    def test_06_the_export_is_cut(self):
        source, target = self.node("master"), self.target()
        put_many(source, random_pairs("k", 400, 20_000))
        proxy = self.proxy(source)
        proxy.cut_after(4_000_000)
        run = self.mirror(f"http://{proxy.addr}", target)
        run.wait_said("reconnecting: .*the export was cut")
        self.wait_copied(run, target)
        self.assert_equal(source, target)

    def proxy(self, node):
        proxy = Proxy(node.http_port)
        self.addCleanup(proxy.close)
        return proxy


class Refusals(MirrorCase):
    def test_01_what_a_person_must_mend(self):
        cluster = self.cluster()
        source, target = self.node("master", name="source"), self.target()
        nothing = f"http://{HOST}:{source.replication_port}"
        for sources, to, options, text in (
            ("http://nosuchhost.invalid", target, (), "no such host is known"),
            ("ftp://127.0.0.1", target, (), "is no URL of a node"),
            ("127.0.0.1:15474", target, (), "is no URL of a node"),
            (source, f"http://{source.addr}/kv", (), "is no URL of a node"),
            (nothing, target, (), "doesn't speak HTTP"),
            (source, cluster.replica, (), f"give the URL of its master, http://{cluster.master.addr}, as --to"),
            (cluster.replica, cluster.master, (), "is of the source's own cluster"),
            ([source, cluster.master], target, (), "are not of one cluster"),
            (source, target, ("--prefix", "_mirror/x"), "are never copied"),
            (source, target, ("--name", "a/b"), "--name takes"),
            (source, target, ("--token-file", "/nonexistent"), "can't be read"),
        ):
            with self.subTest(text=text):
                self.assertIn(text, self.refused(sources, to, *options))
        self.assertEqual(target.versions(), {})

    def test_02_a_position_of_something_else(self):
        source, target = self.node("master"), self.target()
        source.put("k", b"v")
        target.put("_mirror/a", b"a value")
        self.assertIn("holds no position", self.refused(source, target, "--name", "a"))
        run = self.mirror(source, target)
        self.wait_copied(run, target)
        run.stop()
        content = self.position(target)
        self.assertIn("is of the prefix ''", self.refused(source, target, "--prefix", "p"))
        other = self.node("master", name="other")
        self.assertIn("is a position in cluster", self.refused(other, target))
        for options in (("--name", "b"), ("--name", "b", "--prefix", "p")):
            self.assertIn("_mirror/default is the position of another mirror", self.refused(other, target, *options))
        self.assertEqual(self.position(target), content)
        self.assertEqual(target.get("k"), b"v")

    def test_03_nobody_there_is_waited_for(self):
        source, target = self.node("master", start=False), self.target()
        run = self.mirror(source, target)
        run.wait_said("waiting for a source: .*Connection refused")
        source.start()
        for sig in (signal.SIGTERM, signal.SIGINT):
            mark = run.mark()
            run.wait_said("following", since=mark if sig == signal.SIGINT else 0)
            self.assertEqual(run.stop(sig), 0)
            run.wait_said(r"^nexus-mirror: ended; the target is at \d+(@\d+)?$", since=mark)
            run.start()


# ---- the changes ----


class Following(MirrorCase):
    def follow(self, sources, target, *options):
        run = self.mirror(sources, target, *options)
        run.wait_said("following")
        return run

    def assert_once(self, source, target, copied=0):
        """The target's log has the source's operations, each once and in their order, behind those of the copy."""
        done = operations(wal_files.read_log(target.wal_dir))[copied:]
        self.assertEqual(done, operations(wal_files.read_log(source.wal_dir)))

    def test_01_all_kinds_of_changes(self):
        for role in ("master", "standalone"):
            with self.subTest(role=role):
                self.all_kinds(self.node(role), self.target())

    def all_kinds(self, source, target):
        run = self.follow(source, target)
        source.put("k", b"1")
        source.put("k", bytes(range(256)))
        source.put(b"\xff", b"")
        source.put("gone", b"v")
        source.delete("gone")
        source.put("lasting", b"v", ttl=1000)
        source.put("passing", b"v", ttl=1)
        source.json("POST", key_path("k") + "?ttl=2000")
        source.batch([{"put": {"key": "b", "value": "1"}}, {"delete": {"key": "b"}}, {"put": {"key": "b", "value": "2"}}])
        source.json("DELETE", "/kv?prefix=las")
        source.put("lasting", b"again", ttl=5000)
        source.put("_mirror/x", b"not copied")
        source.wait_until(lambda: source.get("passing") is None, what="its expiry")
        self.wait_equal(run, source, target)
        self.assertIsNone(target.get("_mirror/x"))
        self.assertEqual(target.get("lasting"), b"again")

    def test_02_it_goes_on_where_it_was(self):
        source, target = self.node("master"), self.target()
        run = self.follow(source, target)
        for end in (run.kill9, run.stop, lambda: run.stop(signal.SIGINT)):
            put_many(source, random_pairs("k", 50, 100))
            self.wait_equal(run, source, target)
            end()
            put_many(source, random_pairs("k", 50, 100))
            source.delete(next(iter(source.versions())))
            run.start()
        self.wait_equal(run, source, target)
        self.assertEqual(run.said().count("copying"), 1)
        self.assert_once(source, target)

    def test_03_killed_again_and_again_under_writes(self):
        source, target = self.node("master"), self.target()
        run = self.follow(source, target)
        with self.writes(source):
            for _ in range(KILLS):
                before = self.position(target)
                target.wait_until(lambda: self.position(target) != before, what=f"progress; {run.said()}")
                time.sleep(random.uniform(0, 0.3))
                run.kill9()
                run.start()
        self.wait_equal(run, source, target)
        self.assert_once(source, target)

    def test_04_answers_are_lost(self):
        source, target = self.node("master"), self.target()
        with Proxy(target.http_port) as proxy:
            run = self.follow(source, f"http://{proxy.addr}")
            with self.writes(source):
                for _ in range(KILLS):
                    time.sleep(random.uniform(0.05, 0.2))
                    proxy.pause(down=True, up=False)
                    time.sleep(0.1)
                    proxy.cut()
                    proxy.resume()
            self.wait_equal(run, source, target)
        self.assert_once(source, target)

    def test_05_nodes_are_killed(self):
        source, target = self.node("master"), self.target()
        run = self.follow(source, target)
        stop = threading.Event()
        for node in (target, source, target, source):
            with contextlib.ExitStack() as stack:
                if node is target:
                    stack.enter_context(self.writes(source))
                else:
                    put_many(source, random_pairs("k", 300, 100))
                time.sleep(0.3)
                node.kill9()
                node.start()
                stop.wait(0.2)
            self.wait_equal(run, source, target)
        self.assert_once(source, target)

    def test_06_the_later_of_two_mirrors_goes_on(self):
        source, target = self.node("master"), self.target()
        first = self.follow(source, target)
        source.put("k", b"1")
        self.wait_equal(first, source, target)
        os.kill(first.process.pid, signal.SIGSTOP)
        second = self.follow(source, target)
        source.put("k", b"2")
        self.wait_equal(second, source, target)
        os.kill(first.process.pid, signal.SIGCONT)
        source.put("k", b"3")
        self.assertEqual(first.wait_exit(), 1)
        self.assertIn("another one has taken over", first.said())
        self.wait_equal(second, source, target)
        self.assert_once(source, target)

    def test_07_one_for_each_prefix(self):
        source, target = self.node("master"), self.target()
        runs = [self.follow(source, target, "--prefix", name, "--name", name) for name in ("a", "b")]
        for number in range(100):
            source.put(f"a{number}", b"v")
            source.put(f"b{number}", b"v")
            source.put(f"c{number}", b"v")
        for run, name in zip(runs, ("a", "b")):
            self.wait_equal(run, source, target, name)
        self.assertEqual(target.versions("c"), {})

    def test_08_entries_that_fill_a_batch(self):
        source, target = self.node("master"), self.target()
        run = self.follow(source, target)
        source.batch([{"put": {"key": f"k{number}", "value": "v"}} for number in range(10_000)])
        # As JSON text six times as long, which no request may be.
        for size in ((1 << 20) - 600, (1 << 20) - 60):  # with room for the position, and without
            value = base64.b64encode(b"\x01" * size).decode()
            source.batch([{"put": {"key": f"large{number}", "value_base64": value}} for number in range(16)])
        source.put("k1", b"w")
        self.wait_equal(run, source, target)
        self.assert_once(source, target)
        entries = [frame.entry().ops for frame in wal_files.read_log(target.wal_dir)]
        counts = [len(ops) for ops in entries]
        self.assertIn(10_000, counts)  # 9,999, and the position
        self.assertEqual(
            [len(ops) for ops in entries if any(op.key.startswith(b"large") for op in ops)], [17, 16, 2]
        )

    def test_09_killed_within_a_large_entry(self):
        source, target = self.node("master"), self.target()
        run = self.follow(source, target)
        source.put("before", b"v")
        self.wait_equal(run, source, target)
        run.kill9()
        source.batch([{"put": {"key": f"k{number}", "value": "v"}} for number in range(10_000)])
        content = self.position(target)
        at = f"{source.status()['wal_offset']}@{source.status()['epoch']}"
        content["partial"] = {"at": at, "done": 9_990}
        target.put(POSITION, json.dumps(content).encode())
        run.start()
        target.wait_until(lambda: self.position(target)["at"] == at, what=f"the rest of it; {run.said()}")
        self.assertEqual(
            [key for _, key, _ in operations(wal_files.read_log(target.wal_dir))],
            [b"before", *(b"k%d" % number for number in range(9_990, 10_000))],
        )
        # Of an entry that has gone nothing can be finished.
        run.kill9()
        content["partial"] = {"at": at.replace("@", "9@"), "done": 1}
        content["at"] = at
        target.put(POSITION, json.dumps(content).encode())
        source.put("after", b"v")
        run.start()
        run.wait_said("a fresh copy is needed: entry .* is not in the source's history")
        self.wait_equal(run, source, target)

    def test_10_the_target_waits_for_its_quorum(self):
        source = self.node("master", name="source")
        cluster = self.cluster(settings={"replication.mode": "sync", "replication.sync_timeout_ms": 1500})
        target, replica = cluster.master, cluster.replica
        target.wait_written("k", b"v")
        run = self.follow(source, target)
        for number in range(3):
            replica.kill9()
            source.put("k", f"{number}".encode())
            mark = run.mark()
            run.wait_said("waiting for the target: .*50[34]", since=mark if number else 0)
            replica.start()
            self.wait_equal(run, source, target)
        # An answer 504 is asked again, and 412 then says that it stands.
        replica.kill_child("walreceiver", signal.SIGSTOP)
        source.put("k", b"last")
        run.wait_said("waiting for the target: .*504")
        replica.kill_child("walreceiver", signal.SIGCONT)
        self.wait_equal(run, source, target)
        done = operations(wal_files.read_log(target.wal_dir))
        values = [value for _, key, value in done if key == b"k" and value != b"v"]  # v: as often as it took
        self.assertEqual(values, [None, b"0", b"1", b"2", b"last"])

    def test_11_it_keeps_up(self):
        source, target = self.node("master"), self.target()
        run = self.follow(source, target)
        for _ in range(6):
            put_many(source, random_pairs("k", 1000, 100))
        self.wait_equal(run, source, target)
        self.assert_once(source, target)
        log = wal_files.read_log(target.wal_dir)
        self.assertLess(len(log), len(wal_files.read_log(source.wal_dir)))


class Histories(Cut, MirrorCase):
    """The source's history changes, or is too short."""

    def test_01_too_old(self):
        source = self.node("master", settings={"replication.max_log_size": 10})
        target = self.target()
        run = self.mirror(source, target)
        run.wait_said("following")
        source.put("k", b"v")
        self.wait_equal(run, source, target)
        run.kill9()
        put_many(source, random_pairs("k", 100, 100), 1)
        source.delete("k")
        run.start()
        run.wait_said("a fresh copy is needed: .*no longer kept")
        run.wait_said(r"copied \d+ keys, deleted 1,")
        self.wait_equal(run, source, target)

    def test_02_a_replica_is_promoted(self):
        for mode in ("async", "sync"):
            with self.subTest(mode=mode):
                cluster = self.failover_cluster(mode=mode)
                target = self.target()
                run = self.mirror(cluster.nodes, target)
                run.wait_said("following")
                written = self.write_many(cluster.master, "before")
                cluster.wait_level()
                cluster.master.kill9()
                run.wait_said("reconnecting")
                self.wait_promotable(*cluster.replicas)
                new, other = cluster.replicas
                self.promote(new)
                self.follow(other, new)
                written.update(self.write_many(new, "after"))
                self.wait_equal(run, new, target)
                self.assert_has(target, written)
                self.assertEqual(run.said().count("copying"), 1)
                logs = [operations(wal_files.read_log(node.wal_dir)) for node in (target, new)]
                # The cluster's first write may have been made twice, before the copy.
                done, wanted = ([op for op in log if op[1] != b"first"] for log in logs)
                self.assertEqual(done, wanted)
                run.stop()

    def test_03_entries_are_lost(self):
        cluster = self.cut_cluster(replicas=1, peers=False)
        master, replica = cluster.nodes
        target = self.target()
        run = self.mirror([master, replica], target)
        run.wait_said(f"following http://{master.addr}")
        for proxy in self.proxies:
            proxy.pause()
        lost = self.write_many(master, "lost")
        self.wait_equal(run, master, target)
        self.wait_promotable(replica)
        master.kill9()
        self.promote(replica)
        kept = self.write_many(replica, "kept")
        run.wait_said("a fresh copy is needed: ")
        self.wait_equal(run, replica, target)
        self.assert_has(target, kept)
        self.assert_lacks(target, lost)

    def test_04_a_former_master_that_goes_on(self):
        """It answers still, and doesn't know that another one leads."""
        cluster = self.cut_cluster(replicas=1, peers=False)
        master, replica = cluster.nodes
        target = self.target()
        run = self.mirror([master, replica], target)
        run.wait_said(f"following http://{master.addr}")
        for proxy in self.proxies:
            proxy.pause()
        self.wait_promotable(replica)
        self.promote(replica)
        self.write_many(replica, "new")
        run.wait_said(f"reconnecting: http://{replica.addr} is the better source")
        self.wait_equal(run, replica, target)
        self.assertEqual(run.said().count("copying"), 1)

    def test_05_of_a_replica_alone(self):
        cluster = self.failover_cluster(replicas=1)
        target = self.target()
        run = self.mirror(cluster.replica, target)
        run.wait_said(f"following http://{cluster.replica.addr}")
        self.write_many(cluster.master, "k", 50)
        self.wait_equal(run, cluster.master, target)
        cluster.replica.kill9()
        self.write_many(cluster.master, "l", 50)
        cluster.replica.start()
        self.wait_equal(run, cluster.master, target)
        self.assertEqual(run.said().count("copying"), 1)

    def test_06_the_target_goes_back(self):
        """Its master dies with batches that the replica, which takes its address over, doesn't have."""
        cluster = self.cut_cluster(replicas=1, peers=False)
        source = self.node("master", name="source")
        with Proxy(cluster.master.http_port) as address:
            run = self.mirror(source, f"http://{address.addr}")
            run.wait_said("following")
            source.put("k", b"1")
            self.wait_equal(run, source, cluster.master)
            cluster.wait_level()
            for proxy in self.proxies:
                proxy.pause()
            for value in (b"2", b"3"):
                source.put("k", value)
                self.wait_equal(run, source, cluster.master)
            cluster.master.kill9()
            source.put("l", b"v")
            self.wait_promotable(cluster.replica)
            self.promote(cluster.replica)
            address.target_port = cluster.replica.http_port
            self.wait_equal(run, source, cluster.replica)
            run.wait_said("the target went back to")
        self.assertEqual(run.said().count("copying"), 1)
        done = operations(wal_files.read_log(cluster.replica.wal_dir))
        self.assertEqual([op for op in done if op[1] in b"kl"], operations(wal_files.read_log(source.wal_dir)))


class Failing(FailoverCase, MirrorCase):
    def test_01_all_of_it_at_once(self):
        """The mirror is killed twenty times, its source fails over twice, its target is killed, under writes."""
        for mode in ("async", "sync"):
            with self.subTest(mode=mode):
                self.all_at_once(mode)

    def all_at_once(self, mode):
        cluster = self.failover_cluster(mode=mode)
        target = self.target()
        run = self.mirror(cluster.nodes, target)
        run.wait_said("following")
        self.leader, others = cluster.master, list(cluster.replicas)
        with self.writes(lambda: self.leader):
            for number in range(KILLS):
                time.sleep(random.uniform(0, 0.4))
                run.kill9()
                run.start()
                if number % 5 == 0:
                    target.kill9()
                    target.start()
                if number in (3, 13):
                    self.leader.kill9()
                    self.wait_promotable(*others)
                    new = others.pop(0)
                    self.promote(new, "?force=1")
                    for other in others:
                        FailoverCase.follow(self, other, new)
                    self.leader = new
        self.wait_equal(run, self.leader, target, timeout=90)
        run.stop()


class Usage(unittest.TestCase):
    def test_01_help_and_mistakes(self):
        def run(*arguments):
            return subprocess.run([sys.executable, "-B", MIRROR, *arguments], capture_output=True, text=True, check=False)

        self.assertEqual(run("--help").returncode, 0)
        self.assertIn("--from URL", run("--help").stdout)
        self.assertEqual(run().returncode, 2)
        self.assertTrue(os.access(MIRROR, os.X_OK))
        answer = run("--from", f"http://{HOST}:{free_port()}", "--to", f"http://{HOST}:0")
        self.assertEqual(answer.returncode, 1)


if __name__ == "__main__":
    unittest.main()
