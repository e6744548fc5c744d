"""The table of all that is measured. A row is a measurement: its handler takes a Bench and returns a Result, and its
targets say what the figures are to be. A growth row's handler returns curves, and has axes instead of targets."""
import dataclasses
from typing import Callable, Optional, Tuple

from . import growth, replication, storage, throughput
from .pairs import Target

PEERS = ("Redis", "PostgreSQL", "etcd")


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    measure: Optional[Callable]  # None: not measured, for the reason that `note` says
    targets: Tuple[Target, ...] = ()
    shown: Tuple[str, ...] = ()  # metrics of the table of all sides
    better: Tuple[Tuple[str, str], ...] = ()  # (metric, "more" or "less"): where a peer that is better is named
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Plot:
    """A picture of a growth row: metrics against x."""

    metrics: Tuple[str, ...]
    y: str
    log_y: bool = True


@dataclasses.dataclass(frozen=True)
class Growth:
    name: str
    title: str
    measure: Callable
    x: str
    plots: Tuple[Plot, ...]
    rate: str = "operations_per_s"  # the metric whose worst step is told
    note: str = ""


def rate_row(name, title, measure, *targets, note=""):
    shown = ("operations_per_s", "p50_us", "p99_us")
    return Row(name, title, measure, targets, shown, (("operations_per_s", "more"), ("p99_us", "less")), note)


RATE, P50, P99 = "operations_per_s", "p50_us", "p99_us"

ROWS = (
    rate_row(
        "write-1",
        "durable write, 100 B, 1 client",
        lambda bench: throughput.durable_write(bench, 1),
        Target("p50 at most 1.5 times (fdatasync of a prewritten file + loopback round trip)", P50, at_most=1.5,
               of=("floor",)),
    ),
    rate_row(
        "write-64",
        "durable write, 100 B, 64 clients, no pipelining",
        lambda bench: throughput.durable_write(bench, 64),
        Target("1.2 times Redis", RATE, at_least=1.2, of=("Redis",)),
        Target("1.2 times Redis, both driven by nexus-bench", RATE, at_least=1.2, of=(throughput.CROSS,)),
        note="The empty libevent server answers the same requests without looking at them: what HTTP alone takes.",
    ),
    Row("write-64-redis", "durable write, 64 clients, over the Redis protocol, pipeline 1, 16 and 64", None,
        note="Nexus does not speak the Redis protocol yet."),
    rate_row(
        "replicated-1",
        "write acknowledged by 1 replica's disk, 100 B, 1 client",
        lambda bench: throughput.replicated_write(bench, 1),
        Target("p50 at most 0.75 times Redis (WAIT 1)", P50, at_most=0.75, of=("Redis",)),
        note="The floor is two syncs of a prewritten file and two loopback round trips, one after another.",
    ),
    rate_row(
        "replicated-64",
        "write acknowledged by 1 replica's disk, 100 B, 64 clients",
        lambda bench: throughput.replicated_write(bench, 64),
        Target("2 times Redis (WAIT 1)", RATE, at_least=2, of=("Redis",)),
    ),
    rate_row(
        "read-64",
        "read, 100 B, 64 clients, no pipelining",
        throughput.read,
        Target("0.85 times an empty libevent HTTP server, with 1 worker", RATE, at_least=0.85,
               of=(throughput.EMPTY,), side="Nexus, 1 worker"),
        Target("more with more workers", RATE, at_least=1.0, of=("Nexus, 1 worker",)),
    ),
    rate_row(
        "bulk-load",
        "bulk load, lines of 100 B (Redis: pipeline 64; etcd: 100 puts a transaction)",
        throughput.bulk_load,
        Target("400,000 lines/s", RATE, at_least=400_000),
        Target("1.5 times Redis pipelined", RATE, at_least=1.5, of=("Redis", throughput.CROSS)),
    ),
    Row(
        "catch-up",
        "replica catch-up, 1M entries of 100 B, random keys",
        replication.catch_up,
        (Target("1.3 times Redis", "entries_per_s", at_least=1.3, of=("Redis",)),),
        ("entries_per_s", "seconds"),
        (("entries_per_s", "more"),),
    ),
    Row(
        "full-sync",
        "full sync of 1M keys x 1 KiB",
        replication.full_sync,
        (Target("half of the best (Redis swapdb, pg_basebackup)", "seconds", at_most=0.5, of=("Redis", "PostgreSQL")),),
        ("seconds", "on_disk_s", "serving_s"),
        (("seconds", "less"),),
        note="Redis loads into memory (diskless, swapdb); `on_disk_s` is when its own append-only file holds the data "
             "too, as Nexus' and PostgreSQL's disks do when they are done.",
    ),
    Row(
        "lag",
        "lag, commit to visible on the replica, at 50 % load",
        replication.lag,
        (Target("p50 at most 0.5 ms", P50, at_most=500), Target("p99 at most 2 ms", P99, at_most=2000)),
        (P50, P99, "load_per_s", "polls"),
        ((P50, "less"), (P99, "less")),
        note="Half of each system's own most writes a second, so the loads differ; `at a fiftieth`: a fiftieth of them. "
             "The probe asks without a pause, which is a processor's work for it and the replica: what is left has to "
             "bear the load.",
    ),
    Row(
        "promotion",
        "promotion to first accepted write",
        replication.promotion,
        (Target("20 ms", "milliseconds", at_most=20),),
        ("milliseconds", "to_answer_ms"),
        (("milliseconds", "less"),),
        note="etcd elects by itself: its figure has the detection of the leader's death in it, the others' don't.",
    ),
    Row(
        "restart-merged",
        "restart after kill -9 with 1 GB, after a checkpoint: until serving",
        storage.restart_clean,
        (Target("0.3 s", "seconds", at_most=0.3),),
        ("seconds", "entries_to_replay"),
        (("seconds", "less"),),
    ),
    Row(
        "restart-replay",
        "restart after kill -9 with 1 GB and a full log to replay: until serving",
        storage.restart_replay,
        (Target("1 s", "seconds", at_most=1),),
        ("seconds", "entries_to_replay"),
        (("seconds", "less"),),
        note="PostgreSQL replays 1M updates since its checkpoint, Redis its whole log of commands.",
    ),
    Row(
        "memory",
        "memory for 1M x 100 B, without pages of files",
        storage.memory,
        (Target("wal.shm_size (all of it) and 40 MB", "beside_shm_MB", at_most=40),),
        ("memory_MB", "beside_shm_MB", "private_MB", "shared_MB", "file_pages_MB"),
        (("memory_MB", "less"),),
        note="Each page once (PSS). PostgreSQL's has the pages of its shared buffers that are in use; what Nexus reads "
             "through LMDB is the page cache's, `file_pages_MB`.",
    ),
    *(
        Row(
            f"device-{clients}",
            f"bytes to the device a byte written, 100 B, {clients} client{'s' if clients > 1 else ''}",
            lambda bench, clients=clients: storage.device_bytes(bench, clients),
            (Target(f"{limit} in the WAL", "device_per_byte", at_most=limit),),
            ("device_per_byte", "state_per_byte", "snapshot_per_byte", "checkpoint_per_byte", RATE),
            (("device_per_byte", "less"),),
            note="`device_per_byte` is what goes out while the writes run: for Nexus its log. Its later merge into the "
                 "state, and a whole snapshot, are counted apart, as is PostgreSQL's checkpoint. The whole device is "
                 "counted, so nothing else may write meanwhile.",
        )
        for clients, limit in ((1, 45), (64, 2.5))
    ),
    Row(
        "replicas-8",
        "the master's writes, 64 clients, with 8 replicas on the same machine",
        replication.eight_replicas,
        (
            Target("slowed by no more than the replicas' share of the processors, where the disk is the master's alone",
                   "of_what_is_left", at_least=1, side="8 replicas that don't sync"),
            Target("... of which it has no less than beside programs that take processor time and do nothing with it",
                   "of_what_is_left", at_least=1, of=("programs that take as much",), side="8 replicas that don't sync"),
            Target("... and where all nine sync to one disk", "of_what_is_left", at_least=1, side="8 replicas"),
        ),
        (RATE, P50, P99, "others_share", "master_share", "of_what_is_left"),
    ),
    Row(
        "stalled-replica",
        "a replica that is stalled (SIGSTOP) beside a live one",
        replication.stalled,
        (
            Target("costs the master nothing (within 5 %)", RATE, at_least=0.95, of=("live alone",),
                   side="beside a stalled one"),
            Target("costs the live replica nothing (within 10 %)", "lag_p50_us", at_most=1.1, of=("live alone",),
                   side="beside a stalled one"),
        ),
        (RATE, P50, P99, "lag_p50_us", "lag_p99_us"),
    ),
)

WRITES = (Plot((RATE,), "writes/s"), Plot((P50, P99), "latency, µs"))

GROWTH = (
    Growth("growth-clients", "writes against clients", growth.by_clients, "clients", WRITES),
    Growth("growth-value", "writes against the size of a value", growth.by_value, "bytes of a value",
           (*WRITES, Plot(("MB_per_s",), "MB/s of values")), "MB_per_s"),
    Growth("growth-replicas", "the master's writes against replicas", growth.by_replicas, "replicas",
           (Plot((RATE,), "writes/s", False), Plot((P50, P99), "latency, µs"),
            Plot(("others_share", "master_share"), "share of the processors", False))),
    Growth("growth-keys", "load, writes and reads against keys", growth.by_keys, "keys",
           (Plot((RATE, "reads_per_s", "loaded_per_s"), "a second"), Plot((P50, P99), "latency of writes, µs"),
            Plot(("memory_MB", "state_MB"), "MB"))),
    Growth("growth-backlog", "catch-up against backlog", growth.by_backlog, "entries behind",
           (Plot(("seconds",), "seconds"), Plot(("entries_per_s",), "entries/s")), "entries_per_s"),
    Growth("growth-full-sync", "full sync against size", growth.by_size, "MB",
           (Plot(("seconds",), "seconds"), Plot(("MB_per_s",), "MB/s")), "MB_per_s"),
)

ALL = ROWS + GROWTH
BY_NAME = {row.name: row for row in ALL}
