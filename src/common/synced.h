/* Whether a replica may lack everything, or much of what it had. */
#ifndef NX_COMMON_SYNCED_H
#define NX_COMMON_SYNCED_H

#include "common/shm_layout.h"

#include <stdbool.h>

/* True on a replica that was never synced with its cluster's master. One that begins with nothing is synced
 * once it has what its master had then: before, a key that exists would seem absent. (A restart on the way
 * forgets the goal of a master that streams from its first entry; during a full sync the node has no cluster
 * yet, and stays not synced.) */
static inline bool nx_never_synced(const struct nx_shm *shm)
{
    const struct nx_receiver_state *receiver = &shm->receiver;
    uint64_t applied = atomic_load_explicit(&shm->log.durable_offset, memory_order_acquire);

    if (atomic_load_explicit(&shm->control.role, memory_order_acquire) != NX_NODE_REPLICA) {
        return false;
    }
    if (atomic_load_explicit(&receiver->master_known, memory_order_acquire) == 0) {
        return applied == 0 &&
               atomic_load_explicit(&shm->control.cluster_known, memory_order_acquire) == 0;
    }
    return applied < atomic_load_explicit(&receiver->first_offset, memory_order_relaxed);
}

/* How far a replica's log must get before its last full sync is complete; 0: it is. A snapshot may stand before what
 * the node has acknowledged, or shown, of the same history: as long as it hasn't all of that again it neither shows
 * nor vouches for less. Nobody can ask for more than the master that it follows now has; and a log that is in a later
 * epoch before it is that far has left that history: an operator, or a quorum, has decided so. */
static inline uint64_t nx_sync_goal(const struct nx_shm *shm)
{
    const struct nx_receiver_state *receiver = &shm->receiver;
    uint64_t goal = atomic_load_explicit(&shm->control.replaced_offset, memory_order_acquire);

    if (atomic_load_explicit(&shm->control.role, memory_order_acquire) != NX_NODE_REPLICA ||
        atomic_load_explicit(&shm->log.epoch, memory_order_acquire) >
            atomic_load_explicit(&shm->control.replaced_epoch, memory_order_relaxed)) {
        return 0;
    }
    if (atomic_load_explicit(&receiver->master_known, memory_order_acquire) != 0) {
        uint64_t most = atomic_load_explicit(&receiver->welcome_offset, memory_order_relaxed);

        goal = goal < most ? goal : most;
    }
    return atomic_load_explicit(&shm->log.durable_offset, memory_order_acquire) < goal ? goal : 0;
}

/* It is neither to be read nor to take over by itself. */
static inline bool nx_not_synced(const struct nx_shm *shm)
{
    return nx_never_synced(shm) || nx_sync_goal(shm) != 0;
}

#endif
