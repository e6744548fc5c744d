#!/usr/bin/env python3
"""Three nodes under load, to which bad things happen in a seeded order; in the end all answers are held against the
logs of all nodes (checker.py). Exit status 0: all is well; 1: a promise was broken, and what there is of the run is
kept; 2: the harness itself failed.

A seed fixes what is done to whom and how long, not how the nodes' processes come to run: a run that fails is repeated
with its seed, and what it shows becomes a test of its own."""

import argparse
import json
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
import traceback

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))

import checker  # noqa: E402
from clients import Clients  # noqa: E402
from cluster import Cluster  # noqa: E402
from faults import FAULTS  # noqa: E402
from history import OK, PAIR_READ, READ, STALE_READ, History  # noqa: E402

REST_S = 60  # for all nodes to stand at the same place once nothing is done to them any more
SHOWN = 10
# What no node ever logs, whatever is done to it.
NEVER = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:|Assertion .* failed|stack smashing", re.IGNORECASE)
QUIET_RATE = 20  # acknowledged writes a second, below which a run shows nothing


class Violation(Exception):
    pass


class Run:
    def __init__(self, options):
        self.options = options
        self.sync = options.mode == "sync"
        self.rng = random.Random(options.seed)
        self.directory = tempfile.mkdtemp(prefix=f"nexus-chaos-{options.seed}-")
        self.log = History(os.path.join(self.directory, "history.jsonl"))
        self.cluster = Cluster(self.sync, self.log, plant=options.plant)
        self.clients = Clients(self.cluster.nodes, self.log, options.seed)
        self.logs = checker.Logs()
        self.injected = {}
        self.kinds = [row for row in FAULTS if not options.only or row[0] in options.only]

    # -- faults --

    def step(self):
        """One fault, or two at once, then whatever is needed for a master to be there again."""
        active = []
        for _ in range(2 if self.rng.random() < 0.25 else 1):
            name, _, longest, kind = self.rng.choices(self.kinds, [row[1] for row in self.kinds])[0]
            fault = kind(self.cluster, self.rng)
            if fault.takes_node and self.cluster.away:
                continue
            self.log.fault(f"begin {name}", name)
            if fault.begin():
                self.injected[name] = self.injected.get(name, 0) + 1
                self.log.fault(fault.text)
                active.append((fault, self.rng.uniform(0, longest)))
        if active and self.rng.random() < 0.7:
            self.cluster.lead(min(length for _, length in active) + 1)
        time.sleep(max((length for _, length in active), default=0.1))
        for fault, _ in active:
            fault.end()
            self.log.fault(f"end {fault.text}")
        if self.cluster.lead() is None:
            raise Violation("no master within the time for one, though nothing is done to the nodes")
        for node in self.cluster.nodes:
            self.logs.collect(node)
        time.sleep(self.rng.uniform(0, 0.5))

    def play(self):
        self.cluster.start()
        self.clients.start()
        end = time.monotonic() + self.options.minutes * 60
        while time.monotonic() < end:
            self.step()

    # -- the end --

    def rest(self):
        """Nothing is done any more: all comes to rest at one place, with the same data, also after a restart."""
        self.cluster.heal_all()
        if self.cluster.lead() is None:
            raise Violation("no master in the end")
        self.clients.end()
        self.compare("in the end")
        for node in self.cluster.nodes:
            node.stop(timeout=60)
        for node in self.cluster.nodes:
            node.launch()
        self.compare("after a restart")

    def compare(self, when):
        if not self.cluster.wait_converged(REST_S):
            places = [self.cluster.status(node) for node in self.cluster.nodes]
            raise Violation(f"the nodes don't come to one place {when}: {places}")
        offset = self.cluster.status(self.cluster.nodes[0])["wal_offset"]
        for node in self.cluster.nodes:  # a replica in sync mode shows an entry when it has heard of the quorum
            node.wait_offset(offset, REST_S)
        exports = self.cluster.exports()
        if any(export != exports[0] for export in exports):
            raise Violation(f"exports differ {when}")

    def verdict(self):
        entries = self.logs.final(self.cluster.nodes[0])
        verdict = checker.Checker(self.log.ops, entries, self.sync).run()
        verdict.faults += self.logs.faults + self.clients.odd() + self.cluster.deaths
        for node in self.cluster.nodes:
            found = NEVER.search(node.log())
            if found:
                verdict.faults.append(node.describe(f"it logged {found.group()}"))
        if not self.options.plant:
            self.check_traffic(verdict)
        return verdict

    def check_traffic(self, verdict):
        """A quiet run shows nothing."""
        seconds = self.options.minutes * 60
        if verdict.acknowledged < QUIET_RATE * seconds or not verdict.unknown:
            verdict.faults.append(f"too quiet: {verdict.acknowledged} acknowledged in {seconds} s, {verdict.unknown} unknown")
        if seconds >= 120 and not self.options.only and not self.cluster.promotions:
            verdict.faults.append("no promotion in all that time")

    def pauses(self):
        """Kind of fault -> seconds from each to the end of the longest time without an acknowledged write that begins
        within its time."""
        ends = sorted(op.t1 for op in self.log.ops if op.result == OK and op.kind not in (READ, PAIR_READ, STALE_READ))
        found = {}
        starts = [at for at, _ in self.log.faults] + [self.log.now()]
        for (at, kind), until in zip(self.log.faults, starts[1:]):
            gaps = [b - a for a, b in zip(ends, ends[1:]) if b >= at and a <= until]
            found.setdefault(kind, []).append(max(gaps, default=0))
        return found

    def figures(self, verdict):
        pauses = self.pauses()
        return {
            "seed": self.options.seed,
            "mode": self.options.mode,
            "minutes": self.options.minutes,
            "faults": self.injected,
            "acknowledged": verdict.acknowledged,
            "refused": verdict.refused,
            "unknown": verdict.unknown,
            "reads": verdict.reads,
            "lost": verdict.lost,
            "promotions": self.cluster.promotions,
            "violations": len(verdict.faults),
            "longest_pause_s": {kind: round(max(list_), 2) for kind, list_ in sorted(pauses.items())},
            "median_pause_s": {kind: round(statistics.median(list_), 2) for kind, list_ in sorted(pauses.items())},
        }

    def keep(self, faults):
        """What a person needs to look into it."""
        self.log.close()
        for node in self.cluster.nodes:
            shutil.copytree(node.directory, os.path.join(self.directory, node.name), dirs_exist_ok=True, symlinks=True,
                            ignore=shutil.ignore_patterns("*.sock"))
        with open(os.path.join(self.directory, "violations"), "w", encoding="utf-8") as file:
            for number, fault in enumerate(faults):
                file.write(fault + "\n")
                if number < SHOWN:
                    file.writelines(f"    {line}\n" for line in checker.around(self.log.ops, fault))


def show(figures):
    print(f"chaos: seed {figures['seed']}, {figures['mode']}, {figures['minutes']:g} minutes")
    for name in ("acknowledged", "refused", "unknown", "reads", "lost", "promotions", "violations"):
        print(f"  {name:<14}{figures[name]}")
    print(f"  {'fault':<18}{'times':>6}{'longest pause':>16}{'median':>10}")
    for kind, count in sorted(figures["faults"].items()):
        longest, median = figures["longest_pause_s"].get(kind, 0), figures["median_pause_s"].get(kind, 0)
        print(f"  {kind:<18}{count:>6}{longest:>14.2f} s{median:>8.2f} s")


def play(options):
    run = Run(options)
    faults = []
    figures = None
    try:
        try:
            run.play()
            run.rest()
        except (Violation, AssertionError) as error:
            faults.append(str(error))
        run.clients.end()
        if not faults:
            verdict = run.verdict()
            figures = run.figures(verdict)
            show(figures)
            faults = verdict.faults
        if faults or options.keep:
            run.keep(faults)
    finally:
        run.clients.end()
        left = run.cluster.cleanup()
    faults += left
    if options.json and figures:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)
    if faults:
        print(f"chaos: FAILED with --seed {options.seed} --mode {options.mode}: {len(faults)}; kept in {run.directory}")
        for fault in faults[:SHOWN]:
            print("  " + fault[:2000])
        return 1
    if not options.keep:
        shutil.rmtree(run.directory)
    print(f"chaos: all well (seed {options.seed})")
    return 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(1 << 32)))
    parser.add_argument("--mode", choices=("sync", "async"), default="sync")
    parser.add_argument("--only", action="append", choices=[row[0] for row in FAULTS], help="again for each kind")
    parser.add_argument("--keep", action="store_true", help="keep history, logs and data of a run that was well, too")
    parser.add_argument("--json", metavar="FILE", help="the figures")
    parser.add_argument("--plant", metavar="NAME", help="a bug of a test build (src/common/failpoints.def)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(play(arguments()))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        sys.exit(2)
