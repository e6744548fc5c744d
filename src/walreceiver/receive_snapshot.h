/* A full sync, the replica's side: chunks to a file, while the restore process loads them.
 *
 * It outlives sessions: a transfer that was cut off goes on at its next chunk. Belongs to the walreceiver. */
#ifndef NX_WALRECEIVER_RECEIVE_SNAPSHOT_H
#define NX_WALRECEIVER_RECEIVE_SNAPSHOT_H

#include "common/wire.h"
#include "storage/incoming.h"

#include <stdbool.h>
#include <stdint.h>

struct nx_walreceiver;

enum nx_incoming_phase {
    NX_INCOMING_IDLE = 0,  /* no full sync in this session */
    NX_INCOMING_EXPECTED,  /* Welcome has announced one, or we have asked: SnapshotMeta is next */
    NX_INCOMING_CHUNKS,    /* chunks come */
    NX_INCOMING_RESTORING, /* all have come; the socket is not read until the switch */
};

struct nx_snapshot_receipt {
    enum nx_incoming_phase phase;
    int dir_fd; /* DATA_DIR/snapshots; -1 until needed */
    struct nx_incoming incoming;
    bool asked;          /* by us: entries that were on their way are dropped */
    bool looked;         /* for what an earlier process has left */
    uint64_t total_size; /* of SnapshotMeta; these three are 0 while it is being made */
    uint32_t chunk_count;
    uint32_t checksum;
    uint64_t asked_ms; /* when a restore process was last asked for */
    bool chunk_came;   /* in this session */
    unsigned restores; /* of this transfer, that died */
    uint64_t
        failed_ms; /* the master could not finish it: its Error, which says why, is due; 0: no */
    uint64_t began_ms;
    uint64_t titled_ms;
    uint64_t resumed_at; /* bytes that an earlier session had brought */
};

void nx_receive_snapshot_init(struct nx_walreceiver *r);

/* Before connecting: looks what an earlier process has left, which may take long. */
void nx_receive_snapshot_prepare(struct nx_walreceiver *r);

/* Before Hello: what there is of a transfer that was cut off. "" and 0 in the Hello if nothing. */
void nx_receive_snapshot_offer(struct nx_walreceiver *r, struct nx_msg_hello *hello);

/* Welcome has announced a full sync; or it hasn't, and one is asked for. */
void nx_receive_snapshot_expect(struct nx_walreceiver *r, bool ask);

/* Welcome has announced none: what has come of one is of no use any more. */
void nx_receive_snapshot_forget(struct nx_walreceiver *r);

/* Frames; each ends the session if it isn't what it must be. */
void nx_receive_snapshot_meta(struct nx_walreceiver *r, const struct nx_msg_snapshot_meta *meta);
void nx_receive_snapshot_chunk(struct nx_walreceiver *r, const struct nx_msg_snapshot_chunk *chunk);
void nx_receive_snapshot_complete(struct nx_walreceiver *r,
                                  const struct nx_msg_snapshot_complete *complete);

/* Looks what became of the restore process; each turn. */
void nx_receive_snapshot_watch(struct nx_walreceiver *r);

/* Whether the socket is left alone. */
static inline bool nx_receive_snapshot_holds(const struct nx_snapshot_receipt *sync)
{
    return sync->phase == NX_INCOMING_RESTORING;
}

/* The session is over. */
void nx_receive_snapshot_end_session(struct nx_walreceiver *r);

#endif
