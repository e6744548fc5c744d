#!/usr/bin/env python3
"""Measures Nexus beside Redis, PostgreSQL and etcd, in turn, and writes bench/results and bench/README.md.

    scripts/bench.sh [--only ROW[,ROW]] [--pairs N] [--quick] [--list] [--report-only]

scripts/bench.sh installs and builds what this needs. A row that fails is told in its file, in the report and by the
exit status 1; the others are measured all the same.
"""
import argparse
import json
import os
import signal
import sys
import time
import traceback

import lib


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", metavar="ROW[,ROW]", help="these rows instead of all")
    parser.add_argument("--pairs", type=int, metavar="N", help="runs of each side, in turn (5; 2 when quick)")
    parser.add_argument("--quick", action="store_true", help="short runs of little data, to see that it works")
    parser.add_argument("--list", action="store_true", help="names the rows")
    parser.add_argument("--report-only", action="store_true", help="writes plots and README.md from the results there are")
    parser.add_argument("--peers", default="redis,postgres,etcd", help="redis,postgres,etcd; none: Nexus and floors alone")
    parser.add_argument("--directory", help="where the servers' data goes (a temporary directory in it)")
    parser.add_argument("--results", help="bench/results by default (build/bench-quick when quick)")
    parser.add_argument("--build", default=lib.DEFAULT_BUILD, help="the build that is measured")
    return parser.parse_args()


def fail(text):
    print(f"bench: {text}", file=sys.stderr)
    sys.exit(2)


def chosen_rows(rows, only):
    """All of the table but those that can't be measured."""
    names = [name.strip() for name in only.split(",")] if only else [row.name for row in rows.ALL if row.measure]
    unknown = [name for name in names if name not in rows.BY_NAME]
    if unknown:
        fail(f"no such row: {', '.join(unknown)}; --list names them")
    chosen = [rows.BY_NAME[name] for name in names]
    for row in chosen:
        if row.measure is None:
            fail(f"{row.name} can't be measured: {row.note}")
    return chosen


class Interruption:
    """The first signal ends what was started, which no further one interrupts."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self):
        self.name = None

    def watch(self):
        for number in self.SIGNALS:
            signal.signal(number, self.interrupt)

    def interrupt(self, number, _):
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        self.name = signal.Signals(number).name
        raise KeyboardInterrupt


def measure(bench, row, about):
    """-> what goes into the row's file."""
    data = {"row": row.name, "title": row.title, "quick": bench.quick, "pairs": bench.pairs, **about}
    began = time.monotonic()
    result = row.measure(bench)
    if isinstance(result, list):
        data["curves"] = [
            {"label": curve.label, "setup": curve.setup,
             "points": [{"x": x, "runs": runs} for x, runs in curve.points.items()]}
            for curve in result
        ]
    else:
        from lib import pairs

        data.update(sides=result.sides, setup=result.setup, remarks=result.remarks)
        data["summary"] = {name: pairs.summary(runs) for name, runs in result.sides.items()}
        data["targets"] = [judged for judged in (target.judge(result.sides) for target in row.targets) if judged]
    data["took_s"] = round(time.monotonic() - began, 1)
    return data


def save(results, name, data):
    """The whole file or none."""
    path = os.path.join(results, f"{name}.json")
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.write("\n")
    os.replace(f"{path}.new", path)


def measure_all(chosen, options, results, interruption):
    """-> names of the rows that failed."""
    from lib import machine, session

    peers = [] if options.peers == "none" else options.peers.split(",")
    if set(peers) - set(session.PEERS):
        fail(f"--peers takes {','.join(session.PEERS)}, or none")
    failed = []
    pairs = options.pairs or (2 if options.quick else 5)
    with session.Bench(pairs, options.quick, peers, options.directory) as bench:
        if machine.mount_of(bench.directory)[1] == "tmpfs":
            fail("a tmpfs is no disk: --directory names another place")
        about = {"machine": machine.describe(bench.directory), "versions": session.versions()}
        for row in chosen:
            bench.say(f"{time.strftime('%H:%M:%S')} {row.name}: {row.title}")
            try:
                data = measure(bench, row, {**about, "at": session.now()})
            except Exception as error:  # pylint: disable=broad-except
                if interruption.name:  # a server that is ended while it starts says so
                    raise KeyboardInterrupt from error
                traceback.print_exc()
                failed.append(row.name)
                data = {"row": row.name, "title": row.title, "quick": bench.quick, "pairs": pairs, **about,
                        "at": session.now(), "error": f"{type(error).__name__}: {error}"}
            save(results, row.name, data)
    return failed


def report(results):
    from lib import plots, report as reporting, rows

    for row in rows.GROWTH:
        path = os.path.join(results, f"{row.name}.json")
        if not os.path.exists(path):
            continue
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        if "curves" in data:
            try:
                data["plots"] = plots.draw(row, data, results)
            except ImportError:
                print("bench: no plots without python3-matplotlib", file=sys.stderr)
                continue
            save(results, row.name, data)
    readme = os.path.join(os.path.dirname(results), "README.md")
    reporting.write(results, readme)
    print(f"bench: {readme}")


def main():
    options = arguments()
    lib.use_build(options.build)
    from lib import rows

    if options.list:
        for row in rows.ALL:
            print(f"{row.name:<18} {row.title}{'' if row.measure else ' (not measured: ' + row.note + ')'}")
        return 0
    default = os.path.join(lib.SOURCE, "build", "bench-quick", "results") if options.quick else lib.RESULTS
    results = os.path.abspath(options.results or default)
    os.makedirs(results, exist_ok=True)
    failed = []
    if not options.report_only:
        interruption = Interruption()
        interruption.watch()
        try:
            failed = measure_all(chosen_rows(rows, options.only), options, results, interruption)
        except KeyboardInterrupt:
            print(f"bench: ended by {interruption.name}; all that was started is ended", file=sys.stderr)
            return 130
    report(results)
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
