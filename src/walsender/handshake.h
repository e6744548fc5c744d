/* The judgment of a Hello: welcome, with or without a full sync, or which Error. A pure function over what the master knows, so that
 * every row of protocol.md can be tried without a socket. */
#ifndef NX_WALSENDER_HANDSHAKE_H
#define NX_WALSENDER_HANDSHAKE_H

#include "common/epochs.h"
#include "common/shm_layout.h"
#include "common/wire.h"
#include "storage/position.h"

#include <stdbool.h>
#include <stdint.h>

#define NX_REPLICATION_STOPPED_TEXT \
    "replication was stopped on this master by POST /replication/stop; its restart resumes it"

#define NX_FENCED_TEXT (NX_UUID_TEXT + NX_ADDR_TEXT + 128)

/* What we know as the Hello comes. */
struct nx_hello_facts {
    enum nx_node_role role;
    bool draining;           /* the node is about to stop */
    bool stopped;            /* replication is, by POST /replication/stop */
    const char *token;       /* that a Hello must show; "": none */
    const char *master_addr; /* of a replica: where its master is */
    const char *node_id;
    const char *cluster_id;
    struct nx_position position; /* ours, durable */
    uint64_t epoch;              /* in force here */
    uint64_t oldest_kept;        /* that this replica can ask for */
    uint64_t checkpoint;         /* offset of our state, at least */
    uint64_t max_log_size;
    unsigned replicas; /* connected ones with another id */
    unsigned max_replicas;
    /* Our own entry at the Hello's last_wal_offset, where we still have it. */
    bool frame_known;
    uint64_t frame_epoch;
    uint32_t frame_crc;
    bool crc_known; /* the entry itself is gone, but the one behind it tells frame_crc */
    /* Our epoch history, and what the Hello says of the replica's; NULL or empty: not known. */
    const struct nx_epochs *epochs;
    const struct nx_epochs *theirs;
    const struct nx_fence *fence; /* this master is fenced by that node; NULL: it isn't */
};

struct nx_verdict {
    uint32_t code;         /* enum nx_wire_error, or 0: welcome */
    bool full_sync;        /* with 0: the replica needs one */
    bool claims;           /* with FENCED: proven, its history's last epoch is higher than ours */
    struct nx_epoch claim; /* ... and this one */
    char text[640];        /* why, with both sides' numbers; of an Error also what to do */
};

/* Judges a Hello whose fields are decoded. ret_verdict is filled in all cases. */
void nx_handshake_judge(const struct nx_hello_facts *facts,
                        const struct nx_msg_hello *hello,
                        struct nx_verdict *ret_verdict);

/* What replicas of a fenced master are told: who leads, and where. */
void nx_fenced_text(const struct nx_fence *fence, char ret_text[NX_FENCED_TEXT]);

#endif
