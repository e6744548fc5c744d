/* Runs in http workers. When a long read of the state is in the way of writes; see hold.h. */
#include "http/hold.h"

#include <stdatomic.h>
#include <stddef.h>

#define HOLD_MS 3000 /* a client that reads at a usual pace has most exports by then */

/* A map that is merely low is no reason: it may be low because much is stored, and then an export is the way out. What
 * counts is that a merge found no room. */
const char *nx_hold_harms(const struct nx_checkpoint_state *checkpoint,
                          const struct hold *hold,
                          uint64_t now_ms)
{
    if (now_ms - hold->since_ms <= HOLD_MS) {
        return NULL;
    }
    /* The map has no room: a checkpointer that fails for another reason isn't helped. */
    if (atomic_load_explicit(&checkpoint->failures, memory_order_relaxed) > 0 &&
        atomic_load_explicit(&checkpoint->map_free, memory_order_relaxed) == 0) {
        return "the state can't take more without them";
    }
    /* Where nothing was merged since it began, it holds nothing. */
    if (atomic_load_explicit(&checkpoint->disk_state, memory_order_relaxed) == NX_DISK_FULL &&
        atomic_load_explicit(&checkpoint->checkpoint_offset, memory_order_acquire) > hold->offset) {
        return "the disk is almost full, and the state would grow on it";
    }
    return NULL;
}
