/* Whether a replica may lack everything, or much of what it had. */
#ifndef NX_COMMON_SYNCED_H
#define NX_COMMON_SYNCED_H

#include "common/shm_layout.h"

#include <stdbool.h>
#include <stdint.h>

/* How far a replica must get, in its master's history, before it counts as what it was: noted when a full sync begins,
 * or when a node that has nothing meets its first master. All zeros: it owes nothing. */
struct nx_sync_goal {
    /* Of its log: what it had, and may have acknowledged. 0: it had nothing of this history. */
    uint64_t offset;
    uint64_t epoch; /* of the entry there, or a later one where the history no longer says */
    /* Of what is committed here: what readers have seen; without a snapshot, what there was for them. */
    uint64_t shown;
    uint64_t shown_epoch; /* likewise */
};

/* One writer each (shm_layout.h). */
void nx_sync_goal_publish(struct nx_goal_state *to, const struct nx_sync_goal *goal);
struct nx_sync_goal nx_sync_goal_read(const struct nx_goal_state *from);

/* What of its goal this node hasn't reached: offset and shown are 0 where it has, on a master both. Nobody can ask for
 * more than the master that is followed now had when it welcomed this node; and a log that has left that history for a
 * later epoch owes what is left of it: an operator, or a quorum, has decided so.
 *
 * offset: a snapshot may stand before what the node has acknowledged; as long as it hasn't all of that again it vouches
 * for it and doesn't take over by itself. shown: readers would see less than before, or miss what exists. In sync mode
 * the log may have it while the quorum's word of it, which a master that has just begun lacks, is still to come. */
struct nx_sync_goal nx_sync_goal(const struct nx_shm *shm);

/* True on a replica that was never synced with its cluster's master: it has nothing, or began with nothing, gets the log
 * from its first entry on, and hasn't got yet what that master had for readers then. */
bool nx_never_synced(const struct nx_shm *shm);

/* It is not to take over by itself, nor ready. What it still owes its readers is no matter of that. */
bool nx_not_synced(const struct nx_shm *shm);

#endif
