"""Rows of replication: catch-up, full sync, lag, promotion, many replicas, one that is stalled."""
import os
import signal
import time

from . import floors, full_syncs, generators, peers_postgres, peers_redis, processes, promotions
from .pairs import in_turn
from .session import Result

SECONDS = 5
CLIENTS = 64


# ---- catch-up ----


def nexus_catch_up(master, replica, entries, keys):
    """The replica is frozen until its master has dropped it, and thawed when the master has so many more entries."""
    replica.freeze()
    try:
        written = generators.nexus_bench(master.addr, mix="put=100", clients=CLIENTS, pipeline=16, keys=keys,
                                         requests=entries)
        master.wait_until(lambda: not master.replicas(), 60, "the end of the frozen replica's session")
        master.wait_merged()
        offset = master.status()["wal_offset"]
    finally:
        began = time.monotonic()
        replica.resume()
    replica.wait_applied(offset)
    return _caught_up(began, entries, written)


def _caught_up(began, entries, written):
    seconds = time.monotonic() - began
    return {
        "figures": {"entries_per_s": entries / seconds, "seconds": seconds},
        "command": written["command"],
        "raw": {"written": written["figures"]},
    }


def redis_catch_up(master, replica, entries, keys):
    before = peers_redis.Resp(master.port).info("stats")["sync_full"]
    replica.freeze()
    written = generators.nexus_bench(master.addr, protocol="redis", mix="put=100", clients=4, pipeline=100, keys=keys,
                                     requests=entries)
    time.sleep(1)
    began = time.monotonic()
    replica.resume()
    replica.wait_level()
    run = _caught_up(began, entries, written)
    if peers_redis.Resp(master.port).info("stats")["sync_full"] != before:
        raise processes.CommandFailed("Redis made a full sync instead")
    return run


def postgres_catch_up(primary, standby, entries):
    standby.sql("CHECKPOINT")  # else it replays what it had before too
    standby.end(signal.SIGINT)
    primary.write_backlog(entries)
    lsn = primary.lsn()
    time.sleep(1)
    began = time.monotonic()
    standby.launch()
    serving = standby.wait_replayed(lsn)
    seconds = time.monotonic() - began
    after = max(time.monotonic() - serving, 1e-3)
    return {
        "figures": {"entries_per_s": entries / seconds, "seconds": seconds, "entries_per_s_once_serving": entries / after},
        "command": f"{entries} rows in transactions of 1,000, standby started again",
        "raw": {},
    }


def catch_up(bench):
    """A replica was away while its master took as many single entries of 100 B with random keys."""
    with bench.servers() as servers:
        entries = keys = bench.keys()
        kept = {"replication__heartbeat_ms": 500, "replication__max_log_size": 4 * entries + 1_000_000}
        master = servers.nexus(fill=keys, **kept)
        replica = servers.nexus(None, master=master, **kept)
        replica.wait_level()
        sides = {"Nexus": lambda: nexus_catch_up(master, replica, entries, keys)}
        redis = servers.redis(fill=keys, repl_backlog_size="1gb")
        if redis is not None:
            second = servers.redis(None, master=redis, repl_backlog_size="1gb")
            sides["Redis"] = lambda: redis_catch_up(redis, second, entries, keys)
        postgres = servers.postgres(fill=keys)
        if postgres is not None:
            standby = servers.postgres(None, primary=postgres)
            sides["PostgreSQL"] = lambda: postgres_catch_up(postgres, standby, entries)
        return Result(in_turn(bench, sides), servers.setup)


# ---- full sync ----


def nexus_full_sync(bench, master):
    offset = master.status()["wal_offset"]

    def measure():
        with bench.servers() as servers:
            replica = servers.new_replica(master)
            seconds = full_syncs.full_sync(master, replica, offset)
            full_syncs.forget_snapshot(master)
            return {"figures": {"seconds": seconds}, "command": "a new replica", "raw": {}}

    return measure


def redis_full_sync(bench, master):
    def measure():
        with bench.servers() as servers:
            began = time.monotonic()
            replica = servers.redis(None, master=master, repl_diskless_load="swapdb")
            seconds = time.monotonic() - began
            connection = peers_redis.Resp(replica.port)
            while connection.info("persistence")["aof_rewrite_in_progress"] != "0":
                time.sleep(0.05)
            durable = time.monotonic() - began
            return {
                "figures": {"seconds": seconds, "on_disk_s": durable},
                "command": replica.setup,
                "raw": {},
            }

    return measure


def postgres_full_sync(bench, primary):
    def measure():
        with bench.servers() as servers:
            began = time.monotonic()
            standby = servers.postgres(None, primary=primary)
            return {
                "figures": {"seconds": standby.base_backup_seconds, "serving_s": time.monotonic() - began},
                "command": "pg_basebackup -R -X stream -c fast, and a standby on it",
                "raw": {},
            }

    return measure


def full_sync(bench, keys=None, value=1024):
    """A new replica takes over all of a master's data."""
    keys = keys or bench.keys()
    with bench.servers() as servers:
        master = servers.nexus(fill=keys, value=value)
        sides = {"Nexus": nexus_full_sync(bench, master)}
        redis = servers.redis(fill=keys, value=value)
        if redis is not None:
            sides["Redis"] = redis_full_sync(bench, redis)
        postgres = servers.postgres(fill=keys, value=value)
        if postgres is not None:
            sides["PostgreSQL"] = postgres_full_sync(bench, postgres)
        return Result(in_turn(bench, sides), servers.setup)


# ---- lag ----


def probe(target, second, protocol="http", duration=5):
    """From the answer to a write until a tight poll sees it on the second node."""
    return generators.nexus_bench(target, protocol=protocol, clients=1, lag=second, duration=duration, value=32)


def with_load(bench, load, measure):
    """Probes while the load runs; the load is started a moment before and lasts longer."""
    with processes.beside(load) as running:
        time.sleep(bench.seconds(1))
        run = measure()
        if running.process.poll() is not None:
            raise processes.CommandFailed(f"the load has ended before the probe: {running.output()[-500:]}")
    run["load"] = running.text
    return run


def most_writes(bench, target, **options):
    return generators.nexus_bench(target, duration=bench.seconds(SECONDS), **options)["figures"]["operations_per_s"]


def loaded_probe(bench, target, second, protocol, share=0.5):
    """A side: that share of the most writes a second that a first run finds, and a probe beside them."""
    seconds = bench.seconds(SECONDS)
    options = {"protocol": protocol, "clients": CLIENTS, "keys": bench.keys()}
    rate = max(int(most_writes(bench, target, **options) * share), 1)
    load = generators.nexus_bench_command(target, rate=rate, duration=4 * seconds + 20, **options)

    def measure():
        run = with_load(bench, load, lambda: probe(target, second, protocol, seconds))
        run["figures"] = {"p50_us": run["figures"]["p50_us"], "p99_us": run["figures"]["p99_us"], "load_per_s": rate}
        if run["raw"].get("polls"):
            run["figures"]["polls"] = run["raw"]["polls"]
        return run

    return measure


def postgres_probe(bench, primary, standby):
    """The same from Python, in connections that are open: pgbench has no such probe."""
    directory = os.path.join(bench.directory, f"pgbench-{primary.port}")
    os.makedirs(directory, exist_ok=True)
    seconds = bench.seconds(SECONDS)
    most = generators.pgbench(primary, "put", CLIENTS, seconds)["figures"]["operations_per_s"]
    rate = max(int(most / 2), 1)
    load = generators.pgbench_command(primary, directory, "put", CLIENTS, 4 * seconds + 20, rate=rate, log=False)

    def poll():
        writing, reading = primary.session(), standby.session()
        writing.query("CREATE TABLE IF NOT EXISTS probe(id int PRIMARY KEY, v bigint)")
        writing.query("INSERT INTO probe VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET v = 0")
        standby.wait_replayed(primary.lsn())
        times, polls, number, end = [], 0, 0, time.monotonic() + seconds
        while time.monotonic() < end:
            number += 1
            writing.query(f"UPDATE probe SET v = {number} WHERE id = 1")
            began, seen = time.perf_counter(), None
            while seen != str(number):
                seen = reading.query("SELECT v FROM probe WHERE id = 1")[0][0]
                polls += 1
            times.append((time.perf_counter() - began) * 1e6)
            time.sleep(0.001 + (number % 3) / 1000)
        writing.close()
        reading.close()
        times.sort()
        at = lambda share: times[min(int(share * len(times)), len(times) - 1)]
        return {
            "figures": {"p50_us": at(0.5), "p99_us": at(0.99), "load_per_s": rate, "polls": polls / len(times)},
            "command": "UPDATE of a row, then SELECT on the standby until it is seen",
            "raw": {},
        }

    return lambda: with_load(bench, load, poll)


def lag(bench):
    """From a write's answer until a replica's reader sees it, at half of the most writes a second (open loop)."""
    with bench.servers() as servers:
        keys = bench.keys()
        master = servers.nexus(fill=keys)
        replica = servers.nexus(None, master=master)
        sides = {
            "Nexus": loaded_probe(bench, master.addr, replica.addr, "http"),
            "at a fiftieth: Nexus": loaded_probe(bench, master.addr, replica.addr, "http", 0.02),
        }
        redis = servers.redis(fill=keys)
        if redis is not None:
            second = servers.redis(None, master=redis)
            sides["Redis"] = loaded_probe(bench, redis.addr, second.addr, "redis")
            sides["at a fiftieth: Redis"] = loaded_probe(bench, redis.addr, second.addr, "redis", 0.02)
        postgres = servers.postgres(fill=keys)
        if postgres is not None:
            standby = servers.postgres(None, primary=postgres)
            sides["PostgreSQL"] = postgres_probe(bench, postgres, standby)
        etcd = servers.etcd(3, fill=keys)
        if etcd is not None:
            sides["etcd"] = loaded_probe(bench, etcd.addr, etcd.follower.addr, "etcd")
        return Result(in_turn(bench, sides), servers.setup)


# ---- promotion ----


def _milliseconds(began):
    return {"figures": {"milliseconds": (time.monotonic() - began) * 1000}, "command": "", "raw": {}}


def redis_promotion(bench):
    with bench.servers() as servers:
        master = servers.redis(None, fill=bench.keys(100_000))
        replica = servers.redis(None, master=master)
        connection = peers_redis.Resp(replica.port)
        connection.command("PING")
        master.kill()
        began = time.monotonic()
        connection.command("REPLICAOF", "NO", "ONE")
        while connection.command("SET", "promoted", "1") != "+OK":
            pass
        return {**_milliseconds(began), "command": "REPLICAOF NO ONE; SET"}


def postgres_promotion(bench):
    with bench.servers() as servers:
        primary = servers.postgres(None, fill=bench.keys(100_000))
        standby = servers.postgres(None, primary=primary)
        session = standby.session()
        primary.kill()
        began = time.monotonic()
        session.query("SELECT pg_promote(false)")
        while True:
            try:
                session.query("INSERT INTO kv VALUES ('promoted', 'x') ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v")
                return {**_milliseconds(began), "command": "SELECT pg_promote(false); INSERT"}
            except peers_postgres.SqlError:
                time.sleep(0.0005)


def etcd_election(bench):
    """Nobody promotes: the cluster finds the dead leader by itself. The client gives up after 0.1 s and tries again."""
    with bench.servers() as servers:
        cluster = servers.etcd(3, None, fill=bench.keys(100_000))
        leader, other = cluster.leader, cluster.follower
        began = time.monotonic()
        leader.kill()
        while not other.put(0.1):
            pass
        return {**_milliseconds(began), "command": "kill -9 of the leader; a write each 0.1 s"}


def promotion(bench):
    """The master is killed, a replica is promoted by hand at once and takes a write (etcd: its own election)."""
    nodes = promotions.Nodes("async", 2)
    try:
        nodes.cluster.start()
        numbers = iter(range(1000))

        def nexus():
            times = promotions.run_round(nodes, next(numbers))
            return {
                "figures": {"milliseconds": times[promotions.ACCEPTED], "to_answer_ms": times[promotions.ANSWER]},
                "command": "POST /replication/promote; PUT",
                "raw": {},
            }

        sides = {"Nexus": nexus}
        for name, measure in (("redis", redis_promotion), ("postgres", postgres_promotion), ("etcd", etcd_election)):
            if name in bench.peers:
                label = {"redis": "Redis", "postgres": "PostgreSQL", "etcd": "etcd"}[name]
                sides[label] = lambda measure=measure: measure(bench)
        return Result(in_turn(bench, sides), {"Nexus": "2 replicas, replication.mode = async"})
    finally:
        nodes.end()


# ---- many replicas, and one that is stalled ----


class Group:
    """Several servers as one, for their processor time."""

    def __init__(self, nodes):
        self.nodes = nodes

    def pids(self):
        return [pid for node in self.nodes for pid in node.pids()]


def replicated(bench, servers, count, label, **of_replicas):
    """A master with so many replicas, which are level. -> master, replicas."""
    small = {"wal__shm_size": "64MiB", "http__workers": 1}
    master = servers.nexus(label, fill=bench.keys(100_000))
    replicas = [servers.nexus(None, master=master, **{**small, **of_replicas}) for _ in range(count)]
    for replica in replicas:
        replica.wait_level()
    return master, replicas


def write_beside(bench, master, others):
    """A run of writes, and which share of all processors the others, its replicas or not, had meanwhile."""
    run = generators.nexus_bench(
        master.addr,
        {"master": master, "others": Group(others)},
        clients=CLIENTS,
        keys=bench.keys(100_000),
        duration=bench.seconds(SECONDS),
    )
    cpu = run["cpu"]
    run["figures"]["others_share"] = cpu["others"] / (cpu["seconds"] * os.cpu_count())
    run["figures"]["master_share"] = cpu["master"] / (cpu["seconds"] * os.cpu_count())
    return run


def write_with_replicas(bench, master, replicas):
    run = write_beside(bench, master, replicas)
    for replica in replicas:
        replica.wait_level()
    return run


def eight_replicas(bench):
    """The master's writes with eight replicas beside it, against none, in turn; once more with replicas that leave the
    disk to the master, as they would with disks of their own, and beside programs that take as much of the processors
    as those did, and do nothing with it."""
    with bench.servers() as servers:
        alone, _ = replicated(bench, servers, 0, "no replica")
        master, replicas = replicated(bench, servers, 8, "8 replicas")
        second, others = replicated(bench, servers, 8, "8 replicas that don't sync", wal__fsync="off")
        shares = []

        def without_disk():
            run = write_with_replicas(bench, second, others)
            shares.append(run["figures"]["others_share"])
            return run

        def beside_takers():
            with floors.takers(bench, shares[-1]) as takers:
                return write_beside(bench, alone, takers)

        sides = {
            "no replica": lambda: write_with_replicas(bench, alone, []),
            "8 replicas": lambda: write_with_replicas(bench, master, replicas),
            "8 replicas that don't sync": without_disk,
            "programs that take as much": beside_takers,
        }
        results = in_turn(bench, sides)
        for side in list(sides)[1:]:
            for without, with_them in zip(results["no replica"], results[side]):
                figures = with_them["figures"]
                left = 1 - figures["others_share"]
                figures["of_what_is_left"] = figures["operations_per_s"] / without["figures"]["operations_per_s"] / left
        return Result(results, servers.setup, ["of_what_is_left: writes/s with the replicas, by those without them, by the "
                                               "share of the processors that the replicas left. The programs that take "
                                               "about as much as those that don't sync did are a measure for what any "
                                               "neighbours cost; they are no part of the product."])


def stalled(bench):
    """A replica beside a live one takes nothing any more (SIGSTOP)."""
    with bench.servers() as servers:
        plain, (first,) = replicated(bench, servers, 1, "live alone")
        master, (live, still) = replicated(bench, servers, 2, "beside a stalled one")
        rates = []

        def measure(node, follower):
            run = generators.nexus_bench(node.addr, {"master": node}, clients=CLIENTS, keys=bench.keys(100_000),
                                         duration=bench.seconds(SECONDS))
            rates.append(run["figures"]["operations_per_s"])
            load = generators.nexus_bench_command(node.addr, clients=CLIENTS, rate=max(int(rates[0] / 2), 1),
                                                  keys=bench.keys(100_000), duration=4 * bench.seconds(SECONDS) + 20)
            probed = with_load(bench, load, lambda: probe(node.addr, follower.addr, duration=bench.seconds(SECONDS)))
            run["figures"].update(lag_p50_us=probed["figures"]["p50_us"], lag_p99_us=probed["figures"]["p99_us"])
            run["raw"] = {"writes": run["raw"], "probe": probed["raw"]}
            run["load"] = probed["load"]
            run.pop("cpu")  # it has neither the probe's nor the replicas'
            return run

        def beside():
            still.freeze()
            try:
                return measure(master, live)
            finally:
                still.resume()
                still.wait_level()

        sides = {"live alone": lambda: measure(plain, first), "beside a stalled one": beside}
        return Result(in_turn(bench, sides), servers.setup)
