/* Moves one sealed generation into the state, or its beginning: the newest version of each key, in key order,
 * in one durable transaction with the position that it reaches. */
#ifndef NX_CHECKPOINTER_MERGE_H
#define NX_CHECKPOINTER_MERGE_H

#include "common/shm_layout.h"
#include "storage/position.h"
#include "storage/state.h"

#include <stdint.h>

struct nx_merge_result {
    struct nx_position position; /* of the state now */
    uint64_t keys;               /* put or deleted */
    uint64_t versions;           /* walked over */
};

/* Merges the generation's entries up to `last`, which is one of them (what came before may be merged
 * already). The generation must be sealed and not yet free; its log is read from the arena, where it is pinned.
 * 0; -ENOSPC: map or disk full; -EFAULT: shared memory doesn't hold what it must; or an error of the
 * state. After an error nothing is merged; see nx_state_write_commit for what the handle is worth. */
int nx_merge_generation(struct nx_shm *shm,
                        struct nx_state *state,
                        uint64_t number,
                        uint64_t last,
                        struct nx_merge_result *ret_result);

#endif
