/* What a worker does on its connections: which request is sent when and where, and what becomes of its answer. A closed
 * loop follows each answer with the next request; an open loop gives each request that is due to the connection that
 * has waited longest for one, or, when all are busy, keeps it due until one isn't. */
#ifndef NX_BENCH_TRAFFIC_H
#define NX_BENCH_TRAFFIC_H

#include "nexus-bench/worker.h"

#include <sys/epoll.h>

/* Whether requests are due by a schedule (--rate). */
static inline bool bench_is_open_loop(const struct bench_worker *worker)
{
    return worker->schedule.interval_ns > 0;
}

/* Begins on all connections: of a closed loop with requests. */
void bench_traffic_begin(struct bench_worker *worker);

/* Does what epoll says of a connection. */
void bench_traffic_event(struct bench_worker *worker, const struct epoll_event *event);

/* Open loop: sends what is due, as far as there are connections for it. */
void bench_traffic_send_due(struct bench_worker *worker);

/* Ends the run for all threads: what happened on a connection is why. */
void bench_traffic_give_up(struct bench_worker *worker,
                           const struct bench_connection *connection,
                           const char *what);

#endif
