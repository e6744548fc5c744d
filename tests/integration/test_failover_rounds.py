# timeout: 600
# serial: yes
"""A sync cluster under load whose master is killed or cut off again and again, at random moments: the most advanced
replica is promoted, the others follow it, the former master too once it is back. What each client was answered is
held against the logs of all nodes.

NEXUS_FAILOVER_ROUNDS changes how many rounds there are. NEXUS_SEED repeats the choices of a run, and a failure
prints it."""

import json
import os
import random
import re
import statistics
import threading
import time
import unittest

from failover_rounds import (
    DONE,
    REFUSED,
    UNKNOWN,
    Callers,
    Histories,
    History,
    Mesh,
    ask,
)
from nexus_test import NexusTestCase, http, wait_until

ROUNDS = int(os.environ.get("NEXUS_FAILOVER_ROUNDS", "6"))
CLIENTS = 8
SETTINGS = {
    "replication.mode": "sync",
    "replication.sync_quorum": 1,
    "replication.heartbeat_ms": 100,
    "replication.missed_heartbeats_threshold": 4,
    "replication.sync_timeout_ms": 400,
    "state.checkpoint_interval": "1s",
    "wal.segment_size": "64KiB",
    "wal.shm_size": "32MiB",
    "http.workers": 2,
}
SHOWN = 5  # faults in a message
MOST_INTERRUPTED = 0.1  # seconds of a promotion
PROMOTABLE = 30  # seconds in which a promotion must be possible
FAULTS = ("kill", "partition", "lag", "interrupted", "power", "impatient")
ANSWERS = ("not_most_advanced", "fenced", "unheard")  # of promotions
UNHEARD = "was not heard since this node's start"  # a warning of an answer
# What no node ever logs in these rounds, though much else goes wrong in them.
NEVER = re.compile(r"AddressSanitizer|runtime error:|dumped core|terminated by signal (4|6|7|8|11)\b|corrupt", re.I)


class FailoverRounds(NexusTestCase):
    def setUp(self):
        self.seed = os.environ.get("NEXUS_SEED") or str(random.randrange(1 << 32))
        self.rng = random.Random(self.seed)
        self.mesh = Mesh(SETTINGS)
        self.addCleanup(self.mesh.close)
        for node in self.mesh.nodes:
            self.adopt(node)
        self.master = self.mesh.nodes[0]
        self.epoch = 1  # of the master, when it was seen last
        self.callers = Callers(self.mesh, CLIENTS, self.seed)
        self.account = self.callers.account
        self.histories = Histories()
        self.counts = dict.fromkeys((*FAULTS, *ANSWERS), 0)
        self.promotions = {"kill": [], "partition": []}  # milliseconds

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        result = super().run(result)
        if result and len(result.failures) + len(result.errors) > before:
            print(f"{self.id()} failed with NEXUS_SEED={self.seed}", flush=True)
        return result

    def check(self, faults):
        self.assertFalse(faults, f"{len(faults)}, the first:\n" + "\n".join(faults[:SHOWN]))

    # -- a round --

    def begin(self):
        self.master.start()
        for node in self.mesh.others(self.master):
            node.launch()
        for node in self.mesh.others(self.master):
            node.wait_answer("/ready")
        self.callers.start()
        self.addCleanup(self.callers.end)  # before the nodes end

    def away(self, what, old):
        """The master is gone, for all others."""
        if what == "kill":
            old.kill_all()
            return
        self.mesh.cut_off(old)
        moment = self.rng.choice(("at once", "unknown", "refused"))
        if moment == "unknown":
            self.callers.wait_more(UNKNOWN, 1, old.describe)
        elif moment == "refused":
            self.callers.wait_more(REFUSED, 1, old.describe)

    def back(self, what, old):
        self.mesh.heal(old, drop=self.rng.random() < 0.5)
        if what == "kill":
            old.launch()
        # Fenced; or it follows already, where it had led over the very master that its configuration names.
        old.wait_status(60, leader=bool, state=lambda state: state != "starting")

    def position(self, node):
        status = node.wait_status(role="replica")
        return status["epoch"], status["wal_offset"]

    def check_loss_possible(self, answer):
        """Only where the master hasn't welcomed the node since its start: who knows in which mode that answered."""
        unheard = any(UNHEARD in warning for warning in answer["warnings"])
        self.assertIs(answer["sync_loss_possible"], unheard, answer)
        self.counts["unheard"] += unheard
        if unheard:
            self.assertTrue(answer["unreached_peers"], answer)

    def try_promotion(self, what, nodes):
        """Asks one after the other, the most advanced one first as a rule -> the one that is promoted, or None"""
        positions = {node: self.position(node) for node in nodes}
        best_first = self.rng.random() < 0.7
        for node in sorted(nodes, key=positions.get, reverse=best_first):
            began = time.monotonic()
            status, answer = ask(node, "/replication/promote", expect=(200, 409, 503))
            if status == 200:
                self.promotions[what].append((time.monotonic() - began) * 1000)
                had = (answer["old_epoch"], answer["offset"] - 1)  # what was under way has come meanwhile
                self.assertGreaterEqual(had, max(positions.values()))
                self.check_loss_possible(answer)
                return node
            if answer["code"] == "fenced":
                # A former master that was told to follow and hasn't got the epoch of the one that is gone now.
                self.assertLess(positions[node][0], self.epoch, answer)
            elif answer["code"] != "not_most_advanced":
                self.assertIn(answer["code"], ("quorum_not_seen", "role_change"), answer)
                return None
            self.counts[answer["code"]] += 1
        return None

    def interrupt(self, nodes):
        """The most advanced one, or the other one, is killed in the middle of a promotion and started again
        -> the new master if there is one now, or None"""
        self.counts["interrupted"] += 1
        node = max(nodes, key=self.position)
        victim = self.rng.choice(nodes)
        answers = []

        def promote():
            try:
                answers.append(ask(node, "/replication/promote", expect=(200, 409, 503))[0])
            except (OSError, http.client.HTTPException):
                pass

        asking = threading.Thread(target=promote)
        asking.start()
        asking.join(self.rng.random() * MOST_INTERRUPTED)
        victim.kill_all()
        asking.join()
        victim.start()
        is_master = node.status()["role"] == "master"
        self.assertTrue(is_master or 200 not in answers, node.describe("its promotion is forgotten"))
        return node if is_master else None

    def is_settled(self, node):
        """Promotable; or its full sync was cut short by the master's death: it has acknowledged more than it has."""
        status = node.wait_status(role="replica")
        return status["promotable"] or "sync_goal" in status

    def promote(self, what, nodes):
        if self.rng.random() < 0.3:
            for node in nodes:
                node.wait_until(lambda: self.is_settled(node), what="it is promotable, or half-synced")
        if self.rng.random() < 0.2:
            promoted = self.interrupt(nodes)
            if promoted is not None:
                return promoted
        return wait_until(
            lambda: self.try_promotion(what, nodes),
            PROMOTABLE,
            lambda: "\n".join(node.describe("can't be promoted") for node in nodes),
        )

    def power_off(self, nodes):
        """For all of them at once, and on again: who leads and who follows is on their disks."""
        self.counts["power"] += 1
        nodes = self.rng.sample(nodes, len(nodes))
        for node in nodes:
            node.kill_all()
        for node in nodes:
            node.launch()
        for node in nodes:
            node.wait_answer("/health")

    def follow(self, node, master):
        address = self.mesh.address(node, master)
        node.wait_until(
            lambda: ask(node, "/replication/follow", {"master_addr": address}, (200, 503))[0] == 200,
            what=f"it follows {master.name}",
        )

    def wait_follows(self, node, master):
        offset = master.status()["wal_offset"]
        node.wait_status(
            60, role="replica", connected=True, state="streaming", epoch=master.status()["epoch"],
            wal_offset=lambda value: value >= offset,
        )

    def lag_behind(self, node):
        """One of the replicas hears nothing of the master while writes go on."""
        self.counts["lag"] += 1
        self.mesh.hold(node, self.master)
        self.callers.wait_more(DONE, self.rng.randrange(1, 60), self.master.describe)

    def round(self, what, patient):
        old = self.master
        candidates = self.mesh.others(old)
        self.callers.wait_more(DONE, self.rng.randrange(20, 250), old.describe)
        lags = self.rng.random() < 0.5
        if lags:
            self.lag_behind(self.rng.choice(candidates))
        self.counts[what] += 1
        self.away(what, old)
        if lags and what == "kill" and self.rng.random() < 0.7:
            self.mesh.heal(old, drop=self.rng.random() < 0.5)  # what the network holds arrives, or not
        new = self.promote(what, candidates)
        other = next(node for node in candidates if node is not new)
        self.master = new
        self.histories.collect(old)
        early = self.rng.random() < 0.3
        if early:
            self.back(what, old)
        self.follow(other, new)
        if self.rng.random() < 0.2:
            self.power_off([new, other])
        self.callers.wait_confirmed_by(new, self.rng.randrange(1, 20))
        if not early:
            self.back(what, old)
        self.follow(old, new)
        if self.rng.random() < 0.1:
            self.power_off(self.mesh.nodes)
        self.wait_follows(other, new)
        if patient:
            self.wait_follows(old, new)
        else:
            self.counts["impatient"] += 1
        self.epoch = new.status()["epoch"]

    # -- what must be true --

    def check_answers(self, reads=False):
        """What was answered until now, against the master's log."""
        account = self.account
        done, refused, unknown = (account.of(outcome) for outcome in (DONE, REFUSED, UNKNOWN))
        with account.lock:
            seen = list(account.reads) if reads else []
        for node in self.mesh.others(self.master):
            self.histories.collect(node)
        last = self.histories.collect(self.master)
        history = History(self.histories.behind(last))
        self.check(account.faults)
        self.check(self.histories.faults)
        self.check(history.faults_of_done(done))
        self.check(history.faults_of_refused(refused))
        self.check(history.faults_of_unknown(unknown))
        self.check(history.faults_of_reads(seen))
        return history

    def check_logs_say_nothing(self):
        for node in self.mesh.nodes:
            found = NEVER.search(node.log())
            if found:
                self.fail(node.describe(f"its log says {found.group(0)!r}"))

    def check_at_rest(self):
        self.callers.end()
        self.master.wait_written("at-rest")
        others = self.mesh.others(self.master)
        last = self.master.status()["wal_offset"]
        for node in others:
            self.wait_follows(node, self.master)
            node.wait_offset(last)
        history = self.check_answers(reads=True)
        self.assertEqual(len(history.entries), last)
        self.check_exports(history)
        status = self.master.wait_status(role="master", replica_count=2, running=True)
        self.assertEqual(status["state"], "streaming")
        for node in self.mesh.nodes:
            self.assertEqual(node.request("GET", "/ready")[0], 200, node.name)
            tail = self.histories.collect(node)
            self.assertEqual((tail.offset, tail.crc), (last, history.entries[-1].crc), node.name)

    def check_exports(self, history):
        exports = {node.name: node.export() for node in self.mesh.nodes}
        self.assertEqual(len(set(exports.values())), 1, {k: len(v) for k, v in exports.items()})
        lines = [json.loads(line) for line in exports[self.master.name].splitlines()]
        self.assertEqual({line["key"]: line["value"] for line in lines}, history.state())

    def check_it_proves_something(self):
        account = self.account
        self.assertGreater(account.count(DONE), 20 * ROUNDS)
        self.assertGreater(account.count(UNKNOWN), 0)
        self.assertGreater(account.count(REFUSED), 0)
        self.assertGreater(len(account.reads), 10 * ROUNDS)
        self.assertGreater(self.counts["partition"], 0)
        self.assertGreater(self.counts["kill"], 0)
        self.assertGreater(len(account.nodes), 1)

    def summary(self, took):
        account = self.account
        syncs = sum(node.log().count("the full sync is complete") for node in self.mesh.nodes)
        times = {
            what: f"{statistics.median(found):.1f} ms" for what, found in self.promotions.items() if found
        }
        return (
            f"seed {self.seed}: {ROUNDS} rounds in {took:.0f} s, {self.counts}; "
            f"{account.count(DONE)} writes confirmed, {account.count(REFUSED)} refused, "
            f"{account.count(UNKNOWN)} unknown, {account.codes}, {len(account.reads)} reads; "
            f"{syncs} full syncs; promotion took, at the median, {times}"
        )

    def test_rounds(self):
        began = time.monotonic()
        self.begin()
        plan = [("kill", "partition")[number % 2] for number in range(ROUNDS)]
        for number, what in enumerate(plan):
            self.round(what, self.rng.random() < 0.7 or number == ROUNDS - 1)
            self.check_answers(reads=number % 10 == 9)
            self.check_logs_say_nothing()
        self.check_at_rest()
        print(self.summary(time.monotonic() - began), flush=True)
        self.check_it_proves_something()


if __name__ == "__main__":
    unittest.main()
