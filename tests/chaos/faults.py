"""What is done to the nodes. A row of FAULTS: the name under which it is counted, its weight, its longest time in
seconds, and a class: `begin` does it, `end` heals it. Only what the cluster can bear is done: of three nodes one at a
time is away, and processes that die are started again by their node."""

import os
import resource
import signal
import threading
import time

from nexus_test import SANITIZED

KILLABLE = ("walwriter", "checkpointer", "http", "walsender", "walreceiver", "snapshot", "peers", "restore")


class Fault:
    takes_node = False  # a node is away as long as it lasts

    def __init__(self, cluster, rng):
        self.cluster = cluster
        self.rng = rng
        self.text = type(self).__name__
        self.node = rng.choice(cluster.nodes)

    def begin(self):
        """-> False: it could not be done"""
        raise NotImplementedError

    def end(self):
        pass

    def take(self, node):
        self.node = node
        self.cluster.away.add(node)

    def give_back(self):
        self.cluster.away.discard(self.node)


class KillChildren(Fault):
    """One or two processes of a node, or of two nodes, at once."""

    signals = (signal.SIGKILL,)
    count = 1

    def begin(self):
        victims = []
        for _ in range(self.count):
            node = self.rng.choice(self.cluster.nodes)
            kinds = [kind for kind in self.cluster.kinds(node) if kind in KILLABLE]
            kind = self.rng.choice(kinds) if kinds else None
            pids = self.cluster.pids(node, kind) if kind else []
            if pids:
                victims.append((node, kind, self.rng.choice(pids)))
        sig = self.rng.choice(self.signals)
        self.text = f"{sig.name} to " + ", ".join(f"{node.name} {kind}" for node, kind, _ in victims)
        return any([self.cluster.signal(pid, sig) for _, _, pid in victims])


class KillTwo(KillChildren):
    count = 2


class CrashChild(KillChildren):
    signals = (signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT)


class StopChild(Fault):
    """A process that stands still, and goes on."""

    def begin(self):
        kinds = [kind for kind in self.cluster.kinds(self.node) if kind in KILLABLE]
        kind = self.rng.choice(kinds) if kinds else None
        pids = self.cluster.pids(self.node, kind) if kind else []
        self.pid = self.rng.choice(pids) if pids else None
        self.text = f"SIGSTOP to {self.node.name} {kind}"
        return self.pid is not None and self.cluster.signal(self.pid, signal.SIGSTOP)

    def end(self):
        self.cluster.signal(self.pid, signal.SIGCONT)


class FreezeNode(Fault):
    takes_node = True

    def begin(self):
        self.take(self.node)
        self.text = f"{self.node.name} stands still"
        self.cluster.freeze(self.node, signal.SIGSTOP)
        return True

    def end(self):
        self.cluster.freeze(self.node, signal.SIGCONT)
        self.give_back()


class KillNode(Fault):
    """kill -9 of a whole node, or of its postmaster; started again in the end."""

    takes_node = True

    def choose(self):
        return self.node

    def begin(self):
        self.take(self.choose())
        whole = self.rng.random() < 0.7
        self.text = f"kill -9 of {self.node.name}" + ("" if whole else "'s postmaster")
        (self.node.kill_all if whole else self.node.kill9)()
        return True

    def end(self):
        self.node.launch()
        self.give_back()


class KillMaster(KillNode):
    def choose(self):
        return self.cluster.master() or self.node


class Restart(Fault):
    """An orderly stop, or an immediate one, and a start, under load."""

    takes_node = True

    def begin(self):
        self.take(self.node)
        sig = self.rng.choice((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
        self.text = f"{sig.name} to {self.node.name}"
        self.node.process.send_signal(sig)
        self.node.wait_exit(60)
        return True

    def end(self):
        self.node.launch()
        self.give_back()


class CutOff(Fault):
    """Nothing goes between a node and the others; clients reach it."""

    takes_node = True

    def begin(self):
        self.take(self.node)
        self.text = f"{self.node.name} is cut off"
        self.cluster.mesh.cut_off(self.node)
        return True

    def end(self):
        self.cluster.mesh.heal(self.node, drop=self.rng.random() < 0.5)
        self.give_back()


class Link(Fault):
    """Of the stream between two nodes."""

    def proxy(self):
        other = self.rng.choice(self.cluster.mesh.others(self.node))
        self.text = f"{self.text} from {self.node.name} to {other.name}"
        return self.cluster.mesh.ways[self.node, other].replication


class OneWay(Link):
    """Bytes go in one direction only; or, half open, in none while both ends stay."""

    def begin(self):
        self.way = self.proxy()
        down, up = self.rng.choice(((True, False), (False, True), (True, True)))
        self.way.pause(down=down, up=up)
        return True

    def end(self):
        if self.rng.random() < 0.5:
            self.way.cut()
        self.way.resume()


class Slow(Link):
    def begin(self):
        self.way = self.proxy()
        self.way.rate = self.rng.choice((2_000, 20_000, 200_000))
        return True

    def end(self):
        self.way.rate = None


class Cuts(Link):
    """Connections end, at some byte, again and again."""

    def begin(self):
        for _ in range(3):
            way = self.proxy()
            way.cut_after(self.rng.randrange(1, 20_000))
        return True


class PromoteAlive(Fault):
    """A replica is promoted while its master lives and writes go on."""

    def begin(self):
        candidates = self.cluster.candidates()
        if not candidates:
            return False
        node = self.rng.choice(candidates)
        status, answer = self.cluster.promote(node)
        self.text = f"promote {node.name} while its master lives: {status} {answer.get('code', '')}"
        return True


class PromoteRace(Fault):
    """Two promotions at one moment, of two nodes or of one; or a promotion and a stop of replication."""

    stopped = None

    def begin(self):
        candidates = self.cluster.candidates()
        if len(candidates) < 2:
            return False
        first, second = candidates[:2]
        what = self.rng.choice(("two", "same", "stop"))
        jobs = [(first, self.cluster.promote)]
        if what == "two":
            jobs.append((second, self.cluster.promote))
        elif what == "same":
            jobs.append((first, self.cluster.promote))
        else:
            jobs.append((first, lambda node: self.cluster.ask(node, "POST", "/replication/stop")))
            self.stopped = first
        threads = [threading.Thread(target=job, args=(node,)) for node, job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.text = f"promotions at once ({what}): {first.name}, {second.name}"
        return True

    def end(self):
        if self.stopped is not None:
            self.cluster.followed.pop(self.stopped, None)  # it is told again, which ends the stop


class Snapshot(Fault):
    def begin(self):
        status, _ = self.cluster.ask(self.node, "POST", "/replication/snapshot", timeout=5)
        self.text = f"a snapshot of {self.node.name}: {status}"
        return status != 0

    def end(self):
        for pid in self.cluster.pids(self.node, "snapshot"):
            self.cluster.signal(pid, signal.SIGKILL)


class Reload(Fault):
    def begin(self):
        self.text = f"reload of {self.node.name}"
        self.node.process.send_signal(signal.SIGHUP)
        return True


class NoDescriptors(Fault):
    """A process finds no further descriptors."""

    def begin(self):
        kind = self.rng.choice(("http", "walwriter", "checkpointer", "walreceiver"))
        pids = self.cluster.pids(self.node, kind)
        if not pids:
            return False
        self.pid = self.rng.choice(pids)
        self.text = f"{self.node.name} {kind} finds no descriptors"
        try:
            count = len(os.listdir(f"/proc/{self.pid}/fd"))
            self.limits = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (count, self.limits[1]))
        except OSError:
            return False
        return True

    def end(self):
        try:
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self.limits)
        except OSError:
            pass  # it is gone


class Disk(Fault):
    """Of one node: a sync or a write that fails, comes short or takes its time; or no space. It may end the node."""

    takes_node = True
    rules = (
        "fdatasync /wal/ EIO count=1",
        "write /wal/ EIO count=1 in=walwriter",
        "write /wal/ short count=2 in=walwriter",
        "write /wal/ ENOSPC count=2 in=walwriter",
        "open /wal/ ENOSPC",
        "allocate /wal/ ENOSPC",
        "fdatasync data.mdb EIO count=1",
        "write data.mdb ENOSPC count=20",
        "sync identity EIO count=1",
        "sync /wal/ delay=200 count=10",
        "write /snapshots/ ENOSPC",
        "rename - EIO count=1",
    )

    def begin(self):
        self.take(self.node)
        rule = self.rng.choice(self.rules)
        self.text = f"{self.node.name}: {rule}"
        self.cluster.frail[self.node] = None
        self.node.disk.set(rule)
        return True

    def end(self):
        self.node.disk.clear()
        self.cluster.frail[self.node] = time.monotonic()
        self.give_back()


class ClockStep(Fault):
    """The wall clock of a node jumps, by seconds or by years, and stays there or comes back."""

    def begin(self):
        ahead = self.rng.choice((-1, 1)) * self.rng.choice((2, 3600, 86400, 10 * 365 * 86400))
        self.text = f"the clock of {self.node.name} is {ahead} s ahead"
        self.node.clock.set(ahead)
        return True

    def end(self):
        if self.rng.random() < 0.5:
            self.node.clock.set(0)


# name, weight, longest time in seconds
FAULTS = (
    ("kill child", 15, 0.3, KillChildren),
    ("kill two", 7, 0.3, KillTwo),
    ("crash child", 7, 0.3, CrashChild),
    ("stop child", 8, 3, StopChild),
    ("freeze node", 6, 4, FreezeNode),
    ("kill node", 8, 2, KillNode),
    ("kill master", 10, 3, KillMaster),
    ("restart", 5, 1, Restart),
    ("cut off", 10, 4, CutOff),
    ("one way", 7, 3, OneWay),
    ("slow link", 5, 4, Slow),
    ("cut links", 8, 1, Cuts),
    ("promote alive", 7, 0.5, PromoteAlive),
    ("promote race", 5, 0.5, PromoteRace),
    ("snapshot", 4, 1, Snapshot),
    ("reload", 3, 0.2, Reload),
    ("no descriptors", 4, 2, NoDescriptors),
    # Not with sanitizers: what they need preloaded libraries for.
    *(() if SANITIZED else (("disk", 10, 2, Disk), ("clock step", 3, 2, ClockStep))),
)
