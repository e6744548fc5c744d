# build: release
# timeout: 900
"""Power loss over a whole cluster. A master and two replicas run under the recorder, all into one log, while clients
write: plain load with merges and changes of segments, a full sync of the second replica, and, in sync mode, the
death of the master and a promotion. Of instants of that log are made the directories that a power cut could have left
of one node, of both replicas, or of all nodes at once. Whatever started from them has every answered write.

    NEXUS_POWER_IMAGES=500   how many instants; of many nodes at one counts as one
    NEXUS_POWER_SEED=7       others than the usual ones
    NEXUS_POWER_LOG=dir      of a log that a failure has kept, instead of a new run: with the failure's seed, and as many
                             images, the same images are looked at
    NEXUS_PLANT=ack_before_fsync, ship_before_sync or ack_on_receive, in a test build: this test must fail
"""

import collections
import concurrent.futures
import contextlib
import json
import os
import queue
import shutil
import tempfile
import threading
import time
import unittest
import urllib.parse

import load
import wal_files
from nexus_test import HOST, NexusTestCase, Node, free_port, wait_until
from power_cluster import Recording

IMAGES = int(os.environ.get("NEXUS_POWER_IMAGES", "60"))
SEED = int(os.environ.get("NEXUS_POWER_SEED", "1"))
KEPT = os.environ.get("NEXUS_POWER_LOG", "")
MANY_FAULTS = 10  # are enough to look at

SIZE = 900
SETTINGS = {"wal.segment_size": "64KiB", "wal.shm_size": "32MiB", "wal.max_size": "1MiB", "state.map_size": "128MiB",
            "state.checkpoint_interval": "1s", "replication.max_log_size": 200, "http.workers": 1,
            "snapshot.chunk_size": "16KiB", "replication.heartbeat_ms": 200, "replication.connect_timeout_ms": 500,
            "replication.missed_heartbeats_threshold": 5}
LOCAL = {"Nexus-Read": "local"}
PROMOTE = "/replication/promote"
FIRST, SECOND = 1, 2  # the replicas, by number; the master is 0

# Which nodes are looked at, by the phase of the recording, and how often each. `leader`: the master alone;
# `follower`: a replica alone; `followers`: all that may have acknowledged; `all`: the whole cluster goes on;
# `promotion`: the master is lost for good.
KINDS = {
    "sync": {
        "load": {"leader": 5, "followers": 5, "all": 1},
        "full sync": {"leader": 4, "followers": 5, "all": 1},
        "streaming": {"leader": 4, "followers": 4, "all": 1, "promotion": 1},
        "promoting": {"leader": 1, "followers": 4, "promotion": 2},
        "promoted": {"leader": 4, "followers": 4, "all": 1},
    },
    "async": {
        "load": {"leader": 6, "follower": 3, "all": 1},
        "full sync": {"leader": 5, "follower": 4, "all": 1},
        "streaming": {"leader": 5, "follower": 4, "all": 1},
    },
}
LOOKS = 3  # single nodes and pairs that are looked at at a time
SHARES = {"sync": 0.7, "async": 0.3}
CLUSTERS = ("all", "promotion")


class Lost(AssertionError):
    """What a node has is not what was promised."""


# ---- a run ----


class Run:
    """Makes one recording."""

    def __init__(self, case, mode, directory):
        self.case = case
        self.mode = mode
        settings = {**SETTINGS, "replication.mode": mode}
        self.nodes = [case.node("replica" if number else "master", name=f"{mode}{number}", settings=settings,
                                start=False) for number in range(3)]
        self.master = self.nodes[0]
        for node in self.nodes:
            others = [other.addr for other in self.nodes if other is not node]
            node.settings["replication.peers"] = ",".join(others)
            if node is not self.master:
                node.settings["replication.master_addr"] = self.master.replication_addr
        self.recording = Recording.begin(directory, mode, self.nodes)
        self.writers = []

    def write(self, node, prefix):
        writers = load.AckedPuts(node.http_port, prefix=prefix, size=SIZE, on_ack=self.recording.ack)
        self.case.addCleanup(writers.stop)
        self.writers.append(writers)
        return writers.start()

    def more(self, writers, count, seconds=60):
        wanted = writers.count() + count
        wait_until(lambda: writers.count() >= wanted, seconds,
                   lambda: self.master.describe(f"{count} more answered writes of {self.mode}"))

    def make(self):
        """-> the Recording"""
        self.recording.mark("load")
        self.master.start()
        self.nodes[FIRST].start("/ready")
        writers = self.write(self.master, "a")
        self.more(writers, 700)
        self.master.wait_status(checkpoint_offset=lambda offset: offset > 200)
        self.recording.mark("full sync")
        self.nodes[SECOND].start("/ready", timeout=60)
        self.recording.mark("streaming")
        self.more(writers, 400)
        if self.mode == "sync":
            writers = self.promote(writers)
        writers.stop()
        for node in reversed(self.nodes):
            node.kill_all()
        self.recording.end(
            ports=[[node.http_port, node.replication_port] for node in self.nodes],
            roles=[node.role for node in self.nodes],
            settings=[node.settings for node in self.nodes],
            refused=sorted(set().union(*(writers.refused for writers in self.writers))),
        )
        return self.recording

    def promote(self, writers):
        """The master dies under load, a replica takes its place, the other follows it."""
        replicas = self.nodes[1:]
        self.master.kill_all()
        writers.stop()
        for replica in replicas:
            replica.wait_status(promotable=True)
        self.recording.mark("promoting")
        leader = promoted(replicas)
        self.recording.mark("promoted")
        self.recording.facts["leader"] = self.nodes.index(leader)
        other = next(replica for replica in replicas if replica is not leader)
        other.json("POST", "/replication/follow", {"master_addr": leader.replication_addr})
        writers = self.write(leader, "b")
        self.more(writers, 300)
        return writers


def promoted(nodes):
    """Has the most advanced one promoted, as an operator would. -> it"""
    last = []

    def one():
        ranked = sorted(nodes, key=position_of, reverse=True)
        for node in ranked:
            status, _, body = node.request("POST", PROMOTE, timeout=60)
            last[:] = [node.name, status, body]
            if status == 200:
                return node
        return None

    return wait_until(one, 30, lambda: nodes[0].describe(f"a promotion; last {last}"), poll=0.1)


def position_of(node):
    status = node.status()
    return status["epoch"], status["wal_offset"]


# ---- what a node has ----


def content_of(node):
    """All that is durable there: {key: (offset, value)}"""
    found, cursor = {}, None
    while True:
        path = "/kv?limit=10000" + ("" if cursor is None else "&cursor=" + urllib.parse.quote(cursor, safe=""))
        status, _, body = node.request("GET", path, headers=LOCAL)
        if status != 200:
            raise Lost(f"GET {path}: {status} {body[:300]!r}")
        page = json.loads(body)
        found.update((item["key"], (item["offset"], item["value"])) for item in page["items"])
        cursor = page["next"]
        if cursor is None:
            return found


def judge(found, acked, refused):
    """Every answered write is there, where it was, none that was refused, and no value that nobody wrote."""
    lost = [f"{key} at {offset}: {found.get(key, ('nothing',))[0]}" for key, offset in acked.items()
            if found.get(key, (None,))[0] != offset]
    if lost:
        raise Lost(f"{len(lost)} of {len(acked)} answered writes are lost: {lost[:5]} ...")
    for key, (_, value) in found.items():
        if key[0] in "ab" and value != key + "." * SIZE:
            raise Lost(f"a value that nobody wrote: {key} = {value[:100]!r}")
    back = refused.intersection(found)
    if back:
        raise Lost(f"refused, and there: {sorted(back)[:5]}")


def last_frames(directory):
    """{offset: crc} of the frames of an image's log."""
    wal_dir = os.path.join(directory, "data", "current", "wal")
    if not os.path.isdir(wal_dir):
        return {}
    return {frame.offset: frame.crc for frame in wal_files.read_log(wal_dir)}


# ---- images ----


class Look:
    """Images of one instant, and what is looked at in them."""

    def __init__(self, instant, number, scratch):
        """number: of the instant within its phase"""
        self.instant = instant
        self.facts = instant.recording.facts
        self.scratch = scratch
        self.refused = set(self.facts["refused"])
        self.kind = self.turns()[number % len(self.turns())]
        self.dirs = {}
        self.styles = {}

    def turns(self):
        """What comes rarely comes first, so that few images have some of it."""
        weights = KINDS[self.instant.recording.name][self.instant.phase]
        return [kind for kind in sorted(weights, key=weights.get) for _ in range(weights[kind])]

    @property
    def leader(self):
        return self.facts.get("leader", 0) if self.instant.phase == "promoted" else 0

    @property
    def followers(self):
        """Those that can have acknowledged what the leader has answered."""
        if self.instant.phase == "load":
            return [FIRST]
        return [number for number in (FIRST, SECOND) if number != self.leader]

    def numbers(self):
        if self.kind == "leader":
            return [self.leader]
        if self.kind == "follower":
            return [self.instant.dice.choice(self.followers)]
        if self.kind == "all":
            return [0, FIRST, SECOND]
        return [FIRST, SECOND] if self.kind == "promotion" else self.followers

    def directory(self, name):
        path = os.path.join(self.scratch, str(name))
        os.mkdir(path)
        return path

    def cut(self):
        """Writes the images. What was shipped before it was durable shows without a server."""
        os.mkdir(self.scratch)
        for number in self.numbers():
            self.dirs[number] = self.directory(number)
            self.styles[number] = self.instant.cut(number, self.dirs[number])
        if self.instant.phase != "promoting":
            self.check_shipped()

    def check_shipped(self):
        """The leader alone loses its power: what its replicas have written, durable or not, it still has."""
        place = self.directory("synced")
        self.instant.synced(self.leader, place)
        durable = last_frames(place)
        for number in self.followers:
            place = self.directory(f"written{number}")
            self.instant.written(number, place)
            for offset, crc in last_frames(place).items():
                if offset > max(durable, default=0) or durable.get(offset, crc) != crc:
                    raise Lost(f"node {number} has entry {offset}, which isn't durable on {self.leader}; that "
                               f"ends with {max(durable, default=0)}")

    def check(self, ports):
        if self.kind in CLUSTERS:
            self.check_cluster()
        else:
            with ports.taken() as some:
                self.check_alone(some)

    @contextlib.contextmanager
    def started(self, settings_of, ports):
        """Nodes on the images, by number."""
        nodes = {}
        try:
            for number, directory in self.dirs.items():
                nodes[number] = Node(self.facts["roles"][number], name=f"image{number}", directory=directory,
                                     settings=settings_of(number), ports=ports[number])
                nodes[number].launch()
            for node in nodes.values():
                node.wait_answer("/health")
                node.wait_status(state=lambda state: state != "starting")
            yield nodes
        except Exception as error:
            logs = [node.describe("") for node in nodes.values()]
            raise Lost("\n".join([f"{type(error).__name__}: {error}", *logs])) from error
        finally:
            for node in nodes.values():
                if node.process is not None:
                    node.kill_all()
                node.cleanup()

    def check_alone(self, ports):
        """ports: for three nodes, and one of which nothing is to be heard"""
        best = None

        def alone(number):
            changed = {"replication.peers": None}
            if self.facts["roles"][number] == "replica":
                changed["replication.master_addr"] = f"{HOST}:{ports[-1][0]}"
            return {**self.facts["settings"][number], **changed}

        with self.started(alone, ports) as nodes:
            for node in nodes.values():
                offset = node.status()["wal_offset"]
                found = content_of(node) if offset > 0 else {}
                # Whatever a node lacks, it lacks from some offset on.
                judge(found, {key: at for key, at in self.instant.acked.items() if at <= offset}, self.refused)
                if best is None or offset > best[0]:
                    best = (offset, found)
            if self.kind != "follower":
                judge(best[1], self.instant.acked, self.refused)

    def check_cluster(self):
        settings = self.facts["settings"]
        with self.started(lambda number: settings[number], self.facts["ports"]) as nodes:
            if self.kind == "promotion":
                leader = promoted(list(nodes.values()))
                others = []
            else:
                leader = nodes[self.leader]
                others = [nodes[number] for number in (FIRST, SECOND) if number != self.leader]
            leader.wait_status(role="master")
            for other in others:
                self.follow(other, leader)
            judge(content_of(leader), self.instant.acked, self.refused)
            if others:
                leader.wait_written("again")
            offset = leader.status()["wal_offset"]
            for other in others:
                other.wait_offset(offset, 60)
                other.wait_until(lambda node=other: node.export() == leader.export(), what="the same export")

    def follow(self, other, leader):
        """What was asked of it may not have been stored when the power went."""
        if self.instant.phase == "promoted":
            other.json("POST", "/replication/follow", {"master_addr": leader.replication_addr})

    def __str__(self):
        return f"{self.kind} of {self.instant}, styles {self.styles}"


class Ports:
    """For all images one after another: a port that is free is looked for a few times, not some thousand."""

    def __init__(self, sets):
        self.free = queue.SimpleQueue()
        for _ in range(sets):
            self.free.put([(free_port(), free_port()) for _ in range(4)])

    @contextlib.contextmanager
    def taken(self):
        some = self.free.get()
        try:
            yield some
        finally:
            self.free.put(some)


class PowerCluster(NexusTestCase):
    def setUp(self):
        self.scratch = tempfile.mkdtemp(prefix="nexus-power-")
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        self.ports = Ports(LOOKS)
        self.faults = []
        self.kept = None
        self.lock = threading.Lock()
        self.counts = collections.Counter()

    def recordings(self):
        if KEPT:
            return [Recording.read(KEPT)]
        runs = []
        for mode in SHARES:
            directory = os.path.join(self.scratch, mode)
            os.mkdir(directory)
            runs.append(Run(self, mode, directory))
        with concurrent.futures.ThreadPoolExecutor(len(runs)) as pool:
            return list(pool.map(Run.make, runs))

    def examine(self, look, room):
        try:
            if len(self.faults) < MANY_FAULTS:
                look.check(self.ports)
            shutil.rmtree(look.scratch, ignore_errors=True)
        except Exception as error:  # pylint: disable=broad-except
            self.fault(look, error)
        finally:
            room.release()

    def fault(self, look, error):
        """Keeps the images, and the log that they were cut from."""
        with self.lock:
            self.kept = self.kept or tempfile.mkdtemp(prefix="nexus-power-kept-")
            log = look.instant.recording.keep(self.kept)
            kept = shutil.move(look.scratch, self.kept)
            self.faults.append(f"{look}\n  its log is kept (NEXUS_POWER_LOG={log} NEXUS_POWER_IMAGES={IMAGES}), "
                               f"its images in {kept}\n  {error}")

    def examine_all(self, recording, pool):
        """Whole clusters use the ports of the recorded one, so one is looked at at a time."""
        room = threading.Semaphore(12)  # images are large
        count = max(int(IMAGES * SHARES[recording.name]), 5)
        seen = collections.Counter()
        with concurrent.futures.ThreadPoolExecutor(1) as one:
            for number, instant in enumerate(recording.instants(count, SEED)):
                if len(self.faults) >= MANY_FAULTS:
                    return
                room.acquire()  # pylint: disable=consider-using-with
                scratch = os.path.join(self.scratch, f"{recording.name}-{number}")
                look = Look(instant, seen[instant.phase], scratch)
                seen[instant.phase] += 1
                with self.lock:
                    self.counts[f"{recording.name} {instant.phase}: {look.kind}"] += 1
                try:
                    look.cut()
                except Lost as error:
                    self.fault(look, error)
                    room.release()
                    continue
                (one if look.kind in CLUSTERS else pool).submit(self.examine, look, room)

    def test_every_answered_write_survives_whoever_loses_power(self):
        began = time.monotonic()
        recordings = self.recordings()
        recorded = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(LOOKS) as pool, \
                concurrent.futures.ThreadPoolExecutor(len(recordings)) as producers:
            for done in [producers.submit(self.examine_all, recording, pool) for recording in recordings]:
                done.result()
        for name, count in sorted(self.counts.items()):
            print(f"  {name} {count}")
        print(f"{sum(self.counts.values())} instants, seed {SEED}: {recorded - began:.1f} s of recording, "
              f"{time.monotonic() - recorded:.1f} s of looking", flush=True)
        if self.faults:
            if "NEXUS_PLANT" in os.environ:
                shutil.rmtree(self.kept)  # as it should be
            self.fail("\n\n".join([f"{len(self.faults)} faults", *self.faults]))


if __name__ == "__main__":
    unittest.main()
