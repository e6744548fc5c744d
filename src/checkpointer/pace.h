/* How fast the checkpointer works. A merge and a segment for later aren't urgent, while clients need the processors and
 * the log's syncs the disk: so each stage of them (filling a transaction, its sync, a new segment's) is spread over a
 * part of the time that lies between two of them. Where somebody waits, it is done at once. */
#ifndef NX_CHECKPOINTER_PACE_H
#define NX_CHECKPOINTER_PACE_H

#include "common/process.h"
#include "storage/paced_sync.h"

#include <stdbool.h>
#include <stdint.h>

struct nx_pace {
    struct nx_process *process;
    bool (*urgent)(void *arg);
    void (*meanwhile)(void *arg); /* called now and then; NULL: nothing */
    void *arg;
    uint64_t began_ms;    /* when the last of its kind began; 0: there was none */
    uint64_t interval_ms; /* from the one before to that */
    uint64_t stage_ms;    /* when the present stage began */
};

/* One begins. */
void nx_pace_begin(struct nx_pace *pace);

/* Milliseconds that a stage of so many pieces is to take, where what it belongs to came so long after the one before.
 * Pure. */
uint64_t nx_pace_spread(uint64_t interval_ms, unsigned pieces);

/* The pauses of a pace, which must outlive them. */
struct nx_pause nx_pace_pause(struct nx_pace *pace);

#endif
