"""The programs that make load, and what they print as figures. Peers are driven by their own tools where they have
one that can do the work; nexus-bench does the rest, and does the peers' work again as a cross-check."""
import csv
import glob
import io
import json
import os
import re
import tempfile
import time

from . import machine, processes, program

PGBENCH_LEAST = 2  # seconds: of one its connections take most
CALIBRATION = 2000  # requests, of the first run of a redis-benchmark


def usable(done, errors, text):
    """A run with errors is no measurement."""
    if not done or errors:
        raise processes.CommandFailed(f"{text}: {done} operations, {errors} errors")


class Watch:
    """Processor time that servers take while a run lasts."""

    def __init__(self, servers):
        self.servers = {name: server.pids for name, server in servers.items()}
        self.began = {name: machine.cpu_seconds(pids()) for name, pids in self.servers.items()}
        self.load = sum(os.times()[2:4])
        self.at = time.monotonic()

    def figures(self):
        seconds = time.monotonic() - self.at
        used = {name: machine.cpu_seconds(pids()) - self.began[name] for name, pids in self.servers.items()}
        used["generator"] = sum(os.times()[2:4]) - self.load  # of children that have ended
        return {"seconds": round(seconds, 3), **{name: round(value, 3) for name, value in used.items()}}


def nexus_bench_command(target, protocol="http", mix="put=100", clients=64, **options):
    """options: those of nexus-bench, with _ for -; None: left out."""
    command = [program("nexus-bench"), "--json", "--protocol", protocol, "--target", target, "--mix", mix,
               "--clients", clients]
    for name, value in options.items():
        if value is not None:
            command += ["--" + name.replace("_", "-"), value]
    return [str(word) for word in command]


def nexus_bench_figures(text, raw):
    usable(raw["operations"], raw["errors"], f"{text}: {raw.get('answers')}")
    latency = raw["latency_us"]
    values = {"operations_per_s": raw["operations_per_s"]}
    values.update({f"{name}_us": latency[name] for name in ("p50", "p99", "p999", "mean", "max") if name in latency})
    return values


def nexus_bench(target, servers=None, protocol="http", **options):
    """One run: {"figures", "command", "raw", "cpu"}."""
    watch = Watch(servers) if servers else None
    started = processes.Run(nexus_bench_command(target, protocol, **options))
    raw = json.loads(started.output())
    run = {"figures": nexus_bench_figures(started.text, raw), "command": started.text, "raw": raw}
    if watch is not None:
        run["cpu"] = watch.figures()
    return run


def fill(target, keys, value, protocol="http"):
    """Writes each key once, as fast as it goes; -> the run. The keys are those of redis-benchmark too."""
    ways = {
        "http": {"mix": "import=100", "batch": 1000, "clients": 4},
        "redis": {"mix": "put=100", "pipeline": 100, "clients": 4},
        "etcd": {"mix": "import=100", "batch": 100 if value < 500 else 50, "clients": 4},
    }
    return nexus_bench(target, protocol=protocol, keys=keys, value=value, order="sequential", **ways[protocol])


class RedisBenchmark:
    """redis-benchmark ends after so many requests: how many are as long as it is to last, a first short run says."""

    def __init__(self, server, test, clients, seconds, value=100, pipeline=1, keys=1_000_000):
        self.server = server
        self.base = ["redis-benchmark", "-p", server.port, "-t", test, "-c", clients, "-d", value, "-P", pipeline,
                     "-r", keys, "--csv"]
        self.seconds = seconds
        first = CALIBRATION * max(1, pipeline // 4)
        rate = self.measure(first)["figures"]["operations_per_s"]
        self.requests = max(first, int(self.measure(max(first, int(rate / 4)))["figures"]["operations_per_s"] * seconds))

    def measure(self, requests):
        watch = Watch({"server": self.server})
        started = processes.Run([*self.base, "-n", requests])
        text = started.output()
        rows = list(csv.reader(io.StringIO(text)))
        raw = dict(zip(rows[0], rows[-1]))
        usable(len(rows) > 1, 0, started.text)
        return {
            "figures": {
                "operations_per_s": float(raw["rps"]),
                "p50_us": float(raw["p50_latency_ms"]) * 1000,
                "p99_us": float(raw["p99_latency_ms"]) * 1000,
                "mean_us": float(raw["avg_latency_ms"]) * 1000,
                "max_us": float(raw["max_latency_ms"]) * 1000,
            },
            "command": started.text,
            "raw": raw,
            "cpu": watch.figures(),
        }

    def __call__(self):
        return self.measure(self.requests)


PUT_SQL = """\\set k random(0,{last})
INSERT INTO kv VALUES (lpad(:k::text,16,'0'), :val::bytea) ON CONFLICT (k) DO UPDATE SET v=EXCLUDED.v;
"""
GET_SQL = """\\set k random(0,{last})
SELECT v FROM kv WHERE k=lpad(:k::text,16,'0');
"""


def pgbench_command(server, directory, script, clients, seconds, value=100, rate=None, log=True):
    name = os.path.join(directory, f"{script}.sql")
    with open(name, "w", encoding="ascii") as file:
        file.write({"put": PUT_SQL, "get": GET_SQL}[script].format(last=server.keys - 1))
    command = [server.tool("pgbench"), "-h", "127.0.0.1", "-p", server.port, "-U", "postgres", "-n", "-M", "prepared",
               "-f", name, "-c", clients, "-j", 1 if clients == 1 else 2, "-T", max(PGBENCH_LEAST, round(seconds)),
               "-D", "val=" + "x" * value]
    if rate is not None:
        command += ["-R", rate]
    if log:
        command += ["-l", "--log-prefix", os.path.join(directory, "log")]
    return [str(word) for word in [*command, "postgres"]]


def pgbench(server, script, clients, seconds, value=100):
    """One run; latencies come from its log of all transactions."""
    with tempfile.TemporaryDirectory(dir=server.bench.directory) as directory:
        watch = Watch({"server": server})
        started = processes.Run(pgbench_command(server, directory, script, clients, seconds, value), cwd=directory)
        text = started.output()
        latencies = []
        for name in glob.glob(os.path.join(directory, "log*")):
            with open(name, encoding="ascii") as file:
                latencies += [int(line.split()[2]) for line in file]
        cpu = watch.figures()
    latencies.sort()
    usable(len(latencies), int(_field(r"failed transactions: (\d+)", text) or 0), started.text)
    at = lambda share: latencies[min(int(share * len(latencies)), len(latencies) - 1)]
    return {
        "figures": {
            "operations_per_s": float(_field(r"^tps = ([\d.]+)", text)),
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "mean_us": sum(latencies) / len(latencies),
            "max_us": latencies[-1],
        },
        "command": started.text.replace(value * "x", f"<{value} bytes>"),
        "raw": {"output": processes.shown(text).splitlines()},
        "cpu": cpu,
    }


def _field(pattern, text):
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1) if match else None


def floors(directory, syncs=3000, round_trips=20000):
    """A small durable write and a small question on this machine, at the least."""
    found, commands = {}, []
    for name, words in (
        ("sync", ("sync", directory, syncs)),
        ("direct", ("direct", directory, syncs)),
        ("round_trip", ("round-trip", round_trips)),
    ):
        started = processes.Run([program("nexus-bench-limits"), *words])
        commands.append(started.text)
        raw = json.loads(started.output())
        found.update({f"{name}_p50_us": raw["p50_us"], f"{name}_p99_us": raw["p99_us"]})
    found["p50_us"] = found["sync_p50_us"] + found["round_trip_p50_us"]
    return {"figures": dict(sorted(found.items())), "command": "; ".join(commands), "raw": {}}
