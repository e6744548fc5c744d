/* Which WAL segments are kept (architecture.md, "Keeping the log"). A pure decision. */
#ifndef NX_CHECKPOINTER_RETENTION_H
#define NX_CHECKPOINTER_RETENTION_H

#include "storage/wal_segment.h"

#include <stddef.h>
#include <stdint.h>

struct nx_retention {
    uint64_t checkpoint_offset; /* durable in the state: recovery needs what follows */
    uint64_t newest;            /* durable in the log; 0: not known, nothing goes */
    uint64_t writing;           /* first offset of the segment being written */
    uint64_t max_entries;       /* kept for replicas (replication.max_log_size) ... */
    uint64_t max_bytes;         /* ... within segments of so many bytes (wal.max_size) */
    uint64_t pinned;            /* what follows it stays in any case; UINT64_MAX: nothing more */
};

/* How many of the oldest segments may go. The list is ascending; the segment being written, those
 * behind it, and the last one never go. */
size_t nx_retention_expired(const struct nx_segment_info *list,
                            size_t count,
                            const struct nx_retention *retention);

#endif
