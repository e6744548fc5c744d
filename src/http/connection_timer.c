/* Runs in http workers. A connection's timer: how long a client may take. It is made when first needed
 * and stands still on an idle connection. See connection.h. */
#include "common/latch.h"
#include "http/connection_parts.h"
#include "http/response.h"
#include "http/worker.h"

#include <event2/event.h>

static void on_timer(evutil_socket_t fd, short what, void *arg);

static void set_timer(struct connection *connection, uint64_t milliseconds)
{
    struct timeval wait = {
        .tv_sec = (time_t)(milliseconds / 1000),
        .tv_usec = (suseconds_t)(milliseconds % 1000 * 1000),
    };

    if (connection->timer == NULL) {
        connection->timer = evtimer_new(connection->worker->base, on_timer, connection);
    }
    if (connection->timer == NULL || evtimer_add(connection->timer, &wait) < 0) {
        nx_connection_close(connection);
        return;
    }
    connection->timed = true;
    connection->timer_ms = nx_now_ms();
}

static void stop_timer(struct connection *connection)
{
    if (connection->timed) {
        evtimer_del(connection->timer);
        connection->timed = false;
    }
}

void nx_connection_timer(struct connection *connection, uint64_t milliseconds)
{
    if (milliseconds == 0) {
        stop_timer(connection);
    } else {
        set_timer(connection, milliseconds);
    }
}

static uint64_t request_timeout(const struct connection *connection)
{
    return connection->worker->process->config->http.request_timeout_ms;
}

/* A client has request_timeout_ms for a whole head, and for each pause within a body. A pause that we
 * ask for doesn't count, nor does an idle connection: an idle node has no timers. */
void nx_connection_settle_timer(struct connection *connection)
{
    bool begun = connection->state == CONN_HEAD && connection->scan.length > 0;

    if (connection->shaking) {
        return; /* the handshake's own time runs */
    }
    if (begun && !connection->timed) {
        set_timer(connection, request_timeout(connection));
    }
    if (connection->state == CONN_BODY && !connection->held &&
        (!connection->timed ||
         nx_now_ms() - connection->timer_ms > request_timeout(connection) / 16)) {
        set_timer(connection, request_timeout(connection));
    }
    if ((connection->state == CONN_HEAD && !begun) ||
        (connection->state == CONN_BODY && connection->held)) {
        stop_timer(connection);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct connection *connection = arg;

    (void)fd;
    (void)what;
    connection->timed = false;
    if (connection->shaking) {
        nx_connection_close(connection);
        nx_connection_run(connection);
        return;
    }
    switch (connection->state) {
    case CONN_HEAD:
        connection->keep_alive = false;
        nx_refuse(connection, NX_ERROR_REQUEST_TIMEOUT,
                  "The head of the request did not come within http.request_timeout_ms.");
        break;
    case CONN_BODY:
        connection->keep_alive = false;
        if (connection->early) {
            nx_connection_answered(connection);
        } else {
            nx_refuse(connection, NX_ERROR_REQUEST_TIMEOUT,
                      "No byte of the body came for http.request_timeout_ms.");
        }
        break;
    case CONN_BUSY:
        if (connection->wait_expired != NULL) {
            connection->wait_expired(connection);
        }
        break;
    case CONN_FLUSH:
    case CONN_LINGER:
        nx_connection_close(connection);
        break;
    }
    nx_connection_run(connection);
}
