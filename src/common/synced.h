/* Whether a replica may lack everything. */
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

#endif
