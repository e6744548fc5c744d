/* Runs in http workers. A plain list: few wait at one time, and the list is only looked at when the
 * committed offset has moved. See waits.h. */
#include "http/waits.h"

#include "common/latch.h"
#include "http/connection.h"
#include "http/response.h"
#include "http/worker.h"

void nx_wait_park(struct connection *connection,
                  uint64_t offset,
                  uint64_t deadline_ms,
                  void (*again)(struct connection *connection),
                  void (*expired)(struct connection *connection))
{
    uint64_t now = nx_now_ms();

    connection->wait_offset = offset;
    connection->wait_again = again;
    connection->wait_expired = expired;
    if (!connection->waiting) {
        LIST_INSERT_HEAD(&connection->worker->waits, connection, wait_link);
        connection->waiting = true;
    }
    nx_connection_timer(connection, deadline_ms > now ? deadline_ms - now : 1);
}

void nx_wait_cancel(struct connection *connection)
{
    if (connection->waiting) {
        LIST_REMOVE(connection, wait_link);
        connection->waiting = false;
    }
    connection->wait_again = NULL;
    connection->wait_expired = NULL;
}

/* One that can go on, or NULL. Its continuation may park it again, so the list is searched anew. */
static struct connection *next_ready(const struct http_worker *worker, uint64_t committed)
{
    struct connection *connection;

    LIST_FOREACH(connection, &worker->waits, wait_link) {
        if (connection->wait_offset <= committed) {
            return connection;
        }
    }
    return NULL;
}

bool nx_waits_poll(struct http_worker *worker)
{
    struct connection *connection;
    uint64_t committed;
    bool any = false;

    if (LIST_EMPTY(&worker->waits)) {
        return false;
    }
    committed = nx_committed_offset(worker->shm);
    while ((connection = next_ready(worker, committed)) != NULL) {
        void (*again)(struct connection *) = connection->wait_again;

        nx_wait_cancel(connection);
        nx_connection_timer(connection, 0);
        again(connection);
        nx_connection_run(connection);
        any = true;
    }
    return any;
}

uint64_t nx_waits_lowest(const struct http_worker *worker)
{
    const struct connection *connection;
    uint64_t lowest = NX_WAKE_NEVER;

    LIST_FOREACH(connection, &worker->waits, wait_link) {
        lowest = connection->wait_offset < lowest ? connection->wait_offset : lowest;
    }
    return lowest;
}

void nx_waits_end(struct http_worker *worker)
{
    struct connection *connection;

    while ((connection = LIST_FIRST(&worker->waits)) != NULL) {
        nx_wait_cancel(connection);
        nx_refuse(connection, NX_ERROR_ROLE_CHANGE, "This node is stopping; ask another one.");
        nx_connection_run(connection);
    }
}
