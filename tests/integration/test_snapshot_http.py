# timeout: 300
"""Snapshots over HTTP: made, joined, failed and forgotten; shown, deleted and downloaded, whatever a client
asks for and however it takes it."""

import concurrent.futures
import json
import os
import signal
import socket
import threading
import time
import unittest
import uuid
import zlib

import snapshots
from nexus_test import HOST, NexusTestCase, wait_until

MIB = 1 << 20
MAKE = "/replication/snapshot"
FIELDS = [
    "id",
    "created_at",
    "wal_offset",
    "uncompressed_size",
    "compressed_size",
    "files_count",
    "checksum",
    "epoch",
    "path",
    "records",
    "reason",
]
STALL = 10.0  # seconds after which a client that takes nothing is cut


def file_of(snapshot_id):
    return f"{MAKE}/{snapshot_id}/file"


def fill(node, mib):
    """So many MiB that no compression makes smaller."""
    for number in range(mib):
        node.put(f"large{number}", os.urandom(MIB))


def pin(node, snapshot):
    """A full sync that needs this snapshot, as a walsender notes it."""
    replica = str(uuid.uuid4())
    text = (
        f"replica_id = {replica}\nsnapshot_id = {snapshot['id']}\n"
        f"snapshot_offset = {snapshot['wal_offset']}\nchunk_size = 1048576\n"
        "sent = 0\n"
        f"offset = {snapshot['wal_offset']}\n"
    )
    text += f"crc32 = {zlib.crc32(text.encode()):08x}\n"
    path = os.path.join(node.data_dir, "snapshots", replica + ".pin")
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


def memory(pid):
    """KiB in use."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(next(line.split()[1] for line in file if line.startswith("VmRSS:")))


def open_snapshots(pid):
    """Paths of snapshots that a process has open; what it closes meanwhile isn't one of them."""
    paths = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            paths.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass
    return [path for path in paths if "snapshots" in path]


class Asking(threading.Thread):
    """A request that takes its time: answer is what Client.request gives, or what went wrong."""

    def __init__(self, node, method="POST", path=MAKE):
        super().__init__()
        self.client = node.client(timeout=120)
        self.method = method
        self.path = path
        self.answer = None
        self.start()

    def run(self):
        try:
            self.answer = self.client.request(self.method, self.path)
        except OSError as error:
            self.answer = error

    def result(self, timeout=60):
        self.join(timeout)
        if self.is_alive():
            raise AssertionError(f"{self.method} {self.path} was not answered within {timeout} s")
        return self.answer


class Download:
    """A request for a file on a socket of its own, whose answer is taken as slowly as a test likes."""

    def __init__(self, node, path):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        self.socket.settimeout(30)
        self.socket.connect((HOST, node.http_port))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1000)
        head, _, self.body = head.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        self.length = int(self.headers["content-length"])

    def rest(self):
        """All of the body, or what came before the connection ended."""
        try:
            while len(self.body) < self.length:
                piece = self.socket.recv(MIB)
                if not piece:
                    break
                self.body += piece
        except ConnectionResetError:
            pass
        return self.body

    def close(self):
        self.socket.close()


class SnapshotTestCase(NexusTestCase):
    def make(self, node, timeout=120):
        return node.json("POST", MAKE, timeout=timeout)

    def slow_node(self, mib=8, **settings):
        """One whose next snapshot takes seconds."""
        node = self.node(settings={"snapshot.compression_level": 19, "http.workers": 2, **settings})
        fill(node, mib)
        return node

    def pause_job(self, node):
        """Stops the process of a snapshot that has been asked for; returns its pid."""
        node.wait_until(lambda: node.pids("snapshot"), what="a snapshot process")
        return node.kill_child("snapshot", signal.SIGSTOP)

    def content(self, path):
        with open(path, "rb") as file:
            return file.read()


class Making(SnapshotTestCase):
    def check(self, node, made):
        """What is told of a snapshot is true of its archive; returns that, read."""
        self.assertEqual(list(made), FIELDS)
        for field in FIELDS:
            wanted = str if field in ("id", "checksum", "path", "reason") else int
            self.assertIs(type(made[field]), wanted, field)
        archive = self.content(made["path"])
        self.assertEqual(str(uuid.UUID(made["id"])), made["id"])
        self.assertEqual(
            os.path.realpath(made["path"]),
            os.path.join(
                os.path.realpath(node.data_dir),
                "snapshots",
                f"{made['wal_offset']:020}-{made['id']}.tar.zst",
            ),
        )
        self.assertTrue(os.path.isabs(made["path"]))
        self.assertEqual(made["compressed_size"], len(archive))
        self.assertEqual(made["checksum"], f"{zlib.crc32(archive):08x}")
        self.assertLess(abs(made["created_at"] / 1000 - time.time()), 60)
        manifest, epochs, records = snapshots.read_snapshot(archive)
        for field in ("id", "wal_offset", "epoch", "records", "created_at"):
            self.assertEqual(manifest[field], made[field], field)
        self.assertGreaterEqual(made["files_count"], len(manifest["files"]))
        self.assertGreaterEqual(
            made["uncompressed_size"], sum(row["size"] for row in manifest["files"])
        )
        return manifest, epochs, records

    def test_it_holds_all_and_tells_what_it_is(self):
        node = self.node()
        values = {f"k{number}".encode(): os.urandom(number * 100) for number in range(200)}
        for key, value in values.items():
            node.put(key, value)
        node.delete("k7")
        values.pop(b"k7")
        offset = node.put("last", b"")
        values[b"last"] = b""
        made = self.make(node)
        self.assertEqual(made["wal_offset"], offset)
        self.assertEqual(made["epoch"], node.status()["epoch"])
        self.assertEqual(made["records"], len(values))
        self.assertEqual(made["reason"], "request")
        _, _, records = self.check(node, made)
        self.assertEqual({record.key: record.value for record in records}, values)

    def test_an_empty_node_has_an_empty_one(self):
        node = self.node()
        made = self.make(node)
        self.assertEqual((made["wal_offset"], made["records"]), (0, 0))
        self.assertEqual(node.json("GET", MAKE), made)

    def test_the_newest_and_each_by_its_id(self):
        node = self.node()
        for path in (MAKE, MAKE + "/last", file_of("last")):
            self.assert_problem(node.request("GET", path), 404, "no_snapshot")
        made = []
        for number in range(3):
            node.put("k", f"{number}")
            made.append(self.make(node))
            self.assertEqual(node.json("GET", MAKE), made[-1])
            self.assertEqual(node.json("GET", MAKE + "/last"), made[-1])
        for one in made:
            self.assertEqual(node.json("GET", f"{MAKE}/{one['id']}"), one)
        self.assertEqual(len({one["id"] for one in made}), 3)
        status, headers, body = node.request("HEAD", MAKE)
        self.assertEqual((status, body), (200, b""))
        self.assertGreater(int(headers["Content-Length"]), 0)
        node.stop()
        node.start()
        self.assertEqual(node.json("GET", MAKE), made[-1])

    def test_ids_that_name_none(self):
        node = self.node()
        made = self.make(node)
        for name in (
            str(uuid.uuid4()),
            made["id"].upper(),
            made["id"][:-1],
            made["id"] + "0",
            made["id"] + "%00",
            "last%00",
            "LAST",
            "x" * 5000,
            "..",
            "%2e%2e",
            "%ff",
        ):
            with self.subTest(name=name):
                for method, path in (
                    ("GET", f"{MAKE}/{name}"),
                    ("GET", file_of(name)),
                    ("DELETE", f"{MAKE}/{name}"),
                ):
                    self.assert_problem(node.request(method, path), 404, "no_snapshot")
        for path in (MAKE + "/", file_of(""), MAKE + "/a/b", file_of("a") + "/", file_of("a/b")):
            self.assert_problem(node.request("GET", path), 404, "no_such_endpoint")
        self.assertEqual(node.json("GET", MAKE), made)

    def test_methods(self):
        node = self.node()
        for path, allowed in (
            (MAKE, "POST, GET, HEAD, OPTIONS"),
            (MAKE + "/x", "GET, HEAD, DELETE, OPTIONS"),
            (file_of("x"), "GET, HEAD, OPTIONS"),
        ):
            answer = node.request("PUT", path, b"")
            self.assert_problem(answer, 405, "method_not_allowed")
            self.assertEqual(answer[1]["Allow"], allowed)
            status, headers, _ = node.request("OPTIONS", path)
            self.assertEqual((status, headers["Allow"]), (204, allowed))
        paths = [row["path"] for row in node.json("GET", "/")["endpoints"]]
        for path in (MAKE, MAKE + "/{id}", MAKE + "/{id}/file"):
            self.assertIn(path, paths)

    def test_parameters(self):
        node = self.node()
        for query in ("wait=2", "wait=", "wait=yes", "wait=1&wait=1", "wiat=1", "ttl=1"):
            self.assert_problem(node.request("POST", f"{MAKE}?{query}"), 400, "bad_parameter")
        self.assert_problem(node.request("GET", MAKE + "?wait=1"), 400, "bad_parameter")
        self.assert_problem(node.request("GET", MAKE), 404, "no_snapshot")
        self.assertEqual(node.json("POST", MAKE + "?wait=1"), node.json("GET", MAKE))

    def test_without_waiting_the_id_comes_at_once(self):
        node = self.slow_node()
        answer = node.json("POST", MAKE + "?wait=0", expect=(202,))
        pid = self.pause_job(node)
        self.assertEqual(list(answer), ["id"])
        self.assert_problem(node.request("GET", MAKE), 404, "no_snapshot")
        self.assert_problem(node.request("GET", f"{MAKE}/{answer['id']}"), 404, "no_snapshot")
        self.assertEqual(node.json("POST", MAKE + "?wait=0", expect=(202,)), answer)
        os.kill(pid, signal.SIGCONT)
        node.wait_until(lambda: node.request("GET", MAKE)[0] == 200, what="the snapshot")
        self.assertEqual(node.json("GET", MAKE)["id"], answer["id"])

    def test_one_that_is_being_made_is_joined(self):
        node = self.slow_node()
        first = Asking(node)
        pid = self.pause_job(node)
        others = [Asking(node) for _ in range(20)]
        # They wait, on both workers, while others are served.
        self.assertEqual(node.get("large1") is None, False)
        named = node.json("POST", MAKE + "?wait=0", expect=(202,))["id"]
        self.assertTrue(all(asking.is_alive() for asking in others))
        os.kill(pid, signal.SIGCONT)
        answers = [json.loads(asking.result()[2]) for asking in [first, *others]]
        self.assertEqual([answer["id"] for answer in answers], [named] * 21)
        self.assertEqual(answers, [node.json("GET", MAKE)] * 21)

    def test_many_at_any_time(self):
        node = self.node(settings={"http.workers": 2})
        node.put("k", b"v")
        askings = []
        for _ in range(60):
            askings.append(Asking(node))
            time.sleep(0.005)
        for asking in askings:
            status, _, body = asking.result()
            self.assertEqual(status, 200, body)
        ids = {json.loads(asking.answer[2])["id"] for asking in askings}
        for one in ids:
            self.assertEqual(node.json("GET", f"{MAKE}/{one}")["id"], one)

    def test_one_connection_after_the_other_and_pipelined(self):
        node = self.node()
        request = f"POST {MAKE} HTTP/1.1\r\nHost: localhost\r\n".encode()
        answer = node.raw_http(3 * (request + b"\r\n") + request + b"Connection: close\r\n\r\n", 30)
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK\r\n"), 4, answer)
        self.assertEqual(answer.count(b'"reason":"request"'), 4, answer)

    def test_a_body_is_read_past(self):
        node = self.node()
        for body in (b"{}", b"x" * 100000):
            self.assertEqual(node.request("POST", MAKE, body)[0], 200)
        self.assertEqual(node.request("POST", MAKE, iter([b"a", b"b"]))[0], 200)

    def test_who_goes_away_is_forgotten(self):
        node = self.slow_node()
        pid = None
        for number in range(10):
            with socket.create_connection((HOST, node.http_port)) as gone:
                gone.sendall(f"POST {MAKE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                if number == 0:
                    pid = self.pause_job(node)
                if number % 2:
                    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        stays = Asking(node)
        workers = node.pids("http")
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(stays.result()[0], 200)
        self.assertEqual(node.pids("http"), workers)
        self.assertEqual(self.make(node)["wal_offset"], 8)

    def test_replicas_make_their_own(self):
        master, replica = self.pair()
        master.put("k", b"v")
        replica.wait_offset(1)
        made = self.make(replica)
        self.assertEqual((made["wal_offset"], made["records"]), (1, 1))
        self.assert_problem(master.request("GET", MAKE), 404, "no_snapshot")
        self.assertNotEqual(self.make(master)["id"], made["id"])

    def test_who_may(self):
        node = self.node()
        made = self.make(node)
        elsewhere = {"Origin": "http://example.org"}
        for method, path in (("POST", MAKE), ("DELETE", f"{MAKE}/{made['id']}")):
            answer = node.request(method, path, headers=elsewhere)
            self.assert_problem(answer, 403, "cross_origin")
        self.assertEqual(node.request("GET", MAKE, headers=elsewhere)[0], 200)
        self.assertEqual(node.json("GET", MAKE), made)
        unix = node.unix_client()
        self.assertNotEqual(unix.json("POST", MAKE)["id"], made["id"])
        self.assertEqual(unix.request("DELETE", f"{MAKE}/{made['id']}")[0], 200)


class Failing(SnapshotTestCase):
    def test_one_that_becomes_too_large(self):
        node = self.node(settings={"snapshot.max_size": MIB})
        fill(node, 3)
        problem = self.assert_problem(node.request("POST", MAKE), 507, "snapshot_too_large")
        self.assertIn("snapshot.max_size", problem["message"])
        self.assert_problem(node.request("GET", MAKE), 404, "no_snapshot")
        named = node.json("POST", MAKE + "?wait=0", expect=(202,))["id"]
        node.wait_log(f"snapshot {named} failed")
        self.assert_problem(node.request("GET", f"{MAKE}/{named}"), 404, "no_snapshot")
        node.batch([{"delete": {"key": f"large{number}"}} for number in range(3)])
        self.assertEqual(self.make(node)["records"], 0)

    def test_its_process_is_killed(self):
        node = self.slow_node()
        askings = [Asking(node)]
        self.pause_job(node)
        askings += [Asking(node) for _ in range(5)]
        time.sleep(0.2)
        node.kill_child("snapshot", signal.SIGKILL)
        problem = self.assert_problem(askings[0].result(), 500, "internal")
        self.assertIn("try again", problem["message"])
        for asking in askings[1:]:
            # Who came too late has another one made.
            self.assertIn(asking.result()[0], (200, 500))
        made = self.make(node)
        self.assertEqual(len(snapshots.read_snapshot(self.content(made["path"]))[2]), 8)
        left = [name for name in os.listdir(os.path.dirname(made["path"])) if name.endswith(".tmp")]
        self.assertEqual(left, [])

    def test_a_worker_is_killed(self):
        node = self.slow_node(**{"http.workers": 1})
        asking = Asking(node)
        self.pause_job(node)
        old = node.kill_child("http", signal.SIGKILL)
        self.assertIsInstance(asking.result(), OSError)
        node.wait_replaced("http", old)
        again = Asking(node)
        node.kill_child("snapshot", signal.SIGCONT)
        self.assertEqual(again.result()[0], 200)

    def test_all_processes_are_killed_on_the_way(self):
        node = self.slow_node()
        asking = Asking(node)
        self.pause_job(node)
        node.kill_all()
        # No answer, or the one of a worker that saw the postmaster go before it was killed itself.
        answer = asking.result()
        self.assertTrue(isinstance(answer, OSError) or answer[0] == 503, answer)
        node.start()
        self.assert_problem(node.request("GET", MAKE), 404, "no_snapshot")
        self.assertEqual(self.make(node)["records"], 8)

    def test_a_directory_that_cannot_be_used(self):
        node = self.node()
        made = self.make(node)
        directory = os.path.dirname(made["path"])
        os.rename(directory, directory + "-away")
        with open(directory, "w", encoding="ascii"):
            pass
        for method, path in (
            ("GET", MAKE),
            ("GET", file_of("last")),
            ("POST", MAKE),
            ("DELETE", f"{MAKE}/{made['id']}"),
        ):
            problem = self.assert_problem(node.request(method, path), 500, "internal")
            self.assertIn("snapshots", problem["message"])
        os.unlink(directory)
        os.rename(directory + "-away", directory)
        self.assertEqual(node.json("GET", MAKE), made)

    def test_damaged_ones_are_not_shown(self):
        node = self.node()
        made = self.make(node)
        node.put("k", b"v")
        newer = self.make(node)
        info = newer["path"].replace(".tar.zst", ".info")
        content = self.content(info)
        with open(info, "wb") as file:
            file.write(content.replace(b"records = 1", b"records = 2"))
        self.assertEqual(node.json("GET", MAKE), made)
        with open(info, "wb") as file:
            file.write(content)
        self.assertEqual(node.json("GET", MAKE), newer)
        os.unlink(newer["path"])
        self.assertEqual(node.json("GET", MAKE), made)


class Phases(SnapshotTestCase):
    def test_a_fast_stop_answers_who_waits(self):
        node = self.slow_node()
        askings = [Asking(node) for _ in range(4)]
        node.wait_until(lambda: node.pids("snapshot"), what="a snapshot process")
        node.stop()
        for asking in askings:
            answer = asking.result()
            self.assertEqual(answer[0], 503, answer)
            self.assertIn(json.loads(answer[2])["code"], ("role_change", "overloaded"))
        node.start()
        self.assert_problem(node.request("GET", MAKE), 404, "no_snapshot")

    def test_a_smart_stop_tells_the_end(self):
        node = self.slow_node()
        asking = Asking(node)
        pid = self.pause_job(node)
        late = socket.create_connection((HOST, node.http_port), timeout=20)
        self.addCleanup(late.close)
        late.sendall(f"POST {MAKE} HTTP/1.1\r\nHost: localhost\r\n".encode())
        time.sleep(0.2)
        os.kill(node.pid, signal.SIGUSR2)
        node.wait_log("stop")
        time.sleep(0.2)
        late.sendall(b"\r\n")
        answer = late.recv(65536)
        self.assertIn(b" 503 ", answer.split(b"\r\n")[0])
        self.assertIn(b'"code":"role_change"', answer)
        os.kill(pid, signal.SIGCONT)
        self.assertIn(asking.result()[0], (200, 503))
        self.assertEqual(node.wait_exit(), 0)

    def test_a_node_that_starts_makes_none(self):
        node = self.node(settings={"state.checkpoint_interval": "1h"})
        made = self.make(node)
        node.import_lines(b"".join(b'{"key":"k%d","value":"v"}\n' % n for n in range(100000)))
        for _ in range(20):
            node.kill_all()
            node.launch()
            if self.stopped_in_recovery(node):
                break
        else:
            self.skipTest("recovery was too fast each time")
        answer = node.request("POST", MAKE)
        self.assert_problem(answer, 503, "role_change")
        self.assertEqual(answer[1]["Retry-After"], "1")
        self.assertEqual(node.json("GET", MAKE), made)
        self.assertEqual(node.request("GET", file_of("last"))[0], 200)
        self.assertEqual(node.request("DELETE", f"{MAKE}/{made['id']}")[0], 200)
        for process in node.children():
            os.kill(process.pid, signal.SIGCONT)
        node.wait_answer("/ready")
        self.assertEqual(self.make(node)["records"], 100000)

    def stopped_in_recovery(self, node):
        """Stops the log's process as soon as it is there; whether the node starts still."""

        def writer():
            return next((one for one in node.children() if "walwriter" in one.title), None)

        os.kill(wait_until(writer, poll=0.001).pid, signal.SIGSTOP)
        node.wait_until(lambda: self.state(node), what="an answer")
        if self.state(node) == "starting":
            return True
        os.kill(writer().pid, signal.SIGCONT)
        return False

    def state(self, node):
        try:
            return node.status()["state"]
        except OSError:
            return None


class Deleting(SnapshotTestCase):
    def test_deleted_is_gone(self):
        node = self.node()
        first = self.make(node)
        node.put("k", b"v")
        second = self.make(node)
        answer = node.json("DELETE", f"{MAKE}/{second['id']}")
        self.assertIs(answer["success"], True)
        self.assertEqual(list(answer), ["success", "message"])
        self.assertEqual(node.json("GET", MAKE), first)
        for method in ("GET", "DELETE"):
            answer = node.request(method, f"{MAKE}/{second['id']}")
            self.assert_problem(answer, 404, "no_snapshot")
        names = os.listdir(os.path.dirname(first["path"]))
        self.assertEqual([name for name in names if second["id"] in name], [])
        self.assertEqual(len([name for name in names if first["id"] in name]), 2)

    def test_the_newest_is_deleted_by_its_id_only(self):
        node = self.node()
        made = self.make(node)
        self.assert_problem(node.request("DELETE", MAKE + "/last"), 400, "bad_parameter")
        self.assertEqual(node.json("GET", MAKE), made)

    def test_one_that_a_full_sync_needs_is_kept(self):
        node = self.node(role="master", settings={"snapshot.keep": 1, "snapshot.interval": 0})
        node.put("k", b"v")
        made = self.make(node)
        held = pin(node, made)
        answer = node.json("DELETE", f"{MAKE}/{made['id']}")
        self.assertIs(answer["success"], True)
        self.assertIn("full sync", answer["message"])
        after = node.json("GET", MAKE)
        self.assertEqual(after, {**made, "reason": "full_sync"})
        self.assertEqual(node.json("DELETE", f"{MAKE}/{made['id']}"), answer)
        os.unlink(held)
        self.assertNotEqual(node.json("DELETE", f"{MAKE}/{made['id']}"), answer)
        self.assert_problem(node.request("GET", MAKE), 404, "no_snapshot")

    def test_what_was_asked_for_stays(self):
        node = self.node(settings={"snapshot.keep": 1})
        made = []
        for number in range(4):
            node.put("k", f"{number}")
            made.append(self.make(node))
        for one in made:
            self.assertEqual(node.json("GET", f"{MAKE}/{one['id']}"), one)


class Files(SnapshotTestCase):
    def setUp(self):
        super().setUp()
        self.server = self.node(settings={"http.workers": 1, "snapshot.compression_level": 1})
        fill(self.server, 1)
        self.made = self.make(self.server)
        self.archive = self.content(self.made["path"])
        self.tag = f'"{self.made["id"]}"'

    def get(self, headers=None, method="GET", name=None):
        return self.server.request(method, file_of(name or self.made["id"]), headers=headers)

    def assert_whole(self, answer, body=True):
        status, headers, content = answer
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Length"], str(len(self.archive)))
        self.assertEqual(headers["Content-Type"], "application/zstd")
        self.assertEqual(headers["ETag"], self.tag)
        self.assertEqual(headers["Accept-Ranges"], "bytes")
        name = os.path.basename(self.made["path"])
        self.assertEqual(headers["Content-Disposition"], f'attachment; filename="{name}"')
        self.assertIsNone(headers["Content-Range"])
        self.assertIsNone(headers["Transfer-Encoding"])
        self.assertEqual(content, self.archive if body else b"")

    def test_whole(self):
        self.assert_whole(self.get())
        self.assert_whole(self.get(name="last"))
        self.assert_whole(self.get(method="HEAD"), body=False)
        self.assert_whole(self.get())  # the connection is good for another one

    def test_http_1_0(self):
        answer = self.server.raw_http(f"GET {file_of('last')} HTTP/1.0\r\n\r\n", 10)
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertIn(f"Content-Length: {len(self.archive)}".encode(), head)
        self.assertEqual(body, self.archive)

    def test_parts(self):
        size = len(self.archive)
        for given, first, last in (
            ("0-0", 0, 0),
            ("0-99", 0, 99),
            ("100-", 100, size - 1),
            (f"{size - 1}-", size - 1, size - 1),
            (f"131071-{131072 * 2}", 131071, 131072 * 2),
            (f"5-{size + 5}", 5, size - 1),
            ("5-99999999999999999999999", 5, size - 1),
            ("-1", size - 1, size - 1),
            ("-300000", size - 300000, size - 1),
            (f"-{size + 1}", 0, size - 1),
            ("0-", 0, size - 1),
        ):
            with self.subTest(range=given):
                status, headers, body = self.get({"Range": "bytes=" + given})
                self.assertEqual(status, 206)
                self.assertEqual(headers["Content-Range"], f"bytes {first}-{last}/{size}")
                self.assertEqual(headers["Content-Length"], str(last - first + 1))
                self.assertEqual(headers["ETag"], self.tag)
                self.assertTrue(body == self.archive[first : last + 1])

    def test_no_part(self):
        size = len(self.archive)
        for given in (f"{size}-", f"{size}-{size + 9}", "-0", "99999999999999999999999-"):
            with self.subTest(range=given):
                answer = self.get({"Range": "bytes=" + given})
                self.assert_problem(answer, 416, "range_not_satisfiable")
                self.assertEqual(answer[1]["Content-Range"], f"bytes */{size}")

    def test_ranges_that_are_none(self):
        for given in (
            "bytes=0-1,4-5",
            "bytes=2-1",
            "bytes=",
            "bytes=x-y",
            "bytes=-",
            "lines=0-1",
            "0-1",
            "",
        ):
            with self.subTest(range=given):
                self.assert_whole(self.get({"Range": given}))
        self.assert_whole(self.get({"Range": "bytes=0-1"}, method="HEAD"), body=False)
        twice = "Host: localhost\r\nRange: bytes=0-1\r\nRange: bytes=3-4\r\nConnection: close\r\n"
        answer = self.server.raw_http(f"GET {file_of('last')} HTTP/1.1\r\n{twice}\r\n", 10)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "))

    def test_conditions_of_a_range(self):
        part = {"Range": "bytes=10-19"}
        status, _, body = self.get({**part, "If-Range": self.tag})
        self.assertEqual((status, body), (206, self.archive[10:20]))
        for condition in (
            f"W/{self.tag}",
            f'"{uuid.uuid4()}"',
            self.made["id"],
            "Thu, 26 Nov 2026 14:24:19 GMT",
            "*",
        ):
            self.assert_whole(self.get({**part, "If-Range": condition}))
        outside = {"Range": "bytes=99999999999-"}
        self.assertEqual(self.get({**outside, "If-Range": self.tag})[0], 416)
        self.assert_whole(self.get({**outside, "If-Range": '"x"'}))

    def test_known_already(self):
        for tags in (self.tag, "W/" + self.tag, "*", f'"x", {self.tag}'):
            for method in ("GET", "HEAD"):
                status, headers, body = self.get({"If-None-Match": tags}, method)
                self.assertEqual((status, headers["ETag"], body), (304, self.tag, b""))
        self.assert_whole(self.get({"If-None-Match": '"x"'}))
        self.assert_whole(self.get({"If-None-Match": self.made["id"]}))
        answer = self.get({"If-None-Match": self.tag, "Range": "bytes=0-1"})
        self.assertEqual(answer[0], 304)

    def test_another_one_than_meant(self):
        self.assert_whole(self.get({"If-Match": self.tag}))
        self.assert_whole(self.get({"If-Match": "*"}))
        for tags in ('"x"', "W/" + self.tag):
            self.assert_problem(self.get({"If-Match": tags}), 412, "precondition_failed")

    def test_a_transfer_is_resumed(self):
        got = b""
        while len(got) < len(self.archive):
            status, _, piece = self.get(
                {"Range": f"bytes={len(got)}-{len(got) + 199999}", "If-Range": self.tag}
            )
            self.assertEqual(status, 206)
            got += piece
        self.assertEqual(f"{zlib.crc32(got):08x}", self.made["checksum"])


class Transfers(SnapshotTestCase):
    """Of an archive that no socket's buffers hold."""

    def setUp(self):
        super().setUp()
        self.server = self.node(settings={"http.workers": 1, "snapshot.compression_level": 1})
        fill(self.server, 32)
        self.made = self.make(self.server)

    def download(self, name=None):
        download = Download(self.server, file_of(name or self.made["id"]))
        self.addCleanup(download.close)
        return download

    def assert_complete(self, download):
        self.assertEqual(f"{zlib.crc32(download.rest()):08x}", self.made["checksum"])

    def test_it_is_sent_as_it_is_taken(self):
        pid = self.server.pids("http")[0]
        self.assert_complete(self.download())
        before = memory(pid)
        downloads = [self.download() for _ in range(8)]
        time.sleep(1)
        # Of 256 MiB; a sanitizer keeps what was freed for a while.
        self.assertLess(memory(pid), before + (64 << 10))
        self.assertEqual(len(self.server.get("large1")), MIB)  # others are served meanwhile
        # All at once: one that nobody reads for 10 s is cut.
        with concurrent.futures.ThreadPoolExecutor(len(downloads)) as readers:
            list(readers.map(self.assert_complete, downloads))

    def test_it_is_sent_to_its_end_when_it_is_deleted(self):
        download = self.download()
        self.assertEqual(self.server.request("DELETE", f"{MAKE}/{self.made['id']}")[0], 200)
        self.assertFalse(os.path.exists(self.made["path"]))
        self.assert_problem(self.server.request("GET", file_of("last")), 404, "no_snapshot")
        self.assert_complete(download)
        self.assertEqual(open_snapshots(self.server.pids("http")[0]), [])

    def test_who_goes_away_leaves_nothing(self):
        pid = self.server.pids("http")[0]
        before = len(os.listdir(f"/proc/{pid}/fd"))
        for _ in range(10):
            self.download().close()
        self.server.wait_until(
            lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before, what="closed descriptors"
        )
        self.assertEqual(self.server.pids("http"), [pid])

    def test_who_takes_nothing_is_cut(self):
        download = self.download()
        begun = time.monotonic()
        pid = self.server.pids("http")[0]
        self.server.wait_until(
            lambda: not open_snapshots(pid),
            timeout=STALL * 3,
            what="the end of the transfer",
        )
        self.assertGreater(time.monotonic() - begun, STALL / 2)
        self.assertLess(len(download.rest()), download.length)

    def test_a_file_that_becomes_shorter_is_cut(self):
        download = self.download()
        os.truncate(self.made["path"], download.length - MIB)
        self.assertLess(len(download.rest()), download.length)
        self.server.wait_log(f"transfer of snapshot {self.made['id']} is cut .* shorter")
        self.assertEqual(self.server.request("GET", "/health")[0], 200)

    def test_a_fast_stop_does_not_wait_for_it(self):
        self.download()
        begun = time.monotonic()
        self.server.stop()
        self.assertLess(time.monotonic() - begun, STALL)


if __name__ == "__main__":
    unittest.main()
