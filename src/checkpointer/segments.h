/* The WAL directory, as far as the checkpointer keeps it: old segments go, free ones stand ready, and
 * what space is left is watched. */
#ifndef NX_CHECKPOINTER_SEGMENTS_H
#define NX_CHECKPOINTER_SEGMENTS_H

#include "checkpointer/pace.h"
#include "common/process.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_segments {
    struct nx_process *process; /* borrowed; its configuration may change by a reload */
    int dir_fd;
    struct nx_pace pace; /* of making free ones; set by the owner after opening */
    bool cleaned;        /* half-made files of an earlier life are gone */
    bool begun;          /* the walwriter has begun another segment since this process started */
    uint64_t writing;    /* segment being written when last looked */
    size_t ready;        /* free ones when the making of one began */
    uint64_t next_free;  /* n of the next free-<n> that is tried */
    uint64_t retry_ms;   /* look again at this time, monotonic; 0: not by time */
    uint64_t pin_due_ms; /* a pin is too old at this time, monotonic; 0: there is none */
    uint64_t free_bytes; /* of the filesystem, when last looked */
};

/* Opens DATA_DIR/data-N/wal. 0 or -errno. */
int nx_segments_open(struct nx_segments *segments, struct nx_process *process);
void nx_segments_close(struct nx_segments *segments);

/* Looks after everything once; checkpoint_offset is durable in the state. At most one segment is
 * prepared or recycled a call, since that takes long. True: there is more to do now. */
bool nx_segments_tend(struct nx_segments *segments, uint64_t checkpoint_offset);

/* Looks at the disk: true when only the reserve is left. */
bool nx_segments_disk_full(struct nx_segments *segments);

/* True when the walwriter has begun another segment, or the time to look again has come. */
bool nx_segments_due(const struct nx_segments *segments);

/* True when the segment that is being made should be ready now: the log grows and has none left, or a walsender waits for
 * a look at its pin, which comes behind it. */
bool nx_segments_urgent(const struct nx_segments *segments);

/* Milliseconds until it is due by time, or -1. */
int nx_segments_wait(const struct nx_segments *segments);

#endif
