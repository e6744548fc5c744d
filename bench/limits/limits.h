/* nexus-bench-limits: what this machine allows at best, measured beside the servers. */
#ifndef NEXUS_BENCH_LIMITS_H
#define NEXUS_BENCH_LIMITS_H

#include <stddef.h>
#include <stdint.h>

/* Latencies of one kind of operation, in microseconds. */
struct samples {
    double *values;
    size_t count;
    size_t room;
};

/* Room for so many; ends the program when there is no memory. */
void samples_open(struct samples *samples, size_t room);

/* Ignored once the room is full. */
void samples_add(struct samples *samples, double us);

/* Prints {"name": NAME, "count": .., "mean_us": .., "p50_us": .., "p99_us": .., "max_us": ..} as a line
 * and frees them. */
void samples_report(struct samples *samples, const char *name);

/* Microseconds of the monotonic clock. */
double now_us(void);

/* Prints what failed, with errno's text, and ends the program. */
_Noreturn void fail(const char *what);

/* 4 KiB at a time over a file in that directory whose blocks were all written before. */
void measure_syncs(const char *dir, size_t count, int direct);

/* 64 bytes to another process and back, over TCP on loopback. */
void measure_round_trips(size_t count);

/* Takes slice_us of processor time every every_us, until it is ended. */
_Noreturn void take_slices(uint64_t slice_us, uint64_t every_us);

/* Answers every request on that port of loopback with 200 and no body, until it is ended. */
void serve_nothing(uint16_t port);

#endif
