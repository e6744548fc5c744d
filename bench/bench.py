#!/usr/bin/env python3
"""Measures Nexus beside Redis, PostgreSQL and etcd, in turn, and writes bench/results and bench/README.md.

    scripts/bench.sh [--only ROW[,ROW]] [--pairs N] [--quick] [--list] [--report-only]

scripts/bench.sh installs and builds what this needs. A row that fails is told in its file, in the report and by the
exit status 1; the others are measured all the same.
"""
import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import time
import traceback

import lib


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench.sh",
        description=__doc__.split("\n", maxsplit=1)[0],
        epilog="A row takes three to five minutes with all peers, a growth curve up to fifteen. Exit status: 0; 1: a row has "
               "failed, and its earlier result is kept; 2: the options are wrong, or another one measures; 130: ended by "
               "a signal.",
    )
    parser.add_argument("--only", metavar="ROW[,ROW]", help="these rows instead of all")
    parser.add_argument("--pairs", type=pairs_option, metavar="N", help="runs of each side, in turn (5; 2 when quick)")
    parser.add_argument("--quick", action="store_true", help="short runs of little data, to see that it works")
    parser.add_argument("--list", action="store_true", help="names the rows")
    parser.add_argument("--report-only", action="store_true", help="writes plots and README.md from the results there are")
    parser.add_argument("--peers", default="redis,postgres,etcd",
                        help="of redis,postgres,etcd (all by default); none: Nexus and floors alone")
    parser.add_argument("--directory", help="where the servers' data goes (a temporary directory in it)")
    parser.add_argument("--results", help="bench/results by default (build/bench-quick when quick)")
    parser.add_argument("--build", default=lib.DEFAULT_BUILD, help="the build that is measured")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)  # of the options alone; bench.sh's
    return parser.parse_args()


def pairs_option(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0")
    return int(text)


def fail(text):
    print(f"bench: {text}", file=sys.stderr)
    sys.exit(2)


def peers_of(text):
    from lib import session

    peers = [] if text == "none" else text.split(",")
    if set(peers) - set(session.PEERS):
        fail(f"--peers takes {','.join(session.PEERS)}, or none")
    return peers


def require_programs(build):
    missing = [name for name in ("nexus-server", "nexus-bench", "nexus-bench-limits")
               if not os.access(os.path.join(build, name), os.X_OK)]
    if missing:
        fail(f"{build} has no {', '.join(missing)}: cmake --preset release && cmake --build --preset release makes them")


def lock():
    """One at a time measures here. It is the name of a socket, which goes with the process and is no file."""
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind("\0nexus-bench")
    except OSError:
        fail("another one measures on this machine, and each would change the other's figures: wait for its end")
    return held


def chosen_rows(rows, only):
    """All of the table but those that can't be measured."""
    names = [row.name for row in rows.ALL if row.measure] if only is None else [name.strip() for name in only.split(",")]
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


def is_measured(path):
    """Whether a file holds a result."""
    try:
        with open(path, encoding="utf-8") as file:
            return "error" not in json.load(file)
    except (OSError, ValueError):
        return False


def measure_all(chosen, options, results, interruption):
    """-> names of the rows that failed."""
    from lib import machine, report as reporting, session

    peers = peers_of(options.peers)
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
                if is_measured(os.path.join(results, f"{row.name}.json")):
                    bench.say(f"  {row.name} has failed; its earlier result is kept")
                    continue
                data = {"row": row.name, "title": row.title, "quick": bench.quick, "pairs": pairs, **about,
                        "at": session.now(), "error": f"{type(error).__name__}: {error}"}
            save(results, row.name, data)
            for remark in reporting.remarks(data):
                bench.say(f"  {remark}")
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
    chosen = chosen_rows(rows, options.only)
    peers_of(options.peers)
    if options.directory and not os.path.isdir(options.directory):
        fail(f"--directory {options.directory}: there is no such directory")
    if options.check:
        return 0
    failed = []
    if not options.report_only:
        require_programs(options.build)
        os.makedirs(results, exist_ok=True)
        interruption = Interruption()
        interruption.watch()
        try:
            with contextlib.nullcontext() if options.quick else lock():
                failed = measure_all(chosen, options, results, interruption)
        except KeyboardInterrupt:
            print(f"bench: ended by {interruption.name}; all that was started is ended", file=sys.stderr)
            return 130
    if not os.path.isdir(results):
        fail(f"there is no {results} to report from")
    report(results)
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
