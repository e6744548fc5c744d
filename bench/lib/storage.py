"""Rows of what is kept: restart, memory, bytes to the device."""
import os
import signal
import time

from . import full_syncs, generators, machine, peers_redis, processes, restarts
from .pairs import in_turn
from .session import Result

VALUE = 1024
KEY = "key:000000000007"
KEY_BYTES = 16
LOG_MIB = 100  # of values of 1 KiB, which with all around them fill the log in 128 MiB of shared memory


# ---- restart after kill -9 ----


def _timed(seconds, command, **figures):
    return {"figures": {"seconds": seconds, **figures}, "command": command, "raw": {}}


def nexus_restart(node, prepare):
    def measure():
        prepare()
        behind = node.status()["wal_offset"] - (node.state_offset() or 0)
        seconds = restarts.restart(node, KEY)
        return _timed(seconds, "SIGKILL to all; start; GET until it is 200", entries_to_replay=behind)

    return measure


def redis_restart(server):
    def measure():
        server.kill()
        began = time.monotonic()
        server.launch()
        server.wait_serving()
        return _timed(time.monotonic() - began, "SIGKILL; start; PING until it is PONG")

    return measure


def postgres_restart(server, prepare):
    def measure():
        prepare()
        server.kill()
        began = time.monotonic()
        server.launch()
        server.wait_serving()
        return _timed(time.monotonic() - began, "SIGKILL to all; start; SELECT 1 until it is answered")

    return measure


def etcd_restart(cluster):
    def measure():
        cluster.kill()
        began = time.monotonic()
        cluster.nodes[0].launch()
        cluster.wait_serving()
        return _timed(time.monotonic() - began, "SIGKILL; start; a linearizable read until it is answered")

    return measure


def restart_clean(bench):
    """Killed when all was merged into the state (PostgreSQL: after a checkpoint): until a read is answered."""
    with bench.servers() as servers:
        keys = bench.keys()
        node = servers.nexus(fill=keys, value=VALUE)
        sides = {"Nexus": nexus_restart(node, node.wait_merged)}
        redis = servers.redis(fill=keys, value=VALUE)
        if redis is not None:
            redis.ask("BGREWRITEAOF")
            time.sleep(0.5)
            connection = peers_redis.Resp(redis.port)
            while connection.info("persistence")["aof_rewrite_in_progress"] != "0":
                time.sleep(0.1)
            connection.close()
            sides["Redis"] = redis_restart(redis)
        postgres = servers.postgres(fill=keys, value=VALUE)
        if postgres is not None:
            sides["PostgreSQL"] = postgres_restart(postgres, lambda: postgres.sql("CHECKPOINT"))
        etcd = servers.etcd(fill=keys, value=VALUE)
        if etcd is not None:
            sides["etcd"] = etcd_restart(etcd)
        return Result(in_turn(bench, sides), servers.setup)


def restart_replay(bench):
    """Killed with as much log behind the last merge as the shared memory holds (PostgreSQL: 1M updates since the
    checkpoint; Redis: all in the log of commands)."""
    with bench.servers() as servers:
        keys = bench.keys()
        node = servers.nexus(fill=keys, value=VALUE)

        def prepare():
            """Nothing is merged of it: else what is left to replay is what a merge happened to have left."""
            node.wait_merged()
            os.kill(node.processes("checkpointer")[0]["pid"], signal.SIGSTOP)
            restarts.fill(node, 1 if bench.quick else LOG_MIB, VALUE, until_full=True)

        sides = {"Nexus": nexus_restart(node, prepare)}
        redis = servers.redis(fill=keys, value=VALUE)
        if redis is not None:
            sides["Redis"] = redis_restart(redis)
        postgres = servers.postgres(fill=keys, value=VALUE)
        if postgres is not None:

            def updates():
                postgres.sql("CHECKPOINT")
                postgres.fill(keys, VALUE)

            sides["PostgreSQL"] = postgres_restart(postgres, updates)
        return Result(in_turn(bench, sides), servers.setup)


# ---- memory ----


def memory_figures(pids):
    used = machine.memory(pids)
    mb = {name: value / 1e6 for name, value in used.items()}
    return {
        "memory_MB": mb["private"] + mb["shared"],
        "private_MB": mb["private"],
        "shared_MB": mb["shared"],
        "file_pages_MB": mb["files"],
    }


def shared_objects(node):
    """Bytes of the shared memory of a Nexus node, used or not."""
    sizes = {}
    for pid in node.pids():
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
                for line in file:
                    if "/dev/shm/nexus-" in line:
                        start, end = (int(at, 16) for at in line.split()[0].split("-"))
                        name = line.split()[5]
                        sizes[name] = max(sizes.get(name, 0), end - start)
        except OSError:
            continue
    return sum(sizes.values())


def memory(bench):
    """Private and shared memory with 1M x 100 B, pages of files apart; a new server and data each time."""
    keys = bench.keys()

    def nexus():
        with bench.servers() as servers:
            node = servers.nexus(fill=keys)
            figures = memory_figures(node.pids())
            figures["shm_object_MB"] = shared_objects(node) / 1e6
            # All of the object counts, used or not.
            figures["beside_shm_MB"] = figures["private_MB"] + max(figures["shared_MB"] - figures["shm_object_MB"], 0)
            figures["memory_MB"] = figures["beside_shm_MB"] + figures["shm_object_MB"]
            return {"figures": figures, "command": "/proc/PID/smaps_rollup", "raw": {}}

    def other(start):
        def measure():
            with bench.servers() as servers:
                server = start(servers)
                time.sleep(1)
                return {"figures": memory_figures(server.pids()), "command": "/proc/PID/smaps_rollup", "raw": {}}

        return measure

    sides = {"Nexus": nexus}
    starts = {
        "redis": ("Redis", lambda servers: servers.redis(fill=keys)),
        "postgres": ("PostgreSQL", lambda servers: servers.postgres(fill=keys)),
        "etcd": ("etcd", lambda servers: servers.etcd(fill=keys)),
    }
    for peer, (label, start) in starts.items():
        if peer in bench.peers:
            sides[label] = other(start)
    return Result(in_turn(bench, sides), {"Nexus": "wal.shm_size = auto", "PostgreSQL": "shared_buffers = 2GB"})


# ---- bytes to the device ----


def written_by(bench, measure):
    """-> the run, and the bytes that went to the device for it."""
    device = machine.Device(bench.directory)
    os.sync()
    before = device.written()
    run = measure()
    time.sleep(0.2)
    os.sync()
    return run, device.written() - before


def device_side(bench, measure, after=None, value=100):
    """after: what the server does with it later on, counted apart (merges, checkpoints); ends when that is done."""

    def run_once():
        run, written = written_by(bench, measure)
        operations = run["figures"]["operations_per_s"] * run_seconds(run)
        logical = operations * (KEY_BYTES + value)
        figures = {"device_per_byte": written / logical, "operations_per_s": run["figures"]["operations_per_s"]}
        for name, act in (after or {}).items():
            _, more = written_by(bench, act)
            figures[f"{name}_per_byte"] = more / logical
        run["figures"] = figures
        return run

    return run_once


def run_seconds(run):
    raw = run["raw"]
    if "operations" in raw and run["figures"]["operations_per_s"]:
        return raw["operations"] / run["figures"]["operations_per_s"]
    return run["measured_s"]


def device_bytes(bench, clients):
    """Sectors written to the whole device, the file system's journal included, by the bytes of keys and values that
    were written; Nexus: the log first, then its merge into the state and a snapshot, each counted apart."""
    with bench.servers() as servers:
        # With many clients a generation of the log is full, and merged, after some seconds: the run is to end before.
        keys, seconds = bench.keys(), bench.seconds(4 if clients == 1 else 1.5)
        options = {"clients": clients, "keys": keys, "value": 100, "duration": seconds}
        # The interval begins with the first entry that isn't merged: the merge comes after the run.
        node = servers.nexus(fill=keys, state__checkpoint_interval=f"{max(3 * round(seconds), 4)}s")

        def log_alone():
            merged = node.state_offset()
            run = generators.nexus_bench(node.addr, **options)
            if node.state_offset() != merged:
                raise processes.CommandFailed("entries were merged while only the log was to be counted")
            return run

        parts = {"state": node.wait_merged, "snapshot": lambda: node.json("POST", "/replication/snapshot", timeout=600)}
        write = device_side(bench, log_alone, parts)

        def nexus():
            node.wait_merged()
            run = write()
            full_syncs.forget_snapshot(node)
            return run

        sides = {"Nexus": nexus}
        redis = servers.redis(fill=keys)
        if redis is not None:
            sides["Redis"] = device_side(bench, lambda: generators.nexus_bench(redis.addr, protocol="redis", **options))
        postgres = servers.postgres(fill=keys)
        if postgres is not None:

            def load():
                run = generators.pgbench(postgres, "put", clients, seconds)
                run["measured_s"] = max(generators.PGBENCH_LEAST, round(seconds))
                return run

            sides["PostgreSQL"] = device_side(bench, load, {"checkpoint": lambda: postgres.sql("CHECKPOINT")})
        etcd = servers.etcd(fill=keys)
        if etcd is not None:
            sides["etcd"] = device_side(bench, lambda: generators.nexus_bench(etcd.addr, protocol="etcd", **options))
        return Result(in_turn(bench, sides), servers.setup)
