/* The fence of a former master (struct nx_fence_state): the postmaster writes it, everybody may read. */
#ifndef NX_COMMON_FENCE_H
#define NX_COMMON_FENCE_H

#include "common/shm_layout.h"

#include <stdbool.h>

/* Whether this node is a master that leads no longer. */
static inline bool nx_fenced(const struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->fence.fenced, memory_order_acquire) != 0;
}

/* Who leads instead, as it was at one moment; epoch 0 when it isn't known. */
void nx_fence_read(const struct nx_shm *shm, struct nx_fence *ret_fence);

/* Replaces it (postmaster): the strings first, then whether it is in force. */
void nx_fence_publish(struct nx_shm *shm, const struct nx_fence *fence, bool fenced);

#endif
