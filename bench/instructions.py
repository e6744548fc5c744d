#!/usr/bin/env python3
"""Instructions of the hot paths, counted by callgrind: they repeat where times on a shared machine don't.

    bench/instructions.py [--repeat N]        measures and prints a table
    bench/instructions.py --check             compares with bench/instructions.json; status 1: a path changed by more than 10 %
    bench/instructions.py --record --reason 'why it changed'

A master and a replica run under callgrind; one client sends requests one after another over one connection, so each write is a
group of its own. What is counted are some functions of each process with all that they call (PATHS): the loops around them poll,
how often is the clock's choice. Not counted: the kernel, and libevent's reading of the sockets. Numbers depend on the compiler
and on what the processor's vector instructions let libraries choose; others than the recorded ones are not compared.

Needs the release build and valgrind (scripts/install-deps.sh valgrind).
"""
import argparse
import collections
import concurrent.futures
import datetime
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASELINE = os.path.join(SOURCE, "bench", "instructions.json")
LIMIT = 0.10
MOST_HISTORY = 20
WRITES = 200
READS = 200
IMPORTS = 3
LINES = 1000
VALUE = b"v" * 100
ANSWER_S = 60

# Of each process what is done for work alone, never in a turn that finds none.
HTTP_READ = ("on_readable",)
HTTP_WRITE = ("on_readable", "nx_submission_finish")
WALWRITER = ("nx_group_drain", "nx_group_commit")
WALSENDER = ("nx_session_input", "nx_feed_output", "nx_feed_publish")
WALRECEIVER = ("nx_frame_io_receive", "take_frames", "nx_health_read", "output", "publish")

# phase of measure(), node, kind of process, functions
Path = collections.namedtuple("Path", "name phase node kind functions")
PATHS = [
    Path("PUT: http", "put", "master", "http", HTTP_WRITE),
    Path("PUT: walwriter", "put", "master", "walwriter", WALWRITER),
    Path("PUT confirmed by a replica: http", "confirmed", "master", "http", HTTP_WRITE),
    Path("PUT confirmed by a replica: walsender", "confirmed", "master", "walsender", WALSENDER),
    Path("PUT confirmed by a replica: walreceiver", "confirmed", "replica", "walreceiver", WALRECEIVER),
    Path("PUT confirmed by a replica: its walwriter", "confirmed", "replica", "walwriter", WALWRITER),
    Path("GET from memory: http", "get", "master", "http", HTTP_READ),
    Path("GET from the state: http", "get_state", "master", "http", HTTP_READ),
    Path("line of /import: http", "import", "master", "http", HTTP_WRITE),
    Path("line of /import: walwriter", "import", "master", "walwriter", WALWRITER),
    Path("line of /import: walsender", "import", "master", "walsender", WALSENDER),
    Path("line of /import: walreceiver", "import", "replica", "walreceiver", WALRECEIVER),
    Path("line of /import: replica's walwriter", "import", "replica", "walwriter", WALWRITER),
]


class Unmeasured(RuntimeError):
    """The text says why there are no numbers."""


# ---- what numbers are comparable ----


def environment(build):
    """What the numbers depend on beside the code."""
    server = os.path.join(build, "nexus-server")
    comment = subprocess.run(["readelf", "-p", ".comment", server], capture_output=True, text=True, check=True).stdout
    compilers = sorted(set(re.findall(r"^ *\[ *[0-9a-f]+\] +(.*)$", comment, re.MULTILINE)))
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        vectors = "avx2" if re.search(r"^flags\s*:.*\bavx2\b", file.read(), re.MULTILINE) else "no avx2"
    return {"compiler": ", ".join(compilers), "processor": f"{platform.machine()}, {vectors}"}


def check_build(build):
    cache = os.path.join(build, "CMakeCache.txt")
    if not os.path.exists(cache):
        raise Unmeasured(f"{build} is no build: cmake --preset release && cmake --build --preset release makes one")
    with open(cache, encoding="utf-8") as file:
        text = file.read()
    if "CMAKE_BUILD_TYPE:STRING=Release\n" not in text or re.search("^NEXUS_SANITIZE:.*=.", text, re.MULTILINE):
        raise Unmeasured(f"{build} is no release build (cmake --preset release)")
    for program in ("valgrind", "vgdb", "readelf"):
        if shutil.which(program) is None:
            raise Unmeasured(f"{program} is missing: scripts/install-deps.sh build valgrind")


# ---- callgrind ----


class Counts:
    """Of one process in one phase: what its functions took with all that they called, and how often they were called."""

    def __init__(self, path):
        self.inclusive = collections.Counter()
        self.calls = collections.Counter()
        function, callee, calls = None, None, 0
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("fn="):
                    function = line[3:].strip()
                elif line.startswith("cfn="):
                    callee = line[4:].strip()
                elif line.startswith("calls="):
                    calls = int(line[6:].split()[0])
                elif line[0].isdigit():
                    # A cost of its own, or behind `calls=` that of a call.
                    self.inclusive[function] += int(line.split()[1])
                    if calls:
                        self.calls[callee] += calls
                        calls = 0


def node_class(nexus_test):
    """A Node whose processes count, and write their counts where its log is."""

    class CallgrindNode(nexus_test.Node):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.dumps = collections.Counter()  # of each process, so far

        def valgrind(self):
            return [
                "valgrind",
                "--tool=callgrind",
                "--trace-children=yes",  # else vgdb does not reach them
                "--dump-line=no",
                "--compress-strings=no",
                "--compress-pos=no",
                f"--vgdb-prefix={self.directory}/vgdb",
                f"--callgrind-out-file={self.directory}/callgrind.%p",
                f"--log-file={self.directory}/callgrind-log.%p",
            ]

        def dump(self, pid):
            """Has a process write its counts and begin again at zero; -> the file."""
            command = ["vgdb", f"--vgdb-prefix={self.directory}/vgdb", f"--pid={pid}", "dump"]
            result = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
            self.dumps[pid] += 1
            path = os.path.join(self.directory, f"callgrind.{pid}.{self.dumps[pid]}")
            if result.returncode != 0 or not os.path.exists(path):
                raise Unmeasured(f"callgrind wrote no {path}: {result.stdout}{result.stderr}")
            return path

    return CallgrindNode


# ---- the work ----


class Client:
    """A connection; each request leaves in one write, so that it is read as one."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.socket.close()

    def receive(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise Unmeasured("the server closed the connection")
        return piece

    def ask(self, request, status):
        self.socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.receive()
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])
        while len(body) < length:
            body += self.receive()
        if head.split()[1] != b"%d" % status:
            raise Unmeasured(f"the answer to {request[:60]!r} was {head[:60]!r} {body[:200]!r}")
        return body


def put(number, header=b""):
    return b"PUT /kv/key%06d HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (number, header, len(VALUE), VALUE)


def get(number):
    return b"GET /kv/key%06d HTTP/1.1\r\nHost: x\r\n\r\n" % number


def import_request():
    lines = b"".join(b'{"key":"line%06d","value":"%b"}\n' % (number, VALUE) for number in range(LINES))
    return b"POST /import HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(lines), lines)


class Measurement:
    def __init__(self, cluster, client):
        self.nodes = {"master": cluster.master, "replica": cluster.replica}
        self.cluster = cluster
        self.client = client
        wanted = {(path.node, path.kind) for path in PATHS}
        self.pids = {}
        for node, kind in wanted:
            pids = self.nodes[node].pids(kind)
            if len(pids) != 1:
                raise Unmeasured(f"the {node} has {kind} processes {pids}, not one")
            self.pids[node, kind] = pids[0]
        self.counts = {}
        self.units = {}

    def dump(self):
        """Side by side: a process that sleeps takes a while to hear of it."""
        with concurrent.futures.ThreadPoolExecutor(len(self.pids)) as pool:
            files = {
                place: pool.submit(self.nodes[place[0]].dump, pid) for place, pid in self.pids.items()
            }
            return {place: file.result() for place, file in files.items()}

    def settle(self, offset):
        """Waits by the replica's API, whose http worker is not measured; the ack is on its way then."""
        self.cluster.replica.wait_offset(offset)
        time.sleep(0.1)

    def phase(self, name, units, requests, status):
        """Counts what these requests take, and nothing of what was before them."""
        self.dump()
        body = b""
        for request in requests:
            body = self.client.ask(request, status)
        if name in ("put", "confirmed", "import"):
            self.settle(json.loads(body)["offset"])
        self.counts[name] = {place: Counts(file) for place, file in self.dump().items()}
        self.units[name] = units

    def results(self):
        return {path.name: self.result(path) for path in PATHS}

    def result(self, path):
        counts = self.counts[path.phase][path.node, path.kind]
        for function in path.functions:
            if counts.calls[function] == 0:
                raise Unmeasured(
                    f"{path.name}: {function} was not called, or was inlined; name in PATHS of bench/instructions.py "
                    "what does its work now"
                )
        return round(sum(counts.inclusive[function] for function in path.functions) / self.units[path.phase])


def run_phases(cluster, client):
    confirmed = b"Nexus-Durability: all\r\n"
    lines = import_request()
    # Buffers are made, and each way is gone once.
    client.ask(put(0), 201)
    cluster.wait_level()
    for number in range(1, 20):
        client.ask(put(number, confirmed if number % 2 else b""), 201)
        client.ask(get(number), 200)
    client.ask(lines, 200)
    cluster.wait_level()
    run = Measurement(cluster, client)
    written = range(1000, 1000 + WRITES)
    run.phase("put", WRITES, [put(number) for number in written], 201)
    run.phase("confirmed", WRITES, [put(number, confirmed) for number in range(3000, 3000 + WRITES)], 201)
    run.phase("get", READS, [get(number) for number in written], 200)
    run.phase("import", IMPORTS * LINES, [lines] * IMPORTS, 200)
    client.ask(b"POST /replication/snapshot?wait=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 200)
    client.ask(get(1), 200)
    run.phase("get_state", READS, [get(number) for number in written], 200)
    in_memory, in_state = (run.counts[name]["master", "http"].calls["mdb_get"] for name in ("get", "get_state"))
    if in_state - in_memory < READS:
        raise Unmeasured("a snapshot has not moved the keys from memory to the state")
    return run.results()


def prepare(build):
    """Has the tests' library make nodes of this build, under callgrind; -> the library."""
    os.environ.update(NEXUS_BUILD_DIR=build, NEXUS_SOURCE_DIR=SOURCE, NEXUS_VALGRIND="1")
    sys.path.insert(0, os.path.join(SOURCE, "tests", "lib"))
    import nexus_test

    nexus_test.Node = node_class(nexus_test)
    return nexus_test


def measure(nexus_test):
    """-> {name of a path: instructions}"""
    cluster = nexus_test.Cluster(
        settings={
            "http.workers": 1,
            "replication.heartbeat_ms": 60000,
            "snapshot.interval": 0,
            "state.checkpoint_interval": 86400,
            "wal.segment_size": "4MiB",
            "wal.shm_size": "32MiB",
        }
    )
    with cluster:
        cluster.start()
        client = Client(cluster.master.http_port)
        try:
            return run_phases(cluster, client)
        finally:
            client.close()


# ---- the baseline ----


def load():
    try:
        with open(BASELINE, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {"environment": None, "instructions": {}, "history": []}


def change(now, before):
    """As a share of what was before; 0 where nothing was."""
    return now / before - 1 if before else 0.0


def complaints(counts, recorded):
    """What a change has to say about its numbers; empty: nothing."""
    texts = []
    for name, now in counts.items():
        before = recorded.get(name)
        if before is None:
            texts.append(f"{name}: not recorded yet")
        elif change(now, before) > LIMIT:
            texts.append(f"{name}: {now} instructions, {change(now, before):+.1%} of the recorded {before}")
        elif change(now, before) < -LIMIT:
            texts.append(f"{name}: {now} instructions, {change(now, before):+.1%}: better than the recorded {before}; record it")
    texts += [f"{name}: recorded, but no longer measured" for name in recorded if name not in counts]
    return texts


def nearest(first, second, recorded):
    """Of two measurements of a path the one that is nearer to what was recorded."""
    return {
        name: min(first[name], second[name], key=lambda now: abs(change(now, recorded.get(name))))
        for name in first
    }


def record(baseline, counts, where, reason):
    before = baseline["instructions"]
    changed = {
        name: [before.get(name), now]
        for name, now in counts.items()
        if name not in before or abs(change(now, before[name])) > 0.01
    }
    entry = {"date": datetime.date.today().isoformat(), "reason": reason, "changed": changed if before else {}}
    new = {
        "environment": where,
        "instructions": counts,
        "history": [entry, *baseline["history"]][:MOST_HISTORY],
    }
    with open(BASELINE, "w", encoding="utf-8") as file:
        json.dump(new, file, indent=1)
        file.write("\n")


def print_table(runs, recorded):
    print(f"{'instructions':<44} {'now':>7} {'spread':>7} {'recorded':>9} {'change':>7}")
    for name in runs[0]:
        values = [run[name] for run in runs]
        now = statistics.median_low(values)
        spread = f"{max(values) / min(values) - 1:.1%}" if len(runs) > 1 else ""
        before = recorded.get(name)
        text = f"{before:>9} {change(now, before):>+7.1%}" if before else ""
        print(f"{name:<44} {now:>7} {spread:>7} {text}".rstrip())


def check(nexus_test, baseline, where):
    if baseline["environment"] is None:
        raise Unmeasured(f"nothing is recorded: {os.path.relpath(BASELINE)} is missing")
    if where != baseline["environment"]:
        print(f"not comparable: recorded with {baseline['environment']}, here is {where}")
        return 0
    recorded = baseline["instructions"]
    counts = measure(nexus_test)
    if complaints(counts, recorded):  # a busy machine may have led to other turns
        counts = nearest(counts, measure(nexus_test), recorded)
    print_table([counts], recorded)
    texts = complaints(counts, recorded)
    if texts:
        print("\nThe instructions of a hot path have changed:")
        print("\n".join(f"  {text}" for text in texts))
        print("If that is meant, commit what this writes:  bench/instructions.py --record --reason 'WHY'")
    return 1 if texts else 0


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the baseline")
    parser.add_argument("--record", action="store_true", help="write the baseline (the median of 3, or of --repeat)")
    parser.add_argument("--reason", help="why the numbers are what they are now")
    parser.add_argument("--repeat", type=int, help="measurements; the table shows how far they lie apart")
    parser.add_argument("--build", default=os.path.join(SOURCE, "build"), help="the release build's folder")
    options = parser.parse_args()
    if options.repeat is not None and options.repeat < 1:
        parser.error("--repeat takes a number above 0")
    if options.record != bool(options.reason) or (options.check and options.record):
        parser.error("--record and --reason go together, without --check")
    options.build = os.path.abspath(options.build)
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of the nodes' cleaning up
    baseline = load()
    try:
        check_build(options.build)
        where = environment(options.build)
        nexus_test = prepare(options.build)
        if options.check:
            return check(nexus_test, baseline, where)
        runs = [measure(nexus_test) for _ in range(options.repeat or (3 if options.record else 1))]
    except (Unmeasured, OSError, subprocess.SubprocessError) as error:
        print(f"instructions.py: {error}", file=sys.stderr)
        return 1
    print_table(runs, baseline["instructions"] if where == baseline["environment"] else {})
    if options.record:
        counts = {name: statistics.median_low([run[name] for run in runs]) for name in runs[0]}
        record(baseline, counts, where, options.reason)
        print(f"recorded in {os.path.relpath(BASELINE)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
