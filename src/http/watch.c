/* Runs in http workers. Owns the table of reads that wait for their key; see watch.h. */
#include "http/watch.h"

#include "common/latch.h"
#include "http/connection.h"
#include "http/response.h"
#include "http/waits.h"
#include "http/worker.h"

/* Whoever has keys collide makes his own waits slower to find. */
static struct watch_list *bucket_of(struct http_worker *worker, struct nx_slice key)
{
    return &worker->watches.buckets[nx_slice_hash(key) & (NX_WATCH_BUCKETS - 1)];
}

void nx_watch_park(struct connection *connection,
                   uint64_t seen,
                   uint64_t look_ms,
                   void (*again)(struct connection *connection),
                   void (*expired)(struct connection *connection))
{
    struct http_worker *worker = connection->worker;
    uint64_t now = nx_now_ms();

    nx_wait_cancel(connection);
    if (nx_tail_begin(worker, seen + 1) > seen + 1) {
        /* What is committed went back (a promotion): the tail has handed out entries that this read did not
         * see. When they are committed again, it reads again. */
        nx_wait_park(connection, seen + 1, look_ms, again, expired);
        return;
    }
    connection->wait_again = again;
    connection->wait_expired = expired;
    connection->waiting = true;
    connection->watching = true;
    worker->watches.count++;
    LIST_INSERT_HEAD(bucket_of(worker, connection->request->key), connection, wait_link);
    nx_connection_timer(connection, look_ms > now ? look_ms - now : 1);
}

static void touch(struct http_worker *worker, struct connection *connection)
{
    LIST_REMOVE(connection, wait_link);
    LIST_INSERT_HEAD(&worker->watches.touched, connection, wait_link);
}

void nx_watches_touch(struct http_worker *worker, struct nx_slice key)
{
    struct connection *connection = LIST_FIRST(bucket_of(worker, key));

    while (connection != NULL) {
        struct connection *next = LIST_NEXT(connection, wait_link);

        if (nx_slice_equal(connection->request->key, key)) {
            touch(worker, connection);
        }
        connection = next;
    }
}

void nx_watches_touch_all(struct http_worker *worker)
{
    for (unsigned i = 0; i < NX_WATCH_BUCKETS && worker->watches.count > 0; i++) {
        struct connection *connection;

        while ((connection = LIST_FIRST(&worker->watches.buckets[i])) != NULL) {
            touch(worker, connection);
        }
    }
}

void nx_watches_wake(struct http_worker *worker)
{
    struct connection *connection;

    while ((connection = LIST_FIRST(&worker->watches.touched)) != NULL) {
        nx_wait_resume(connection);
    }
}

void nx_watches_wake_all(struct http_worker *worker)
{
    nx_watches_touch_all(worker);
    nx_watches_wake(worker);
}

void nx_watches_end(struct http_worker *worker)
{
    struct connection *connection;

    nx_watches_touch_all(worker);
    while ((connection = LIST_FIRST(&worker->watches.touched)) != NULL) {
        nx_wait_cancel(connection);
        nx_refuse(connection, NX_ERROR_ROLE_CHANGE, "This node is stopping; ask another one.");
        nx_connection_run(connection);
    }
}
