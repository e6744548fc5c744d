/* The clock that latencies are measured with. */
#ifndef NX_BENCH_CLOCK_H
#define NX_BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

#define BENCH_SECOND_NS 1000000000u

/* Nanoseconds since some moment before the start; goes on evenly. */
static inline uint64_t bench_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * BENCH_SECOND_NS + (uint64_t)now.tv_nsec;
}

static inline struct timespec bench_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / BENCH_SECOND_NS),
                             .tv_nsec = (long)(ns % BENCH_SECOND_NS)};
}

#endif
