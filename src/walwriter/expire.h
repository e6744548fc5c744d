/* Deletes what has expired: on a node that leads, in the log's order, a few keys a group, and only the version that
 * expired. Everybody judges by the log clock whether a key has expired; these deletions only take it away for good.
 *
 * What is due is found without a scan: in a heap a generation (expiry_heap.h), and for what is merged in the index of
 * the state, of which the part up to `passed` was looked at. A generation that is freed leaves its part to that
 * index. */
#ifndef NX_WALWRITER_EXPIRE_H
#define NX_WALWRITER_EXPIRE_H

#include "common/shm_layout.h"
#include "storage/state.h"
#include "walwriter/expiry_heap.h"

#include <stdbool.h>
#include <stdint.h>

struct walwriter;

struct expire {
    struct expiry_heap heaps[NX_GENERATIONS]; /* by number % NX_GENERATIONS */
    bool lost[NX_GENERATIONS]; /* memory was short: not all of its versions are in the heap */
    struct nx_expiring passed; /* rows of the state's index below were looked at; without key */
    uint64_t state_due_ms;  /* when the first row behind is due; 0: not known, UINT64_MAX: none */
    bool state_first;       /* the next look begins with the state's index */
    uint64_t not_before_us; /* no group of its own before, CLOCK_MONOTONIC */
};

/* A version with an expiry was linked into the running generation. */
void nx_expire_note(struct walwriter *w, uint64_t expires_at, uint64_t op_pos);

/* A generation is begun; one that is merged is freed. */
void nx_expire_begin(struct walwriter *w, uint64_t number);
void nx_expire_freed(struct walwriter *w, uint64_t number);

/* Appends deletions of what is due to the group being gathered, if it is time for some. 0, or an error by which the
 * process must die. */
int nx_expire_step(struct walwriter *w);

/* Whether nx_expire_step would do something now; never while a submission is held: that goes first. */
bool nx_expire_due(const struct walwriter *w);

/* Milliseconds until it does, or -1: not before something else happens. */
int nx_expire_wait(const struct walwriter *w);

/* Gives its memory back. */
void nx_expire_end(struct walwriter *w);

#endif
