/* Whether a replica may lack everything, or much of what it had. Pure functions of what is shared. */
#ifndef NX_COMMON_SYNCED_H
#define NX_COMMON_SYNCED_H

#include "common/shm_layout.h"

#include <stdbool.h>
#include <stdint.h>

/* How far a replica's log must get before its last full sync is complete. */
struct nx_sync_goal {
    uint64_t offset; /* 0: it is complete */
    uint64_t epoch;  /* of what was replaced */
};

/* True on a replica that was never synced with its cluster's master. One that begins with nothing is synced
 * once it has what its master had then: before, a key that exists would seem absent. (A restart on the way
 * forgets the goal of a master that streams from its first entry; during a full sync the node has no cluster
 * yet, and stays not synced.) */
bool nx_never_synced(const struct nx_shm *shm);

/* A snapshot may stand before what the node has acknowledged, or shown, of the same history: as long as it hasn't all of
 * that again it neither shows nor vouches for less. A log that is in a later epoch before it is that far has left that
 * history: an operator, or a quorum, has decided so. */
struct nx_sync_goal nx_sync_goal(const struct nx_shm *shm);

/* It is neither to be read nor to take over by itself. */
bool nx_not_synced(const struct nx_shm *shm);

/* True on a replica that has in its log what it is to show, and lacks the quorum's word of it, which a master that has
 * just begun doesn't have itself: readers of what is committed would see less than was shown before. */
bool nx_shows_less(const struct nx_shm *shm);

#endif
