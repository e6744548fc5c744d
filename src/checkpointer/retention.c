/* Decides which WAL segments go. Pure: no process, no state. */
#include "checkpointer/retention.h"

/* The oldest offset that replicas may still ask for: counted in entries, and in bytes of segments from
 * the newest back. */
static uint64_t oldest_for_replicas(const struct nx_segment_info *list,
                                    size_t count,
                                    const struct nx_retention *retention)
{
    uint64_t by_count = retention->newest >= retention->max_entries
                            ? retention->newest - retention->max_entries + 1
                            : 1;
    uint64_t by_bytes = UINT64_MAX;
    uint64_t bytes = 0;

    for (size_t i = count; i-- > 0;) {
        bytes += list[i].size;
        if (bytes > retention->max_bytes) {
            break;
        }
        by_bytes = list[i].first_offset;
    }
    return by_count > by_bytes ? by_count : by_bytes;
}

size_t nx_retention_expired(const struct nx_segment_info *list,
                            size_t count,
                            const struct nx_retention *retention)
{
    size_t expired = 0;
    uint64_t needed;

    if (retention->newest == 0 || count == 0) {
        return 0;
    }
    needed = oldest_for_replicas(list, count, retention);
    if (needed > retention->checkpoint_offset + 1) {
        needed = retention->checkpoint_offset + 1;
    }
    if (retention->pinned < needed) {
        needed = retention->pinned + 1;
    }
    /* A segment ends where the next one begins. */
    while (expired + 1 < count && list[expired].first_offset < retention->writing &&
           list[expired + 1].first_offset <= needed) {
        expired++;
    }
    return expired;
}
