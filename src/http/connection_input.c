/* Runs in http workers. Turns the bytes of a connection into requests: heads pass the strict scanner and
 * the parser, bodies the chunk guard and the parser, their content goes to where the request's handler
 * wants it. It reads no socket and ends no connection. See connection.h. */
#include "http/connection_parts.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include <errno.h>

#define BODY_PIECE (16u << 10) /* of a body, given to the handler at once */

/* ---- heads ---- */

/* The bytes at the front of the input that lie in one piece. */
static struct nx_slice front(struct connection *connection)
{
    struct evbuffer_iovec piece = {NULL, 0};

    if (evbuffer_peek(bufferevent_get_input(connection->bev), -1, NULL, &piece, 1) < 1) {
        return nx_slice_of(NULL, 0);
    }
    return nx_slice_of(piece.iov_base, piece.iov_len);
}

static void consume(struct connection *connection, size_t n)
{
    evbuffer_drain(bufferevent_get_input(connection->bev), n);
}

/* The head as one piece, however it came. */
static struct nx_slice gather_head(struct connection *connection)
{
    struct evbuffer *input = bufferevent_get_input(connection->bev);
    struct nx_slice bytes = front(connection);
    size_t all = evbuffer_get_length(input);

    /* Only as much as a head can be: what lies behind may be a large body. */
    if (bytes.length < all && bytes.length <= connection->scan.length) {
        bytes.length = all < NX_READ_HIGH ? all : NX_READ_HIGH;
        bytes.data = evbuffer_pullup(input, (ev_ssize_t)bytes.length);
        bytes.length = bytes.data == NULL ? 0 : bytes.length;
    }
    return bytes;
}

static void refuse_head(struct connection *connection, enum head_verdict verdict)
{
    connection->keep_alive = false;
    if (verdict == HEAD_TARGET_TOO_LONG) {
        nx_refuse(connection, NX_ERROR_URI_TOO_LONG, "The request target is above 16 KiB.");
    } else if (verdict == HEAD_TOO_LARGE) {
        nx_refuse(connection, NX_ERROR_HEADERS_TOO_LARGE,
                  "The headers are above 32 KiB or more than %d.", NX_HEAD_MAX_FIELDS);
    } else {
        nx_refuse(connection, NX_ERROR_BAD_REQUEST, "The request is malformed: %s.",
                  connection->scan.why);
    }
}

/* A head is whole: a request begins. */
static void begin_request(struct connection *connection, struct nx_slice head)
{
    struct http_worker *worker = connection->worker;
    struct request *request = nx_worker_take_request(worker);
    int rc;

    connection->keep_alive = false;
    if (request == NULL || !nx_text_add(&request->head, head.data, head.length)) {
        nx_connection_close(connection);
        if (request != NULL) {
            nx_worker_give_request(worker, request);
        }
        return;
    }
    consume(connection, head.length);
    nx_connection_timer(connection, 0);
    connection->request = request;
    connection->state = CONN_BUSY;
    request->owner = connection;
    rc = nx_request_parse_head(request);
    if (rc == -ENOMEM) {
        nx_connection_close(connection);
        return;
    }
    if (rc == -EBADMSG) {
        nx_refuse(connection, NX_ERROR_BAD_REQUEST, "The request is malformed: %s.",
                  request->malformed);
        return;
    }
    connection->keep_alive = rc == 0 && http_should_keep_alive(&request->parser) != 0;
    atomic_fetch_add_explicit(&nx_worker_row(worker)->requests, 1, memory_order_relaxed);
    nx_route(connection, rc == -ENOTSUP);
    if (connection->request == request && connection->state == CONN_BUSY && request->has_body &&
        !request->message_done && !connection->dead) {
        connection->state = CONN_BODY;
    }
}

bool nx_connection_take_head(struct connection *connection)
{
    enum head_verdict verdict;

    if (nx_connection_sated(connection)) {
        return false;
    }
    for (;;) {
        struct nx_slice bytes = gather_head(connection);
        size_t before = connection->scan.length;

        if (bytes.length <= before) {
            return false;
        }
        verdict = nx_head_scan(&connection->scan, (const char *)bytes.data, bytes.length);
        if (verdict == HEAD_DONE) {
            begin_request(connection, nx_slice_of(bytes.data, connection->scan.length));
            return true;
        }
        if (verdict != HEAD_MORE) {
            refuse_head(connection, verdict);
            return true;
        }
    }
}

/* ---- bodies ---- */

bool nx_connection_reserve(struct connection *connection, size_t bytes)
{
    struct request *request = connection->request;
    struct http_worker *worker = connection->worker;

    if (bytes > request->reserved) {
        size_t more = bytes - request->reserved;

        if (more > NX_BODY_BUDGET - worker->body_bytes) {
            return false;
        }
        request->reserved = bytes;
        worker->body_bytes += more;
    }
    return true;
}

/* Keeps content for the handler, within the endpoint's bound and the worker's budget. */
static void collect(struct connection *connection, struct nx_slice content)
{
    struct request *request = connection->request;

    if (request->body_seen > request->body_most) {
        nx_refuse_too_large(connection);
    } else if (!nx_connection_reserve(connection, (size_t)request->body_seen) ||
               !nx_text_add(&request->body, content.data, content.length)) {
        nx_refuse_body_budget(connection);
    }
}

void nx_connection_body(struct request *request, struct nx_slice content)
{
    struct connection *connection = request->owner;

    if (connection->ending || connection->dead) {
        return;
    }
    request->body_seen += content.length;
    switch (request->body_use) {
    case BODY_COLLECT:
        collect(connection, content);
        break;
    case BODY_STREAM:
        request->stream->data(connection, content);
        break;
    case BODY_DISCARD:
        break;
    }
}

static void body_done(struct connection *connection)
{
    struct request *request = connection->request;

    nx_connection_timer(connection, 0);
    connection->state = CONN_BUSY;
    if (connection->early) {
        nx_connection_answered(connection);
    } else if (request->body_use == BODY_STREAM) {
        request->stream->end(connection);
    } else {
        nx_route_body_done(connection);
    }
}

static void refuse_body(struct connection *connection)
{
    connection->keep_alive = false;
    if (connection->early) {
        nx_connection_answered(connection); /* answered already */
    } else {
        nx_refuse(connection, NX_ERROR_BAD_REQUEST, "The body is malformed: %s.",
                  connection->request->malformed);
    }
}

bool nx_connection_take_body(struct connection *connection)
{
    struct request *request = connection->request;
    struct nx_slice bytes = front(connection);
    size_t used = 0;
    int rc;

    if (connection->held || bytes.length == 0) {
        return false;
    }
    if (bytes.length > BODY_PIECE) {
        bytes.length = BODY_PIECE;
    }
    connection->parsing = true;
    rc = nx_request_parse_body(request, bytes, &used);
    connection->parsing = false;
    if (connection->ending) { /* refused on the way */
        connection->ending = false;
        connection->keep_alive = false;
        nx_connection_answered(connection);
    } else if (rc < 0) {
        refuse_body(connection);
    } else {
        consume(connection, used);
        if (request->message_done && !connection->dead) {
            body_done(connection);
        }
    }
    return true;
}

void nx_connection_hold(struct connection *connection)
{
    connection->held = true;
}

void nx_connection_release(struct connection *connection)
{
    connection->held = false;
}
