/* When a thread's requests are due, and whether there are more: limits of number and time, the warm-up, and the
 * fixed schedule of an open loop, request i of which is due at start + i / rate, whatever became of those before. */
#ifndef NX_BENCH_SCHEDULE_H
#define NX_BENCH_SCHEDULE_H

#include "nexus-bench/options.h"

#include <stdbool.h>
#include <stdint.h>

struct bench_schedule {
    uint64_t start_ns;
    uint64_t count_from_ns; /* the end of the warm-up */
    uint64_t end_ns;        /* nothing is due from here on; UINT64_MAX: no limit */
    uint64_t left;          /* requests that may still be counted */
    double interval_ns;     /* of an open loop, this thread's; 0: a closed loop */
    double offset_ns;       /* of this thread's first one: threads take turns */
    uint64_t issued;
    bool ended; /* there are no more requests */
};

/* The part of thread `number` (0 and on) of a run that starts at start_ns. */
struct bench_schedule bench_schedule_of(const struct bench_options *options,
                                        uint64_t number,
                                        uint64_t start_ns);

/* Open loop: when the next request is due; UINT64_MAX, and ended, when none is any more. */
uint64_t bench_schedule_due(struct bench_schedule *schedule);

/* Takes the request that is due at due_ns, if there may be one: then true, and whether it is counted. */
bool bench_schedule_take(struct bench_schedule *schedule, uint64_t due_ns, bool *ret_counted);

#endif
