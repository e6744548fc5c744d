/* Looks through a large state once after each start, beside everything else; a small one was looked through before it
 * was served (walwriter/recover.c). */
#ifndef NX_CHECKPOINTER_SCRUB_H
#define NX_CHECKPOINTER_SCRUB_H

#include "common/process.h"
#include "storage/state.h"

#include <stdbool.h>

/* Zero it. */
struct nx_scrub {
    struct nx_state_check *check; /* under way */
    bool over;
};

/* Goes on with it in an open state, which stays open until it is over. True: it isn't. A state that is damaged stops
 * the server. */
bool nx_scrub_step(struct nx_scrub *scrub, struct nx_process *process, struct nx_state *state);

/* The state is about to be closed: what was looked through so far will be again. */
void nx_scrub_drop(struct nx_scrub *scrub);

#endif
