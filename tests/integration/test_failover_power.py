# timeout: 300
"""Changes of the role over power cuts and kills, at every step: what is left starts by itself and is wholly a
replica or wholly a master, what was answered holds, and asking again is harmless."""
import concurrent.futures
import contextlib
import http.client
import http.server
import json
import os
import random
import re
import shutil
import signal
import tempfile
import threading
import time
import unittest
import uuid

import nexus_wire as wire
import power_cut
import wal_files
from nexus_test import HOST, NexusTestCase, Node, free_port, is_alive, wait_until

CUTS = int(os.environ.get("NEXUS_POWER_CUTS", "60"))
SEED = int(os.environ.get("NEXUS_SEED", "1"))
CUTS_EACH = max(CUTS // 40, 1)  # at each point of a promotion
SAMPLE = max(CUTS // 5, 4)  # points of what is no promotion
ROUNDS = max(CUTS // 10, 2)  # kills of each kind of process
AT_ONCE = 3  # images that are looked at

PROMOTE = "/replication/promote"
FOLLOW = "/replication/follow"
PROMISE = "/replication/promise"
LOCAL = {"Nexus-Durability": "local"}
NOBODY = str(uuid.UUID(int=0))
SETTINGS = {"wal.segment_size": "64KiB", "wal.shm_size": "32MiB", "http.workers": 1, "snapshot.chunk_size": "16KiB",
            "state.checkpoint_interval": "1s", "replication.heartbeat_ms": 100, "replication.connect_timeout_ms": 500,
            "replication.missed_heartbeats_threshold": 4}


# ---- what a directory says ----


def identity_of(node):
    """The lines of data-N/identity; of lines that come again, the first."""
    found = {}
    with open(os.path.join(node.data_dir, "current", "identity"), encoding="utf-8") as file:
        for line in file:
            key, _, value = line.rstrip("\n").partition(" = ")
            found.setdefault(key, value)
    return found


def begun(node):
    """The entries of its log that begin an epoch: [(epoch, offset, node_id, crc)]"""
    found = []
    for frame in wal_files.read_log(node.wal_dir):
        for op in frame.entry().ops:
            if op.kind == wire.EPOCH:
                found.append((frame.epoch, frame.offset, str(uuid.UUID(bytes=op.key)), frame.crc))
    return found


def claim_of(node, epoch):
    """A Hello, from a node that leads in this epoch of a history that goes on from the node's."""
    status = node.status()
    claimant = str(uuid.uuid4())
    frame = wire.encode_entry(status["wal_offset"] + 1, epoch, status["last_crc"], [wire.epoch_op(claimant)])
    last = (epoch, status["wal_offset"] + 1, claimant, wire.frame_crc(frame))
    addr = f"{HOST}:{free_port()}"
    return wire.build_hello(claimant, last[1], cluster_id=status["cluster_id"], last_epoch=epoch, last_crc=last[3],
                            http_addr=addr, advertised_addr=addr, claim=frame,
                            epochs=wire.build_epochs((1, 1, NOBODY, 0), *begun(node), last))


# ---- records and images ----


class Record:
    """A node whose data directory is recorded from its birth, and marks of what it was asked and has answered."""

    def __init__(self, node):
        self.node = node
        self.log = os.path.join(node.directory, "record")
        os.mkdir(node.data_dir, 0o700)
        node.env.update({"NX_RECORD_DIR": os.path.realpath(node.data_dir), "NX_RECORD_LOG": self.log})

    def mark(self, text):
        log_fd = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        power_cut.append_ack(log_fd, text)
        os.close(log_fd)

    @contextlib.contextmanager
    def step(self, name):
        self.mark(f"asked {name}")
        yield
        self.mark(f"done {name}")

    def put(self, key, **options):
        """Written by the node itself, and answered."""
        self.node.put(key, key, **options)
        self.mark(f"has {key}")

    def end(self):
        self.node.stop()
        self.root = os.path.realpath(self.node.data_dir)
        self.records = power_cut.read_log(self.log)

    def between(self, name, more=0):
        """All points from the question of a step to its answer, and so many behind that."""
        marks = [rec[4].decode() if rec[0] == power_cut.ACK else "" for rec in self.records]
        last = marks.index(f"done {name}") + 1 + more
        return range(marks.index(f"asked {name}") + 1, min(last, len(marks)) + 1)


class Image:
    """What a kill or a power cut has left."""

    def __init__(self, case, point, disk, last):
        self.directory = case.scratch()
        self.data = os.path.join(self.directory, "data")
        self.point = point
        self.marks = list(disk.acks)
        self.last = power_cut.describe(last)
        self.style = None

    def was(self, name):
        """Of a step: "done" when it was answered, "asked", or "no"."""
        return next((how for how in ("done", "asked") if f"{how} {name}" in self.marks), "no")

    def keys(self):
        """Written, and answered."""
        return [mark[4:] for mark in self.marks if mark.startswith("has ")]


class ImageCase(NexusTestCase):
    def scratch(self):
        directory = tempfile.mkdtemp(prefix="nexus-image-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        return directory

    def record(self, role, **settings):
        return Record(self.node(role, settings={**SETTINGS, **settings}, preload=["librecorder.so"], start=False))

    def recorded_replica(self, sync=False, **settings):
        """A recorded replica, level with a master that is dead; -> Record"""
        modes = {"replication.mode": "sync"} if sync else {}
        master = self.node("master", settings={**SETTINGS, **modes})
        record = self.record("replica", **{"replication.master_addr": master.replication_addr, **modes, **settings})
        record.node.start("/ready")
        for number in range(5):
            master.put(f"base{number}", f"base{number}")
        record.node.wait_offset(5)
        for number in range(5):
            record.mark(f"has base{number}")
        master.kill9()
        record.node.wait_status(connected=False)
        return record

    def images(self, record, points, cuts):
        """Of each point what SIGKILL leaves, and what so many power cuts may leave."""
        for _, point, disk in power_cut.replayed(record.root, record.records, sorted(points)):
            for cut in range(cuts + 1):
                image = Image(self, point, disk, record.records[point - 1])
                rng = random.Random(f"{SEED}/{point}/{cut}")
                image.style = disk.image(image.data, rng) if cut else disk.killed(image.data)
                yield image

    def look(self, record, image, check):
        """Starts a node on an image and checks it; -> what was wrong, or None"""
        node = Node(record.node.role, name="image", directory=image.directory,
                    settings=record.node.settings)
        node.http_port, node.replication_port = free_port(), free_port()
        try:
            node.start()
            node.wait_status(state=lambda state: state != "starting")
            self.check_log(node)
            check(node, image)
        except Exception as error:  # pylint: disable=broad-except
            return node.describe(f"{type(error).__name__}: {error}")
        finally:
            node.kill_all()
            node.cleanup()
            shutil.rmtree(image.directory, ignore_errors=True)
        return None

    def check_images(self, record, points, check, cuts=1, at_once=AT_ONCE):
        count = 0
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            looks = [(image, pool.submit(self.look, record, image, check))
                     for image in self.images(record, points, cuts)]
            for image, look in looks:
                count += 1
                with self.subTest(point=image.point, style=image.style, seed=SEED, last=image.last,
                                  marks=image.marks[-3:]):
                    fault = look.result()
                    if fault:
                        self.fail(fault)
        print(f"{self.id()}: {len(record.records)} records, {count} images", flush=True)

    # What holds of each

    def check_log(self, node):
        """No epoch is there twice, or below one before it; the role is wholly the one that log and note say."""
        epochs = begun(node)
        numbers = [epoch[0] for epoch in epochs]
        self.assertEqual(numbers, sorted(set(numbers)))
        note = int(identity_of(node).get("note_epoch", 0))
        status = node.status()
        since = [leader for epoch, _, leader, _ in epochs if epoch >= note]
        noted = note in numbers and set(since) == {status["node_id"]}
        followed = "follow_addr" in identity_of(node)
        master = noted or (node.role == "master" and not followed)
        self.assertEqual(status["role"], "master" if master else "replica", (epochs, identity_of(node)))
        code, _, body = node.request("PUT", "/kv/wholly", b"v", LOCAL)
        wanted = (409,) if status["state"] == "fenced" else (200, 201) if master else (403,)
        self.assertIn(code, wanted, body)

    def check_keys(self, node, image):
        for key in image.keys():
            self.assertEqual(node.get(key, headers={"Nexus-Read": "local"}), key.encode(), "answered, and lost")

    def check_leads(self, node, epoch, key="again"):
        """The master of that epoch, which takes writes; over another kill too."""
        status = node.status()
        self.assertEqual((status["role"], status["epoch"], status["state"]), ("master", epoch, "streaming"))
        node.put(key, key, headers=LOCAL)
        node.kill_all()
        node.start()
        node.wait_status(role="master", epoch=epoch, state="streaming")
        self.assertEqual(node.get(key, headers={"Nexus-Read": "local"}), key.encode())
        self.check_log(node)


# ---- promotions ----


class Promotions(ImageCase):
    def promote_again(self, node, query, least):
        """-> the epoch; the node may be the master already."""
        answer = node.json("POST", PROMOTE + query)
        self.assertGreaterEqual(answer["epoch"], least)
        return answer["epoch"]

    def checker(self, query=""):
        def check(node, image):
            status, how = node.status(), image.was("promotion")
            if how == "done":
                self.assertEqual((status["role"], status["epoch"]), ("master", 2), "the promotion was answered")
            if how == "no":
                self.assertEqual(status["role"], "replica")
            self.check_keys(node, image)
            epoch = self.promote_again(node, query, 2)
            self.assertLessEqual(epoch, 2)
            self.check_leads(node, epoch)
            self.check_keys(node, image)

        return check

    def test_01_without_peers(self):
        record = self.recorded_replica()
        with record.step("promotion"):
            self.assertEqual(record.node.json("POST", PROMOTE)["epoch"], 2)
        for number in range(5):
            record.put(f"new{number}")
        record.end()
        self.check_images(record, record.between("promotion", 6), self.checker(), CUTS_EACH)

    def test_02_with_peers_that_promise(self):
        """In sync mode, where the promise is needed; nobody is there any more when it is asked for again."""
        peer = self.node("replica", start=False, settings={**SETTINGS, "replication.mode": "sync"})
        record = self.recorded_replica(sync=True, **{"replication.peers": f"{HOST}:{free_port()},{peer.addr}"})
        master_addr = record.node.settings["replication.master_addr"]
        peer.settings["replication.master_addr"] = master_addr
        shutil.copytree(record.node.data_dir, peer.data_dir, symlinks=True, ignore=shutil.ignore_patterns(
            "nexus.id", "*.sock", "*.pid", "snapshots"))
        self.make_another(record.node, peer)
        peer.start()
        with record.step("promotion"):
            answer = record.node.json("POST", PROMOTE)
        self.assertEqual((answer["epoch"], answer["sync_loss_possible"]), (2, False))
        peer.json("POST", FOLLOW, {"master_addr": record.node.replication_addr})
        peer.wait_status(state="streaming")
        for number in range(5):
            record.put(f"new{number}")
        peer.kill9()
        record.end()
        self.check_images(record, record.between("promotion", 6), self.checker("?force=1"), CUTS_EACH)

    def make_another(self, node, copy):
        """The copy of a directory becomes that of another node."""
        with open(os.path.join(node.data_dir, "nexus.id"), encoding="ascii") as file:
            text = file.read()
        own_id = re.search("node_id = (.*)", text).group(1)
        with open(os.path.join(copy.data_dir, "nexus.id"), "w", encoding="ascii") as file:
            file.write(text.replace(own_id, str(uuid.uuid4())))

    def test_03_of_one_that_was_promoted_and_fenced(self):
        """By force: until that is done it is a fenced master."""
        record = self.recorded_replica()
        self.assertEqual(record.node.json("POST", PROMOTE)["epoch"], 2)
        record.put("new0")
        with record.step("fence"):
            with wire.RawPeer(record.node.replication_port) as peer:
                peer.send(claim_of(record.node, 3))
                peer.recv_error(wire.ERROR_FENCED)
        with record.step("force"):
            self.assertEqual(record.node.json("POST", PROMOTE + "?force=1")["epoch"], 4)
        for number in range(1, 5):
            record.put(f"new{number}")
        record.end()

        def check(node, image):
            status = node.status()
            self.assertEqual(status["role"], "master")
            if image.was("force") == "done":
                self.assertEqual((status["state"], status["epoch"]), ("streaming", 4))
            elif image.was("force") == "no" and image.was("fence") == "done":
                self.assertEqual(status["state"], "fenced")
            elif image.was("fence") == "done":
                self.assertEqual(status["epoch"], 2 if status["state"] == "fenced" else 4)
            self.check_keys(node, image)
            if status["state"] == "fenced":
                self.assert_problem(node.request("POST", PROMOTE), 409, "fenced")
            fence = 4 if image.was("fence") == "done" else 2
            self.check_leads(node, self.promote_again(node, "?force=1", fence))
            self.check_keys(node, image)

        points = {*record.between("fence"), *record.between("force", 6)}
        self.check_images(record, points, check, CUTS_EACH)


# ---- promises, follows, fences ----


class Decisions(ImageCase):
    def sampled(self, record, *names):
        """All points of the steps, or as many as there is time for."""
        points = sorted({point for name in names for point in record.between(name, 2)})
        return points if len(points) <= SAMPLE else random.Random(SEED).sample(points, SAMPLE)

    def ask_promise(self, node, epoch, node_id, method="POST"):
        return node.request(method, PROMISE, json.dumps({"epoch": epoch, "node_id": node_id}))

    def is_followed(self, node, master):
        """Whether a master of epoch 1 is; it is greeted by the node sooner or later."""
        peer = master.accept()
        hello = peer.recv_type(wire.HELLO)
        self.assertEqual(hello.replica_id, node.status()["node_id"])
        peer.send(wire.build_welcome(master.master_id, hello.last_wal_offset, cluster_id=hello.cluster_id, epoch=1,
                                     heartbeat_ms=100))
        while (message := peer.recv()) is not None:
            if message.type == wire.ERROR:
                self.assertEqual(message.code, wire.ERROR_FENCED)
                return False
            if message.type in (wire.PING, wire.WAL_ACK):
                return True
        raise AssertionError("closed without a word")

    def test_01_a_promise_given_and_withdrawn(self):
        record = self.recorded_replica()
        asker = str(uuid.uuid4())
        with record.step("promise"):
            self.assertEqual(self.ask_promise(record.node, 5, asker)[0], 200)
        with record.step("withdrawal"):
            self.assertEqual(self.ask_promise(record.node, 5, asker, "DELETE")[0], 200)
        record.end()

        def check(node, image):
            self.check_keys(node, image)
            kept = "promise_epoch" in identity_of(node)
            if image.was("promise") == "done" and image.was("withdrawal") == "no":
                self.assertTrue(kept, "the promise was answered")
            if image.was("promise") == "no" or image.was("withdrawal") == "done":
                self.assertFalse(kept)
            node.kill_all()
            with wire.RawMaster() as lower:
                node.settings["replication.master_addr"] = lower.addr
                node.start()
                self.assertEqual(self.is_followed(node, lower), not kept)
                answer = self.ask_promise(node, 5, str(uuid.uuid4()))
                if kept:
                    self.assertEqual(self.assert_problem(answer, 409, "quorum_not_seen")["epoch"], 5)
                    self.assertEqual(self.ask_promise(node, 5, asker)[0], 200)
                else:
                    self.assertEqual(answer[0], 200, answer)
                self.assertEqual(node.json("POST", PROMOTE)["epoch"], 6)
                self.check_leads(node, 6)

        self.check_images(record, self.sampled(record, "promise", "withdrawal"), check, CUTS_EACH)

    def follows(self, node):
        """The address that the node goes by: of POST /replication/follow, or None."""
        found = re.search("role: POST /replication/follow has made this node a replica of ([^;]*);", node.log())
        return found and found.group(1)

    def test_02_a_replica_follows_another(self):
        record = self.recorded_replica()
        other = f"{HOST}:{free_port()}"
        with record.step("promise"):
            self.assertEqual(self.ask_promise(record.node, 5, str(uuid.uuid4()))[0], 200)
        with record.step("follow"):
            record.node.json("POST", FOLLOW, {"master_addr": other, "force": True})
        record.end()

        def check(node, image):
            self.check_keys(node, image)
            followed = self.follows(node)
            if image.was("follow") == "done":
                self.assertEqual(followed, other, "it was answered")
            if image.was("follow") == "no":
                self.assertIsNone(followed)
            # It ends the promise, and one doesn't end without the other.
            self.assertEqual("promise_epoch" in identity_of(node), followed is None)
            node.json("POST", FOLLOW, {"master_addr": other})
            node.kill_all()
            node.start()
            self.assertEqual(self.follows(node), other)
            self.assertEqual(identity_of(node)["follow_force"], "0")

        self.check_images(record, self.sampled(record, "follow"), check, CUTS_EACH)

    def test_03_a_master_is_fenced_and_follows(self):
        record = self.record("master")
        node = record.node.start()
        other = f"{HOST}:{free_port()}"
        for number in range(5):
            record.put(f"new{number}")
        with record.step("fence"):
            with wire.RawPeer(node.replication_port) as peer:
                peer.send(claim_of(node, 2))
                peer.recv_error(wire.ERROR_FENCED)
        with record.step("follow"):
            node.json("POST", FOLLOW, {"master_addr": other})
        node.wait_status(role="replica", state="connecting")
        record.end()

        def check(node, image):
            self.check_keys(node, image)
            status, followed = node.status(), self.follows(node)
            if image.was("follow") == "done":
                self.assertEqual(followed, other, "it was answered")
            if image.was("follow") == "no":
                self.assertIsNone(followed)
                if image.was("fence") == "done":
                    self.assertEqual(status["state"], "fenced", "the fence was answered")
            if followed is None and status["state"] == "fenced":
                answer = node.request("POST", FOLLOW, json.dumps({"master_addr": other}))
                self.assertEqual(answer[0], 200, answer)
                node.wait_status(role="replica")
                node.kill_all()
                node.start()
                node.wait_status(role="replica")
                self.assertEqual(self.follows(node), other)

        self.check_images(record, self.sampled(record, "fence", "follow"), check, CUTS_EACH)


# ---- what is given up ----


class GivenUp(ImageCase):
    """A former master follows the new one: a full sync replaces what it has, and what only it had is kept."""

    def setUp(self):
        self.former = self.record("master", **{"replication.max_log_size": 60})
        node = self.former.node.start()
        self.master = self.node("replica", wait="/ready", settings={
            **SETTINGS, "replication.master_addr": node.replication_addr})
        for number in range(5):
            self.former.put(f"base{number}")
        self.master.wait_offset(5)
        self.master.stop()
        for number in range(5):
            self.former.put(f"lost{number}")
        node.kill9()
        self.master.start()
        self.assertEqual(self.master.json("POST", PROMOTE)["epoch"], 2)
        self.master.put("new", "new")
        node.start()
        node.wait_status(state="fenced")
        node.wait_until(lambda: "fence_epoch" in identity_of(node), what="the fence on disk")
        with self.former.step("sync"):
            node.json("POST", FOLLOW, {"master_addr": self.master.replication_addr})
            self.former.mark("done follow")
            offset = self.master.status()["wal_offset"]
            node.wait_status(role="replica", state="streaming", applied_offset=lambda value: value >= offset)
        self.master.stop()
        self.former.end()

    def given_up(self, node):
        """Key -> value of all that /import would put back."""
        answer, found = node.json("GET", "/replication/diverged"), {}
        for path in answer["files"]:
            with open(path, encoding="utf-8") as file:
                found.update((item["key"], item["value"]) for item in map(json.loads, file))
        if found:
            self.assertEqual([entry["offset"] for entry in answer["entries"]], [6, 7, 8, 9, 10])
        return found

    def points(self, count):
        """Around the changes of names, and anywhere."""
        all_points = self.former.between("sync", 10)
        named = power_cut.name_points(self.former.records, self.former.root, all_points[0])
        rng = random.Random(SEED)
        named = [point for point in named if point in all_points]
        return rng.sample(named, min(count - count // 4, len(named))) + rng.sample(all_points, count // 4)

    def lost(self):
        return {f"lost{number}": f"lost{number}" for number in range(5)}

    def test_01_it_stands_in_the_old_data_or_is_kept(self):
        seen = set()

        def check(node, image):
            status = node.status()
            if image.was("follow") == "done":
                self.assertEqual(status["role"], "replica")
            for number in range(5):
                self.assertEqual(node.get(f"base{number}", headers={"Nexus-Read": "local"}), b"base%d" % number)
            values = {key: node.get(key, headers={"Nexus-Read": "local"}) for key in self.lost()}
            new = node.get("new", headers={"Nexus-Read": "local"})
            seen.add((new is None, os.path.isdir(os.path.join(node.data_dir, "diverged"))))
            if new is None:
                self.assertNotEqual(image.was("sync"), "done")
                self.assertEqual({key: value.decode() for key, value in values.items()}, self.lost())
            else:
                self.assertEqual(set(values.values()), {None})
                self.assertEqual(self.given_up(node), self.lost())

        self.check_images(self.former, self.points(SAMPLE * 2), check)
        self.assertEqual(seen, {(True, False), (True, True), (False, True)})

    def test_02_it_comes_level_with_its_master(self):
        self.master.start("/primary")

        def check(node, image):
            if image.was("follow") != "done":
                node.wait_status(state=lambda state: state != "starting")
                node.request("POST", FOLLOW, json.dumps({"master_addr": self.master.replication_addr}))
            offset = self.master.status()["wal_offset"]
            node.wait_status(role="replica", state="streaming", applied_offset=lambda value: value >= offset)
            node.wait_until(lambda: node.export() == self.master.export(), 5, "the same content")
            self.assertEqual(self.given_up(node), self.lost())

        self.check_images(self.former, self.points(max(SAMPLE // 2, 4)), check, at_once=1)


# ---- kills of processes ----


class SlowPeer(http.server.BaseHTTPRequestHandler):
    """Promises whatever it is asked for, after a moment."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(request["epoch"])
        self.server.pause.wait(self.server.delay)
        self.answer(200, {"success": True, "node_id": self.server.node_id, **self.server.position})

    def do_DELETE(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {"success": True})

    def do_GET(self):
        self.answer(404, {})

    def answer(self, status, body):
        content = json.dumps(body).encode()
        with contextlib.suppress(OSError):  # who asked may be dead
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_):
        pass


class ChangeCase(ImageCase):
    def slow_peer(self, delay):
        """-> the server of a SlowPeer; its `pause` ends all delays"""
        server = http.server.ThreadingHTTPServer((HOST, 0), SlowPeer)
        server.delay, server.pause, server.asked = delay, threading.Event(), []
        server.node_id, server.position = str(uuid.uuid4()), {}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def end():
            server.pause.set()
            server.shutdown()
            thread.join()
            server.server_close()

        self.addCleanup(end)
        server.addr = f"{HOST}:{server.server_port}"
        return server

    def find(self, node, kind):
        """Pids, without asking the node."""
        return [process.pid for process in node.children() if process.title.startswith(f"nexus: {kind}")]

    def walwriter(self, node):
        return self.find(node, "walwriter")[0]

    def wait_afresh(self, node):
        """The walwriter was killed, and all the others with it: they serve again."""
        node.drop_connections()
        node.wait_log("walwriter: all processes are ended")
        node.wait_status(state=lambda state: state != "starting")

    def stop_child(self, node, kind):
        """SIGSTOP; -> what lets it go on"""
        pid = node.kill_child(kind, signal.SIGSTOP)
        return lambda: is_alive(pid) and os.kill(pid, signal.SIGCONT)

    def fence(self, node, epoch, code=wire.ERROR_FENCED):
        with wire.RawPeer(node.replication_port) as peer:
            peer.send(claim_of(node, epoch))
            peer.recv_error(code)

    def in_background(self, node, *request):
        """Sends a request; -> (thread, list that gets the answer, or what went wrong)"""
        answers = []

        def ask():
            client = node.client(timeout=20)
            try:
                answers.append(client.request(*request))
            except (OSError, http.client.HTTPException) as error:
                answers.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        return thread, answers

    def final_answer(self, node, path):
        """Asks until neither the connection breaks nor another change is under way."""
        last = []

        def answered():
            try:
                last[:] = [node.client(timeout=5).request("POST", path)]
            except (OSError, http.client.HTTPException) as error:
                last[:] = [error]
                return False
            return last[0][0] != 503

        node.wait_until(answered, 10, lambda: f"a final answer, last {last}")
        return last[0]


class Kills(ChangeCase):
    """SIGKILL of single processes at any moment of a promotion."""

    def setUp(self):
        self.peer = self.slow_peer(0.05)
        self.replica = self.recorded_replica(**{"replication.peers": self.peer.addr}).node
        self.replica.wait_status(master_alive=False)
        status = self.replica.status()
        self.peer.position = {"epoch": 1, "offset": 5, "crc": status["last_crc"], "cluster_id": status["cluster_id"]}
        self.replica.stop()
        self.rng = random.Random(SEED)
        self.hit = 0

    def kill(self, node, kind):
        """Whatever of that kind lives at this moment."""
        pids = [node.pid] if kind == "postmaster" else self.find(node, kind)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.hit += len(pids)
        if kind == "postmaster":
            node.wait_exit()
            node.wait_children_gone()
            node.start()
        wait_until(lambda: not any(map(is_alive, pids)), what=f"the end of {pids}")
        if kind == "walwriter":  # all the others go with it
            self.wait_afresh(node)

    def one_round(self, kind, span):
        directory = self.scratch()
        shutil.copytree(self.replica.data_dir, os.path.join(directory, "data"), symlinks=True)
        node = self.node("replica", name=kind, directory=directory, settings=self.replica.settings)
        moment = self.rng.uniform(0, span)
        if kind == "walreceiver":  # it is the first that goes: its end is still to be heard of
            node.wait_until(lambda: self.find(node, kind), what="a walreceiver")
            self.kill(node, kind)
        thread, answers = self.in_background(node, "POST", PROMOTE)
        if kind != "walreceiver":
            threading.Event().wait(moment)
            self.kill(node, kind)
        thread.join(10)
        self.assertFalse(thread.is_alive(), "the asker waits for ever")
        first = answers[0]
        status, _, body = self.final_answer(node, PROMOTE)
        with self.subTest(kind=kind, moment=moment, first=first):
            if isinstance(first, tuple) and first[0] == 200:
                self.assertEqual(json.loads(first[2])["epoch"], 2)
            self.assertEqual((status, json.loads(body).get("epoch")), (200, 2), body)
            self.check_leads(node, 2)
            for number in range(5):
                self.assertEqual(node.get(f"base{number}"), f"base{number}".encode())
            node.stop()
            node.wait_children_gone()
        return isinstance(first, tuple) and first[0] == 200

    def rounds(self, kind):
        began = time.monotonic()
        self.assertTrue(self.one_round("nothing", 0))
        span = 0.12 if time.monotonic() - began < 5 else 0.5
        done = sum(self.one_round(kind, span) for _ in range(ROUNDS))
        print(f"{kind}: {ROUNDS} rounds, {self.hit} processes killed, {done} promotions answered", flush=True)

    def test_01_the_postmaster(self):
        self.rounds("postmaster")

    def test_02_the_walwriter(self):
        self.rounds("walwriter")

    def test_03_the_peers_process(self):
        self.rounds("peers")

    def test_04_the_http_worker(self):
        self.rounds("http")

    def test_05_the_walreceiver(self):
        self.rounds("walreceiver")


class Crashes(ChangeCase):
    """Processes die, or are told more, in the middle of a change."""

    def fenced_master(self, **settings):
        node = self.node("master", settings={**SETTINGS, **settings})
        node.put("k", "k")
        self.fence(node, 2)
        node.wait_status(state="fenced")
        return node

    def test_01_a_fenced_master_crashes_once_its_follow_was_answered(self):
        """The http workers are still ending: an answered follow is in force all the same."""
        node = self.fenced_master(**{"http.workers": 2})
        other = f"{HOST}:{free_port()}"
        body = json.dumps({"master_addr": other})
        pids = node.pids("http")
        os.kill(pids[0], signal.SIGSTOP)
        try:
            status = node.client(timeout=2).request("POST", FOLLOW, body)[0]
        except TimeoutError:  # the other one took the connection
            os.kill(pids[1], signal.SIGSTOP)
            os.kill(pids[0], signal.SIGCONT)
            status = 200
        self.assertEqual(status, 200)
        os.kill(self.walwriter(node), signal.SIGKILL)
        self.wait_afresh(node)
        self.assertEqual(node.status()["role"], "replica")
        self.assertEqual(node.request("PUT", "/kv/k", b"v")[0], 403)

    def test_02_a_replica_crashes_while_it_begins_to_follow(self):
        """What is stored is in force at once, as it is after a restart."""
        node = self.recorded_replica().node
        with wire.RawMaster() as other:
            os.kill(node.pid, signal.SIGSTOP)
            os.kill(self.walwriter(node), signal.SIGKILL)
            thread, _ = self.in_background(node, "POST", FOLLOW, json.dumps({"master_addr": other.addr}))
            threading.Event().wait(0.2)  # for its question to wait, as the death does
            os.kill(node.pid, signal.SIGCONT)
            thread.join()
            self.wait_afresh(node)
            if "follow_addr" in identity_of(node):
                self.assertEqual(other.accept().recv_type(wire.HELLO).replica_id, node.status()["node_id"])

    def test_03_a_fence_that_comes_while_a_forced_promotion_commits(self):
        """The other one leads in a higher epoch: an answered fence holds."""
        peer = self.slow_peer(30)
        node = self.fenced_master(**{"replication.peers": peer.addr})
        thread, answers = self.in_background(node, "POST", PROMOTE + "?force=1")
        wait_until(lambda: peer.asked, what="a question to the peer")
        go_on = self.stop_child(node, "walwriter")
        peer.pause.set()
        wait_until(lambda: "note_epoch" in identity_of(node), what="the note")
        self.fence(node, 9)
        go_on()
        thread.join()
        self.assertEqual(answers[0][0], 200, answers)
        self.assertEqual(node.status()["state"], "fenced")
        self.assert_problem(node.request("PUT", "/kv/k", b"v"), 409, "fenced")
        self.assertEqual(identity_of(node)["fence_epoch"], "9")

    def test_04_a_machine_that_went_down_with_unsynced_writes(self):
        """Without wal.fsync = always a master begins an epoch then; one that was promoted stays one."""
        node = self.recorded_replica(**{"wal.fsync": "everysec"}).node
        self.assertEqual(node.json("POST", PROMOTE)["epoch"], 2)
        for epoch in (3, 4):
            node.kill_all()
            with open(os.path.join(node.wal_dir, "boot"), "w", encoding="ascii") as file:
                file.write("another boot")
            node.start()
            node.wait_status(role="master", epoch=epoch)
            node.put("k", "k")
            self.assertEqual(identity_of(node)["note_epoch"], str(epoch))
        self.check_leads(node, 4)

    def test_05_asked_again_while_the_promotion_ends(self):
        """The question is on its way when the node becomes the master: it is told so, as any later one."""
        peer = self.slow_peer(30)
        node = self.recorded_replica(**{"replication.peers": peer.addr}).node
        first, answers = self.in_background(node, "POST", PROMOTE)
        wait_until(lambda: peer.asked, what="a question to the peer")
        walwriter = node.kill_child("walwriter", signal.SIGSTOP)
        peer.pause.set()
        wait_until(lambda: "note_epoch" in identity_of(node), what="the note")

        def commits():
            """Only the walwriter goes on, which may not have been told to."""
            os.kill(node.pid, signal.SIGSTOP)
            os.kill(walwriter, signal.SIGCONT)
            with contextlib.suppress(AssertionError):
                return wait_until(lambda: begun(node), 0.5)
            os.kill(walwriter, signal.SIGSTOP)
            os.kill(node.pid, signal.SIGCONT)
            return None

        wait_until(commits, what="the epoch's entry", poll=0.05)
        second, again = self.in_background(node, "POST", PROMOTE)
        threading.Event().wait(0.2)  # for both to wait for the postmaster
        os.kill(node.pid, signal.SIGCONT)
        first.join()
        second.join()
        for status, _, body in (answers[0], again[0]):
            self.assertEqual((status, json.loads(body).get("epoch")), (200, 2), body)
        self.check_leads(node, 2)

    def test_06_a_fence_that_cannot_be_stored(self):
        """It holds until the server ends, over a crash of its processes too."""
        node = self.node("master", settings=SETTINGS)
        node.put("k", "k")
        temporary = os.path.join(node.data_dir, "current", "identity.tmp")
        os.mkdir(temporary)
        self.fence(node, 2, wire.ERROR_INTERNAL)
        node.wait_log("the fence can't be stored")
        self.assertNotIn("fence_epoch", identity_of(node))
        os.kill(self.walwriter(node), signal.SIGKILL)
        self.wait_afresh(node)
        self.assertEqual(node.status()["state"], "fenced")
        self.assert_problem(node.request("PUT", "/kv/k", b"v"), 409, "fenced")
        os.rmdir(temporary)
        self.fence(node, 3)
        self.assertEqual(identity_of(node)["fence_epoch"], "3")


if __name__ == "__main__":
    unittest.main()
