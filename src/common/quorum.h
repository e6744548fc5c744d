/* The quorum: what the replicas' disks have, and what readers may see because of it.
 *
 * A walsender notes its replica's acknowledgments in its slot and raises the quorum's offset to the
 * highest that sync_quorum replicas have. A replica counts once, by its newest session, only while it is
 * streaming and healthy; what it acknowledges was sent to it in that session and is durable there. The
 * offset only rises (an atomic maximum): what the quorum had once, it has. */
#ifndef NX_COMMON_QUORUM_H
#define NX_COMMON_QUORUM_H

#include "common/config.h"
#include "common/shm_layout.h"

#include <stdbool.h>
#include <stdint.h>

/* A connected replica, all fields of one moment. */
struct nx_replica_view {
    char id[NX_UUID_TEXT];
    uint64_t session;
    uint64_t ack_offset;
    uint64_t confirmed_us;
    bool counts; /* streaming, and heard of within the limit */
};

struct nx_replica_views {
    struct nx_replica_view list[NX_MAX_WALSENDERS];
    unsigned count;
};

/* The longest silence after which the other side counts as healthy, ms. */
uint64_t nx_silence_limit_ms(const struct nx_config *config);

/* The connected replicas, each id once: its newest session. */
void nx_replicas_look(const struct nx_shm *shm,
                      uint64_t silence_limit_ms,
                      struct nx_replica_views *ret_views);

/* How many of them count towards a quorum. */
unsigned nx_replicas_counting(const struct nx_replica_views *views);

/* How many have acknowledged this offset, whether they count or not. */
unsigned nx_replicas_with(const struct nx_replica_views *views, uint64_t offset);

/* The highest offset that `quorum` of them have acknowledged; 0: fewer count. */
uint64_t nx_replicas_quorum_offset(const struct nx_replica_views *views, unsigned quorum);

/* The latest moment (us) at which `quorum` of those that count had all answered; 0: fewer have. */
uint64_t nx_replicas_confirmed_us(const struct nx_replica_views *views, unsigned quorum);

/* True when every one that counts has acknowledged this offset. */
bool nx_replicas_all_have(const struct nx_replica_views *views, uint64_t offset);

/* How many replicas are a quorum: replication.sync_quorum, the master not counted. */
unsigned nx_quorum_size(const struct nx_shm *shm);

/* What the quorum is known to have. */
uint64_t nx_quorum_offset(const struct nx_shm *shm);

/* Raises it, and rings who waits for that. Nothing happens when it isn't higher. */
void nx_quorum_raise(struct nx_shm *shm, uint64_t offset);

/* A replica's knowledge of its master's mode and quorum, as it is heard (walreceiver) or read from the
 * mark (walwriter). What was heard in another epoch is of another history: the offset takes its place. */
void nx_quorum_hear(struct nx_shm *shm, enum nx_commit_rule rule, uint64_t epoch, uint64_t offset);

/* True when reads wait for the quorum (sync mode). */
bool nx_quorum_rules(const struct nx_shm *shm);

/* The offset that readers may see now: what is durable here; in sync mode not more than the quorum has. On
 * a replica it is not below what its state was when it started. */
uint64_t nx_committed_offset(const struct nx_shm *shm);

/* False on a sync master whose quorum has not confirmed all that it found in its log when it started: the
 * committed state isn't known yet. */
bool nx_quorum_confirmed(const struct nx_shm *shm);

#endif
