/* How long a follower (a replica, or one's own log) has been behind, in time. Under a steady load it is
 * never quite level, so what is timed is a mark: the newest offset when it was first seen behind. When that
 * is reached the next one is set. Pure. */
#ifndef NX_COMMON_LAG_MARK_H
#define NX_COMMON_LAG_MARK_H

#include <stdint.h>

struct nx_lag_mark {
    uint64_t goal;     /* the offset that is waited for ... */
    uint64_t since_ms; /* ... since then; 0: level */
};

/* The follower has reached an offset, and this is the newest one. */
static inline void nx_lag_mark_move(struct nx_lag_mark *mark,
                                    uint64_t reached,
                                    uint64_t newest,
                                    uint64_t now_ms)
{
    if (reached >= newest) {
        mark->since_ms = 0;
    } else if (mark->since_ms == 0 || reached >= mark->goal) {
        mark->goal = newest;
        mark->since_ms = now_ms;
    }
}

#endif
