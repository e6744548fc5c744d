/* Runs in the postmaster, which writes, and in whoever tells of the fence. See fence.h. */
#include "common/fence.h"

#include <string.h>

#define READ_MOST 1000 /* looks, while it is being written */

void nx_fence_read(const struct nx_shm *shm, struct nx_fence *ret_fence)
{
    const struct nx_fence_state *state = &shm->fence;

    for (unsigned i = 0; i < READ_MOST; i++) {
        uint32_t version = atomic_load_explicit(&state->version, memory_order_acquire);

        *ret_fence = state->value;
        atomic_thread_fence(memory_order_acquire);
        if (version % 2 == 0 &&
            atomic_load_explicit(&state->version, memory_order_relaxed) == version) {
            return;
        }
    }
    *ret_fence = (struct nx_fence){.epoch = 0}; /* the postmaster was stopped in the middle */
}

void nx_fence_publish(struct nx_shm *shm, const struct nx_fence *fence, bool fenced)
{
    struct nx_fence_state *state = &shm->fence;
    uint32_t version = atomic_load_explicit(&state->version, memory_order_relaxed);

    atomic_store_explicit(&state->version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    state->value = *fence;
    atomic_store_explicit(&state->version, version + 2, memory_order_release);
    atomic_store_explicit(&state->fenced, fenced ? 1 : 0, memory_order_release);
}
