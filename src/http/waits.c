/* Runs in http workers. A plain list: few wait at one time, and the list is only looked at when the
 * committed offset has moved. See waits.h. */
#include "http/waits.h"

#include "common/fence.h"
#include "common/latch.h"
#include "common/quorum.h"
#include "http/connection.h"
#include "http/durability.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

void nx_wait_park(struct connection *connection,
                  uint64_t offset,
                  uint64_t deadline_ms,
                  void (*again)(struct connection *connection),
                  void (*expired)(struct connection *connection))
{
    uint64_t now = nx_now_ms();

    connection->wait_offset = offset;
    connection->wait_asked_us = 0;
    connection->wait_again = again;
    connection->wait_expired = expired;
    if (!connection->waiting) {
        LIST_INSERT_HEAD(&connection->worker->waits, connection, wait_link);
        connection->waiting = true;
    }
    nx_connection_timer(connection, deadline_ms > now ? deadline_ms - now : 1);
}

void nx_wait_confirm(struct connection *connection,
                     uint64_t asked_us,
                     uint64_t deadline_ms,
                     void (*expired)(struct connection *connection))
{
    nx_wait_park(connection, NX_WAKE_NEVER, deadline_ms, nx_route_body_done, expired);
    connection->wait_asked_us = asked_us;
}

void nx_wait_eof(struct connection *connection)
{
    struct request *request = connection->request;
    uint64_t limit = connection->worker->process->config->http.request_timeout_ms;
    uint64_t now = nx_now_ms();

    if ((connection->waiting || connection->watching) && request->deadline_ms > now + limit) {
        request->deadline_ms = now + limit;
        nx_connection_timer(connection, limit);
    }
}

void nx_wait_cancel(struct connection *connection)
{
    if (connection->waiting) {
        LIST_REMOVE(connection, wait_link);
        connection->waiting = false;
    }
    if (connection->watching) {
        connection->worker->watches.count--;
        connection->watching = false;
    }
    connection->wait_again = NULL;
    connection->wait_expired = NULL;
}

void nx_wait_resume(struct connection *connection)
{
    void (*again)(struct connection *) = connection->wait_again;

    nx_wait_cancel(connection);
    nx_connection_timer(connection, 0);
    again(connection);
    nx_connection_run(connection);
}

/* One that waits for the quorum's word is told at once when the node is fenced: that word won't come. */
static bool ready(const struct connection *connection,
                  uint64_t durable,
                  uint64_t committed,
                  uint64_t confirmed_us)
{
    if (connection->wait_asked_us != 0) {
        return connection->wait_asked_us <= confirmed_us || nx_fenced(connection->worker->shm);
    }
    return connection->wait_offset <= (connection->request->local ? durable : committed);
}

/* One that can go on, or NULL. Its continuation may park it again, so the list is searched anew. */
static struct connection *next_ready(struct http_worker *worker)
{
    uint64_t durable = nx_node_durable(worker->shm);
    uint64_t committed = nx_committed_offset(worker->shm);
    uint64_t confirmed_us = 0;
    struct connection *connection;

    LIST_FOREACH(connection, &worker->waits, wait_link) {
        if (connection->wait_asked_us != 0 && confirmed_us == 0) {
            confirmed_us = nx_durability_confirmed_us(worker);
        }
        if (ready(connection, durable, committed, confirmed_us)) {
            return connection;
        }
    }
    return NULL;
}

bool nx_waits_poll(struct http_worker *worker)
{
    struct connection *connection;
    bool any = false;

    while ((connection = next_ready(worker)) != NULL) {
        nx_wait_resume(connection);
        any = true;
    }
    return any;
}

bool nx_waits_due(struct http_worker *worker)
{
    return next_ready(worker) != NULL;
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

void nx_waits_cut_short(struct http_worker *worker)
{
    struct connection *connection = LIST_FIRST(&worker->waits);

    while (connection != NULL) {
        struct connection *next = LIST_NEXT(connection, wait_link);

        if (connection->request->deadline_ms != 0) {
            nx_wait_resume(connection);
        }
        connection = next;
    }
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
