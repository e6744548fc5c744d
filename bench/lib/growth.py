"""How figures grow with what grows: each a curve or several, plotted."""
import dataclasses
import os
import statistics
from typing import Dict, List

from . import full_syncs, generators, machine, pairs, replication, storage
from .generators import nexus_bench

SECONDS = 3
ROUNDS = 3


@dataclasses.dataclass
class Curve:
    """points: x -> the runs there."""

    label: str
    points: Dict[float, List[dict]]
    setup: str = ""


def rounds(bench):
    return min(bench.pairs, ROUNDS)


def steps(bench, usual, few=3):
    """A quick run has the first ones alone."""
    return usual[:few] if bench.quick else usual


def curves_of(bench, sides, steps_, measure):
    """measure(side, x) -> run; all sides in turn at each step."""
    found = {name: {x: [] for x in steps_} for name in sides}
    for x in steps_:
        for _ in range(rounds(bench)):
            for name, side in sides.items():
                machine.settle(bench.directory, min(bench.settle_seconds, 5))
                usage = machine.Usage()
                run = measure(side, x)
                run["machine"] = usage.figures()
                if "cpu" in run:
                    run["machine"]["others"] = pairs.others(run)
                found[name][x].append(run)
        for name, points in found.items():
            bench.say(f"  {x}: {name}: " + ", ".join(
                f"{metric} {statistics.median(r['figures'][metric] for r in points[x]):,.6g}"
                for metric in list(points[x][0]["figures"])[:5]))
    return found


def write_sides(bench, servers, keys, value=100):
    """name -> (server, protocol)"""
    sides = {"Nexus": (servers.nexus(fill=keys, value=value), "http")}
    redis = servers.redis(fill=keys, value=value)
    if redis is not None:
        sides["Redis"] = (redis, "redis")
    return sides


def finish(points, servers):
    return [Curve(name, runs, servers.setup.get(name, "")) for name, runs in points.items()]


def by_clients(bench):
    """Writes/s and latency against clients; both by nexus-bench."""
    with bench.servers() as servers:
        keys = bench.keys()
        sides = write_sides(bench, servers, keys)

        def measure(side, clients):
            server, protocol = side
            return nexus_bench(server.addr, {"server": server}, protocol, clients=clients, keys=keys,
                               duration=bench.seconds(SECONDS), warmup=0.3)

        return finish(curves_of(bench, sides, steps(bench, [1, 2, 4, 8, 16, 32, 64, 128, 256]), measure), servers)


def by_value(bench):
    """Writes/s and latency against the size of a value, 16 clients; keys as few as keep the data below 1 GB."""
    with bench.servers() as servers:
        sides = write_sides(bench, servers, 1000)

        def measure(side, value):
            server, protocol = side
            run = nexus_bench(server.addr, {"server": server}, protocol, clients=16, value=value, keys=1000,
                              duration=bench.seconds(SECONDS), warmup=0.3)
            run["figures"]["MB_per_s"] = run["figures"]["operations_per_s"] * value / 1e6
            return run

        sizes = [16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576]
        return finish(curves_of(bench, sides, steps(bench, sizes), measure), servers)


def by_replicas(bench):
    """The master's writes/s, 64 clients, against the number of its replicas, and their share of the processors."""
    points = {"Nexus": {}}
    with bench.servers() as servers:
        for count in steps(bench, [0, 1, 2, 3, 4, 6, 8]):
            with bench.servers() as more:
                master, replicas = replication.replicated(bench, more, count, "Nexus")
                servers.setup.update(more.setup)
                side = {"Nexus": (master, replicas)}
                found = curves_of(bench, side, [count],
                                  lambda pair, _: replication.write_with_replicas(bench, *pair))
                points["Nexus"].update(found["Nexus"])
        return finish(points, servers)


def state_bytes(node):
    total = 0
    for place, _, names in os.walk(os.path.join(node.data_dir, "current")):
        if os.path.basename(place) != "wal":
            total += sum(os.stat(os.path.join(place, name)).st_blocks * 512 for name in names)
    return total


def by_keys(bench):
    """Load, writes and reads against the number of keys of 100 B, 64 clients; memory and the size of the state."""
    with bench.servers() as servers:
        node = servers.nexus()
        points = {}
        for keys in steps(bench, [100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 20_000_000], 1):
            loaded = generators.fill(node.addr, keys, 100)
            node.wait_merged()
            runs = []
            for _ in range(rounds(bench)):
                machine.settle(bench.directory, min(bench.settle_seconds, 5))
                options = {"clients": 64, "keys": keys, "duration": bench.seconds(SECONDS), "warmup": 0.3}
                written = nexus_bench(node.addr, {"server": node}, **options)
                read = nexus_bench(node.addr, {"server": node}, mix="get=100", **options)
                memory = storage.memory_figures(node.pids())
                written["figures"] = {
                    "operations_per_s": written["figures"]["operations_per_s"],
                    "p50_us": written["figures"]["p50_us"],
                    "p99_us": written["figures"]["p99_us"],
                    "reads_per_s": read["figures"]["operations_per_s"],
                    "loaded_per_s": loaded["figures"]["operations_per_s"],
                    "memory_MB": memory["memory_MB"],
                    "state_MB": state_bytes(node) / 1e6,
                }
                runs.append(written)
            points[keys] = runs
            bench.say(f"  {keys} keys: {written['figures']}")
        return finish({"Nexus": points}, servers)


def by_backlog(bench):
    """Catch-up of a replica against the entries that it was away for."""
    with bench.servers() as servers:
        backlogs = steps(bench, [1_000, 10_000, 100_000, 1_000_000, 3_000_000], 2)
        keys = bench.keys()
        kept = {"replication__heartbeat_ms": 500, "replication__max_log_size": 4 * max(backlogs) + 1_000_000}
        master = servers.nexus(fill=keys, **kept)
        replica = servers.nexus(None, master=master, **kept)
        replica.wait_level()
        sides = {"Nexus": lambda n: replication.nexus_catch_up(master, replica, n, keys)}
        redis = servers.redis(fill=keys, repl_backlog_size="2gb")
        if redis is not None:
            second = servers.redis(None, master=redis, repl_backlog_size="2gb")
            sides["Redis"] = lambda n: replication.redis_catch_up(redis, second, n, keys)
        return finish(curves_of(bench, sides, backlogs, lambda side, n: side(n)), servers)


def by_size(bench):
    """Full sync against the size of the data, values of 1 KiB."""
    with bench.servers() as servers:
        master, redis = servers.nexus(), servers.redis()
        points = {}
        for keys in steps(bench, [1_000, 10_000, 100_000, 1_000_000, 3_000_000], 2):
            generators.fill(master.addr, keys, 1024)
            full_syncs.bring_into_state(master)
            sides = {"Nexus": replication.nexus_full_sync(bench, master)}
            if redis is not None:
                generators.fill(redis.addr, keys, 1024, "redis")
                sides["Redis"] = replication.redis_full_sync(bench, redis)

            def measure(side, size):
                run = side()
                run["figures"]["MB_per_s"] = size / run["figures"]["seconds"]
                return run

            megabytes = round(keys * (1024 + storage.KEY_BYTES) / 1e6, 2)
            for name, found in curves_of(bench, sides, [megabytes], measure).items():
                points.setdefault(name, {}).update(found)
        return finish(points, servers)
