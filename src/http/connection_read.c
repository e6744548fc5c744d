/* Runs in http workers. The bytes that come to a connection. What a plain socket has is received by hand: a bufferevent
 * first asks how much that is, a system call more for each request. See connection.h. */
#include "http/connection_parts.h"
#include "http/worker.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include <errno.h>
#include <sys/socket.h>

/* A body's bytes go where they stay; the few of a request without one by way of a buffer that all share, so that a
 * connection holds no more than it was sent. */
static ssize_t receive(struct connection *connection, int fd)
{
    static uint8_t bytes[NX_READ_HIGH];
    struct evbuffer *input = bufferevent_get_input(connection->bev);
    ssize_t n;

    if (connection->state == CONN_BODY) {
        return evbuffer_read(input, fd, NX_READ_HIGH);
    }
    n = recv(fd, bytes, sizeof bytes, 0);
    if (n > 0 && evbuffer_add(input, bytes, (size_t)n) < 0) {
        errno = ENOMEM;
        return -1;
    }
    return n;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct connection *connection = arg;
    ssize_t n = receive(connection, fd);

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n > 0) {
        nx_connection_run(connection);
        return;
    }
    event_del(connection->reader);
    nx_connection_ended(connection, n == 0);
}

static int begin(struct connection *connection)
{
    if (connection->reader == NULL) {
        return bufferevent_enable(connection->bev, EV_READ);
    }
    return event_add(connection->reader, NULL);
}

int nx_connection_read_begin(struct connection *connection)
{
    if (!connection->tls) {
        /* A bufferevent keeps others from adding to its input. */
        (void)evbuffer_unfreeze(bufferevent_get_input(connection->bev), 0);
        connection->reader = event_new(connection->worker->base, bufferevent_getfd(connection->bev),
                                       EV_READ | EV_PERSIST, on_readable, connection);
        if (connection->reader == NULL) {
            return -ENOMEM;
        }
    }
    return begin(connection) < 0 ? -ENOMEM : 0;
}

void nx_connection_read_end(struct connection *connection)
{
    if (connection->reader != NULL) {
        event_free(connection->reader);
        connection->reader = NULL;
    }
}

void nx_connection_settle_reading(struct connection *connection)
{
    bool full = evbuffer_get_length(bufferevent_get_input(connection->bev)) >= NX_READ_HIGH;

    if (full == connection->paused || (connection->reader != NULL && connection->eof)) {
        return;
    }
    connection->paused = full;
    if (!full) {
        if (begin(connection) < 0) {
            nx_connection_close(connection);
        }
    } else if (connection->reader != NULL) {
        event_del(connection->reader);
    } else {
        bufferevent_disable(connection->bev, EV_READ);
    }
}
