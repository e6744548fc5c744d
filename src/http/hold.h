/* A read of the state that lasts as long as its client takes to read it: the state's pages as they were at its
 * beginning can't be used again before its end, so that what is written meanwhile takes new ones. */
#ifndef NX_HTTP_HOLD_H
#define NX_HTTP_HOLD_H

#include "common/shm_layout.h"

#include <stdint.h>

struct hold {
    uint64_t since_ms; /* when it began (nx_now_ms) */
    uint64_t offset;   /* of the state that it reads */
};

/* Why it has to end, for the log: it has lasted for some seconds, and those pages are wanted. NULL: it may
 * go on. */
const char *nx_hold_harms(const struct nx_checkpoint_state *checkpoint,
                          const struct hold *hold,
                          uint64_t now_ms);

#endif
