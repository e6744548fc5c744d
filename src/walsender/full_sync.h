/* A full sync, the master's side: which snapshot, its pin, its chunks.
 *
 *     NONE ──> CHOOSE ──> MAKE ──> PIN ──> SEND ──> NONE
 *               ^ │         │       ^ │
 *               │ └─────────┴───────┘ │   MAKE: nothing came of the job
 *               └───────────┴─────────┘   PIN: the log behind it is gone already
 *
 * CHOOSE: one that a cut-off transfer names, the running job's, a fresh one, else another is asked for.
 * MAKE:   the job has begun; its file doesn't stand yet.
 * PIN:    the pin is written; waits until the checkpointer has seen it.
 * SEND:   SnapshotMeta is out; chunks follow as they are there, then SnapshotComplete. */
#ifndef NX_WALSENDER_FULL_SYNC_H
#define NX_WALSENDER_FULL_SYNC_H

#include "common/shm_layout.h"
#include "common/wire.h"
#include "storage/pin.h"

#include <stdbool.h>
#include <stdint.h>

struct nx_walsender;

enum nx_full_sync_phase {
    NX_FULL_SYNC_NONE = 0,
    NX_FULL_SYNC_CHOOSE,
    NX_FULL_SYNC_MAKE,
    NX_FULL_SYNC_PIN,
    NX_FULL_SYNC_SEND
};

struct nx_full_sync {
    enum nx_full_sync_phase phase;
    int dir_fd;                   /* DATA_DIR/snapshots; -1 until needed */
    int fd;                       /* of the snapshot; -1 */
    char resume_id[NX_UUID_TEXT]; /* of a transfer that was cut off; "" */
    uint32_t resume_chunk;
    uint64_t seen_job; /* jobs up to this one are no use: the log behind them is gone */
    uint64_t job;      /* that makes it; 0: it is finished */
    bool fresh_only;   /* no finished one will do */
    uint64_t asked_ms; /* when a job was last asked for; 0: not yet */
    struct nx_pin pin;
    bool pinned; /* the pin stands, and moves on with the replica's acks */
    uint64_t pin_written_ms;
    bool resumed;        /* a transfer that was cut off goes on */
    uint64_t touched_at; /* sent, as the pin's time was last noted */
    uint64_t epoch;      /* of the entry at its wal_offset */
    uint32_t crc;        /* of its frame */
    uint64_t look_wanted;
    bool size_known; /* total_size and checksum */
    uint64_t total_size;
    uint32_t checksum;
    uint64_t sent; /* bytes of the file, those before a resumed transfer included */
    uint64_t resumed_at;
    uint64_t began_ms;
    bool restoring; /* all is sent; the replica has not yet acked its offset */
};

void nx_full_sync_init(struct nx_walsender *ws);
void nx_full_sync_close(struct nx_walsender *ws);

/* Begins one; the resume fields of a Hello, or NULL. */
void nx_full_sync_begin(struct nx_walsender *ws, const struct nx_msg_hello *hello);

static inline bool nx_full_sync_runs(const struct nx_full_sync *sync)
{
    return sync->phase != NX_FULL_SYNC_NONE;
}

/* One step; call it with an empty output buffer. True: it has put something there, or there is more to do at
 * once. */
bool nx_full_sync_step(struct nx_walsender *ws);

/* Whether a step would do something. */
bool nx_full_sync_ready(struct nx_walsender *ws);

/* Milliseconds until a step is due by the clock alone; -1: none. */
int nx_full_sync_wait(const struct nx_walsender *ws);

/* Takes up the pin of an earlier session of this replica, if it stands. True: the log behind `offset` is held
 * by it. */
bool nx_full_sync_find_pin(struct nx_walsender *ws, uint64_t offset);

/* Moves the pin on with the replica's acks, and takes it away when the log that is kept for everybody holds
 * all that the replica lacks, by a good margin. */
void nx_full_sync_track_pin(struct nx_walsender *ws);

/* Publishes how far it is. */
void nx_full_sync_publish(struct nx_walsender *ws);

#endif
