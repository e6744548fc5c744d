"""Rows of operations a second and of latency: writes, reads, bulk loads."""
from . import floors as floor_servers
from . import generators
from .generators import RedisBenchmark, nexus_bench, pgbench
from .pairs import in_turn
from .session import Result

SECONDS = 5
WARMUP = 0.5
CROSS = "Redis (nexus-bench)"
EMPTY = "empty libevent server"


def load(bench, server, protocol="http", servers=None, **options):
    """A side that nexus-bench drives; None where there is no such server."""
    if server is None:
        return None
    options = {"keys": bench.keys(), "value": 100, "duration": bench.seconds(SECONDS), "warmup": WARMUP, **options}
    return lambda: nexus_bench(server.addr, servers or {"server": server}, protocol, **options)


def redis_sides(bench, redis, test, clients, value=100, pipeline=1):
    """By its own tool, and by nexus-bench."""
    if redis is None:
        return {}
    own = RedisBenchmark(redis, test, clients, bench.seconds(SECONDS), value, pipeline, bench.keys())
    mix = {"set": "put=100", "get": "get=100"}[test]
    cross = load(bench, redis, "redis", mix=mix, clients=clients, value=value, pipeline=pipeline)
    return {"Redis": own, CROSS: cross}


def postgres_side(bench, server, script, clients):
    return None if server is None else lambda: pgbench(server, script, clients, bench.seconds(SECONDS))


def floor(bench, times=1):
    """So many syncs of a prewritten file and round trips, one after another."""
    count = 300 if bench.quick else 3000
    run = generators.floors(bench.directory, count, 5 * count)
    if times > 1:
        run["figures"] = {"p50_us": times * run["figures"]["p50_us"]}
    return run


def durable_write(bench, clients):
    """Each write is answered when it is on this one node's disk."""
    with bench.servers() as servers:
        keys = bench.keys()
        sides = {"Nexus": load(bench, servers.nexus(fill=keys), clients=clients)}
        if clients == 1:
            sides["floor"] = lambda: floor(bench)
        else:
            nothing = servers.add(floor_servers.EmptyHttp(bench), EMPTY)
            sides[EMPTY] = load(bench, nothing.wait_serving(), clients=clients)
        sides.update(redis_sides(bench, servers.redis(fill=keys), "set", clients))
        sides["PostgreSQL"] = postgres_side(bench, servers.postgres(fill=keys), "put", clients)
        sides["etcd"] = load(bench, servers.etcd(fill=keys), "etcd", clients=clients)
        return Result(in_turn(bench, sides), servers.setup)


def replicated_write(bench, clients):
    """Each write is answered when it is on one replica's disk too."""
    with bench.servers() as servers:
        keys = bench.keys()
        nexus = servers.nexus(fill=keys)
        nexus_replica = servers.nexus(None, master=nexus)
        both = {"master": nexus, "replica": nexus_replica}
        sides = {"Nexus": load(bench, nexus, servers=both, mix="wait=100", clients=clients)}
        if clients == 1:
            sides["floor"] = lambda: floor(bench, 2)
        redis = servers.redis(fill=keys)
        if redis is not None:
            both = {"master": redis, "replica": servers.redis(None, master=redis)}
            sides["Redis"] = load(bench, redis, "redis", both, mix="wait=100", clients=clients)
        postgres = servers.postgres(fill=keys)
        if postgres is not None:
            servers.postgres(None, primary=postgres)
            postgres.set_synchronous(True)
            sides["PostgreSQL"] = postgres_side(bench, postgres, "put", clients)
        sides["etcd"] = load(bench, servers.etcd(3, fill=keys), "etcd", clients=clients)
        return Result(in_turn(bench, sides), servers.setup)


def read(bench, clients=64):
    """Random keys, each there."""
    with bench.servers() as servers:
        keys = bench.keys()
        one = servers.nexus("Nexus, 1 worker", fill=keys, http__workers=1)
        some = servers.nexus("Nexus", fill=keys)
        nothing = servers.add(floor_servers.EmptyHttp(bench), EMPTY)
        get = {"mix": "get=100", "clients": clients}
        sides = {
            "Nexus, 1 worker": load(bench, one, **get),
            EMPTY: load(bench, nothing.wait_serving(), **get),
            "Nexus": load(bench, some, **get),
        }
        sides.update(redis_sides(bench, servers.redis(fill=keys), "get", clients))
        sides["PostgreSQL"] = postgres_side(bench, servers.postgres(fill=keys), "get", clients)
        etcd = servers.etcd(fill=keys)
        if etcd is not None:  # which reads much slower right after writes than when it has just been started
            etcd.kill()
            for node in etcd.nodes:
                node.launch()
            etcd.wait_serving()
            sides["etcd"] = load(bench, etcd, "etcd", **get)
        return Result(in_turn(bench, sides), servers.setup)


def bulk_load(bench):
    """As many keys as go in, over those that are there."""
    with bench.servers() as servers:
        keys = bench.keys()
        nexus = servers.nexus(fill=keys)
        sides = {"Nexus": load(bench, nexus, mix="import=100", batch=1000, clients=4)}
        sides.update(redis_sides(bench, servers.redis(fill=keys), "set", 64, pipeline=64))
        # A transaction must not have a key twice: each key once, in order.
        once = {"order": "sequential", "duration": None, "warmup": None}
        sides["etcd"] = load(bench, servers.etcd(fill=keys), "etcd", mix="import=100", batch=100, clients=4, **once)
        return Result(in_turn(bench, sides), servers.setup)
