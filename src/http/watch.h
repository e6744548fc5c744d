/* Reads that wait for another version of their key (GET /kv/{key}?wait=): parked by key, so that an entry wakes
 * those alone whose key it touches. The tail of the committed log (tail.h) tells which. */
#ifndef NX_HTTP_WATCH_H
#define NX_HTTP_WATCH_H

#include "common/bytes.h"

#include <stdint.h>
#include <sys/queue.h>

struct connection;
struct http_worker;

#define NX_WATCH_BUCKETS 1024 /* a power of two */

LIST_HEAD(watch_list, connection);

struct watches {
    unsigned count;
    struct watch_list buckets[NX_WATCH_BUCKETS]; /* by a hash of the key */
    struct watch_list touched;                   /* to be woken */
};

/* Parks the connection's request until an entry behind `seen`, the offset of its read, touches its key: then
 * `again` is called, or `expired` when `look_ms` (CLOCK_MONOTONIC) comes first. nx_wait_cancel takes it off. */
void nx_watch_park(struct connection *connection,
                   uint64_t seen,
                   uint64_t look_ms,
                   void (*again)(struct connection *connection),
                   void (*expired)(struct connection *connection));

/* An entry touches this key, or any key: those who wait for it are woken by the next nx_watches_wake. */
void nx_watches_touch(struct http_worker *worker, struct nx_slice key);
void nx_watches_touch_all(struct http_worker *worker);

/* Wakes them: they read again, and may be parked again. */
void nx_watches_wake(struct http_worker *worker);

/* Wakes all. */
void nx_watches_wake_all(struct http_worker *worker);

/* This node stops: answers all. */
void nx_watches_end(struct http_worker *worker);

#endif
