/* A thread of the load: its connections, one epoll for them, its part of the schedule, and what it counted. */
#ifndef NX_BENCH_WORKER_H
#define NX_BENCH_WORKER_H

#include "common/text.h"
#include "nexus-bench/connection.h"
#include "nexus-bench/keys.h"
#include "nexus-bench/options.h"
#include "nexus-bench/results.h"
#include "nexus-bench/schedule.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define BENCH_IN_SIZE ((size_t)256 << 10) /* bytes that are read at a time */

/* What all threads share. */
struct bench_run {
    const struct bench_options *options;
    void *templates[BENCH_MOST_TARGETS];
    atomic_uint_fast64_t next_key; /* of BENCH_SEQUENTIAL */
    atomic_bool stop;              /* a signal, or a thread that can't go on, ends the run */
    uint64_t start_ns;
};

struct bench_worker {
    struct bench_run *run;
    uint64_t number; /* 0 and on */
    pthread_t thread;
    int epoll;
    struct bench_connection *connections;
    uint32_t connection_count;
    struct bench_schedule schedule;
    struct bench_keys keys;
    struct bench_random random; /* of operations and values */
    uint64_t *drawn;            /* keys of the request that is being written */
    struct text out;            /* requests that are being written */
    uint8_t *in;                /* answers that are being read */
    uint64_t under_way;         /* requests, on all connections */
    uint64_t heard_ns;          /* when the last answer came */
    uint32_t *roomy;            /* open loop: a ring of the connections with room for a request */
    uint32_t roomy_first;
    uint32_t roomy_count;
    struct bench_results results;
};

/* A worker with its connections. 0; or negative, and in error (cap bytes) why. Either way bench_worker_close is
 * for the caller. */
int bench_worker_open(struct bench_worker *worker,
                      struct bench_run *run,
                      uint64_t number,
                      char *error,
                      size_t cap);

/* Gives back what it has. */
void bench_worker_close(struct bench_worker *worker);

/* The thread of the worker that arg is: begins at run->start_ns, returns when its part is done, or run->stop is set. */
void *bench_worker_main(void *arg);

#endif
