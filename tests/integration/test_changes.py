# timeout: 400
"""GET /changes: the log as events, from any offset, on every role, and what becomes of followers that are slow, cut
off, or asked for more than there is."""

import base64
import json
import os
import random
import signal
import socket
import time
import unittest

import load
from changes import Follower, Resumer
from failover import FailoverCase
from nexus_test import NexusTestCase, wait_until
from sync_nodes import SHORT, SyncTestCase

SMALL_LOG = {"wal.shm_size": "32MiB", "wal.segment_size": "1MiB"}
SEVEN_MIB = b"v" * (7 << 20)


class ChangesCase(NexusTestCase):
    def changes(self, node, *args, **options):
        follower = Follower(node.http_port, *args, **options)
        self.addCleanup(follower.close)
        if follower.status != 200:
            self.fail(f"{follower.status} {follower.body}")
        return follower

    def refused(self, node, status, code, **options):
        with Follower(node.http_port, **options) as follower:
            return self.assert_problem(follower.answer(), status, code)


class Events(ChangesCase):
    """What is told, on one node for all."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.maker = NexusTestCase()
        cls.node_ = cls.maker.node("standalone")

    @classmethod
    def tearDownClass(cls):
        cls.maker.doCleanups()
        super().tearDownClass()

    def now(self):
        return self.node_.status()["wal_offset"]

    def test_01_what_an_event_says(self):
        node = self.node_
        follower = self.changes(node)
        start = self.now()
        self.assertEqual(
            (follower.headers["Content-Type"], follower.headers["Cache-Control"]),
            ("text/event-stream", "no-store"),
        )
        self.assertEqual(
            (follower.headers["Nexus-Offset"], follower.headers["Nexus-Epoch"]), (str(start), "1")
        )
        before = time.time()
        offset = node.put("k", b"line one\nline two\r\x01\"\\ \xe2\x82\xac")
        event = follower.next()
        self.assertEqual((event.kind, event.id), ("message", f"{offset}@1"))
        self.assertEqual(set(event.data), {"offset", "epoch", "timestamp", "ops"})
        self.assertEqual((event.offset, event.data["epoch"]), (offset, 1))
        self.assertLess(abs(event.data["timestamp"] / 1e6 - before), 60)
        self.assertEqual(
            event.data["ops"],
            [{"put": {"key": "k", "value": "line one\nline two\r\x01\"\\ \u20ac"}}],
        )
        node.delete("k")
        self.assertEqual(follower.next().data["ops"], [{"delete": {"key": "k"}}])
        node.delete("k")  # absent: no entry, no event
        node.put("empty", b"")
        self.assertEqual(follower.next().ops, [("empty", "")])

    def test_02_bytes_that_are_no_text(self):
        node = self.node_
        follower = self.changes(node)
        key, value = b"\xff\x00key", bytes(range(256))
        node.put(key, value)
        (op,) = follower.next().data["ops"]
        self.assertEqual(
            op,
            {
                "put": {
                    "key_base64": base64.b64encode(key).decode(),
                    "value_base64": base64.b64encode(value).decode(),
                }
            },
        )
        node.delete(key)
        self.assertEqual(follower.next().ops, [(key, None)])
        filtered = self.changes(node, since=0, prefix=b"\xff")
        self.assertEqual(
            [event.ops for event in filtered.changes(2)], [[(key, value)], [(key, None)]]
        )

    def test_03_a_batch_is_one_event_of_what_matches(self):
        node = self.node_
        all_, some, none = (self.changes(node, prefix=prefix) for prefix in (None, "p/", "q/"))
        ops = [
            {"put": {"key": "p/a", "value": "1"}},
            {"put": {"key": "other", "value": "2"}},
            {"put": {"key": "p/a", "value": "3"}},
            {"delete": {"key": "p/a"}},
        ]
        offset = node.batch(ops)["offset"]
        mine = [("p/a", "1"), ("p/a", "3"), ("p/a", None)]
        self.assertEqual(all_.next().ops, [mine[0], ("other", "2"), *mine[1:]])
        self.assertEqual(some.next().ops, mine)
        last = node.put("q/b", b"4")
        self.assertEqual(none.next().offset, last)
        again = self.changes(node, since=offset - 1, prefix="p/")
        self.assertEqual((again.next().ops, again.last_id), (mine, f"{offset}@1"))

    def test_04_from_where(self):
        node = self.node_
        offsets = [node.put(f"since{i}", b"%d" % i) for i in range(5)]
        told = lambda follower: [event.offset for event in follower.changes(3)]
        cases = {
            "a number": {"since": offsets[1]},
            "with its epoch": {"since": f"{offsets[1]}@1"},
            "Last-Event-ID": {"headers": {"Last-Event-ID": f"{offsets[1]}@1"}},
            "Last-Event-ID wins": {"since": 0, "headers": {"Last-Event-ID": str(offsets[1])}},
            "in any case": {"since": 0, "headers": {"last-event-id": f" {offsets[1]}@1 "}},
        }
        for name, options in cases.items():
            with self.subTest(name):
                follower = self.changes(node, **options)
                self.assertEqual(follower.headers["Nexus-Offset"], str(offsets[1]))
                self.assertEqual(told(follower), offsets[2:])
        for since in (0, "0@1", "0@7"):
            with self.subTest(since=since):
                every = self.changes(node, since=since).changes(offsets[-1])
                self.assertEqual([event.offset for event in every], list(range(1, offsets[-1] + 1)))

    def test_05_refusals(self):
        node = self.node_
        for since in ("", "x", "-1", "1@", "1@0", "@1", "1@x", str(1 << 64), "1,2"):
            with self.subTest(since=since):
                self.refused(node, 400, "bad_parameter", since=since)
                self.refused(node, 400, "bad_parameter", headers={"Last-Event-ID": since})
        bad = "x"
        self.refused(node, 400, "bad_parameter", since=bad, headers={"Last-Event-ID": "0"})
        for path in (
            "/changes?since=1&since=1",
            "/changes?prefx=a",
            "/changes?prefix=" + "x" * 512,
        ):
            self.refused(node, 400, "bad_parameter", path=path)
        self.refused(node, 404, "no_such_endpoint", path="/changes/")
        self.refused(node, 400, "bad_parameter", headers={"Nexus-Read": "local"})
        twice = b"GET /changes HTTP/1.1\r\nHost: localhost\r\n" + 2 * b"Last-Event-ID: 1\r\n" + b"\r\n"
        self.assertIn(b" 400 ", node.raw_http(twice, timeout=0.5)[:20])
        self.assert_problem(node.request("POST", "/changes", b""), 405, "method_not_allowed")
        self.refused(node, 410, "history_changed", since=f"{self.now()}@2")

    def test_06_head(self):
        node = self.node_
        for path, status in (("/changes?since=0", 200), ("/changes?since=x", 400)):
            got, headers, body = node.request("HEAD", path)
            self.assertEqual((got, body), (status, b""))
        status, headers, _ = node.request("HEAD", "/changes")
        self.assertEqual(
            (headers["Content-Type"], headers["Nexus-Offset"]),
            ("text/event-stream", str(self.now())),
        )

    def test_065_a_body_is_read_past(self):
        node = self.node_
        request = b"GET /changes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
        with socket.create_connection(("127.0.0.1", node.http_port), 10) as sock:
            sock.sendall(request)
            wait_until(lambda: b"\r\n\r\n" in sock.recv(65536, socket.MSG_PEEK), what="the head")
            node.put("body", b"1")
            wait_until(lambda: b'"body"' in sock.recv(65536, socket.MSG_PEEK), what="the event")

    def test_07_http_1_0(self):
        node = self.node_
        start = self.now()
        follower = self.changes(node, version="1.0", headers={"Connection": "keep-alive"})
        self.assertFalse(follower.chunked)
        self.assertEqual(follower.headers["Connection"], "close")
        node.put("k", b"1.0")
        self.assertEqual(follower.next().offset, start + 1)

    def test_08_progress_and_an_offset_that_is_still_to_come(self):
        """10 s, and more followers than one, since it takes so long."""
        node = self.node_
        start = self.now()
        level = self.changes(node)
        behind = self.changes(node, since=0, prefix="none such")
        named = self.changes(node, since=f"{start + 5}@1")
        bare = self.changes(node, since=start + 5)
        later = self.changes(node, since=f"{start + 2}@2")
        for follower, data, id_ in (
            (level, {"offset": start, "epoch": 1}, f"{start}@1"),
            (behind, {"offset": start, "epoch": 1}, f"{start}@1"),
            (named, {"offset": start + 5, "epoch": 1}, f"{start + 5}@1"),
            (bare, {"offset": start + 5}, f"{start + 5}"),
        ):
            event = follower.progress()
            self.assertEqual((event.data, event.id), (data, id_))
        offsets = [node.put("later", b"%d" % i) for i in range(7)]
        self.assertEqual([event.offset for event in level.changes(7)], offsets)
        for follower in (named, bare):
            self.assertEqual([event.offset for event in follower.changes(2)], offsets[5:])
        # What came at its offset is of another epoch than it asks for.
        later.wait_end()
        self.refused(node, 410, "history_changed", since=f"{start + 2}@2")

    def test_09_clients_that_shut_their_side(self):
        node = self.node_
        half = self.changes(node)
        gone = [self.changes(node) for _ in range(20)]
        half.shut()
        self.assertEqual(half.progress().kind, "progress")
        node.put("half", b"1")
        self.assertEqual(half.change().ops, [("half", "1")])
        mark = sum(fds(node))
        for follower in gone:
            follower.close()
        node.wait_until(lambda: sum(fds(node)) <= mark - 20, what="the end of 20 connections")
        node.put("half", b"2")
        self.assertEqual(half.change().ops, [("half", "2")])

    def test_10_the_way_back_is_pipelined(self):
        """A request behind it on the connection is answered when the stream is over: never, here."""
        node = self.node_
        request = "GET /changes HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with socket.create_connection(("127.0.0.1", node.http_port), 10) as sock:
            sock.sendall(request.encode())
            wait_until(lambda: b"\r\n\r\n" in sock.recv(65536, socket.MSG_PEEK), what="the head")
            node.put("piped", b"1")
            wait_until(lambda: b'"piped"' in sock.recv(65536, socket.MSG_PEEK), what="the event")
            self.assertEqual(sock.recv(65536).count(b"HTTP/1.1 200"), 1)


def fds(node):
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in node.pids("http")]


def offsets_of(events):
    return [event.offset for event in events]


def puts(port, count, size, prefix="bulk"):
    """Many entries of a size in little time; -> the last one's offset."""
    with load.Connection(port) as connection:
        for first in range(0, count, 16):
            batch = range(first, min(first + 16, count))
            connection.send([load.put(f"{prefix}{i}", b"%07d" % i + b"x" * (size - 7)) for i in batch])
            for _ in batch:
                status, headers, body = connection.answer()
                assert status in (200, 201), body
    return int(headers["nexus-offset"])


class Kept(ChangesCase):
    def test_01_too_old_and_the_way_back(self):
        node = self.node(settings={"replication.max_log_size": 10})
        for i in range(30):
            node.put(f"k{i % 7}", b"%d" % i)
        problem = self.refused(node, 410, "history_gone", since=19)
        self.assertEqual(problem["oldest"], 21)
        self.assertIn("/export", problem["message"])
        self.refused(node, 410, "history_gone", since=0)
        self.refused(node, 410, "history_gone", headers={"Last-Event-ID": "3@1"})
        self.assertEqual(offsets_of(self.changes(node, since=20).changes(10)), list(range(21, 31)))
        _, headers, content = node.request("GET", "/export")
        known = {}
        for line in content.splitlines():
            row = json.loads(line)
            known[row["key"]] = row["value"]
        follower = self.changes(
            node, since="{Nexus-Offset}@{Nexus-Epoch}".format_map(dict(headers.items()))
        )
        node.put("k1", b"new")
        node.delete("k2")
        for event in follower.changes(2):
            for key, value in event.ops:
                known.pop(key, None)
                if value is not None:
                    known[key] = value
        self.assertEqual(known, {f"k{i}": node.get(f"k{i}").decode() for i in range(7) if i != 2})

    def test_02_an_old_entry_is_read_from_the_files(self):
        node = self.node(settings=SMALL_LOG)
        last = puts(node.http_port, 4000, 10000)
        follower = self.changes(node, since=0)
        for number, event in enumerate(follower.changes(last), 1):
            self.assertEqual((event.offset, event.ops[0][0]), (number, f"bulk{number - 1}"))
        filtered = self.changes(node, since=0, prefix="bulk399")
        self.assertEqual(
            [event.ops[0][0] for event in filtered.changes(11)],
            ["bulk399", *(f"bulk{number}" for number in range(3990, 4000))],
        )
        node.put("bulk399", b"live")
        self.assertEqual(filtered.change().ops, [("bulk399", "live")])

    def test_03_large_entries(self):
        node = self.node()
        live = [self.changes(node) for _ in range(3)]
        other = self.changes(node, prefix="other")
        ahead = [self.changes(node, since=since) for since in ("3@1", "2@2")]
        value = SEVEN_MIB + bytes([1]) * 100000  # each of which becomes six
        offsets = [node.put(f"large{i}", value) for i in range(3)]
        offsets.append(node.put("other", b"1"))
        self.assertEqual(other.change().offset, offsets[-1])
        late = self.changes(node, since=offsets[0] - 1)
        self.assertEqual(ahead[0].change().offset, offsets[3])
        ahead[1].wait_end()
        for follower in (*live, late):
            events = follower.changes(4)
            self.assertEqual(offsets_of(events), offsets)
            for event in events[:3]:
                self.assertEqual(event.ops[0][1].encode(), value)

    def test_04_one_whose_next_entry_is_no_longer_kept_is_cut(self):
        node = self.node(settings={**SMALL_LOG, "replication.max_log_size": 1000})
        segments = lambda: {name for name in os.listdir(node.wal_dir) if name.endswith(".wal")}
        puts(node.http_port, 1000, 20000)  # more than fits between the node and its client
        follower = self.changes(node, since=0, receive=4096)
        first = segments()
        while first & segments():
            puts(node.http_port, 100, 20000)
            follower.sock.recv(10000)  # so that it isn't cut for taking nothing
        follower.wait_cut()
        node.wait_log("a follower of /changes is cut at offset .* what follows is no longer kept")
        self.refused(node, 410, "history_gone", headers={"Last-Event-ID": "50@1"})


class Slow(ChangesCase):
    def write_until_cut(self, node):
        for number in range(60):
            puts(node.http_port, 200, 10000, f"round{number}-")
            if "takes less than is written" in node.log():
                return
        node.wait_log("takes less than is written")

    def test_01_a_slow_reader_is_cut(self):
        node = self.node(settings={"http.workers": 1})
        slow = self.changes(node, receive=4096)
        quick = Resumer(node.http_port, random.Random(1))
        quick.start()
        self.addCleanup(quick.stop)
        self.write_until_cut(node)
        slow.wait_cut()
        end = node.put("end", b"1")
        wait_until(lambda: quick.last_offset() >= end, 60, "the quick one's end")
        self.assertEqual(offsets_of(quick.seen), list(range(1, end + 1)))

    def test_02_one_that_catches_up_is_not(self):
        node = self.node()
        last = puts(node.http_port, 3000, 10000)
        slow = self.changes(node, since=0, receive=4096)
        self.assertEqual(slow.next().offset, 1)
        time.sleep(3)  # more than a live one may make us wait
        self.assertEqual(offsets_of(slow.changes(last - 1)), list(range(2, last + 1)))

    def test_03_the_others_are_served_meanwhile(self):
        node = self.node(settings={"http.workers": 1})
        last = puts(node.http_port, 2000, 10000)
        behind = [self.changes(node, since=0) for _ in range(10)]
        stuck = [self.changes(node, since=0, receive=4096) for _ in range(10)]
        live = self.changes(node)
        for i in range(50):
            offset = node.put("meanwhile", b"%d" % i)
            self.assertEqual(live.change().offset, offset)
        for follower in behind:
            self.assertEqual(offsets_of(follower.changes(last)), list(range(1, last + 1)))
        self.assertEqual(len(stuck), 10)


class Roles(ChangesCase, FailoverCase):
    def test_01_a_replica_tells_the_same(self):
        master, replica = self.pair()
        followers = [self.changes(node) for node in (master, replica)]
        master.put("k", b"1")
        master.delete("k")
        told = [[event.data for event in follower.changes(2)] for follower in followers]
        self.assertEqual(told[0], told[1])
        self.assertEqual(
            [event.data for event in self.changes(replica, since=0).changes(2)], told[0]
        )

    def test_02_a_lost_entry_is_not_taken_for_the_new_one(self):
        cluster = self.failover_cluster(1, peers=False)
        old, new = cluster.master, cluster.replica
        start = old.status()["wal_offset"]
        new.stop()
        with self.changes(old) as follower:
            lost = old.put("lost", b"v")
            self.assertEqual(follower.change().id, f"{lost}@1")
        old.kill9()
        new.start()
        waits = [self.changes(new, since=since) for since in (f"{lost}@1", f"{lost + 5}@1")]
        level = self.changes(new, since=f"{start}@1")
        bare = self.changes(new, since=lost)
        self.wait_promotable(new)
        self.promote(new)
        for follower in waits:
            follower.wait_end()
        problem = self.refused(new, 410, "history_changed", since=f"{lost}@1")
        self.assertEqual((problem["offset"], problem["epoch"]), (start, 2))
        offset = self.wait_write(new, "new")
        self.assertEqual(level.change().id, f"{offset}@2")  # the entry that begins the epoch is no event
        while (event := bare.change()).offset < offset:
            pass
        self.assertEqual(event.id, f"{offset}@2")

    def waiting_read(self, node):
        """A connection whose read is parked: it is sent together with one that is answered right before."""
        connection = load.Connection(node.http_port)
        connection.send([
            b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /kv/none?wait=300 HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: 0\r\n\r\n",
        ])
        self.assertEqual(connection.answer()[0], 200)
        return connection

    def test_03_a_stop_ends_all_streams(self):
        for sig in (signal.SIGUSR2, signal.SIGTERM):
            with self.subTest(sig):
                node = self.node()
                last = puts(node.http_port, 600, 10000)
                live = [self.changes(node) for _ in range(5)]
                old = self.changes(node, version="1.0")
                stuck = [self.changes(node, since=0, receive=4096) for _ in range(3)]
                waiting = Follower(node.http_port, path="/changes?since=1000000")
                read = self.waiting_read(node)
                self.assertEqual(len(stuck), 3)
                os.kill(node.pid, sig)
                for follower in (*live, waiting):
                    self.assertEqual(follower.wait_end(), [])
                self.assertEqual(old.wait_end(), [])
                self.assertEqual(node.wait_exit(), 0)
                self.assertEqual(read.answer()[0], 404 if sig == signal.SIGUSR2 else 503)
                read.sock.close()
                node.start()
                self.assertEqual(self.changes(node, since=last - 1).change().offset, last)
                waiting.close()


class Sync(ChangesCase, SyncTestCase):
    def test_only_what_is_committed_is_told(self):
        cluster = self.sync_cluster(1, **SHORT)
        master, replica = cluster.master, cluster.replica
        start = master.status()["wal_offset"]
        for node in cluster.nodes:
            headers = {"Nexus-Min-Offset": str(start)}
            self.assertEqual(node.request("GET", "/kv/writable", None, headers)[0], 200)
        followers = [self.changes(node) for node in cluster.nodes]
        self.assertEqual({follower.headers["Nexus-Offset"] for follower in followers}, {str(start)})
        walwriter = self.pause(replica)
        self.assert_problem(master.request("PUT", "/kv/a", b"1"), 504, "quorum_timeout")
        followers.append(self.changes(master))
        followers.append(self.changes(master, since=f"{start + 1}@1"))
        self.assertEqual(master.get("a", {"Nexus-Read": "local"}), b"1")
        for follower in followers:
            with self.assertRaises(TimeoutError):
                follower.next(0.2)
        self.resume(walwriter)
        for follower in followers[:3]:
            self.assertEqual(follower.change().id, f"{start + 1}@1")
        master.wait_written()
        self.assertEqual(followers[3].change().id, f"{start + 2}@1")


class Resumed(ChangesCase, FailoverCase):
    """Broken off again and again under load: every entry once, in order."""

    def resumers(self, *nodes, prefixes=(None, "k0000")):
        made = [
            Resumer(node.http_port, random.Random(f"{number}/{prefix}"), prefix=prefix)
            for number, node in enumerate(nodes)
            for prefix in prefixes
        ]
        for resumer in made:
            resumer.start()
            self.addCleanup(resumer.stop)
        return made

    def assert_complete(self, resumers, node, last):
        """All have seen what one sees that follows from the beginning, up to the last offset."""
        wanted = {}
        for resumer in resumers:
            resumer.stop()
            self.assertIsNone(resumer.refused)
            if resumer.prefix not in wanted:
                every = self.changes(node, since=0, prefix=resumer.prefix)
                wanted[resumer.prefix] = until(every, last)
            self.assertEqual(
                [(event.id, event.data) for event in resumer.seen], wanted[resumer.prefix]
            )

    def test_01_on_master_and_replica(self):
        cluster = self.cluster(1)
        resumers = self.resumers(*cluster.nodes)
        writers = load.Writers(cluster.master.http_port, 8000, clients=4).start()
        self.assertEqual(writers.join(), [])
        last = self.mark_end(cluster.master)
        for resumer in resumers:
            wait_until(lambda: resumer.last_offset() >= last, 60, "the end of the log")
        self.assertGreater(min(r.resumed for r in resumers if r.prefix is None), 100)
        self.assert_complete(resumers, cluster.replica, last)

    def mark_end(self, master):
        """An entry that everybody is told."""
        return self.wait_write(master, "k0000-end")

    def test_02_across_a_promotion(self):
        cluster = self.failover_cluster(2, mode="sync")
        master, replicas = cluster.master, cluster.replicas
        resumers = self.resumers(master, *replicas)
        writers = load.AckedPuts(master.http_port, prefix="k0000").start()
        wait_until(lambda: writers.count() > 500, 60, "writes")
        master.kill9()
        self.wait_promotable(*replicas)
        new = max(replicas, key=lambda node: node.status()["wal_offset"])
        self.promote(new)
        (other,) = [node for node in replicas if node is not new]
        self.follow_master(other, new)
        for resumer in resumers:
            if resumer.port == master.http_port:
                resumer.port = new.http_port
        count = writers.count()
        writers.port = new.http_port
        wait_until(lambda: writers.count() > count + 500, 60, "writes to the new master")
        writers.stop()
        last = self.mark_end(new)
        for resumer in resumers:
            wait_until(lambda: resumer.last_offset() >= last, 60, "the end of the log")
        self.assert_complete(resumers, new, last)
        seen = {event.offset: event.ops for event in resumers[0].seen}
        for key, offset in writers.acked.items():
            self.assertEqual(seen[offset][0][0], key)

    def follow_master(self, node, master):
        self.follow(node, master)
        self.wait_follows(node, master)


def until(follower, last):
    events = []
    while (event := follower.next()).kind == "progress" or event.offset < last:
        events.append(event)
    events.append(event)
    return [(event.id, event.data) for event in events if event.kind != "progress"]


if __name__ == "__main__":
    unittest.main()
