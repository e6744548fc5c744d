/* The shared memory object of one node: every region, every field, and the one process that writes
 * it. Made by the postmaster before the first fork, inherited by all, gone with the last of them.
 *
 * Rules (docs/architecture.md, "Shared memory"):
 *  - one writer a field, named beside it as W:<process>; readers are everybody;
 *  - publish = write the payload, then one release store; consume = one acquire load;
 *  - one writer a cache line (NX_LINE), so that counters don't bounce between cores;
 *  - no lock; a process killed at any instruction leaves nothing that another one waits for;
 *  - offsets and indexes, no pointers; what is read here is range-checked before it is used.
 *
 * A WAL offset is the number of an entry (1, 2, 3, ...; 0 = nothing yet). A position ("pos") is a
 * byte count in the arena that only grows; pos % arena size is its place. */
#ifndef NX_COMMON_SHM_LAYOUT_H
#define NX_COMMON_SHM_LAYOUT_H

#include "common/config.h"
#include "common/epochs.h"

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_LINE             64
#define NX_MAX_HTTP_WORKERS 8
#define NX_PEERS_PROCESSES  2   /* the second one for dry runs: the first may be busy for long */
#define NX_MAX_REPLICAS     128 /* highest replication.max_replicas */
#define NX_SPARE_WALSENDERS 16  /* beyond max_replicas: connections that are still shaking hands */
#define NX_MAX_WALSENDERS   (NX_MAX_REPLICAS + NX_SPARE_WALSENDERS)
#define NX_MAX_SLOTS        (5 + NX_PEERS_PROCESSES + NX_MAX_HTTP_WORKERS + NX_MAX_WALSENDERS)
#define NX_PRODUCERS        (NX_MAX_HTTP_WORKERS + 1) /* http workers, then the walreceiver */
#define NX_GENERATIONS      3
#define NX_UUID_TEXT        37 /* 36 characters and NUL */
#define NX_ADDR_TEXT        256

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "atomics shared by processes must be lock-free");

typedef _Atomic uint64_t nx_atomic_u64;
typedef _Atomic uint32_t nx_atomic_u32;

enum nx_node_role {
    NX_NODE_STANDALONE = 0,
    NX_NODE_MASTER = 1,
    NX_NODE_REPLICA = 2
};

/* Life of a node: it starts (recovery), it serves, it drains (smart or fast stop). */
enum nx_node_phase {
    NX_PHASE_STARTING = 0,
    NX_PHASE_SERVING = 1,
    NX_PHASE_DRAINING = 2
};

/* How far a replica must get before it counts as what it was: struct nx_sync_goal (synced.h). */
struct nx_goal_state {
    nx_atomic_u64 offset;
    nx_atomic_u64 epoch;
    nx_atomic_u64 shown;
    nx_atomic_u64 shown_epoch;
};

/* W:postmaster. Strings are written before the first fork, but for cluster_id (see there). */
struct nx_control_block {
    alignas(NX_LINE) uint64_t size; /* of the whole object, bytes */
    char node_id[NX_UUID_TEXT];     /* DATA_DIR/nexus.id */
    uint64_t started_at;            /* Unix ms, the postmaster's start; survives crash restarts */
    nx_atomic_u32 role;             /* enum nx_node_role */
    nx_atomic_u32 phase;            /* enum nx_node_phase */
    nx_atomic_u32
        replication_stopped; /* by POST /replication/stop, until a restart, promote or follow */
    /* An epoch that this node has promised to somebody: it acknowledges, answers and follows no lower one; 0:
     * none. */
    nx_atomic_u64 promised_epoch;
    /* Of the note that a promotion left: this node is master if its log's last epoch is this one and its own; 0:
     * there is none, or the configuration has changed since. Written before the first fork. */
    nx_atomic_u64 note_epoch;
    /* This node follows its master whatever that costs of what it has beyond it; until a full sync is done. */
    nx_atomic_u32 follow_forced;
    struct nx_goal_state
        goal; /* of a replica; written before the first fork, and with cluster_id */
    /* "" until the node belongs to a cluster: one without data adopts its master's. Written then, and never
     * changed once there is data; cluster_known is the release store that publishes it. */
    char cluster_id[NX_UUID_TEXT];
    char first_node_id
        [NX_UUID_TEXT]; /* who leads in epoch 1; "": not known. Written with cluster_id */
    nx_atomic_u32 cluster_known;
    /* Counters of walsenders that have ended, so that totals outlive a connection. */
    nx_atomic_u64 ended_bytes_sent;
    nx_atomic_u64 ended_sync_acks;
    nx_atomic_u64 ended_snapshot_transfers;
    /* W:walsenders, by exchange. Lines that were to be logged of peers that were refused, and of those that left before
     * they were welcomed: the period in the upper half, their number in it in the lower. */
    nx_atomic_u64 refusals;
    nx_atomic_u64 departures;
    /* The last snapshot job that a person asked for: what it makes stays until it is deleted. */
    nx_atomic_u64 snapshot_asked;
    /* start_offset of the log before the last crash, plus one; 0: there was none. */
    nx_atomic_u64 carried_start;
    nx_atomic_u64 carried_applied; /* entries that a replica has applied before a full sync */
    /* Configuration after the last reload: config[config_version % 2]. */
    nx_atomic_u64 config_version;
    struct nx_config config[2];
};

/* A process's bed: see latch.h. W: the process of that slot. */
struct nx_latch {
    alignas(NX_LINE) nx_atomic_u32 sleeping; /* 1: ring my doorbell */
    nx_atomic_u64 wake_offset; /* wake me when durable_offset reaches this; UINT64_MAX: don't */
    nx_atomic_u64 wake_quorum; /* the same, of the quorum's offset */
};

/* One row of the process table, GET /replication/status shows it. W:postmaster. */
struct nx_slot {
    alignas(NX_LINE) _Atomic int32_t pid; /* 0: not running */
    nx_atomic_u32 restarts;               /* since started_at */
    _Atomic int32_t last_exit;            /* wait status of the last end; 0 before the first */
    nx_atomic_u32 generation;             /* of the process in this slot: 1, 2, 3, ... */
    struct nx_latch latch;
};

/* The log's state. W:walwriter. */
struct nx_log_state {
    alignas(NX_LINE) nx_atomic_u64
        durable_offset;          /* entries are durable here up to this one (quorum.h: committed) */
    nx_atomic_u64 synced_offset; /* covered by fdatasync; = durable_offset with wal.fsync always */
    nx_atomic_u64 position_seq;  /* odd while the three below change: nx_log_position */
    nx_atomic_u64 position_offset;  /* = durable_offset */
    nx_atomic_u64 position_epoch;   /* of the entry there; 0 before the first */
    nx_atomic_u32 position_crc;     /* CRC of the frame there */
    nx_atomic_u64 epoch;            /* the epoch new entries get; 1 before the first */
    nx_atomic_u64 base_offset;      /* the state's position at recovery */
    nx_atomic_u64 committed_base;   /* the same if it was committed then, else 0 */
    nx_atomic_u64 recovered_offset; /* durable offset at the end of recovery */
    nx_atomic_u64 start_offset;     /* first entry logged since started_at, minus one */
    alignas(NX_LINE) nx_atomic_u64 oldest_offset; /* oldest entry whose bytes are in the arena */
    nx_atomic_u64 generation;    /* number of the running generation: 1, 2, 3, ... */
    nx_atomic_u64 recovery_done; /* progress of recovery: last replayed offset ... */
    nx_atomic_u64 recovery_goal; /* ... of this one; 0 = not known yet */
    nx_atomic_u64 groups;        /* groups committed, for metrics */
    nx_atomic_u32 merge_forced;  /* 1: what is logged finds no room but by a merge, quorum or not */
    nx_atomic_u32 room_awaited;  /* 1: a write or an entry of the master waits for a merge */
    nx_atomic_u64 segment_first; /* first offset of the segment being written */
};

/* The log clock (log_clock.h). W: walwriter; on a replica, once it has recovered, walreceiver. */
struct nx_log_clock {
    alignas(NX_LINE) nx_atomic_u64 lead_us; /* over CLOCK_BOOTTIME; 0: not known yet */
    nx_atomic_u64 heard_us; /* CLOCK_BOOTTIME when that was set; for its writer alone */
};

/* The log's epoch history. W:walwriter. nx_epochs_read, nx_epochs_publish. */
struct nx_epoch_table {
    alignas(NX_LINE) nx_atomic_u32 version; /* odd while the rest changes */
    struct nx_epochs value;
};

/* A node that leads in a higher epoch than this one's log knows: nx_fence_read, nx_fence_publish (fence.h).
 * W:postmaster. */
struct nx_fence_state {
    alignas(NX_LINE) nx_atomic_u32 fenced; /* this node is a master, and no longer the cluster's */
    nx_atomic_u32 version;                 /* odd while the rest changes */
    struct nx_fence {
        uint64_t epoch;
        char node_id[NX_UUID_TEXT];
        char addr[NX_ADDR_TEXT];      /* its replication address; "": not known */
        char http_addr[NX_ADDR_TEXT]; /* "": not known */
    } value;
};

/* What a read waits for, beside its being durable here. */
enum nx_commit_rule {
    NX_COMMIT_DURABLE = 0, /* nothing: async mode, a standalone node */
    NX_COMMIT_QUORUM =
        1 /* that the quorum has it too: sync mode, and a replica that was never told */
};

/* What is known of the quorum's disks (quorum.h). */
struct nx_quorum_state {
    /* On a master and on a replica: the quorum has everything up to here. It only rises, as an atomic
     * maximum, so it may have several writers. W:walsender (each), on a replica walreceiver; what the mark
     * in the WAL directory tells: walwriter, in recovery. */
    alignas(NX_LINE) nx_atomic_u64 offset;
    /* What seldom changes: not on the line of the offset. */
    alignas(NX_LINE) nx_atomic_u64 epoch; /* in which that was heard. W: as rule */
    nx_atomic_u32 size; /* replication.sync_quorum in force, for all at one moment. W:postmaster */
    /* enum nx_commit_rule. W:postmaster before the first fork; on a replica then walwriter in recovery,
     * and walreceiver afterwards. */
    nx_atomic_u32 rule;
};

/* A generation of the memtable: a skip list over a range of the log, in pool `number % 3`.
 * W:walwriter. Life: free (number 0) -> running (last_offset 0) -> sealed -> merged by the
 * checkpointer (checkpoint.merged_generation >= number) -> free. It is freed, by storing number 0,
 * before any byte of its pool or of its entries in the arena is used again. */
struct nx_generation {
    alignas(NX_LINE) nx_atomic_u64 number;
    nx_atomic_u64 first_offset; /* first entry it covers */
    nx_atomic_u64 last_offset;  /* last entry it covers; 0 while running */
    nx_atomic_u64 first_pos;    /* arena position of its first entry */
};

enum nx_disk_state {
    NX_DISK_OK = 0,
    NX_DISK_FULL = 1
};

/* W:checkpointer. */
struct nx_checkpoint_state {
    alignas(NX_LINE) nx_atomic_u64 merged_generation; /* all up to this are durable in LMDB */
    nx_atomic_u64 checkpoint_offset;                  /* LMDB's durable position */
    nx_atomic_u64 seal_wanted;   /* walwriter: seal so that this offset can be merged */
    nx_atomic_u64 sync_wanted;   /* walwriter: fdatasync up to here (fsync everysec, off) */
    nx_atomic_u64 oldest_kept;   /* oldest entry still in WAL files */
    nx_atomic_u64 free_segments; /* free-<n> files that stand ready */
    nx_atomic_u64 disk_reserve;  /* bytes that nothing but recovery, merges and deletes may use */
    nx_atomic_u32 disk_state;    /* enum nx_disk_state: full = only the reserve is left */
    nx_atomic_u64 map_free;      /* bytes left in LMDB's map, estimated low */
    nx_atomic_u64 state_bytes;   /* of LMDB's pages that hold records */
    nx_atomic_u64 failures;      /* merges that failed in a row */
    /* Looks at what is kept (segments, pins): how many were begun, and ended. Who has written a pin
     * waits for one that began after it (nx_replica_slot.look_wanted). */
    nx_atomic_u64 looks_begun;
    nx_atomic_u64 looks_ended;
    nx_atomic_u64 oldest_unpinned; /* what oldest_kept would be without pins */
    /* Highest offset that was merged before the quorum's word of it had come (recovery into little memory,
     * a replica whose log is full): below it the committed state isn't known. */
    nx_atomic_u64 unconfirmed_offset;
};

/* The life of a snapshot job: NONE -> MERGING -> WRITING -> CLOSING -> DONE, or from anywhere FAILED. */
enum nx_snapshot_stage {
    NX_SNAPSHOT_NONE = 0,
    NX_SNAPSHOT_MERGING = 1, /* the checkpointer brings the state to the committed offset */
    NX_SNAPSHOT_WRITING = 2, /* the position stands; the file grows */
    NX_SNAPSHOT_CLOSING = 3, /* too late to join */
    NX_SNAPSHOT_DONE = 4,    /* the archive has its name; or nothing was to be done (SCHEDULE) */
    NX_SNAPSHOT_FAILED = 5   /* code and text say why */
};

/* The running snapshot job, or the last one. W: the snapshot process between its fork and its reaping,
 * the postmaster (a new job's fields; FAILED where the process died) otherwise. What a stage says is
 * written before the stage (release). */
struct nx_snapshot_state {
    alignas(NX_LINE) nx_atomic_u32 stage; /* enum nx_snapshot_stage */
    nx_atomic_u32 code;                   /* FAILED: enum nx_error */
    nx_atomic_u64 failed_ms;              /* FAILED: when, monotonic */
    nx_atomic_u64 failed_size;            /* FAILED: snapshot.max_size then */
    nx_atomic_u32 reason;                 /* enum nx_snapshot_reason, as it was launched */
    nx_atomic_u64 job;                    /* 1, 2, 3, ... */
    char id[NX_UUID_TEXT];                /* of the snapshot that it makes */
    char text[512];                       /* FAILED: a sentence */
    nx_atomic_u64 merge_wanted;           /* checkpointer: bring the state to this offset */
    nx_atomic_u64 hold_offset; /* checkpointer: keep the log behind this one; UINT64_MAX: no need */
    /* WRITING: */
    nx_atomic_u64 wal_offset;
    nx_atomic_u64 epoch;   /* of the entry there */
    nx_atomic_u32 crc;     /* of its frame */
    nx_atomic_u64 written; /* bytes of the file that can be read */
    nx_atomic_u64 keys_done;
    nx_atomic_u64 keys_total;
    /* CLOSING: */
    nx_atomic_u64 total_size; /* bytes of the file */
    nx_atomic_u32 checksum;   /* CRC32 of the file */
};

/* A full sync that comes in, or the last one. W:walreceiver. */
struct nx_transfer_state {
    alignas(NX_LINE) nx_atomic_u64 number; /* 1, 2, 3, ...: another file each; 0: none, given up */
    nx_atomic_u32 quorum_rules;            /* in the master's cluster */
    nx_atomic_u64 wal_offset;              /* of the snapshot */
    nx_atomic_u64 epoch;                   /* of the entry there */
    nx_atomic_u64 received;                /* bytes of the file that stand in DATA_DIR/snapshots */
    nx_atomic_u64 total;                   /* bytes it will have; 0: not known yet */
    nx_atomic_u32 complete;                /* total and checksum were found right */
    char id[NX_UUID_TEXT];                 /* of the snapshot */
    char cluster_id[NX_UUID_TEXT];         /* of the master */
};

enum nx_restore_stage {
    NX_RESTORE_NONE = 0,    /* not running */
    NX_RESTORE_LOADING = 1, /* reads the file as it comes, into data-N */
    NX_RESTORE_READY = 2,   /* data-N is whole and synced; the postmaster has been told */
    NX_RESTORE_REFUSED = 3, /* the snapshot is no good: it must not be used again */
    NX_RESTORE_FAILED = 4   /* something failed here; what came can be tried again */
};

/* What becomes of it. W: the restore process between its fork and its reaping, the postmaster (NONE)
 * otherwise. */
struct nx_restore_state {
    alignas(NX_LINE) nx_atomic_u32 stage; /* enum nx_restore_stage */
    nx_atomic_u64 number;                 /* transfer that it works on */
    nx_atomic_u64 consumed;               /* bytes of the file */
    nx_atomic_u64 records;
    char text[512]; /* REFUSED, FAILED: a sentence */
};

/* A replica's view of its master. W:walreceiver; once it was reaped, the postmaster, which notes that it
 * is no longer connected. Times are CLOCK_MONOTONIC ms. */
struct nx_receiver_state {
    alignas(NX_LINE) nx_atomic_u32 connected; /* Welcome received, session alive */
    nx_atomic_u32 stage;                      /* enum nx_receiver_stage */
    nx_atomic_u32 master_known;               /* release store that publishes master_id below */
    nx_atomic_u64 master_offset;              /* highest offset the master was heard to have */
    nx_atomic_u64 welcome_offset;             /* the master's offset at the last Welcome */
    struct nx_goal_state
        goal; /* at a Welcome with a full sync: of the data that comes, for its switch */
    nx_atomic_u64 entries_received;
    nx_atomic_u64 entries_applied;
    nx_atomic_u64 bytes_received;
    nx_atomic_u64 bytes_sent;
    nx_atomic_u64 reconnects;    /* Welcomes after the first */
    nx_atomic_u64 last_frame_ms; /* when any frame last came; before the first, the start */
    nx_atomic_u32 master_heard;  /* one has come since the node's start */
    nx_atomic_u32 welcomed;      /* and a Welcome among them */
    nx_atomic_u32 master_dead;   /* it has been silent for too long (walreceiver/health.h) ... */
    nx_atomic_u64 master_deaths; /* ... so often since the node's start */
    nx_atomic_u64 silent_us;     /* silence that counts, up to now */
    nx_atomic_u64 master_heartbeat_ms; /* of its last Welcome; 0: none yet */
    nx_atomic_u64 behind_since_ms;     /* since when the lag is above 0 (lag_mark.h); 0: it isn't */
    nx_atomic_u64 master_bytes;        /* bytes of entries announced but not applied: lag_bytes */
    nx_atomic_u64 sync_wanted; /* walwriter: fdatasync up to here, so that it can be acknowledged */
    char master_id[NX_UUID_TEXT];
    char master_http[NX_ADDR_TEXT]; /* the master's advertised HTTP address */
};

enum nx_receiver_stage {
    NX_RECEIVER_CONNECTING = 0,
    NX_RECEIVER_CATCHING_UP = 1,
    NX_RECEIVER_STREAMING = 2,
    NX_RECEIVER_SNAPSHOT = 3, /* a full sync */
};

enum nx_replica_state {
    NX_REPLICA_NONE = 0, /* free, or still shaking hands: counts nowhere */
    NX_REPLICA_CATCHING_UP = 1,
    NX_REPLICA_STREAMING = 2,
    NX_REPLICA_SNAPSHOT = 3, /* a full sync: being made, or on its way */
};

/* What the master knows of one connected replica, one a walsender instance. W: that walsender
 * between its fork and its reaping, the postmaster (which clears it) otherwise. Strings are written
 * before `state` leaves NX_REPLICA_NONE (release). Times are CLOCK_MONOTONIC ms. */
struct nx_replica_slot {
    alignas(NX_LINE) nx_atomic_u32 state; /* enum nx_replica_state */
    /* Of this session, 0: none. A later session has a higher one; who copies several fields takes them for
     * one moment's only if it is the same before and after (quorum.h). */
    nx_atomic_u64 session;
    nx_atomic_u64
        confirmed_us; /* it has answered something that was sent then, CLOCK_MONOTONIC us */
    nx_atomic_u64 connected_ms;
    nx_atomic_u64 heard_ms; /* any frame from it */
    nx_atomic_u64 sent_offset;
    nx_atomic_u64 ack_offset; /* durable there */
    nx_atomic_u64 received_offset;
    nx_atomic_u64 applied_offset;
    nx_atomic_u64 behind_since_ms;  /* since when its acks are behind (lag_mark.h); 0: level */
    nx_atomic_u64 sent_bytes_total; /* bytes of entries sent in this session, for lag_bytes */
    nx_atomic_u64 acked_bytes_total;
    nx_atomic_u64 bytes_sent; /* everything on this socket */
    nx_atomic_u64 sync_acks;  /* WalAck frames received */
    nx_atomic_u64 snapshot_transfers;
    nx_atomic_u64 snapshot_job;      /* that it follows while the file is made; 0: none */
    nx_atomic_u64 snapshot_sent;     /* bytes of it */
    nx_atomic_u32 snapshot_progress; /* of a full sync, in thousandths */
    nx_atomic_u64 look_wanted;       /* checkpointer: end that many looks (looks_ended) */
    char id[NX_UUID_TEXT];
    char addr[NX_ADDR_TEXT]; /* as advertised, else the socket's */
    char http_addr[NX_ADDR_TEXT];
};

/* A replica that was ever welcomed on this master, connected or not, until it is forgotten. */
struct nx_known_replica {
    char id[NX_UUID_TEXT];
    char addr[NX_ADDR_TEXT];      /* where it is reached, as it said when it came */
    char http_addr[NX_ADDR_TEXT]; /* "": not known */
    bool connected;               /* as the postmaster knows; its slot knows sooner */
    uint64_t last_seen;           /* Unix ms: when it came or, absent, when it went */
    uint64_t last_ack_offset;     /* durable there, of our history, at that time */
};

/* All of them, for readers: nx_known_replicas (known_replicas.h). Empty off a master. W:postmaster. */
struct nx_known_table {
    alignas(NX_LINE) nx_atomic_u32 version; /* odd while the rest changes */
    nx_atomic_u32 count;
    struct nx_known_replica list[NX_MAX_REPLICAS];
};

/* What one http worker asks of the checkpointer. W: that worker. */
struct nx_http_request_state {
    alignas(NX_LINE) nx_atomic_u64 merge_wanted; /* bring LMDB to this offset (exports) */
    /* walsenders: hear the replicas anew, after this moment (CLOCK_MONOTONIC us) */
    nx_atomic_u64 confirm_wanted_us;
    nx_atomic_u32
        acks_wanted;       /* walsenders: ring at each acknowledgment (writes that wait for all) */
    nx_atomic_u32 exports; /* running in this worker */
    nx_atomic_u32 connections;
    nx_atomic_u64 requests;
};

/* Header of the object: all fixed regions. The rings, the log and the pools follow it at the
 * offsets below, which nx_shm_create works out from wal.shm_size (shm.h). W:postmaster. */
struct nx_shm {
    struct nx_control_block control;
    struct nx_slot slots[NX_MAX_SLOTS];
    struct nx_log_state log;
    struct nx_log_clock clock;
    struct nx_epoch_table epochs;
    struct nx_fence_state fence;
    struct nx_quorum_state quorum;
    struct nx_generation generations[NX_GENERATIONS];
    struct nx_checkpoint_state checkpoint;
    struct nx_snapshot_state snapshot;
    struct nx_receiver_state receiver;
    struct nx_transfer_state transfer;
    struct nx_restore_state restore;
    struct nx_replica_slot replicas[NX_MAX_WALSENDERS];
    struct nx_known_table known;
    struct nx_http_request_state http[NX_MAX_HTTP_WORKERS];

    alignas(NX_LINE) uint64_t arena_at; /* byte offset of the arena in the object */
    uint64_t arena_size;
    uint64_t index_at;    /* offset ring: struct nx_log_slot[index_count] */
    uint64_t index_count; /* a power of two */
    uint64_t pool_at[NX_GENERATIONS];
    uint64_t pool_size;     /* bytes each */
    uint64_t pool_buckets;  /* of each pool's hash table, a power of two */
    uint64_t pool_nodes_at; /* behind that table, bytes from a pool's start */
    uint64_t hash_seed;     /* of those tables */
    uint64_t submit_at[NX_PRODUCERS];
    uint64_t submit_size; /* bytes of each submission ring's data, a power of two */
    uint64_t completion_at[NX_PRODUCERS];
    uint64_t completion_count; /* places of each completion ring, a power of two */
    uint64_t generation_bytes; /* log bytes at which a generation is sealed */
};

/* Pointer to a region. The casts live here and nowhere else. */
static inline void *nx_shm_at(struct nx_shm *shm, uint64_t at)
{
    return (char *)shm + at;
}

#endif
