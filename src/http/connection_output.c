/* Runs in http workers. The bytes that leave a connection: most answers with one send; what a client doesn't take
 * at once waits in memory, and all that waits in a worker is counted, since how much that is lies with the clients.
 * See connection.h. */
#include "http/connection_parts.h"
#include "http/worker.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include <errno.h>
#include <sys/socket.h>

#define OUT_KEEP (256u << 10)
/* What waits is kept in pieces, which are given back one by one as the client takes them: with the evbuffer's own
 * bookkeeping (below 64 bytes) each is a power of two. */
#define QUEUED_PIECE ((64u << 10) - 64)

size_t nx_connection_backlog(const struct connection *connection)
{
    return evbuffer_get_length(bufferevent_get_output(connection->bev));
}

/* ---- what waits, counted ---- */

static void count_queued(struct connection *connection, size_t queued)
{
    connection->worker->answer_bytes += queued - connection->queued;
    connection->queued = queued;
}

/* The client has taken some. What is shared (nx_connection_send_shared) waits among it, uncounted. */
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    struct connection *connection = arg;
    size_t left = evbuffer_get_length(output);

    if (info->n_deleted > 0 && left < connection->queued) {
        count_queued(connection, left);
    }
}

/* False: no memory. */
static bool count_output(struct connection *connection)
{
    if (!connection->out_counted) {
        connection->out_counted =
            evbuffer_add_cb(bufferevent_get_output(connection->bev), on_output, connection) != NULL;
    }
    return connection->out_counted;
}

void nx_connection_forget_output(struct connection *connection)
{
    if (connection->out_counted) {
        (void)evbuffer_remove_cb(bufferevent_get_output(connection->bev), on_output, connection);
        connection->out_counted = false;
    }
    count_queued(connection, 0);
}

bool nx_connection_may_queue(const struct connection *connection, size_t length)
{
    size_t waiting = connection->worker->answer_bytes;

    return length <= NX_ANSWER_SMALL ||
           (waiting <= NX_ANSWER_BUDGET && length <= NX_ANSWER_BUDGET - waiting);
}

bool nx_connection_sated(const struct connection *connection)
{
    bool spent = connection->worker->answer_bytes >= NX_ANSWER_BUDGET;

    return nx_connection_backlog(connection) > (spent ? 0 : NX_BACKLOG_HIGH);
}

/* ---- sending ---- */

static bool queue(struct connection *connection, const uint8_t *bytes, size_t length)
{
    if (length > 0 && !count_output(connection)) {
        return false;
    }
    while (length > 0) {
        size_t n = length < QUEUED_PIECE ? length : QUEUED_PIECE;

        if (bufferevent_write(connection->bev, bytes, n) < 0) {
            return false;
        }
        count_queued(connection, connection->queued + n);
        bytes += n;
        length -= n;
    }
    return true;
}

void nx_connection_send(struct connection *connection, const void *bytes, size_t length)
{
    if (!nx_text_add(&connection->worker->out, bytes, length)) {
        nx_connection_close(connection); /* no memory: half an answer is none */
    }
}

void nx_connection_send_shared(struct connection *connection,
                               struct nx_slice bytes,
                               void (*release)(const void *bytes, size_t length, void *arg),
                               void *arg)
{
    struct text *out = &connection->worker->out;
    bool sent = queue(connection, out->data, out->length);

    nx_text_reset(out, OUT_KEEP);
    if (!sent || evbuffer_add_reference(bufferevent_get_output(connection->bev), bytes.data,
                                        bytes.length, release, arg) < 0) {
        release(bytes.data, bytes.length, arg);
        nx_connection_close(connection);
    }
}

void nx_connection_flush(struct connection *connection)
{
    struct text *out = &connection->worker->out;
    size_t sent = 0;

    /* The pieces of a long answer take the event loop's way, so that others have their turn. */
    if (out->length > 0 && !connection->dead && !connection->tls &&
        (!connection->answering || connection->prompt) && nx_connection_backlog(connection) == 0) {
        ssize_t n = send(bufferevent_getfd(connection->bev), out->data, out->length, MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            connection->dead = true;
        }
        sent = n > 0 ? (size_t)n : 0;
    }
    if (sent < out->length && !connection->dead &&
        !queue(connection, out->data + sent, out->length - sent)) {
        connection->dead = true;
    }
    nx_text_reset(out, OUT_KEEP);
}
